"""Masks of heads, pairs of tokens and paths: by hand in float64, and against what the libraries compute inside."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from vits import SHAPE, VITS, images_for, of_hugging_face, of_timm, ours, stirred

from patchlight import explain, record_attention
from patchlight.errors import PatchlightError, UsageError
from patchlight.explanation import cells
from patchlight.explanation.capture import record_outputs
from patchlight.explanation.views import (
    attention_masks,
    best_path,
    find_tokens,
    head_maps,
    keep_mass,
    least_held,
    prefix_names,
    residual_flow,
    roll_back,
    split_pair,
    strongest_steps,
    token_name,
    token_pair,
    token_path,
)
from patchlight.models.anatomy import Anatomy, dissect
from patchlight.models.structure import AttentionLayer, Tap


def rope() -> nn.Module:
    """Rotary positions, and a CLS token beside a mean of patches."""
    torch.manual_seed(0)
    return stirred(timm.models.Eva(**SHAPE, use_rot_pos_emb=True, use_abs_pos_emb=False))


def biased() -> nn.Module:
    return of_hugging_face("Beit", use_relative_position_bias=True)


FAMILIES = {**VITS, "timm, rotary": rope, "Hugging Face BEiT, biases": biased}


def recorded(anatomy: Anatomy, images: Tensor) -> tuple[Tensor, Tensor]:
    """Attention (B, L, H, T, T), and how the pooling weighs tokens (B, T)."""
    with torch.no_grad(), record_attention(anatomy) as found, record_outputs(anatomy.blocks[-1:]) as outputs:
        anatomy.logits(images)
    return found.attention, anatomy.readout(outputs[-1])


class Layer(nn.Module):
    """Gives its attention as the second part of its output; tokens pass unchanged."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)  # (H, T, T)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return tokens, self.weights.expand(len(tokens), -1, -1, -1)


def fixed(layers: list, heads: int = 1, dtype: torch.dtype = torch.float64) -> Anatomy:
    """A real anatomy of layers whose attention is given: a CLS token and two patches, one row of them."""
    anatomy = dissect(ours(depth=len(layers)))
    parts = [Layer(torch.tensor(weights, dtype=dtype).expand(heads, -1, -1)) for weights in layers]
    model = nn.Sequential(*parts)

    def logits(images: Tensor) -> Tensor:
        tokens = torch.zeros(len(images), 3, 2, dtype=dtype)
        for part in parts:
            tokens = part(tokens)[0]
        return tokens[:, 0]

    def nothing(width: int) -> Callable[..., Tensor]:
        """Values of tokens that are nothing, or what any weights make of them."""
        return lambda tokens, *_: torch.zeros(len(tokens), 3, width, dtype=dtype)

    taps = [Tap(part, lambda output: output[1]) for part in parts]
    return dataclasses.replace(
        anatomy,
        model=model,
        logits=logits,
        blocks=tuple(parts),
        attentions=tuple(
            AttentionLayer(f"layer {i}", tap.module, heads, tap, nothing(heads), nothing(2))
            for i, tap in enumerate(taps)
        ),
        explicit_attention=contextlib.nullcontext,
        patch_size=(4, 4),
    )


IMAGES = torch.zeros(1, 3, 4, 8)  # of two patches


def patches_only(anatomy: Anatomy) -> Anatomy:
    """The same tokens, the mean of the patches being pooled."""
    return dataclasses.replace(anatomy, pooling="avg")


# Masks of heads


def dino_mask(weights: np.ndarray, mass: float) -> np.ndarray:
    """Of patches (N,), as visualize_attention.py describes its rule: upwards, what the running sum leaves above."""
    order = np.argsort(weights)
    kept = np.zeros(len(weights), dtype=bool)
    running = 0.0
    for index in order:
        running += weights[index] / weights.sum()
        kept[index] = running > 1 - mass
    return kept


