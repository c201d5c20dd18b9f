"""Our ViT against timm's, its options, and hand-worked parts."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from patchlight.errors import UsageError
from patchlight.models import VisionTransformer, create_model
from patchlight.models.layers import (
    Attention,
    ConvStem,
    DropPath,
    PatchDropout,
    SequencePool,
    Whitening,
    sincos_1d,
    sincos_2d,
)

SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}


def spread(model: nn.Module) -> nn.Module:
    """Random values everywhere, so that no zero hides a difference."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=draw) * 0.2)
    return model.eval()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"reg_tokens": 3}, {"reg_tokens": 3}),
        (
            {"init_values": 0.1, "qk_norm": True, "reg_tokens": 1},
            {"init_values": 0.1, "qk_norm": True, "reg_tokens": 1},
        ),
        ({"global_pool": "avg"}, {"global_pool": "avg", "class_token": False}),
        ({"pos_embed": "none"}, {"pos_embed": "none"}),
        ({"fused_attn": False, "mlp_ratio": 2.0}, {"mlp_ratio": 2.0}),
    ],
)
def test_a_timm_vit_loads_unmapped_and_agrees_block_by_block(ours, theirs):
    reference = spread(timm.models.VisionTransformer(**SMALL, **theirs)).double()
    model = VisionTransformer(**SMALL, **ours).double().eval()
    model.load_state_dict(reference.state_dict())  # strict: every key is timm's
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    outputs: dict[str, list[torch.Tensor]] = {"ours": [], "theirs": []}
    for name, vit in (("ours", model), ("theirs", reference)):
        for block in vit.blocks:
            block.register_forward_hook(lambda m, a, out, kept=outputs[name]: kept.append(out))
    logits, expected = model(images), reference(images)
    assert len(outputs["ours"]) == 3
    for mine, other in zip(outputs["ours"], outputs["theirs"], strict=True):
        torch.testing.assert_close(mine, other, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(logits, expected, atol=1e-12, rtol=1e-12)


def test_a_named_timm_model_agrees():
    """vit_small_patch8_224 at 32 pixels: 16 patches, a CLS token, and the parameter count that the spec states."""
    reference = timm.create_model("vit_small_patch8_224", img_size=32, num_classes=10).eval()
    model = create_model("vit-tiny", patch_size=8, embed_dim=384, depth=12, num_heads=6).eval()
    assert sum(p.numel() for p in model.parameters()) == 21_379_210
    model.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images), reference(images), atol=1e-5, rtol=1e-5)


def test_training_starts_as_in_timm():
    torch.manual_seed(0)
    ours, theirs = VisionTransformer(**SMALL).state_dict(), timm.models.VisionTransformer(**SMALL).state_dict()
    for name, tensor in ours.items():
        assert tensor.shape == theirs[name].shape
        if tensor.numel() > 100:
            assert tensor.std().item() == pytest.approx(theirs[name].std().item(), rel=0.25, abs=1e-5), name


def test_fused_and_explicit_attention_agree():
    model = spread(VisionTransformer(**SMALL)).double()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    fused = model(images)
    for block in model.blocks:
        block.attn.fused_attn = False
    torch.testing.assert_close(model(images), fused, atol=1e-12, rtol=1e-12)


def test_attention_by_hand():
    """Two tokens, one head of width 2, identity projections: weights are softmax of (1, 0) / sqrt(2) and its mirror."""
    layer = Attention(2, 1, fused_attn=False).double()
    with torch.no_grad():
        layer.qkv.weight.copy_(torch.eye(2).repeat(3, 1))
        layer.qkv.bias.zero_()
        layer.proj.weight.copy_(torch.eye(2))
        layer.proj.bias.zero_()
    out = layer(torch.eye(2, dtype=torch.float64)[None])
    high = torch.tensor(2**-0.5, dtype=torch.float64).exp()
    share = (high / (high + 1)).item()
    torch.testing.assert_close(out[0], torch.tensor([[share, 1 - share], [1 - share, share]], dtype=torch.float64))


