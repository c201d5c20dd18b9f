"""Maps over images: their scales of colours, worked out by hand; pixels that stay pixels; masks, marks and paths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats

from patchlight.errors import UsageError
from patchlight.figures import overlays
from patchlight.figures.overlays import map_scale, overlay, stretched

RNG = np.random.default_rng(0)
GREY = np.full((8, 8, 3), 128, np.uint8)
LUMA = np.array([0.299, 0.587, 0.114])


def test_an_unsigned_map_goes_from_its_least_to_its_greatest_value():
    assert stretched([[-2.0, 0.0], [2.0, 6.0]]).tolist() == [[0, 0.25], [0.5, 1]]
    assert stretched(np.full((2, 2), 7.0)).tolist() == [[0, 0], [0, 0]]  # no place is the greatest


def test_zero_is_the_middle_of_a_signed_map_and_both_signs_have_one_scale():
    assert stretched([[-2.0, 0.0], [1.0, 4.0]], signed=True).tolist() == [[0.25, 0.5], [0.625, 1]]
    assert stretched([[-4.0, 1.0]], signed=True).tolist() == [[0, 0.625]]  # the limit is that of the greater side
    assert stretched([[3.0, 3.0]], signed=True).tolist() == [[1, 1]]  # no difference, but not nothing
    assert stretched([[0.0, 0.0]], signed=True).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("percentile", [50, 90, 99.5])
def test_what_is_beyond_the_percentile_is_clipped(percentile):
    values = RNG.normal(size=(17, 13))
    high = stats.scoreatpercentile(values, percentile)
    expected = np.clip((values - values.min()) / (high - values.min()), 0, 1)
    np.testing.assert_allclose(stretched(values, percentile=percentile), expected, atol=1e-12)
    limit = stats.scoreatpercentile(np.abs(values), percentile)
    expected = np.clip((values / limit + 1) / 2, 0, 1)
    np.testing.assert_allclose(stretched(values, signed=True, percentile=percentile), expected, atol=1e-12)


def test_a_map_whose_percentile_is_its_least_value_keeps_what_is_beyond():
    values = np.zeros((10, 10))
    values[3, 4], values[5, 6] = 2.0, -1.0
    assert stretched(np.abs(values), percentile=90).sum() == 2
    signed = stretched(values, signed=True, percentile=90)
    assert (signed[3, 4], signed[5, 6], signed[0, 0]) == (1, 0, 0.5)


@pytest.mark.parametrize("percentile", [49.9, 100.1, -1, float("nan")])
def test_a_percentile_has_a_range(percentile):
    for call in (lambda: stretched(np.eye(2), percentile=percentile), lambda: map_scale(percentile=percentile)):
        with pytest.raises(UsageError, match=r"percentile is .*; give one from 50 to 100"):
            call()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_map_of_no_numbers_is_refused(wrong):
    values = np.ones((4, 4))
    values[1, 1] = wrong
    with pytest.raises(UsageError, match="1 of 16 values of a map are nan or infinite"):
        overlay(GREY, values)


def test_the_scale_says_what_its_ends_mean_and_what_is_clipped():
    assert [word for _, word in map_scale().marks] == ["least", "most"]
    signed = map_scale(signed=True)
    assert list(signed.marks) == [(0, "against"), (0.5, "0"), (1, "for")]
    assert map_scale().about == signed.about == ""
    assert map_scale(percentile=99).about.replace("\N{NO-BREAK SPACE}", " ") == "brightest 1 % clipped"
    assert map_scale(percentile=99.95).about.startswith("brightest 0.05")
    clipped = map_scale(signed=True, percentile=99.5, ends=("for dog", "for cat"))
    assert clipped.about.replace("\N{NO-BREAK SPACE}", " ") == "strongest 0.5 % clipped"
    assert clipped.marks[0][1] == "for dog"


def test_both_ends_are_equally_dark_and_the_middle_has_no_hue():
    against, nothing, for_it = overlays.colours_of([0.0, 0.5, 1.0], overlays.FOR_AND_AGAINST)
    assert np.ptp(nothing) <= 2
    assert nothing.min() > 240
    assert against[2] > 2 * against[0]
    assert for_it[0] > 2 * for_it[2]
    assert abs(float(against @ LUMA) - float(for_it @ LUMA)) < 15


def test_for_is_red_against_is_blue_and_zero_is_neither():
    values = np.zeros((8, 8))
    values[1, 1], values[6, 6] = 3.0, -3.0
    out = overlay(GREY, values, signed=True, side=8).astype(int)
    assert out[1, 1, 0] > out[1, 1, 2] + 80
    assert out[6, 6, 2] > out[6, 6, 0] + 80
    assert np.ptp(out[4, 4]) <= 2
    values[1, 1] = 30  # then the other one is next to nothing
    assert np.ptp(overlay(GREY, values, signed=True, side=8)[6, 6].astype(int)) < 60


def test_beside_a_strong_patch_there_is_no_sign_that_the_map_has_not():
    values = np.zeros((4, 4))
    values[1, 2] = 1.0
    out = overlay(np.full((32, 32, 3), 128, np.uint8), values, signed=True).astype(int)
    assert (out[..., 0] >= out[..., 2] - 1).all()
    assert (out[..., 0] > out[..., 2] + 40).any()


@pytest.mark.parametrize("signed", [False, True])
def test_a_map_of_the_images_size_is_drawn_in_pixels(signed):
    image = RNG.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    pixels, patches = RNG.normal(size=(16, 24)), RNG.normal(size=(4, 6))
    crisp = overlay(image, pixels, signed=signed, side=96)
    assert crisp.shape == (64, 96, 3)
    blocks = crisp.reshape(16, 4, 24, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    smooth = overlay(np.full((16, 24, 3), 128, np.uint8), patches, signed=signed, side=96).reshape(16, 4, 24, 4, 3)
    assert not (smooth == smooth[:, :1, :, :1]).all()
    forced = overlay(image, patches, signed=signed, side=96, crisp=True).reshape(16, 4, 24, 4, 3)
    assert (forced == forced[:, :1, :, :1]).all()
    assert (overlay(image, pixels, signed=signed, side=96, crisp=False) != crisp).any()


def test_a_map_of_more_pixels_than_the_image_keeps_them():
    image, values = np.zeros((8, 8, 3), np.uint8), RNG.normal(size=(56, 56))
    out = overlay(image, values, side=20)
    assert out.shape == (56, 56, 3)
    np.testing.assert_array_equal(out, (0.6 * overlays.heat(stretched(values))).round().astype(np.uint8))


def test_enlarging_is_repeating():
    array = RNG.integers(0, 256, (3, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(overlays.enlarged(array, (12, 20)), array.repeat(4, axis=0).repeat(4, axis=1))
    assert overlays.canvas(np.zeros((3, 5, 3)), 18) == (12, 20)
    assert overlays.canvas(np.zeros((300, 200, 3)), 192) == (300, 200)


def test_the_edge_of_a_mask_is_its_rim_and_not_the_pictures_border():
    picture, mask = RNG.integers(10, 200, (96, 96, 3), dtype=np.uint8), np.zeros((96, 96), bool)
    mask[20:60, 50:] = True
    out = overlays.outlined(picture, mask)
    rim = mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=1)
    np.testing.assert_array_equal((out == overlays.LINE).all(axis=2), rim)
    assert not rim[30:50, 95].any()
    far = ~ndimage.binary_dilation(rim, np.ones((5, 5)))
    np.testing.assert_array_equal(out[far], picture[far])
    np.testing.assert_array_equal(overlays.outlined(picture, np.ones((4, 4), bool)), picture)
    np.testing.assert_array_equal(overlays.outlined(picture, np.zeros((4, 4), bool)), picture)


def test_outside_of_a_mask_an_image_is_dim_and_grey():
    image, mask = RNG.integers(0, 256, (96, 96, 3), dtype=np.uint8), np.zeros((4, 4), bool)
    mask[:, :2] = True
    out = overlays.within_mask(image, mask, side=96)
    np.testing.assert_array_equal(out[:, :40], image[:, :40])
    assert (np.ptp(out[:, 60:].astype(int), axis=2) == 0).all()
    assert np.ptp(out[:, 60:].astype(int)) < 100
    np.testing.assert_array_equal(overlays.within_mask(image, np.ones((4, 4), bool), side=96), image)


def test_a_path_has_dots_lines_and_gaps():
    picture, red, blue = np.full((100, 100, 3), 90, np.uint8), (255, 0, 0), (0, 0, 255)
    out = overlays.with_path(picture, [(0.2, 0.2), (0.2, 0.8), None, (0.8, 0.8)], [red, blue, red, red])
    assert tuple(out[20, 20]) == red
    assert tuple(out[20, 80]) == blue
    assert tuple(out[20, 50]) == blue  # of the place where the line ends
    assert tuple(out[80, 80]) == red
    assert (out[50] == 90).all()  # nothing leads from the second place to the last
    assert picture.max() == 90


def test_places_of_patches():
    assert overlays.middle_of(0, (2, 4)) == (0.25, 0.125)
    assert overlays.middle_of(7, (2, 4)) == (0.75, 0.875)


def test_a_frame_is_around_the_patch_that_is_named():
    large = overlays.marked(np.full((8, 12, 3), 100, np.uint8), (2, 3), (1, 2))
    rows, columns = np.nonzero(large[..., 0] != 100)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 31, 32, 47)
    odd = overlays.marked(np.full((50, 50, 3), 100, np.uint8), (4, 4), (0, 0))  # patches of 12.5 pixels
    rows, columns = np.nonzero(odd[..., 0] != 100)
    assert odd.shape == (100, 100, 3)
    assert (rows.max(), columns.max()) == (24, 24)


@pytest.mark.parametrize("signed", [False, True])
def test_a_map_lies_where_its_patches_are(signed):
    """Of 40 pixels two patches of 16 cover 32; filled up to 48, three patches do."""
    image, few, many = RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8), RNG.normal(size=(2, 2)), RNG.random((3, 3))
    for crisp in (True, False):
        out = overlay(image, few, signed=signed, crisp=crisp, side=40, covered=(0.8, 0.8))
        alone = overlay(image[:32, :32], few, signed=signed, crisp=crisp, side=32)
        np.testing.assert_array_equal(out[:32, :32], alone)
        flat = np.full((40, 40, 3), 90, np.uint8)
        even = overlay(flat, few, signed=signed, crisp=crisp, side=40, covered=(0.8, 0.8))
        np.testing.assert_array_equal(even[32:], even[31:32].repeat(8, axis=0))  # the nearest value
        np.testing.assert_array_equal(even[:, 32:], even[:, 31:32].repeat(8, axis=1))
        out = overlay(image, many, signed=signed, crisp=crisp, side=40, covered=(1.2, 1.2))
        filled = overlay(np.pad(image, ((0, 8), (0, 8), (0, 0))), many, signed=signed, crisp=crisp, side=48)
        np.testing.assert_array_equal(out, filled[:40, :40])


def test_frames_dots_and_masks_lie_where_patches_are():
    image, mask = np.full((40, 40, 3), 100, np.uint8), np.zeros((2, 2), bool)
    large = overlays.marked(image, (2, 2), (1, 1), covered=(0.8, 0.8))
    rows, columns = np.nonzero(large[..., 0] != 100)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 31, 16, 31)
    large = overlays.marked(image, (3, 3), (2, 0), covered=(1.2, 1.2))
    rows, columns = np.nonzero(large[..., 0] != 100)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (32, 39, 0, 15)
    assert overlays.middle_of(3, (2, 2), (0.8, 0.8)) == pytest.approx((0.6, 0.6))
    assert overlays.middle_of(8, (3, 3), (1.2, 1.2)) == pytest.approx((0.9, 0.9))  # of 32 to 40 of 40 pixels
    mask[:, 0] = True
    image[:] = (0, 100, 0)
    kept = np.ptp(overlays.within_mask(image, mask, side=40, covered=(0.8, 0.8)).astype(int), axis=2) == 100
    assert kept[:30, :14].all()
    assert not kept[33:].any()
    assert not kept[:, 16:].any()


def test_colours_of_patches_stand_where_patches_are():
    image, cells = np.zeros((40, 40, 3), np.uint8), RNG.integers(1, 256, (2, 2, 3), dtype=np.uint8)
    assert overlays.in_place(cells, image) is cells
    placed = overlays.in_place(cells, image, (0.8, 0.8), side=40)
    np.testing.assert_array_equal(placed[:32, :32, :3], cells.repeat(16, axis=0).repeat(16, axis=1))
    assert (placed[:32, :32, 3] == 255).all()
    assert not placed[32:, :, 3].any()  # clear
    assert not placed[:, 32:, 3].any()
    filled = overlays.in_place(cells, image, (1.2, 1.0), side=40)
    np.testing.assert_array_equal(filled[..., 3], 255)
    assert (filled[24:, 0, :3] == cells[1, 0]).all()


@pytest.mark.parametrize("signed", [False, True])
def test_a_map_that_says_nothing_looks_like_nothing(signed):
    zeros, even = np.zeros((4, 4)), np.full((4, 4), 0.25) * (1 + 1e-8 * RNG.normal(size=(4, 4)))
    assert overlays.says_nothing(zeros) == "no evidence"
    assert overlays.says_nothing(even) == "the same everywhere"  # but for rounding
    assert overlays.says_nothing(np.eye(4)) == overlays.says_nothing(-np.eye(4)) == ""
    picture = overlay(GREY, zeros, signed=signed)
    if signed:
        assert np.ptp(picture.astype(int), axis=2).max() <= 2
    else:
        least = overlay(GREY, np.eye(4), crisp=True)[0, -1]
        assert (picture == least).all()
        assert (overlay(GREY, even) == least).all()
