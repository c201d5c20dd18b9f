"""Near copies across sets: found where an image was stored, sized or coloured anew, not where two resemble."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps

from patchlight.data.images import ImageSet
from patchlight.data.similar import details, near_duplicates
from patchlight.data.splits import load_splits

SIZE = 48


def scenes(count: int, seed: int) -> torch.Tensor:
    """Random pictures with coarse and fine structure, (N, 3, 48, 48) uint8."""
    draw = torch.Generator().manual_seed(seed)
    layers = [
        weight * F.interpolate(torch.rand(count, 3, side, side, generator=draw), size=(SIZE, SIZE), mode="bicubic")
        for side, weight in ((3, 0.5), (7, 0.35), (20, 0.25))
    ]
    return (255 * sum(layers).clamp(0, 1)).to(torch.uint8)  # type: ignore[union-attr]


def as_set(images: torch.Tensor) -> ImageSet:
    return ImageSet(images, torch.arange(len(images)) % 3, ("a", "b", "c"))


def image_of(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def pixels_of(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy())


def stored_again(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "stored as JPEG": stored_again,
    "resized": lambda image: image.resize((20, 20)).resize(image.size),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "grey": ImageOps.grayscale,
    "cut a little": lambda image: image.crop((1, 1, 47, 47)).resize(image.size),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found(change: str) -> None:
    train, test = scenes(60, 0), scenes(30, 1)
    copied = {4: 17, 20: 3}
    for at, source in copied.items():
        test[at] = pixels_of(CHANGES[change](image_of(train[source])))
    found = near_duplicates({"train": as_set(train), "test": as_set(test)})
    assert {pair.held_index: pair.seen_index for pair in found.pairs} == copied
    assert not any(pair.exact for pair in found.pairs)
    assert all(found.threshold["train-test"] <= pair.likeness < 1 for pair in found.pairs)


def test_exact_copies_are_told_apart_and_sets_compared_in_pairs() -> None:
    train, val, test = scenes(40, 0), scenes(20, 1), scenes(20, 2)
    val[3], test[5], test[6] = train[2], val[3], val[9]
    found = near_duplicates({"train": as_set(train), "val": as_set(val), "test": as_set(test)})
    told = {(pair.seen, pair.seen_index, pair.held, pair.held_index) for pair in found.pairs}
    assert told == {
        ("train", 2, "val", 3),
        ("train", 2, "test", 5),
        ("val", 3, "test", 5),
        ("val", 9, "test", 6),
    }
    assert all(pair.exact and pair.likeness == 1 for pair in found.pairs)
    assert [pair.held_index for pair in found.of("test")] == [5]


def test_flat_images_are_like_nothing() -> None:
    flat = torch.full((5, 3, SIZE, SIZE), 90, dtype=torch.uint8)
    assert details(flat).norm(dim=1).max() < 1e-3
    other = flat.clone()
    other[1] += 1
    other[0] = 3
    found = near_duplicates({"train": as_set(flat), "test": as_set(other)})
    assert sorted(pair.held_index for pair in found.pairs) == [2, 3, 4]  # the exact ones


def test_a_set_in_which_all_have_copies() -> None:
    """As where images were augmented before they were divided."""
    train = scenes(60, 0)
    test = torch.stack([pixels_of(stored_again(image_of(pixels))) for pixels in train[:30]])
    found = near_duplicates({"train": as_set(train), "test": as_set(test)})
    assert {pair.held_index: pair.seen_index for pair in found.pairs} == {i: i for i in range(30)}


def test_digits_of_one_class_resemble_and_are_no_copies() -> None:
    from patchlight.config import DataConfig

    found = near_duplicates(load_splits(DataConfig(source="digits")).sets)
    assert len(found.pairs) <= 2
    assert found.threshold["train-test"] > 0.9


def test_cifar10_has_near_copies(cifar10_parquet: Path) -> None:
    """Barz and Denzler 2020 ("Do we train on test data?") found them for 286 of the 10,000 test images."""
    known = {37082: 9186, 34116: 673}  # as the function found them in the whole sets
    train = of_cifar10(cifar10_parquet / "train-00000-of-00001.parquet", [*range(0, 50_000, 50), *known])
    test = of_cifar10(cifar10_parquet / "test-00000-of-00001.parquet", [*range(0, 10_000, 20), *known.values()])
    found = near_duplicates({"train": train, "test": test})
    assert {(500 + at, 1000 + at) for at in range(2)} <= {(p.held_index, p.seen_index) for p in found.pairs}
    assert len(found.pairs) < 20


def of_cifar10(file: Path, rows: list[int]) -> ImageSet:
    import pyarrow.parquet as pq

    images = pq.read_table(file, columns=["img"]).column("img").take(rows).to_pylist()
    return as_set(torch.stack([pixels_of(Image.open(io.BytesIO(image["bytes"]))) for image in images]))
