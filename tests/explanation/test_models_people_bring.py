"""The ViTs that people bring, of timm and Hugging Face: their attention is seen as it is, or it is said why not."""

from __future__ import annotations

import pytest
import timm
import torch
import transformers
from torch import Tensor, nn
from vits import BACKBONES, HF_SHAPE, backbone, images_for, of_hugging_face, of_timm, ours, stirred, two_towers

from patchlight import explain, record_attention
from patchlight.config import LoraConfig
from patchlight.errors import PatchlightError, UsageError
from patchlight.explanation.capture import keep_patches, record_outputs
from patchlight.explanation.methods import METHODS
from patchlight.explanation.targets import similar_to
from patchlight.models import structure_of
from patchlight.models.anatomy import VitAnatomy, dissect, dissect_vit
from patchlight.models.lora import add_lora

READ_ATTENTION = [name for name, method in METHODS.items() if method.attention]

# Of timm: how its tokens are pooled, its prefix tokens, and whether patches can be dropped.
SEEN: dict[str, tuple[str, int, bool]] = {
    "vit_tiny_patch16_224": ("token", 1, True),
    "vit_base_patch16_clip_224": ("token", 1, True),  # a norm before the blocks
    "vit_small_patch16_36x1_224": ("token", 1, True),
    "vit_medium_patch16_gap_240": ("avg", 0, True),
    "vit_base_patch16_rpn_224": ("avg", 0, True),  # norms after attention
    "vit_small_patch14_reg4_dinov2": ("token", 5, True),
    "vit_base_patch14_reg1_tipsv2": ("token", 2, True),
    "vit_base_patch16_radio_v3": ("token", 8, True),
    "vit_so150m_patch16_reg4_gap_256": ("avg", 4, True),
    "vit_so150m_patch16_reg4_map_256": ("seq", 4, True),
    "test_vit3": ("seq", 1, True),  # a pooling that attends to the register too
    "vit_base_patch16_siglip_224": ("seq", 0, True),
    "vit_base_patch16_siglip_gap_224": ("avg", 0, True),
    "aimv2_large_patch14_224": ("avg", 0, True),
    "beit3_base_patch16_224": ("avg", 1, True),
    "deit3_small_patch16_224": ("token", 1, True),
    "deit_tiny_distilled_patch16_224": ("token+dist", 2, True),
    "flexivit_small": ("token", 1, True),
    "vit_base_mci_224": ("token", 1, True),  # a stem of convolutions
    "vit_small_r26_s32_224": ("token", 1, True),  # a ResNet before it
    "beit_base_patch16_224": ("avg", 1, False),
    "beitv2_base_patch16_224": ("avg", 1, False),
    "vit_relpos_small_patch16_224": ("avg", 0, False),
    "vit_relpos_base_patch16_cls_224": ("token", 1, False),
    "vit_relpos_small_patch16_rpn_224": ("avg", 0, False),
    "vit_srelpos_small_patch16_224": ("avg", 0, False),
    "eva_giant_patch14_224": ("avg", 1, True),
    "eva02_tiny_patch14_224": ("avg", 1, False),
    "eva02_base_patch16_clip_224": ("token", 1, False),
    "eva02_enormous_patch14_clip_224": ("token", 1, True),  # norms after attention
    "vit_small_patch16_dinov3": ("avg", 5, False),
    "vit_small_patch16_dinov3_qkvb": ("avg", 5, False),
    "vit_small_patch16_lingbot": ("token", 5, False),
    "vit_medium_patch16_rope_reg1_gap_256": ("avg", 1, False),
    "vit_small_patch16_rope_224": ("token", 1, False),
    "vit_small_patch16_rope_mixed_224": ("token", 1, False),
    "vit_pe_core_tiny_patch16_384": ("seq", 1, False),
    "vit_base_patch16_sapiens2": ("token", 9, False),  # grouped queries
    "naflexvit_base_patch16_gap": ("avg", 4, True),
    "naflexvit_base_patch16_siglip": ("seq", 0, True),
}
MORE = {"vit_base_patch16_sapiens2": {"num_kv_heads": (4, 2)}, "vit_base_mci_224": {"embed_dim": 768}}


def small(name: str, **options) -> nn.Module:
    """A model of timm with two blocks of four heads, and weights far from their start."""
    torch.manual_seed(0)
    shape = {"depth": 2, "embed_dim": 64, "num_heads": 4, "num_classes": 5, **MORE.get(name, {}), **options}
    try:
        model = timm.create_model(name, img_size=64, **shape)
    except TypeError:  # NaFlexVit takes any size
        model = timm.create_model(name, **shape)
    return jittered(model)