@pytest.mark.parametrize("mass", [0.05, 0.3, 0.6, 0.95, 1.0])
def test_masks_follow_the_rule_of_dino(mass):
    maps = torch.from_numpy(np.random.default_rng(0).dirichlet(np.full(35, 0.4), size=(3, 4))).view(3, 4, 5, 7)
    expected = [dino_mask(row, mass) for row in maps.flatten(2).flatten(0, 1).numpy()]
    assert np.array_equal(keep_mass(maps, mass).flatten(2).flatten(0, 1).numpy(), expected)


def test_a_mask_by_hand():
    maps = torch.tensor([[0.1, 0.4], [0.2, 0.3]], dtype=torch.float64)
    assert keep_mass(maps, 0.4).tolist() == [[False, True], [False, False]]  # which holds just the share
    assert keep_mass(maps, 0.41).tolist() == [[False, True], [False, True]]
    assert keep_mass(maps / 7, 0.75).tolist() == [[False, True], [True, True]]
    assert keep_mass(maps, 1.0).all()
    assert keep_mass(maps, 1e-12).tolist() == [[False, True], [False, False]]


def test_equal_patches_are_in_or_out_together():
    assert keep_mass(torch.full((2, 3), 1 / 6), 0.01).all()
    some = torch.tensor([[0.5, 0.125], [0.125, 0.25]], dtype=torch.float64)
    assert keep_mass(some, 0.76).tolist() == [[True, True], [True, True]]
    assert keep_mass(some, 0.75).tolist() == [[True, False], [False, True]]
    assert not keep_mass(torch.zeros(2, 2), 0.6).any()
    turned = keep_mass(some.flip(0), 0.75).flip(0)
    assert torch.equal(turned, keep_mass(some, 0.75))


@pytest.mark.parametrize("mass", [0, -0.1, 1.1, float("nan")])
def test_mass_is_a_share(mass):
    with pytest.raises(UsageError, match="mass is the share of the attention that is kept"):
        keep_mass(torch.ones(2, 2), mass)


@pytest.mark.parametrize("name", FAMILIES)
def test_heads_of_every_vit(name):
    model, images = FAMILIES[name](), images_for(name)
    anatomy = dissect(model)
    grid, prefix = anatomy.grid(images), anatomy.num_prefix_tokens
    attention, pooling = recorded(anatomy, images)
    rows = torch.einsum("bq,bhqk->bhk", pooling, attention[:, 1])
    pooled = head_maps(anatomy, images, layer=1, token="pooled")
    torch.testing.assert_close(pooled, rows[..., prefix:].unflatten(-1, grid))
    own = attention[:, 1, :, 0] if "token" in anatomy.pooling else rows  # the CLS token's row where there is one
    found = head_maps(anatomy, images, layer=1)
    torch.testing.assert_close(found, own[..., prefix:].unflatten(-1, grid))
    patch = head_maps(anatomy, images, layer=1, token=(1, 2))
    torch.testing.assert_close(patch.flatten(2), attention[:, 1, :, prefix + grid[1] + 2, prefix:])
    assert torch.equal(attention_masks(anatomy, images, layer=1, mass=0.5), keep_mass(found, 0.5))
    assert torch.equal(attention_masks(anatomy, images, layer=1, token="1,2"), keep_mass(patch, 0.6))
    last = head_maps(anatomy, images, token="pooled")
    torch.testing.assert_close(last.mean(dim=1), explain(anatomy, images, method="attention").maps)
    masks, last = attention_masks(anatomy, images), head_maps(anatomy, images)
    assert masks.shape == (3, 3, *grid)
    assert masks.dtype == torch.bool
    share = (last * masks).sum(dim=(2, 3)) / last.sum(dim=(2, 3))
    assert ((share >= 0.6) & (share < 1)).all()


def test_a_layer_that_is_not_there():
    with pytest.raises(PatchlightError, match="there are 3 layers, 0 to 2"):
        attention_masks(dissect(ours()), images_for(""), layer=3)


# Names of tokens


