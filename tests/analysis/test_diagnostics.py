"""Diagnostics against NumPy, hand-worked cases and the models' own numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from vits import VITS, images_for, of_timm, ours

from patchlight import record_attention
from patchlight.analysis import diagnostics
from patchlight.errors import UsageError
from patchlight.models.anatomy import dissect


@pytest.mark.parametrize("name", VITS)
def test_every_vit_has_every_diagnostic(name):
    model, images = VITS[name](), images_for(name)
    anatomy = dissect(model)
    grid = anatomy.grid(images)
    with record_attention(anatomy) as recorded:
        logits = anatomy.logits(images)
    tokens = diagnostics.tokens_by_layer(anatomy, images)
    assert tokens.shape == (3, 3, anatomy.num_prefix_tokens + grid[0] * grid[1], 24)
    lens = diagnostics.logit_lens(anatomy, tokens)
    torch.testing.assert_close(lens[:, -1], logits.float().softmax(1), rtol=1e-4, atol=1e-5)
    colours = diagnostics.token_colours(anatomy, tokens[:, -1], grid)
    assert colours.shape == (3, *grid, 3)
    assert (colours.min(), colours.max()) == (0, 1)
    assert diagnostics.token_norms(anatomy, tokens[:, -1], grid).shape == (3, *grid)
    distance = diagnostics.attention_distance(anatomy, recorded.attention, grid)
    assert distance.shape == (3, 3)
    assert 0 < distance.min() < distance.max() < 4 * math.hypot(*grid)
    assert diagnostics.attention_entropy(recorded.attention).max() <= math.log(tokens.shape[2])
    similarity = diagnostics.position_similarity(anatomy, grid)
    assert similarity.shape == (grid[0] * grid[1], *grid)
    torch.testing.assert_close(similarity.flatten(1).diagonal(), torch.ones(grid[0] * grid[1], dtype=torch.float64))
    filters = diagnostics.patch_filters(anatomy, 4)
    assert filters.shape[:2] == (4, 3)
    torch.testing.assert_close(filters.flatten(1) @ filters.flatten(1).T, torch.eye(4, dtype=torch.float64))
    more = diagnostics.tokens_by_layer(anatomy, torch.cat([images, -images]))
    cka = diagnostics.cka_of_layers(more, more)
    torch.testing.assert_close(cka.diagonal(), torch.ones(3, dtype=torch.float64))


def test_principal_components_are_scikit_learns():
    rows = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours_, theirs = diagnostics.principal(rows, 3).numpy(), PCA(3).fit_transform(rows.numpy())
    np.testing.assert_allclose(np.abs(ours_), np.abs(theirs))
    assert (ours_[np.abs(ours_).argmax(0), range(3)] > 0).all()
    assert diagnostics.principal(rows[:, :2], 3)[:, 2].tolist() == [0] * 20


def test_distance_and_entropy_by_hand():
    """Two heads on a 1 x 2 grid of 4-pixel patches: one looks at itself, the other at its neighbour."""
    anatomy = dissect(of_timm(global_pool="avg", class_token=False))
    itself, other = torch.eye(2), 1 - torch.eye(2)
    attention = torch.stack([itself, other, torch.full((2, 2), 0.5)])[None, None]
    assert diagnostics.attention_distance(anatomy, attention, (1, 2)).tolist() == [[0.0, 4.0, 2.0]]
    assert diagnostics.attention_entropy(attention)[0].tolist() == pytest.approx([0, 0, math.log(2)])


def test_prefix_tokens_do_not_count_as_far():
    anatomy = dissect(ours())
    attention = torch.zeros(1, 1, 1, 17, 17)
    attention[..., 0] = 0.5
    attention[..., 1:, 1:] += 0.5 * torch.eye(16)
    assert diagnostics.attention_distance(anatomy, attention, (4, 4)).item() == 0


def test_cka_of_rotated_scaled_and_unrelated_features():
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(50, 4, generator=draw, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=draw, dtype=torch.float64)).Q
    assert diagnostics.linear_cka(a, 3 * a @ rotation + 1).item() == pytest.approx(1)
    b = torch.randn(50, 4, generator=draw, dtype=torch.float64)
    grams = [x @ x.T for x in (a, b)]
    centred = []  # as Szekely and Rizzo 2014 take means away, which makes HSIC_1 a plain inner product
    for gram in grams:
        rest = gram - torch.diag(gram.diagonal())
        sums = rest.sum(dim=0)
        rest = rest - (sums[:, None] + sums[None]) / 48 + sums.sum() / (49 * 48)
        centred.append(rest - torch.diag(rest.diagonal()))
    k, m = centred
    assert diagnostics.unbiased_hsic(*grams).item() == pytest.approx((k * m).sum().item() / (50 * 47))
    expected = (k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt()
    assert diagnostics.linear_cka(a, b).item() == pytest.approx(expected.item())


def test_cka_of_four_images_by_hand():
    """Images 1 and 2 are alike by one layer, and 3 and 4; by the other 1 and 3, and 2 and 4. With diagonals of 0 K and
    M have a 1 in each row, so tr(KK) = 1'K1 = 1'KK1 = 4 = 1'KM1 and tr(KM) = 0: HSIC_1 of K and K is
    (4 + 16 / 6 - 8 / 2) / 4 = 2/3, that of K and M (0 + 16 / 6 - 8 / 2) / 4 = -1/3.
    """
    one, other = torch.eye(2, dtype=torch.float64)[[0, 0, 1, 1]], torch.eye(2, dtype=torch.float64)[[0, 1, 0, 1]]
    k, m = one @ one.T, other @ other.T
    assert diagnostics.unbiased_hsic(k, k).item() == pytest.approx(2 / 3, abs=1e-15)
    assert diagnostics.unbiased_hsic(k, m).item() == pytest.approx(-1 / 3, abs=1e-15)
    assert diagnostics.linear_cka(one, other).item() == pytest.approx(-1 / 2, abs=1e-12)
    assert diagnostics.linear_cka(one, one).item() == pytest.approx(1)
    with pytest.raises(UsageError, match="needs 4 images or more, not 3"):
        diagnostics.linear_cka(one[:3], other[:3])


def test_cka_of_unrelated_features_is_about_zero_however_wide_they_are():
    """12 images in a width of 384, of which the biased estimate finds all alike."""
    draw = torch.Generator().manual_seed(0)
    found, biased = [], []
    for _ in range(200):
        a, b = torch.randn(2, 12, 384, generator=draw, dtype=torch.float64)
        found.append(diagnostics.linear_cka(a, b).item())
        k, m = (x @ x.T for x in (a - a.mean(0), b - b.mean(0)))
        biased.append(((k * m).sum() / (k.norm() * m.norm())).item())
    assert np.mean(biased) > 0.9
    assert abs(np.mean(found)) < 0.04
    assert np.abs(found).max() < 0.6
    assert min(found) < 0


def test_layers_in_which_all_images_are_alike_have_no_cka():
    a = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    same = 0.1 + a[:1].expand(5, -1) * (1 + 1e-8)
    assert diagnostics.linear_cka(a, same).isnan()


def test_models_without_positions_say_so():
    assert diagnostics.position_similarity(dissect(ours(pos_embed="none")), (4, 4)) is None
    assert diagnostics.position_similarity(dissect(ours(pos_embed="sincos2d")), (4, 4)).shape == (16, 4, 4)