def jittered(model: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=draw) * 0.05)
    return model.double().eval()


def images(size: int = 64, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", SEEN)
def test_families_of_timm(name):
    """What is recorded gives each layer's output (checked as it is recorded), the answer stays what it was, the last
    tokens decode to it, and it depends on the tokens that are pooled and on no others.
    """
    model, given = small(name), images()
    anatomy = dissect(model)
    assert isinstance(anatomy, VitAnatomy)
    assert (anatomy.pooling, anatomy.num_prefix_tokens, anatomy.can_drop_patches) == SEEN[name]
    fused = model(given).detach()
    with record_outputs(anatomy.blocks[-1:]) as outputs, record_attention(anatomy) as recorded:
        logits = model(given)
    torch.testing.assert_close(logits, fused)
    tokens = outputs[0].detach().requires_grad_()
    torch.testing.assert_close(anatomy.decode(tokens), logits)
    rows, columns = anatomy.grid(given)
    assert recorded.attention.shape == (2, 2, 4, *[anatomy.num_prefix_tokens + rows * columns] * 2)
    weights = anatomy.readout(tokens)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(anatomy.decode(tokens).square().sum(), tokens)
    assert torch.equal(weights > 0, gradient.abs().sum(dim=2) > 0)
    for method in (*READ_ATTENTION, "gradcam", "hirescam", "layercam"):
        found = explain(anatomy, given, method=method)
        assert found.maps.shape == (2, rows, columns)
        assert found.maps.flatten(1).std(dim=1).min() > 0 or method == "gradcam"  # whose sum may be negative everywhere
    if anatomy.can_drop_patches:
        with keep_patches(anatomy, torch.arange(rows * columns).flip(0).expand(2, -1)):
            torch.testing.assert_close(model(given), fused)


@pytest.mark.parametrize("name", ["vit_base_patch16_siglip_224", "test_vit3", "vit_pe_core_tiny_patch16_384"])
def test_the_weights_of_attention_pooling(name):
    """With unit vectors for values, torch's own attention gives its weights."""
    model, given = small(name), images()
    anatomy = dissect_vit(model)
    pool, prefix = model.attn_pool, 0 if getattr(model, "pool_include_prefix", True) else model.num_prefix_tokens
    with torch.no_grad():
        tokens = model.norm(
            model.forward_intermediates(given, norm=False, output_fmt="NLC", return_prefix_tokens=True)[0]
        )
        tokens = model.forward_features(given)[:, prefix:]
        keys = pool.kv(tokens)[..., : tokens.shape[-1]].unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
        query = pool.q(pool.latent).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2).expand(2, -1, -1, -1)
        units = torch.eye(tokens.shape[1], dtype=torch.float64).expand(2, pool.num_heads, -1, -1)
        theirs = nn.functional.scaled_dot_product_attention(pool.q_norm(query), pool.k_norm(keys), units)
    with record_outputs(anatomy.blocks[-1:]) as outputs, torch.no_grad():
        model(given)
        found = anatomy.readout(outputs[0])
    torch.testing.assert_close(found[:, prefix:], theirs.mean(dim=1)[:, 0])
    assert (found[:, :prefix] == 0).all()


# Of timm: why its attention cannot be seen.
NOT_SEEN = {
    "samvit_base_patch16": "VisionTransformerSAM has no plain transformer blocks, so its attention cannot be seen",
    "vit_base_patch16_xp_224": "VisionTransformer has no plain transformer blocks",  # attention and MLP in one
    "vit_small_patch16_18x2_224": "VisionTransformer has no plain transformer blocks",  # two attentions side by side
    "cait_xxs24_224": r"blocks\.0\.attn is TalkingHeadAttn, whose attention cannot be captured",
    "convit_tiny": r"blocks\.0\.attn is GPSA, whose attention cannot be captured",
    "xcit_nano_12_p16_224": "Xcit does not say how large its patches are",  # it attends from channel to channel
    "vit_dlittle_patch16_reg1_gap_256": r"blocks\.0\.attn is DiffAttention, .* not one softmax over tokens",
    "volo_d1_224": "VOLO is no Vision Transformer whose attention can be seen",
}