def test_names_of_tokens():
    grid = (4, 6)
    with_cls, without = dissect(ours(reg_tokens=2)), dissect(ours(reg_tokens=2, global_pool="avg"))
    assert prefix_names(with_cls) == ("cls", "register0", "register1")
    assert prefix_names(without) == ("prefix0", "prefix1")
    assert prefix_names(dissect(ours(distill_token=True))) == ("cls", "dist")
    assert prefix_names(dissect(ours(global_pool="seq"))) == ()
    for anatomy in (with_cls, without):
        for index in range(anatomy.num_prefix_tokens + 24):
            name = token_name(anatomy, index, grid)
            assert find_tokens(anatomy, name, grid).indices == (index,)
    assert token_name(with_cls, 3 + 6 + 5, grid) == "1,5"
    assert find_tokens(with_cls, (3, 5), grid).indices == (3 + 23,)
    assert find_tokens(with_cls, " 3 , 5 ", grid).name == "3,5"
    assert find_tokens(with_cls, "registers", grid).indices == (1, 2)
    assert find_tokens(with_cls, "pooled", grid).indices is None


@pytest.mark.parametrize("token", ["4,0", "0,6", (4, 0), (-1, 0), "class", "", "1,2,3", "register2"])
def test_tokens_that_are_not_there(token):
    with pytest.raises(UsageError, match="name pooled, cls, register0, register1, registers, or a patch by row,column"):
        find_tokens(dissect(ours(reg_tokens=2)), token, (4, 6))


def test_what_prefix_tokens_are_is_not_guessed():
    with pytest.raises(UsageError, match="no token 'cls'; name pooled, prefix0, prefix1, or a patch"):
        find_tokens(dissect(ours(reg_tokens=2, global_pool="avg")), "cls", (4, 4))


def test_pairs_in_words():
    assert split_pair("3,4:5,6") == ("3,4", "5,6")
    assert split_pair("cls : registers") == ("cls", "registers")
    for text in ("3,4", "a:b:c", ":3,4", ""):
        with pytest.raises(UsageError, match="a pair of tokens is QUERY:KEY"):
            split_pair(text)


# A pair of tokens


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_are_those_before_the_softmax(name, monkeypatch):
    """Fused attention is given queries, keys and biases as the softmax sees them, whatever the family."""
    model, images = FAMILIES[name](), images_for(name)
    anatomy, inside = dissect(model), []
    fused = nn.functional.scaled_dot_product_attention

    def spy(q, k, v, attn_mask=None, scale=None, **options):
        scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
        inside.append(scores if attn_mask is None else scores + attn_mask)
        return fused(q, k, v, attn_mask=attn_mask, scale=scale, **options)

    with torch.no_grad(), monkeypatch.context() as patched:
        patched.setattr(nn.functional, "scaled_dot_product_attention", spy)
        anatomy.logits(images)
    scores = torch.stack(inside[: len(anatomy.blocks)], dim=1)  # (B, L, H, T, T), without that of a pooling
    attention, _ = recorded(anatomy, images)
    prefix, columns = anatomy.num_prefix_tokens, anatomy.grid(images)[1]
    assert scores.shape == attention.shape
    near = {"rtol": 1e-4, "atol": 1e-4} if "Hugging Face" in name else {}  # its softmax is in float32
    for query, key in (((1, 2), (3, 0)), ((0, 0), (0, 0))):
        i, j = (prefix + row * columns + column for row, column in (query, key))
        found = token_pair(anatomy, images, query, key)
        assert (found.query, found.key) == (f"{query[0]},{query[1]}", f"{key[0]},{key[1]}")
        torch.testing.assert_close(found.weights, attention[..., i, j])
        torch.testing.assert_close(found.scores, scores[..., i, j] - scores[..., i, :].mean(-1), **near)
        assert found.exact.all()


def test_a_pair_by_hand():
    """Scores log 1, log 2, log 5 of three keys: the mean is log(10) / 3."""
    anatomy = fixed([[[0.125, 0.25, 0.625]] * 3])
    found = token_pair(anatomy, IMAGES, "cls", (0, 1))
    assert found.weights.tolist() == [[[0.625]]]
    assert found.scores.item() == pytest.approx(math.log(5) - math.log(10) / 3)


