"""Attention that is not one softmax over tokens is refused by its layer's name; what only looks odd is recorded."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from vits import SHAPE, images_for, of_hugging_face, of_timm, ours, stirred

from patchlight import explain, record_attention
from patchlight.errors import PatchlightError
from patchlight.explanation.methods import METHODS
from patchlight.models.anatomy import VitAnatomy, dissect, dissect_vit
from patchlight.models.layers import Attention

READ_ATTENTION = [name for name, method in METHODS.items() if method.attention]
HEADS, WIDTH = SHAPE["num_heads"], SHAPE["embed_dim"]


class Odd(Attention):
    """Attention whose last steps a test writes: `mix` makes (B, h, T, d) of weights and values, `after` ends it."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query_key_value(x)
        mixed = self.mix(self.attn_drop(self.shares(q, k)), v)
        return self.proj(self.after(mixed.transpose(1, 2).flatten(2), x))

    def shares(self, q: Tensor, k: Tensor) -> Tensor:
        return self.weights(q, k)

    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        return weights @ v

    def after(self, mixed: Tensor, x: Tensor) -> Tensor:
        return mixed


class TalkingHeads(Odd):
    """Shazeer et al. 2020: heads are mixed after the softmax."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.talk = nn.Linear(HEADS, HEADS, bias=False)

    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        return self.talk(weights.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) @ v


class Gated(Odd):
    """A gate on the output that has another name than timm's."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.valve = nn.Linear(WIDTH, WIDTH)

    def after(self, mixed: Tensor, x: Tensor) -> Tensor:
        return mixed * self.valve(x).sigmoid()


class ValueResidual(Odd):
    """Zhou et al. 2024: each layer's values are mixed with those of the first."""

    first: Tensor | None = None

    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        first = type(self).first
        type(self).first = v if first is None else first
        return weights @ (v if first is None else 0.5 * v + 0.5 * first)


class Differential(Odd):
    """Ye et al. 2024 by hand: the difference of two softmaxes, whose queries and keys are half as wide."""

    def shares(self, q: Tensor, k: Tensor) -> Tensor:
        q, k = (part.unflatten(-1, (2, -1)).transpose(2, 3).flatten(1, 2) for part in (q, k))
        return self.weights(q, k)

    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        one, other = weights.unflatten(1, (-1, 2)).unbind(2)
        return (one - 0.5 * other) @ v


class Sigmoid(Odd):
    """Ramapuram et al. 2024: its rows need not sum to 1."""

    def shares(self, q: Tensor, k: Tensor) -> Tensor:
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).sigmoid()


class OffByOne(Odd):
    """A softmax with a sink that is no token."""

    def shares(self, q: Tensor, k: Tensor) -> Tensor:
        scores = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).exp()
        return scores / (1 + scores.sum(dim=-1, keepdim=True))


class Normed(Odd):
    """The rows of a linear attention, which may be negative."""

    def shares(self, q: Tensor, k: Tensor) -> Tensor:
        scores = q @ k.transpose(-2, -1)
        return scores / scores.sum(dim=-1, keepdim=True)


class Rearranged(Odd):
    """Values that are not the last third of `qkv`."""

    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        return weights @ v.roll(1, dims=2)


ODD = {
    TalkingHeads: r"differ from its output by \d+",
    Gated: r"differ from its output by \d+",
    Differential: r"its weights are of the shape \(6, 17, 17\), not \(3, 17, 17\)",
    Sigmoid: "its weights are no shares of a whole: rows sum to",
    OffByOne: r"its weights are no shares of a whole: rows sum to 0\.",
    Normed: "its weights are no shares of a whole",
    Rearranged: r"differ from its output by \d+",
}


def with_attention(kind: type[Odd], *layers: int) -> nn.Module:
    """Our ViT, the attention of these layers another one."""
    torch.manual_seed(0)
    model = ours()
    for layer in layers:
        model.blocks[layer].attn = stirred(kind(WIDTH, HEADS))
    return model


@pytest.mark.parametrize("kind", ODD, ids=lambda kind: kind.__name__)
def test_odd_attention_is_refused_by_its_layers_name(kind):
    model, images = with_attention(kind, 2), images_for("")
    fused = [m.fused_attn for m in model.modules() if hasattr(m, "fused_attn")]
    named = rf"the attention of blocks\.2\.attn \({kind.__name__}\) is not one softmax over tokens: .*"
    for method in READ_ATTENTION:
        with pytest.raises(PatchlightError, match=named + ODD[kind]):
            explain(model, images, method=method)
    advice = "use gradcam, integrated-gradients, smoothgrad or occlusion"
    with pytest.raises(PatchlightError, match=advice), record_attention(model):
        model(images)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert [m.fused_attn for m in model.modules() if hasattr(m, "fused_attn")] == fused
    for method in set(METHODS) - set(READ_ATTENTION):
        assert explain(model, images, method=method).maps.isfinite().all()
    with record_attention(model, [0, 1]) as recorded:  # the others are what they seem
        model(images)
    assert recorded.attention.shape == (3, 2, 3, 17, 17)