@pytest.mark.parametrize("name", NOT_SEEN)
def test_families_of_timm_whose_attention_is_not_seen(name):
    options = {} if name in ("volo_d1_224", "convit_tiny") else {"depth": 2}
    model = jittered(timm.create_model(name, img_size=64, num_classes=5, **options))
    with pytest.raises(PatchlightError, match=NOT_SEEN[name]):
        dissect_vit(model)
    with pytest.raises(PatchlightError, match=f"rollout reads attention, and .*{NOT_SEEN[name]}.*; these need no"):
        explain(model, images(), method="rollout")
    found = explain(model, images())
    assert found.method == "gradcam"
    assert found.maps.isfinite().all()


def test_a_subclass_that_pools_in_its_own_way_is_refused():
    """Its blocks look like any other's, and what is read of them would be another token."""

    class Own(timm.models.VisionTransformer):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.forward_features(x)[:, 1:].amax(dim=1))

    model = stirred(Own(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=5))
    with pytest.raises(PatchlightError, match="the last block of Own do not give its answer by its norm, pooling and"):
        explain(model, images_for(""))


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_models_without_a_head(name):
    """They give features, which are what the library's own pooling gives; classes of them are refused."""
    model, given = BACKBONES[name](), images_for("")
    anatomy = dissect_vit(model)
    assert not anatomy.has_head
    with record_outputs(anatomy.blocks[-1:]) as outputs, record_attention(anatomy):
        features = anatomy.logits(given)
    tokens = outputs[0].detach().requires_grad_()
    torch.testing.assert_close(anatomy.decode(tokens), features)
    (gradient,) = torch.autograd.grad(anatomy.decode(tokens).square().sum(), tokens)
    assert torch.equal(anatomy.readout(tokens) > 0, gradient.abs().sum(dim=2) > 0)
    with pytest.raises(UsageError, match="the model has no head, so it gives features and no classes"):
        explain(anatomy, given, method="attention")
    like = similar_to(model, images_for("", count=1, seed=7))
    for method in METHODS:
        found = explain(anatomy, given, method=method, target=like)
        assert found.maps.shape == (3, 4, 4)
        assert found.maps.isfinite().all()
        torch.testing.assert_close(found.probs, features.detach().float())
        single = explain(anatomy, given[1:2], method=method, target=like)
        torch.testing.assert_close(found.maps[1:2], single.maps)


def their_features(name: str, model: nn.Module, given: Tensor) -> Tensor:
    """What each library says that its features are."""
    if name.startswith("timm"):
        return model(given)
    if name.endswith("both towers"):
        return model.get_image_features(pixel_values=given).pooler_output
    if name == "MAE":
        model.config.mask_ratio = 0.0
    output = model(pixel_values=given)
    for word in ("logits", "image_embeds", "pooler_output"):
        if getattr(output, word, None) is not None:
            return getattr(output, word)
    last = output.last_hidden_state
    return last.mean(dim=1) if name in ("I-JEPA", "SigLIP, no head") else last[:, 0]


@pytest.mark.parametrize("name", BACKBONES)
def test_features_are_the_librarys(name):
    model, given = BACKBONES[name](), images_for("")
    found = dissect(model).logits(given)
    torch.testing.assert_close(found, their_features(name, model, given), rtol=0, atol=1e-6)


def test_a_masked_autoencoder_sees_all_patches_in_their_order():
    """Left to itself its encoder sees a quarter of them, shuffled anew each time."""
    model, given = backbone("ViTMAEModel"), images_for("")
    assert model(given).last_hidden_state.shape == (3, 5, 24)
    with record_attention(model) as recorded:
        model(given)
    with record_attention(model) as again:
        whole = model(given).last_hidden_state
    torch.testing.assert_close(recorded.attention, again.attention)
    assert whole.shape == (3, 17, 24)
    vit = of_hugging_face("ViT")  # the same network without the masks
    state = {f"vit.{key}": value for key, value in model.state_dict().items()}
    missing, unexpected = vit.load_state_dict(state, strict=False)
    assert set(missing) == {"classifier.weight", "classifier.bias"}
    assert not unexpected
    torch.testing.assert_close(whole, vit.vit(given).last_hidden_state)
    assert model.config.mask_ratio == 0.75
    assert not model.embeddings._forward_pre_hooks