def test_several_tokens_at_once():
    anatomy = dissect(ours(reg_tokens=2))
    images = images_for("")
    attention, _ = recorded(anatomy, images)
    logs = attention.log() - attention.log().mean(-1, keepdim=True)
    to_registers = token_pair(anatomy, images, "cls", "registers")
    torch.testing.assert_close(to_registers.weights, attention[..., 0, 1:3].sum(-1))
    torch.testing.assert_close(to_registers.scores, logs[..., 0, 1:3].mean(-1))
    of_registers = token_pair(anatomy, images, "registers", "pooled")
    torch.testing.assert_close(of_registers.weights, attention[..., 1:3, 0].mean(-1))
    mean = dissect(ours(global_pool="avg"))
    attention, _ = recorded(mean, images)
    pooled = token_pair(mean, images, "pooled", (0, 1))
    torch.testing.assert_close(pooled.weights, attention[..., 1].mean(-1))
    ones = token_pair(mean, images, (2, 2), "pooled").weights
    torch.testing.assert_close(ones, torch.ones_like(ones))


def test_weights_that_were_too_small_to_be_held_are_said():
    """Of scores 0, -50 and -200 the last is lost in float32; what is given is a bound, and says so."""
    row = torch.tensor([0.0, -50.0, -200.0]).softmax(0)
    assert row[2] == 0
    even = [0.5, 0.25, 0.25]
    anatomy = fixed([[row.tolist(), row.tolist(), even], [even] * 3], dtype=torch.float32)
    found = token_pair(anatomy, IMAGES, "cls", (0, 0))
    assert found.exact[0, :, 0].tolist() == [False, True]
    assert token_pair(patches_only(anatomy), IMAGES, "pooled", "0,1").exact[0, :, 0].tolist() == [False, True]
    true = -50 - (-250 / 3)
    assert found.scores[0, 0, 0] < true
    assert found.scores[0, 0, 0].item() == pytest.approx(
        -50 - (-50 + math.log(least_held(torch.float32))) / 3, rel=1e-5
    )
    assert least_held(torch.float16) == pytest.approx(6.1e-5, rel=0.01)
    assert least_held(torch.float64) == least_held(torch.float32)


# A token's path


def test_a_path_by_hand():
    """The CLS token reads from patch 1 in the second layer, which read from patch 0 in the first."""
    first = [[1.0, 0, 0], [0, 1, 0], [0, 0.9, 0.1]]
    second = [[0.2, 0.0, 0.8], [0, 1, 0], [0, 0, 1]]
    found = token_path(fixed([first, second]), IMAGES)
    # Its own ways: (0.6)(1) to itself; 0.4 to patch 1, of which 0.45 came from patch 0 and 0.55 stayed.
    assert found.tokens.tolist() == [[2, 2, 0]]
    assert found.weights.tolist() == [[pytest.approx(0.55), pytest.approx(0.4)]]
    assert found.share.item() == pytest.approx(0.22)
    assert found.reads.tolist() == [[1, 2]]
    assert found.read_weights.tolist() == [[pytest.approx(0.9), pytest.approx(0.8)]]
    assert found.maps[0, 0, 0].tolist() == [pytest.approx(0.18), pytest.approx(0.22)]
    assert found.maps[0, 1, 0].tolist() == [0, pytest.approx(0.4)]
    assert found.prefix[0].tolist() == [pytest.approx(0.6)] * 2
    own = token_path(fixed([first, second]), IMAGES, from_patches=False)
    assert own.tokens.tolist() == [[0, 0, 0]]
    assert own.share.item() == pytest.approx(0.6)
    assert own.reads[0, 1] == 2
    assert own.read_weights.tolist() == [[0, pytest.approx(0.8)]]  # of the first layer, where it reads nothing else
    patch = token_path(fixed([first, second]), IMAGES, "0,1")
    assert patch.token == "0,1"
    assert patch.tokens.tolist() == [[2, 2, 2]]
    assert patch.share.item() == pytest.approx(0.55)