@pytest.mark.parametrize("pool", ["token", "avg", "seq"])
@pytest.mark.parametrize("pos", ["learn", "sincos1d", "sincos2d", "none"])
@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_every_option_runs_and_learns(pool, pos, stem):
    model = VisionTransformer(**SMALL, global_pool=pool, pos_embed=pos, stem=stem, reg_tokens=2, qk_norm=True)
    logits = model(torch.randn(2, 3, 16, 16))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias that shifts all scores alike changes no softmax: keys' and the sequence pooling's.
    assert [n for n in still if not n.endswith("score.bias")] == []


@pytest.mark.parametrize("patch_size", [2, 4, 8])
@pytest.mark.parametrize("img_size", [16, 32, 48])
def test_tokens_are_patches_and_prefix(patch_size, img_size):
    model = VisionTransformer(**{**SMALL, "img_size": img_size, "patch_size": patch_size}, reg_tokens=2)
    tokens = model.forward_features(torch.zeros(1, 3, img_size, img_size))
    assert tokens.shape == (1, (img_size // patch_size) ** 2 + 3, 24)


def test_conv_stem_keeps_a_token_per_patch_in_place():
    """With averaging kernels, light in the middle of patch (1, 2) moves that token most."""
    model = VisionTransformer(**SMALL, stem="conv").eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 0.1)
    images = torch.zeros(2, 3, 16, 16)
    images[1, :, 5:7, 9:11] = 5.0
    change = (model.patch_embed(images)[1] - model.patch_embed(images)[0]).norm(dim=-1)
    assert change.argmax().item() == 1 * 4 + 2


def test_position_tables():
    """The 1-D table by its formula, and MAE's layout for the 2-D one."""
    table = sincos_1d(torch.arange(5), 8)
    assert table[3, 0].item() == pytest.approx(torch.tensor(3.0).sin().item())
    assert table[3, 5].item() == pytest.approx(torch.tensor(3.0 * 10000 ** (-1 / 4)).cos().item())
    grid = sincos_2d((2, 3), 16)
    torch.testing.assert_close(
        grid[4], torch.cat([sincos_1d(torch.tensor([1]), 8)[0], sincos_1d(torch.tensor([1]), 8)[0]])
    )
    assert len({tuple(row.tolist()) for row in grid}) == 6


def test_sequence_pool_is_a_weighted_mean():
    pool, x = SequencePool(4), torch.randn(2, 3, 4)
    weights = pool.weights(x)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    torch.testing.assert_close(pool(x), (weights[..., None] * x).sum(1))


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    layer = DropPath(0.25)
    out = layer(torch.ones(4000, 2, 3))
    per_image = out.flatten(1)
    assert ((per_image == 0).all(1) | (per_image == 1 / 0.75).all(1)).all()
    assert out.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(layer.eval()(torch.ones(3, 2, 3)), torch.ones(3, 2, 3))


@pytest.mark.parametrize("prefix", [0, 3])
def test_patch_dropout_keeps_a_share_of_each_images_patches(prefix):
    torch.manual_seed(0)
    layer = PatchDropout(0.25, prefix)
    tokens = torch.arange(prefix + 16.0).expand(2000, -1)[:, :, None].repeat(1, 1, 4)
    out = layer(tokens)
    assert out.shape == (2000, prefix + 12, 4)
    assert torch.equal(out[:, :prefix], tokens[:, :prefix])
    kept = out[:, prefix:, 0].long() - prefix
    times = torch.bincount(kept.flatten(), minlength=16)
    assert all(len(set(row)) == 12 for row in kept.tolist())  # none twice
    assert (times / 2000 - 0.75).abs().max() < 0.05
    assert layer.eval()(tokens) is tokens
    assert PatchDropout(0.99, prefix)(tokens).shape[1] == prefix + 1


def test_dropped_patches_do_not_reach_the_answer():
    model = spread(VisionTransformer(**SMALL, global_pool="avg", patch_drop_rate=0.5)).train()
    images = torch.randn(2, 3, 16, 16, requires_grad=True)
    model(images).square().sum().backward()
    seen = images.grad.abs().sum(1).unflatten(1, (4, 4)).unflatten(3, (4, 4)).sum((2, 4))  # by patch
    assert (seen > 0).flatten(1).sum(1).tolist() == [8, 8]


def test_rates_reach_their_places():
    model = VisionTransformer(
        **SMALL,
        drop_rate=0.1,
        patch_drop_rate=0.6,
        pos_drop_rate=0.2,
        proj_drop_rate=0.3,
        attn_drop_rate=0.4,
        drop_path_rate=0.5,
    )
    assert (model.head_drop.p, model.pos_drop.p, model.patch_drop.rate) == (0.1, 0.2, 0.6)
    assert [block.drop_path1.rate for block in model.blocks] == pytest.approx([0, 0.25, 0.5])
    alone = VisionTransformer(**SMALL, proj_drop_rate=0.3, mlp_drop_rate=0.1)
    assert all((b.mlp.drop.p, b.attn.proj_drop.p) == (0.1, 0.3) for b in alone.blocks)
    assert all(b.mlp.drop.p == b.attn.proj_drop.p == 0.3 and b.attn.attn_drop.p == 0.4 for b in model.blocks)


def test_checkpointing_changes_memory_and_not_gradients():
    images = torch.randn(4, 3, 16, 16)
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = VisionTransformer(**SMALL, proj_drop_rate=0.2, drop_path_rate=0.2, grad_checkpointing=recompute)
        torch.manual_seed(1)
        model(images).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 5}, "patch_size 5 does not divide the image size 16; choose one of 1, 2, 4, 8, 16"),
        ({"num_heads": 5}, "embed_dim 24 is not a multiple of model.num_heads 5"),
        ({"embed_dim": 18, "pos_embed": "sincos2d"}, "needs a model.embed_dim that 4 divides"),
        ({"stem_channels": (8, 8)}, "stem_channels is for model.stem = 'conv'"),
        ({"stem": "conv", "stem_channels": (8,)}, "a width per halving"),
        ({"stem": "conv", "patch_size": 1}, "power of two"),
    ],
)
def test_shapes_that_do_not_fit(change, message):
    with pytest.raises(UsageError, match=message):
        VisionTransformer(**{**SMALL, **change})


