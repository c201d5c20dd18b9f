"""ImageSet: what it accepts, that selections share pixels, and that statistics agree with NumPy in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from patchlight.data.images import ImageSet, channel_stats, content_hash, digest, overlap
from patchlight.errors import PatchlightError

NAMES = ("a", "b", "c")


def make_set(count: int = 30, size: tuple[int, int] = (4, 5), seed: int = 0) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)
    return ImageSet(images, torch.arange(count) % 3, NAMES)


def test_length_size_and_counts() -> None:
    images = make_set(31)
    assert len(images) == 31
    assert images.image_size == (4, 5)
    assert images.class_counts().tolist() == [11, 10, 10]
    assert ImageSet(images.images[:0], images.labels[:0], NAMES).class_counts().tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "indices", [[3, 0, 3], torch.tensor([3, 0, 3]), np.array([3, 0, 3]), torch.tensor([3, 0, 3], dtype=torch.int32)]
)
def test_gather_takes_any_row_of_whole_numbers(indices: object) -> None:
    images = make_set()
    pixels, labels = images.gather(indices)  # type: ignore[arg-type]
    assert torch.equal(pixels, images.images[[3, 0, 3]])
    assert labels.tolist() == [0, 0, 0]
    assert pixels.dtype == torch.uint8
    assert labels.dtype == torch.int64


def test_gather_returns_copies() -> None:
    images = make_set()
    before = images.images.clone()
    pixels, labels = images.gather(range(len(images)))
    pixels.zero_()
    labels.fill_(2)
    assert torch.equal(images.images, before)
    assert images.labels.tolist()[:4] == [0, 1, 2, 0]


def test_gather_nothing() -> None:
    pixels, labels = make_set().gather([])
    assert pixels.shape == (0, 3, 4, 5)
    assert labels.shape == (0,)


def test_a_digest_tells_sets_apart() -> None:
    images = make_set()
    assert digest(images) == digest(images.select(range(len(images))))
    changed = images.images.clone()
    changed[3, 1, 2, 2] ^= 1
    others = [replace(images, images=changed), images.select(range(len(images) - 1)), images.select([1, 0])]
    others.append(replace(images, labels=images.labels.flip(0)))
    assert len({digest(other) for other in [images, *others]}) == 5


@pytest.mark.parametrize("indices", [[30], [-1], [0.5], [[1, 2]], torch.tensor([True, False])])
def test_gather_refuses_what_is_no_item(indices: object) -> None:
    with pytest.raises(PatchlightError, match=r"out of range|whole numbers"):
        make_set().gather(indices)  # type: ignore[arg-type]


def test_selections_of_selections_share_the_pixels() -> None:
    images = make_set()
    once = images.select([5, 9, 1, 20])
    twice = once.select([3, 0])
    assert twice.images.data_ptr() == images.images.data_ptr()
    assert torch.equal(twice.gather([0, 1])[0], images.images[[20, 5]])
    assert twice.labels.tolist() == [20 % 3, 5 % 3]
    assert len(twice) == 2
    assert torch.equal(torch.cat(list(once.chunks(3))), images.images[[5, 9, 1, 20]])


def test_a_selection_keeps_its_own_rows() -> None:
    rows = torch.tensor([1, 2])
    chosen = make_set().select(rows)
    rows[0] = 7
    assert chosen.rows is not None
    assert chosen.rows.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 3, 4, 4)}, "uint8"),
        ({"images": torch.zeros(2, 4, 4, 3, dtype=torch.uint8)}, "shape"),
        ({"images": torch.zeros(2, 3, 0, 4, dtype=torch.uint8)}, "shape"),
        ({"images": torch.zeros(3, 3, 4, 4, dtype=torch.uint8)}, "3 images and 2 labels"),
        ({"labels": torch.tensor([0, 3])}, "labels: 3 is out of range; there are 3 class names"),
        ({"labels": torch.tensor([0, -1])}, "-1 is out of range"),
        ({"labels": torch.tensor([0, 1], dtype=torch.int32)}, "int64"),
        ({"labels": torch.tensor([[0, 1]])}, "one-dimensional"),
        ({"rows": torch.tensor([0, 2])}, "rows: 2 is out of range; there are 2 images"),
        ({"rows": torch.tensor([0])}, "1 images and 2 labels"),
        ({"class_names": ("a", "b", "a")}, "class name 'a' twice"),
    ],
)
def test_wrong_parts_are_refused(change: dict[str, object], message: str) -> None:
    parts = {"images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "labels": torch.tensor([0, 1]), "class_names": NAMES}
    ImageSet(**parts)  # type: ignore[arg-type]
    with pytest.raises(PatchlightError, match=message):
        ImageSet(**(parts | change))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_channel_stats_agree_with_numpy(seed: int) -> None:
    images = make_set(700 + seed, (6, 3), seed).select(range(0, 700, 1 + seed))
    mean, std = channel_stats(images)
    pixels = images.gather(range(len(images)))[0].numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 2, 3)), rtol=1e-13)


def test_channel_stats_of_flat_colour_are_exact() -> None:
    flat = torch.tensor([255, 0, 51], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(400, 3, 2, 2)
    assert channel_stats(ImageSet(flat, torch.zeros(400, dtype=torch.int64), NAMES)) == ((1, 0, 0.2), (0, 0, 0))


def test_channel_stats_of_nothing() -> None:
    with pytest.raises(PatchlightError, match="without images"):
        channel_stats(make_set().select([]))


def test_content_hash_knows_shape_and_pixels() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    other = pixels.copy()
    other[1, 3, 2] += 1
    keys = {content_hash(p) for p in (pixels, other, pixels.reshape(4, 2, 3), pixels.copy())}
    assert len(keys) == 3
    assert len(make_set(7).hashes) == 7


def test_overlap_finds_every_planted_twin() -> None:
    a, b = make_set(400, seed=1), make_set(350, seed=2)
    assert overlap(a, b) == []
    pixels = b.images.clone()
    pixels[340], pixels[3] = a.images[399], a.images[7]
    b = replace(b, images=pixels)
    assert overlap(a, b) == [(7, 3), (399, 340)]
    assert overlap(a.select([7, 8]), b) == [(0, 3)]