def test_a_path_may_go_aside_twice():
    """The greatest step of the last layer is not on the best way."""
    first = [[1.0, 0, 0], [0.0, 1, 0], [1, 0, 0]]
    second = [[0.0, 0.4, 0.6], [0, 1, 0], [0, 0, 1]]
    found = token_path(fixed([first, second]), IMAGES)
    assert found.tokens.tolist() == [[1, 1, 0]]  # 0.2 by patch 0, which stays; 0.3 * 0.5 by patch 1
    assert found.share.item() == pytest.approx(0.2)


def test_a_single_patch():
    anatomy, images = dissect(ours(patch_size=16, global_pool="avg")), images_for("")
    found = token_path(anatomy, images)
    assert found.tokens.tolist() == [[0] * 4] * 3
    torch.testing.assert_close(found.share, torch.ones_like(found.share))
    assert not found.read_weights.any()
    assert attention_masks(anatomy, images).all()
    pair = token_pair(anatomy, images, "0,0", "pooled")
    torch.testing.assert_close(pair.weights, torch.ones_like(pair.weights))
    assert not pair.scores.any()


def test_heads_are_averaged():
    heads = torch.tensor([[[0.0, 1, 0]] * 3, [[0.0, 0, 1]] * 3], dtype=torch.float64)
    flow = residual_flow(heads[None, None])
    assert flow[0, 0].tolist() == [[0.5, 0.25, 0.25], [0, 0.75, 0.25], [0, 0.25, 0.75]]


def test_the_best_path_is_the_best_of_all():
    draw = torch.Generator().manual_seed(0)
    attention = torch.rand(4, 3, 2, 5, 5, generator=draw, dtype=torch.float64).mul(6).softmax(-1)
    flow, start = residual_flow(attention), torch.rand(4, 5, generator=draw, dtype=torch.float64).softmax(-1)
    for first in (0, 2):
        path, share = best_path(flow, start, first)
        for b in range(4):
            ways = {
                way: float(
                    start[b, way[3]]
                    * flow[b, 2, way[3], way[2]]
                    * flow[b, 1, way[2], way[1]]
                    * flow[b, 0, way[1], way[0]]
                )
                for way in itertools.product(range(first, 5), *[range(5)] * 3)
            }
            best = max(ways, key=lambda way: ways[way])
            assert tuple(path[b].tolist()) == best
            assert share[b].item() == pytest.approx(ways[best])
        if first == 0:
            assert sum(ways.values()) == pytest.approx(1)
    content = roll_back(flow, start)
    torch.testing.assert_close(content[:, 0], (start[:, None] @ flow[:, 2] @ flow[:, 1] @ flow[:, 0])[:, 0])
    torch.testing.assert_close(content.sum(-1), torch.ones(4, 3, dtype=torch.float64))


@pytest.mark.parametrize("name", FAMILIES)
def test_paths_of_every_vit(name):
    model, images = FAMILIES[name](), images_for(name)
    anatomy = dissect(model)
    grid, prefix = anatomy.grid(images), anatomy.num_prefix_tokens
    found = token_path(anatomy, images)
    assert found.tokens.shape == (3, 4)
    assert (found.tokens[:, 0] >= prefix).all()
    torch.testing.assert_close(found.maps[:, 0], explain(anatomy, images, method="rollout").maps)
    torch.testing.assert_close(found.maps.sum(dim=(2, 3)) + found.prefix, torch.ones(3, 3, dtype=found.maps.dtype))
    attention, pooling = recorded(anatomy, images)
    mean = attention.mean(dim=2)
    for b, layer in itertools.product(range(3), range(3)):
        row = mean[b, layer, found.tokens[b, layer + 1]].clone()
        row[found.tokens[b, layer + 1]] = -1
        assert row.argmax() == found.reads[b, layer]
        torch.testing.assert_close(row.max(), found.read_weights[b, layer])
    last = pooling.gather(1, found.tokens[:, -1:]).squeeze(1)
    torch.testing.assert_close(found.share, found.weights.prod(dim=1) * last)
    assert (found.share > 0).all()
    patch = token_path(anatomy, images, (grid[0] - 1, grid[1] - 1))
    assert (patch.tokens[:, -1] == prefix + grid[0] * grid[1] - 1).all()