def test_values_of_the_first_layer_are_refused_where_they_come_in():
    model = with_attention(ValueResidual, 0, 1, 2)
    ValueResidual.first = None
    try:
        with pytest.raises(PatchlightError, match=r"the attention of blocks\.1\.attn \(ValueResidual\)"):
            explain(model, images_for(""), method="rollout")
    finally:
        ValueResidual.first = None


def test_an_odd_layer_is_checked_in_the_first_pass_alone():
    model, images, checked = with_attention(Odd, 1), images_for(""), []
    model.blocks[1].attn.proj.register_forward_hook(lambda *_: checked.append(1))
    with record_attention(model) as recorded:
        model(images)
        assert len(checked) == 2  # the layer's own, and once more with the recorded weights
        model(images)
    assert len(checked) == 3
    assert recorded.attention.shape == (3, 3, 3, 17, 17)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_check_knows_rounding(dtype):
    model, images = ours().to(dtype), images_for("").to(dtype)
    with record_attention(model) as recorded:
        model(images)
    assert recorded.attention.dtype == dtype
    odd = with_attention(Gated, 2).to(dtype)
    with pytest.raises(PatchlightError, match=r"blocks\.2\.attn \(Gated\)"), record_attention(odd):
        odd(images)


def test_training_with_dropout_has_nothing_exact_to_check():
    model = ours(attn_drop_rate=0.2).train()
    with record_attention(model) as recorded:
        model(images_for(""))
    assert (recorded.attention == 0).any()


def test_parts_that_are_not_what_they_seem():
    model = with_attention(Odd, 0)
    model.blocks[0].attn.qkv = nn.Sequential(model.blocks[0].attn.qkv, nn.Identity())  # no `bias` to ask for
    with pytest.raises(PatchlightError, match=r"blocks\.0\.attn \(Odd\) .* cannot be computed \('Sequential' object"):
        explain(model, images_for(""), method="rollout")


@pytest.mark.parametrize("name", ["vit_dlittle_patch16_reg1_gap_256", "vit_dwee_patch16_reg1_gap_256"])
def test_timms_differential_attention(name):
    """It is known before anything is computed, so that the default is a method that reads no attention."""
    model = timm.create_model(name, img_size=64, depth=2, embed_dim=64, num_heads=4, num_classes=5).eval()
    with pytest.raises(PatchlightError, match=r"blocks\.0\.attn is DiffAttention, whose 4 heads of 8 do not make the"):
        dissect_vit(model)
    assert explain(model, torch.randn(2, 3, 64, 64)).method == "gradcam"


def test_a_gate_of_timms_and_grouped_queries_are_one_softmax():
    """timm's own modules, whose outputs are the oracle: what is recorded makes them."""
    gated, images = of_timm(depth=2), images_for("")
    for block in gated.blocks:
        block.attn = stirred(timm.layers.Attention(WIDTH, HEADS, gated=True, scale_norm=True, norm_layer=nn.LayerNorm))
    grouped = of_timm(depth=2, embed_dim=32, num_heads=4)
    for block in grouped.blocks:
        attention = timm.layers.AttentionRope(32, 4, num_kv_heads=2, qkv_fused=False, gated=True)
        block.attn = stirred(attention)
    for model, heads in ((gated, HEADS), (grouped, 4)):
        assert isinstance(dissect(model), VitAnatomy)
        with record_attention(model, values=True) as recorded:
            model(images)
        assert recorded.attention.shape == (3, 2, heads, 17, 17)
        assert recorded.values.shape == (3, 2, heads, 17, 8)


def test_gradients_inside_inference_mode_are_told():
    told = pytest.raises(PatchlightError, match=r"no gradients inside torch\.inference_mode")
    with torch.inference_mode(), told, record_attention(ours(), gradients=True):
        pass


def test_an_image_that_ends_in_nan_is_no_odd_attention():
    model, images = of_hugging_face(), images_for("")
    images[0, 0, 0, 0] = torch.nan
    with record_attention(model) as recorded:
        model(images)
    assert recorded.attention[1:].isfinite().all()