def test_siglips_pooling_is_its_heads_attention():
    model, given = backbone("SiglipVisionModel"), images_for("")
    anatomy = dissect_vit(model)
    with record_outputs([*anatomy.blocks[-1:], model.head.attention]) as outputs, torch.no_grad():
        anatomy.logits(given)
    tokens = model.post_layernorm(outputs[0])
    head = model.head.attention
    query, key, _ = torch.nn.functional.linear(
        torch.cat([model.head.probe.expand(3, -1, -1), tokens], dim=1), head.in_proj_weight, head.in_proj_bias
    ).chunk(3, dim=-1)
    query, key = (part.unflatten(-1, (3, -1)).transpose(1, 2) for part in (query[:, :1], key[:, 1:]))
    weights = (query @ key.transpose(-2, -1) / 8**0.5).softmax(dim=-1).mean(dim=1)[:, 0]
    torch.testing.assert_close(anatomy.readout(outputs[0]), weights)
    maps = explain(model, given, method="attention", target=similar_to(model, given[:1])).maps
    with record_attention(model) as recorded:
        model(given)
    torch.testing.assert_close(maps.flatten(1), torch.einsum("bi,bhij->bj", weights, recorded.attention[:, -1]) / 3)


def test_which_of_hugging_faces_models_are_told_why_not():
    shape = {key: value for key, value in HF_SHAPE.items() if key != "num_labels"}
    data2vec = of_hugging_face("Data2VecVision")
    with pytest.raises(PatchlightError, match="Data2VecVisionForImageClassification is no Vision Transformer whose"):
        dissect_vit(data2vec)
    assert explain(data2vec, images_for("")).method == "gradcam"
    with pytest.raises(
        PatchlightError, match="Dinov2Backbone gives feature_maps, no classes and no features of a whole"
    ):
        explain(backbone("Dinov2Backbone"), images_for(""))
    siglip2 = transformers.Siglip2VisionModel(transformers.Siglip2VisionConfig(**shape, num_patches=16))
    with pytest.raises(
        PatchlightError, match="Siglip2VisionModel takes pixel_attention_mask, spatial_shapes beside pix"
    ):
        dissect(siglip2)
    painter = backbone("ViTForMaskedImageModeling", encoder_stride=4)
    with pytest.raises(PatchlightError, match="ViTForMaskedImageModeling gives reconstruction, no classes"):
        explain(painter, images_for(""))
    whole = stirred(transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**shape, decoder_num_hidden_layers=1)))
    with pytest.raises(PatchlightError, match=r"ViTMAEForPreTraining gives \(3, 16, 48\), not a row of numbers"):
        explain(whole, images_for(""))
    film = stirred(transformers.VideoMAEModel(transformers.VideoMAEConfig(**shape)))
    with pytest.raises(PatchlightError, match="VideoMAEModel does not take images of 3 x 16 x 16"):
        explain(film, images_for(""))


@pytest.mark.parametrize("replace", ["head", "reset", "built"])
def test_a_head_that_was_taken_away(replace):
    """Features must not pass for classes, however the head went."""
    model = of_timm(num_classes=0) if replace == "built" else of_timm()
    if replace == "head":
        model.head = nn.Identity()
    elif replace == "reset":
        model.reset_classifier(0)
    assert not dissect(model).has_head
    with pytest.raises(UsageError, match="the model has no head"):
        explain(model, images_for(""), target=3)


@pytest.mark.parametrize("make", [ours, of_timm, of_hugging_face], ids=["ours", "timm", "Hugging Face"])
def test_activations_that_are_computed_again_give_the_same_maps(make):
    plain, again = make(), make()
    structure_of(again).checkpoint_gradients()
    for method in ("rollout", "chefer", "legrad", "gradcam", "layercam"):
        one, other = (explain(model, images_for(""), method=method).maps for model in (plain, again))
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("make", [ours, of_timm, of_hugging_face], ids=["ours", "timm", "Hugging Face"])
def test_adapters_on_attention_are_seen_through(make):
    """Queries, keys and values of LoRA are those that the layer mixes."""
    pytest.importorskip("peft")
    model = make().float()
    add_lora(model, LoraConfig(rank=2), 16)
    stirred(model)
    with record_attention(model, values=True) as recorded:
        dissect(model).logits(images_for(""))
    assert recorded.values.shape == (3, 3, 3, 17, 8)
    assert explain(model, images_for(""), method="chefer").maps.isfinite().all()


def test_both_towers_of_clip_are_not_touched_beyond_the_one_for_images():
    model = two_towers("CLIP")
    model.text_model.set_attn_implementation("eager")
    before = [model.config._attn_implementation, model.text_model.config._attn_implementation]
    with record_attention(model):
        inside = [model.text_model.config._attn_implementation, model.vision_model.config._attn_implementation]
    assert inside == ["eager", "eager"]
    assert [model.config._attn_implementation, model.text_model.config._attn_implementation] == before
    assert model.vision_model.config._attn_implementation == "sdpa"