# What all of them share


def test_a_few_images_at_a_time_give_the_same(monkeypatch):
    anatomy, images = dissect(ours(global_pool="seq")), images_for("")
    together = [head_maps(anatomy, images), token_pair(anatomy, images, (0, 1), (1, 0)).scores]
    together += [token_path(anatomy, images).maps, token_path(anatomy, images).tokens]
    monkeypatch.setattr(cells, "BATCH", 2)
    apart = [head_maps(anatomy, images), token_pair(anatomy, images, (0, 1), (1, 0)).scores]
    apart += [token_path(anatomy, images).maps, token_path(anatomy, images).tokens]
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other)


def test_the_model_is_given_back_as_it_was():
    model, images = of_timm(attn_drop_rate=0.5, proj_drop_rate=0.5), images_for("")
    expected = token_path(dissect(model), images).maps
    model.train()
    model.blocks[1].eval()
    modes = [module.training for module in model.modules()]
    views = (head_maps, token_path, lambda a, x: token_pair(a, x, "cls", "0,0"))
    torch.testing.assert_close(token_path(dissect(model), images).maps, expected)  # no dropout
    for view in views:
        view(dissect(model), images)
        assert [module.training for module in model.modules()] == modes
        with pytest.raises(RuntimeError):
            view(dissect(model), images.float())  # weights are float64
        assert [module.training for module in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(block.attn.fused_attn for block in model.blocks)


def test_half_precision_is_computed_in_float32():
    model = ours().bfloat16()
    found = token_path(dissect(model), images_for("").bfloat16())
    assert found.maps.dtype == torch.float32
    torch.testing.assert_close(found.maps.sum(dim=(2, 3)) + found.prefix, torch.ones(3, 3))
    assert head_maps(dissect(model), images_for("").bfloat16()).dtype == torch.float32


def test_what_cannot_be_looked_at():
    with pytest.raises(UsageError, match=r"images are a batch \(B, 3, height, width\), not of shape \(3, 16, 16\)"):
        head_maps(dissect(ours()), images_for("")[0])


# The strongest step of each layer


def test_strongest_steps_by_hand():
    """CLS (0) reads patch 2 most in the last layer, which reads patch 1 most in the first."""
    first = [[1.0, 0, 0], [0, 0.9, 0.1], [0.1, 0.7, 0.2]]
    last = [[0.3, 0.1, 0.6], [0, 1, 0], [0, 0, 1]]
    found = strongest_steps(fixed([first, last]), IMAGES, "cls")
    assert found.tokens.tolist() == [[1, 2, 0]]
    assert found.weights.tolist() == [[0.7, 0.6]]
    assert found.maps.tolist() == [[[[0.7, 0.2]], [[0.1, 0.6]]]]
    pooled = strongest_steps(patches_only(fixed([first, last])), IMAGES)  # half of each patch's row
    assert pooled.tokens.tolist() == [[1, 1, 3]]
    assert pooled.weights.tolist() == [[0.9, 0.5]]


@pytest.mark.parametrize("name", FAMILIES)
def test_each_step_is_the_greatest_of_its_row(name):
    model, images = FAMILIES[name](), images_for(name)
    anatomy = dissect(model)
    attention, _ = recorded(anatomy, images)
    found = strongest_steps(anatomy, images, "0,1")
    mean = attention.mean(dim=2)
    for image in range(len(images)):
        token = anatomy.num_prefix_tokens + 1
        assert found.tokens[image, -1] == token
        for layer in reversed(range(mean.shape[1])):
            row = mean[image, layer, token]
            assert found.weights[image, layer] == pytest.approx(row.max().item())
            token = int(row.argmax())
            assert found.tokens[image, layer] == token


def test_a_path_of_several_tokens_has_no_beginning():
    with pytest.raises(UsageError, match="'registers' are several tokens; a path begins at one, such as register0"):
        strongest_steps(dissect(ours(reg_tokens=2)), images_for(""), "registers")
    assert strongest_steps(dissect(ours(reg_tokens=2)), images_for(""), "register0").token == "register0"
