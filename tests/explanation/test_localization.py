"""Maps against masks: by hand in float64, against scikit-learn and SciPy, and the chance levels against chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.metrics import jaccard_score
from torch import Tensor

from patchlight.errors import UsageError
from patchlight.explanation.localization import (
    DEFAULT,
    MEASURES,
    best_iou,
    energy_inside,
    iou_at_own_area,
    localize,
    mean_iou,
    pointing_game,
)


def one(values: list) -> Tensor:
    """A map of one image."""
    return torch.tensor([values], dtype=torch.float64)


def mask(rows: list[str]) -> Tensor:
    """Of one image, "x" being inside."""
    return torch.tensor([[[letter == "x" for letter in row] for row in rows]])


MAP = one([[4.0, 3.0, 0.0], [2.0, 1.0, 0.0]])
LEFT = mask(["x..", "x.."])


def random_maps(count: int, size: tuple[int, int] = (9, 11)) -> tuple[Tensor, Tensor]:
    """Maps with many equal values, some negative, and masks from small to large."""
    draw = np.random.default_rng(0)
    maps = draw.integers(-3, 8, (count, *size)).astype(np.float64)
    masks = draw.random((count, *size)) < np.linspace(0.05, 0.95, count)[:, None, None]
    return torch.from_numpy(maps), torch.from_numpy(masks)


# By hand


def test_by_hand():
    """The mask is a third of the image: 4 and 2 of a sum of 10 are inside."""
    for maps in (MAP, 1e-30 * MAP, 1e30 * MAP, MAP - 5 * (MAP == 0)):
        found = localize(maps, LEFT, measures=MEASURES).scores
        assert [found[name].values.item() for name in DEFAULT] == pytest.approx([1, 0.6, 1 / 3, 2 / 3])
        # Above the mean of 10 / 6 are 4, 3 and 2: foreground 2 of 3, background 3 of 4.
        assert found["mean_iou"].values.item() == pytest.approx((2 / 3 + 3 / 4) / 2)
        assert [found[name].chance.item() for name in DEFAULT] == pytest.approx([1 / 3, 1 / 3, 1 / 5, 1 / 3])
        assert found["mean_iou"].chance.item() == pytest.approx(((1 / 6) / (2 / 3) + (1 / 3) / (5 / 6)) / 2)


def test_a_perfect_map_and_its_opposite():
    right, wrong = LEFT.double(), (~LEFT).double()
    for name in MEASURES:
        assert MEASURES[name].run(right, LEFT).values.item() == 1
    for name in ("pointing", "energy", "iou", "mean_iou"):
        assert MEASURES[name].run(wrong, LEFT).values.item() == 0
    assert best_iou(wrong, LEFT).values.item() == pytest.approx(1 / 3)  # the whole image


def test_what_is_as_great_as_the_mean_is_background():
    """Foreground is the 3 alone, half of the mask; background 4 and 1 of 5."""
    maps = one([[3.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    assert mean_iou(maps, LEFT).values.item() == pytest.approx((1 / 2 + 4 / 5) / 2)
    even = mean_iou(one([[0.1] * 3] * 2), LEFT)
    assert even.values.item() == pytest.approx((0 + 2 / 3) / 2)  # rounding makes no foreground


def test_greatest_values_share_the_hit():
    tied = one([[2.0, 2.0, 0.0], [2.0, 0.0, 0.0]])
    assert pointing_game(tied, LEFT).values.item() == pytest.approx(2 / 3)


def test_pixels_that_are_equal_are_taken_by_their_share():
    """Two pixels are wanted: the 4, and one of three that are equal, of which one is inside."""
    tied = one([[4.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    common = 1 + 1 / 3
    assert iou_at_own_area(tied, LEFT).values.item() == pytest.approx(common / (4 - common))
    assert best_iou(tied, LEFT).values.item() == pytest.approx(1 / 2)  # the 4 alone, or all four


@pytest.mark.parametrize("value", [0.0, -2.0, 0.1, 1 / 3])
@pytest.mark.parametrize("name", MEASURES)
def test_a_map_that_says_nothing_gets_the_chance_level(name, value):
    maps, masks = random_maps(40)
    found = MEASURES[name].run(torch.full_like(maps, value), masks)
    torch.testing.assert_close(found.values, found.chance)
    assert not found.values.isnan().any()


def test_silent_maps_are_counted():
    maps = torch.cat([MAP, -MAP, 0 * MAP, 0 * MAP])
    masks = torch.cat([LEFT, LEFT, LEFT, torch.zeros_like(LEFT)])
    found = localize(maps, masks)
    assert (found.silent, found.left_out) == ((1, 2), (3,))
    assert found.sentences() == (
        "1 image left out: the mask is empty or the whole image",
        "2 maps without any evidence for the class, counted as chance",
        "pointing is of 3 of 4 images",
    )


@pytest.mark.parametrize("name", MEASURES)
def test_masks_in_which_there_is_nothing_to_find(name):
    masks = torch.cat([torch.zeros_like(LEFT), LEFT, torch.ones_like(LEFT)])
    found = MEASURES[name].run(MAP.expand(3, -1, -1), masks)
    assert found.values.isnan().tolist() == [True, False, True]
    assert found.chance.isnan().tolist() == [True, False, True]
    alone = MEASURES[name].run(MAP, LEFT)
    assert found.means() == pytest.approx((alone.values.item(), alone.chance.item(), 1))
    value, chance, count = MEASURES[name].run(MAP, torch.ones_like(LEFT)).means()
    assert math.isnan(value)
    assert math.isnan(chance)
    assert count == 0
    assert localize(MAP.expand(3, -1, -1), masks).left_out == (0, 2)


def test_no_images():
    found = localize(torch.zeros(0, 2, 3), torch.zeros(0, 2, 3, dtype=torch.bool), measures=MEASURES, tolerance=3)
    assert all(score.values.shape == (0,) for score in found.scores.values())


# Tolerance


def test_tolerance_by_hand():
    """The greatest value is two pixels to the right of the mask, and one below and one right of the other."""
    maps = one([[0.0, 0, 9, 0], [0, 0, 0, 0]])
    right = mask(["x...", "...."])
    below = mask(["....", ".x.."])
    assert [pointing_game(maps, right, tolerance=t).values.item() for t in (0, 1, 1.9, 2)] == [0, 0, 0, 1]
    assert [pointing_game(maps, below, tolerance=t).values.item() for t in (0, 1, 1.4, 1.5)] == [0, 0, 0, 1]
    assert pointing_game(maps, right, tolerance=1).chance.item() == pytest.approx(3 / 8)
    everything = pointing_game(maps, right, tolerance=9)
    assert everything.values.isnan()  # it cannot be lost
    assert everything.chance.isnan()
    found = localize(maps, right, tolerance=2)
    assert found.scores["pointing"].values.item() == 1
    assert found.scores["energy"].values.item() == 0
    assert found.sentences() == (
        "a hit of the pointing game may lie 2 pixels outside of the mask, in pixels of the model's input",
    )
    two = localize(maps.expand(2, -1, -1), torch.cat([right, mask(["xxx.", "xxxx"])]), tolerance=2)
    assert two.sentences()[1:] == (
        "pointing is of 1 of 2 images: in 1 a hit may lie anywhere, as the tolerance reaches all of the image",
    )


@pytest.mark.parametrize("tolerance", [0, 1, 2.5, 4])
def test_tolerance_is_a_distance_between_pixels(tolerance):
    maps, masks = random_maps(12)
    masks &= torch.from_numpy(np.random.default_rng(1).random(masks.shape) < 0.2)
    masks[:, 0, 0] = True
    found = pointing_game(maps, masks, tolerance=tolerance)
    for image in range(12):
        tops = np.argwhere((maps[image] == maps[image].max()).numpy())
        inside = np.argwhere(masks[image].numpy())
        hits = cdist(tops, inside).min(axis=1) <= tolerance
        if not found.values[image].isnan():
            assert found.values[image].item() == pytest.approx(hits.mean())
    assert not found.values.isnan().all()


@pytest.mark.parametrize("tolerance", [-1, float("nan")])
def test_a_tolerance_that_is_none(tolerance):
    with pytest.raises(UsageError, match="tolerance is a distance in pixels, 0 or more"):
        pointing_game(MAP, LEFT, tolerance=tolerance)


# Against others


def test_against_scikit_learn():
    maps, masks = random_maps(30)
    best, mean, energy = best_iou(maps, masks), mean_iou(maps, masks), energy_inside(maps, masks)
    for image in range(30):
        values, inside = maps[image].clamp(min=0).flatten().numpy(), masks[image].flatten().numpy()
        ious = [jaccard_score(inside, values >= threshold) for threshold in np.unique(values)]
        assert best.values[image].item() == pytest.approx(max(ious))
        both = jaccard_score(inside, values > values.mean(), average=None)
        assert mean.values[image].item() == pytest.approx(both.mean())
        assert energy.values[image].item() == pytest.approx(np.average(inside, weights=values))


def test_own_area_against_scikit_learn():
    draw = np.random.default_rng(0)
    maps, masks = torch.from_numpy(draw.random((20, 9, 11))), random_maps(20)[1]
    found = iou_at_own_area(maps, masks)
    for image in range(20):
        values, inside = maps[image].flatten().numpy(), masks[image].flatten().numpy()
        taken = values >= np.sort(values)[::-1][inside.sum() - 1]
        assert taken.sum() == inside.sum()
        assert found.values[image].item() == pytest.approx(jaccard_score(inside, taken))


@pytest.mark.parametrize("name", ["pointing", "energy", "iou", "mean_iou"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_chance_is_what_random_pixels_get(name, share):
    draw = np.random.default_rng(0)
    maps = torch.from_numpy(draw.random((2000, 20, 20)))
    masks = torch.zeros(2000, 20, 20, dtype=torch.bool)
    masks[:, : int(20 * share)] = True
    value, chance, count = MEASURES[name].run(maps, masks).means()
    assert count == 2000
    assert value == pytest.approx(chance, abs=0.03 if name == "pointing" else 0.003)
    if name == "pointing":
        wide = pointing_game(maps, masks, tolerance=1.5).means()
        assert wide[1] == pytest.approx(share + 0.05)
        assert wide[0] == pytest.approx(wide[1], abs=0.03)


def test_no_map_is_below_the_level_of_the_best_threshold():
    maps, masks = random_maps(40)
    found = best_iou(maps, masks)
    assert (found.values >= found.chance - 1e-12).all()


@pytest.mark.parametrize("name", MEASURES)
def test_each_image_is_measured_alone(name):
    maps, masks = random_maps(8)
    together = MEASURES[name].run(maps.float(), masks)
    apart = [MEASURES[name].run(maps[i : i + 1].bfloat16(), masks[i : i + 1]) for i in range(8)]
    torch.testing.assert_close(together.values, torch.cat([each.values for each in apart]), equal_nan=True)
    assert together.values.dtype == torch.float64
    known = together.values[~together.values.isnan()]
    assert ((known >= 0) & (known <= 1)).all()


# What is refused


def test_what_is_refused():
    with pytest.raises(UsageError, match=r"not \(1, 2, 3\) and \(1, 4, 6\); give the maps on pixels"):
        localize(MAP, torch.zeros(1, 4, 6, dtype=torch.bool))
    with pytest.raises(UsageError, match=r"masks are bool, not torch\.int64; give masks > 0"):
        localize(MAP, LEFT.long())
    with pytest.raises(UsageError, match="no measure 'pointin'; did you mean 'pointing'"):
        localize(MAP, LEFT, measures=["pointin"])
    for value in (math.nan, math.inf):
        maps = torch.cat([MAP, MAP])
        maps[1, 0, 0] = value
        with pytest.raises(UsageError, match="the map of image 1 holds values that are no finite numbers"):
            energy_inside(maps, LEFT.expand(2, -1, -1))
    with pytest.raises(UsageError, match="give the maps on pixels"):
        best_iou(MAP[0], LEFT[0])


def test_only_what_was_asked_for_is_measured():
    found = localize(MAP, LEFT, measures=["energy", "energy"], tolerance=3)
    assert list(found.scores) == ["energy"]
    assert found.sentences() == ()
    assert list(localize(MAP, LEFT).scores) == list(DEFAULT)
