"""Attention as the libraries themselves compute it, and models that are left as they were."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn
from vits import SHAPE, VITS, images_for, of_hugging_face, of_timm, ours

from patchlight import record_attention
from patchlight.errors import PatchlightError
from patchlight.explanation.capture import keep_patches, record_outputs
from patchlight.models.anatomy import dissect, dissect_vit


def logits_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    out = model(images)
    return out if isinstance(out, torch.Tensor) else out.logits


@pytest.mark.parametrize("name", VITS)
def test_every_vit_is_recorded_and_predicts_the_same(name):
    model, images = VITS[name](), images_for(name)
    before = logits_of(model, images).detach()
    with record_attention(model, gradients=True, values=True) as recorded:
        during = logits_of(model, images)
    torch.testing.assert_close(during.detach(), before, rtol=0, atol=1e-6)  # Hugging Face's softmax is in float32
    anatomy = dissect(model)
    tokens = anatomy.num_prefix_tokens + images.shape[-1] * images.shape[-2] // 16
    assert recorded.attention.shape == (3, 3, 3, tokens, tokens)
    torch.testing.assert_close(recorded.attention.sum(-1), torch.ones(3, 3, 3, tokens, dtype=torch.float64))
    assert recorded.values.shape == (3, 3, 3, tokens, 8)
    gradient = recorded.gradients(during[:, 1])
    assert gradient.shape == recorded.attention.shape
    assert gradient.abs().amax(dim=(0, 2, 3, 4)).min() > 0


@pytest.mark.parametrize("name", VITS)
def test_nothing_is_left_behind(name):
    model, images = VITS[name](), images_for(name)
    config = copy.deepcopy(getattr(model, "config", None))
    fused = [m.fused_attn for m in model.modules() if hasattr(m, "fused_attn")]

    def fail():
        with record_attention(model, values=True):
            logits_of(model, images)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert [m.fused_attn for m in model.modules() if hasattr(m, "fused_attn")] == fused
    assert config is None or model.config._attn_implementation == config._attn_implementation


def test_weights_are_timms_own():
    model = ours(reg_tokens=2, qk_norm=True)
    reference = timm.models.VisionTransformer(**SHAPE, reg_tokens=2, qk_norm=True).double().eval()
    reference.load_state_dict(model.state_dict())
    theirs = []
    for block in reference.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda m, args, out: theirs.append(args[0]))
    images = images_for("")
    reference(images)
    for recorded_model in (model, of_timm(reg_tokens=2, qk_norm=True)):
        recorded_model.load_state_dict(model.state_dict())
        with record_attention(recorded_model) as recorded:
            recorded_model(images)
        torch.testing.assert_close(recorded.attention, torch.stack(theirs, dim=1))


@pytest.mark.parametrize("kind", ["ViT", "DeiT", "Dinov2"])
def test_weights_are_hugging_faces_own(kind):
    model, images = of_hugging_face(kind), images_for("")
    with record_attention(model) as recorded:
        model(images)
    model.set_attn_implementation("eager")
    theirs = model(images, output_attentions=True).attentions
    torch.testing.assert_close(recorded.attention, torch.stack(theirs, dim=1))


@pytest.mark.parametrize("name", VITS)
def test_values_times_weights_make_the_output(name):
    """Attention's projection applied to weights times values is what the module gives."""
    model, images = VITS[name](), images_for(name)
    attention = dissect(model).attentions[1].module
    with record_attention(model, values=True) as recorded, record_outputs([attention]) as outputs:
        logits_of(model, images)
    mixed = (recorded.attention @ recorded.values)[:, 1].transpose(1, 2).flatten(2)
    proj = next(getattr(attention, name) for name in ("proj", "o_proj", "out_proj") if hasattr(attention, name))
    torch.testing.assert_close(proj(mixed), outputs[0])


def test_layers_can_be_chosen_and_others_are_not_kept():
    model, images = ours(), images_for("")
    with record_attention(model, layers=[-1, 0]) as recorded:
        model(images)
    assert recorded.layers == (0, 2)
    assert set(recorded.weights) == {0, 2}
    assert recorded.attention.shape[1] == 2
    assert not recorded.weights[0].requires_grad
    with pytest.raises(PatchlightError, match="there are 3 layers, 0 to 2"), record_attention(model, layers=[3]):
        pass


def test_what_was_not_captured_is_named():
    model = ours()
    with record_attention(model, layers=[1]) as recorded:
        pass
    with pytest.raises(PatchlightError, match=r"nothing was captured of blocks\.1\.attn"):
        _ = recorded.attention
    model.blocks[2].attn = nn.Identity()
    with pytest.raises(PatchlightError, match=r"blocks\.2\.attn is Identity"), record_attention(model):
        pass
    assert all(block.attn.fused_attn for block in list(model.blocks)[:2])
    with record_attention(ours()) as recorded:
        pass
    with pytest.raises(PatchlightError, match="nothing was captured"):
        recorded.gradients(torch.zeros(1))


def test_gradients_must_be_asked_for():
    model, images = ours(), images_for("")
    with record_attention(model) as recorded:
        logits = model(images)
    with pytest.raises(PatchlightError, match="gradients=True"):
        recorded.gradients(logits[:, 0])


def test_models_that_are_no_vit():
    with pytest.raises(PatchlightError, match="Linear is no Vision Transformer"):
        dissect_vit(nn.Linear(2, 2))
    with pytest.raises(PatchlightError, match="ResNet"):
        dissect_vit(timm.create_model("resnet10t", num_classes=3))
    with pytest.raises(PatchlightError, match="pools by AttentionPoolPrr"):
        dissect_vit(of_timm(global_pool="prr"))
    with pytest.raises(PatchlightError, match="pools by 'max'; maps know token, avg and map"):
        dissect_vit(of_timm(global_pool="max", class_token=False))


@pytest.mark.parametrize("name", VITS)
def test_the_last_layer_decodes_to_the_logits(name):
    model, images = VITS[name](), images_for(name)
    anatomy = dissect(model)
    with record_outputs(anatomy.blocks) as outputs:
        logits = logits_of(model, images)
    assert len(outputs) == 3
    torch.testing.assert_close(anatomy.decode(outputs[-1]), logits)


@pytest.mark.parametrize("name", VITS)
def test_keeping_all_patches_changes_nothing_and_order_does_not_matter(name):
    model, images = VITS[name](), images_for(name)
    anatomy = dissect(model)
    rows, columns = anatomy.grid(images)
    before = logits_of(model, images)
    kept = torch.stack([torch.randperm(rows * columns) for _ in images])
    with keep_patches(anatomy, kept):
        shuffled = logits_of(model, images)
    torch.testing.assert_close(shuffled, before)
    with keep_patches(anatomy, kept[:, :5]):
        fewer = logits_of(model, images)
    assert (fewer - before).abs().max() > 1e-3
    assert torch.equal(logits_of(model, images), before)


def test_a_patch_that_is_not_kept_cannot_matter():
    model, images = ours(), images_for("")
    other = images.clone()
    other[:, :, :4, :4] += 1  # patch 0
    with keep_patches(dissect(model), torch.arange(1, 16).expand(3, -1)):
        torch.testing.assert_close(model(images), model(other))
