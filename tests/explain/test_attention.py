from __future__ import annotations

import pytest
import timm
import torch

from patchlight.explain.attention import last_layer_attention
from patchlight.explain.capture import record_attention
from patchlight.models import VisionTransformer

SHAPE = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}


def vit(**options) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(**SHAPE, **options)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    return model.eval()


@pytest.mark.parametrize("fused", [True, False])
def test_recorded_weights_are_timms_own(fused):
    model = vit(reg_tokens=2, qk_norm=True, fused_attn=fused).double()
    reference = timm.models.VisionTransformer(**SHAPE, reg_tokens=2, qk_norm=True).double().eval()
    reference.load_state_dict(model.state_dict())
    theirs = []
    for block in reference.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda m, args, out: theirs.append(args[0]))
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    expected = reference(images)
    with record_attention(model) as recorded:
        logits = model(images)
    torch.testing.assert_close(logits, expected)
    assert list(recorded) == [0, 1, 2]
    for ours, other in zip(recorded.values(), theirs, strict=True):
        torch.testing.assert_close(ours, other)


def test_recording_changes_nothing_and_leaves_nothing_behind():
    model, images = vit(), torch.randn(2, 3, 16, 16)
    before = model(images)
    with record_attention(model, layers=[-1]) as recorded:
        assert torch.equal(model(images), before)
    assert list(recorded) == [2]

    def fail():
        with record_attention(model):
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("pool", ["token", "avg", "seq"])
def test_maps_are_shares_of_the_grid_and_batches_equal_singles(pool):
    model, images = vit(global_pool=pool, reg_tokens=1), torch.randn(3, 3, 16, 16)
    whole = last_layer_attention(model, images)
    assert whole.values.shape == (3, 4, 4)
    torch.testing.assert_close(whole.values.sum((1, 2)), torch.ones(3))
    assert whole.values.std() > 0
    singles = torch.cat([last_layer_attention(model, image[None]).values for image in images])
    torch.testing.assert_close(whole.values, singles)


def test_the_cls_map_is_the_cls_row():
    model, images = vit(reg_tokens=1), torch.randn(1, 3, 16, 16)
    with record_attention(model) as recorded:
        model(images)
    row = recorded[2][0].mean(0)[0, 2:]
    torch.testing.assert_close(last_layer_attention(model, images).values[0].flatten(), row / row.sum())