def test_whitening_gives_uncorrelated_channels_of_unit_variance():
    draw = torch.Generator().manual_seed(0)
    images = torch.nn.functional.avg_pool2d(torch.randn(64, 3, 20, 20, generator=draw), 3)  # neighbours are alike
    layer = Whitening(3, 24)
    layer.fit(images, eps=0.0)
    out = layer(images)[:, ::2, :-1, :-1].permute(1, 0, 2, 3).reshape(12, -1)  # without negatives and padding
    torch.testing.assert_close(out @ out.T / out.shape[1], torch.eye(12), atol=1e-3, rtol=0)
    assert torch.equal(layer.weight[::2], -layer.weight[1::2])
    assert not layer.weight.requires_grad
    assert layer.bias.requires_grad


def test_a_stem_starts_as_the_identity_on_what_comes_in():
    stem = ConvStem((8, 8), 3, 8)
    assert torch.equal(stem.stem[0].weight[:3], nn.init.dirac_(torch.empty(3, 3, 3, 3)))
    assert isinstance(stem.proj, nn.Identity)


def test_whitening_is_for_a_conv_stem():
    with pytest.raises(UsageError, match="stem_whitening is for"):
        create_model("vit-micro", stem_whitening=24)
    model = create_model("vit-compact", stem_whitening=24)
    images = torch.rand(8, 3, 32, 32)
    before = model(images)
    model.fit_input(images)
    assert not torch.equal(model(images), before)
    assert model(images).shape == (8, 10)


def test_the_stem_alone_is_a_model():
    model = create_model("vit-compact", depth=0, global_pool="avg", drop_path_rate=0.1)
    assert len(model.blocks) == 0
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [False, True])
def test_the_gradient_of_one_image_through_a_stem(dtype, training):
    """torch's batch norm gets it wrong for some layouts: a batch of one must equal the same image given twice."""
    torch.manual_seed(0)
    model = VisionTransformer(img_size=16, embed_dim=24, depth=1, num_heads=3, stem="conv", global_pool="avg")
    model = model.to(dtype).train(training)
    image = torch.randn(1, 3, 16, 16, dtype=dtype)
    gradients = []
    for images in (image, image.expand(2, -1, -1, -1)):
        images = images.clone().requires_grad_()
        model(images)[0, 1].backward()
        gradients.append(images.grad.sum(0))
    if training:  # its mate counts in the statistics
        gradients = [g / g.norm() for g in gradients]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
