"""data.on_bad = "skip": images that cannot be read are left out, alike in memory and from the cache, and said."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from patchlight.config import DataConfig
from patchlight.data.audit import audit_source
from patchlight.data.images import BadFile, digest
from patchlight.data.sources import load_source
from patchlight.data.splits import load_splits
from patchlight.errors import PatchlightError
from patchlight.machine.process import cache_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train: 10 a, 10 b; test: 4 a, 4 b. Bad are train/a/3, train/b/7 and test/b/0."""
    for split, count in (("train", 10), ("test", 4)):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            for index in range(count):
                draw = np.random.default_rng([count, ord(label), index])
                pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / label / f"{index}.png")
    (tmp_path / "train" / "a" / "3.png").write_bytes(b"")
    (tmp_path / "train" / "b" / "7.png").write_bytes((tmp_path / "train" / "b" / "6.png").read_bytes()[:60])
    (tmp_path / "test" / "b" / "0.png").write_bytes(b"no image")
    return tmp_path


def test_the_others_are_kept_as_they_were(folder: Path) -> None:
    sets = {limit: load_source(str(folder), memory_limit_mb=limit, on_bad="skip") for limit in (64, 0)}
    again = load_source(str(folder), memory_limit_mb=0, on_bad="skip")
    assert len(list(cache_folder().glob("*.pixels"))) == 1
    for name, count in (("train", 18), ("test", 7)):
        kept = [found[name] for found in (*sets.values(), again)]
        assert [len(images) for images in kept] == [count] * 3
        assert len({digest(images) for images in kept}) == 1
        assert len({images.notes for images in kept}) == 1
        assert len({images.skipped for images in kept}) == 1
    train = sets[0]["train"]
    assert train.class_counts().tolist() == [9, 9]
    assert [(bad.split, bad.index) for bad in train.skipped] == [("train", 3), ("train", 17), ("test", 4)]
    assert all(isinstance(bad, BadFile) and bad.name.startswith(str(folder)) for bad in train.skipped)
    (note,) = train.notes
    assert note.startswith("left out, as data.on_bad is 'skip': 3 images that cannot be read: 'it is not an image file")
    assert str(folder / "train" / "a" / "3.png") in note
    for path in (folder / "train" / "a" / "3.png", folder / "train" / "b" / "7.png", folder / "test" / "b" / "0.png"):
        path.unlink()
    assert digest(load_source(str(folder))["train"]) == digest(train)  # the same as if they were not there
    assert torch.equal(load_source(str(folder))["test"].gather(range(7))[0], sets[0]["test"].gather(range(7))[0])


@pytest.mark.parametrize("limit", [64, 0])
def test_a_set_that_was_cached_with_skip_is_an_error_without(folder: Path, limit: int) -> None:
    load_source(str(folder), memory_limit_mb=limit, on_bad="skip")
    for _ in range(2):
        with pytest.raises(PatchlightError, match=r"train/a/3\.png: it is not .*; 3 of 28 images are bad"):
            load_source(str(folder), memory_limit_mb=limit)


def test_a_split_or_a_class_of_bad_images_is_an_error(folder: Path) -> None:
    def spoil(pattern: str) -> dict[Path, bytes]:
        before = {path: path.read_bytes() for path in folder.glob(pattern)}
        for path in before:
            path.write_bytes(b"nothing")
        return before

    for pattern, what in (
        ("test/*/*", "the split 'test'"),
        ("*/a/*", "the class 'a'"),
        ("train/b/*", "the training images of the class 'b'"),
        ("*/*/*", "the split 'train'"),
    ):
        before = spoil(pattern)
        for limit in (64, 0):
            with pytest.raises(PatchlightError, match=f"no image of {what} of .* can be read") as error:
                load_source(str(folder), memory_limit_mb=limit, on_bad="skip")
            assert "\n" not in str(error.value)
        for path, data in before.items():
            path.write_bytes(data)
    spoil("test/b/*")  # a class that has training images, and no test images that can be read
    assert load_source(str(folder), on_bad="skip")["test"].class_counts().tolist() == [4, 0]


def test_the_audit_agrees(folder: Path) -> None:
    refused = audit_source(str(folder))
    assert refused.trained_on is None
    assert len(refused.bad_files) == 3
    assert "left out by data.on_bad = 'skip'" in refused.problems[0]
    found = audit_source(str(folder), DataConfig(on_bad="skip"))
    splits = load_splits(DataConfig(source=str(folder), on_bad="skip"))
    assert found.trained_on is not None
    assert found.trained_on.train.images == len(splits.train)
    assert found.bad_files == splits.train.skipped == splits.test.skipped
    assert found.notes == splits.notes
    assert found.problems == ()


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    for label in (b"caf\xe9", b"the"):
        place = tmp_path / os.fsdecode(label)
        place.mkdir()
        for index in range(4):
            pixels = np.full((8, 8, 3), 10 * index + len(label), dtype=np.uint8)
            Image.fromarray(pixels).save(place / os.fsdecode(b"\xff%d.png" % index))
    (tmp_path / os.fsdecode(b"caf\xe9") / os.fsdecode(b"bad\xe9.png")).write_bytes(b"")
    images = load_source(str(tmp_path), on_bad="skip")["train"]
    assert images.class_names == ("caf\\udce9", "the")
    assert [bad.name.rpartition("/")[2] for bad in images.skipped] == ["bad\\udce9.png"]
    for text in (*images.notes, *images.class_names, *(bad.name for bad in images.skipped)):
        text.encode()
    with pytest.raises(PatchlightError, match=r"bad\\udce9\.png: it is not an image"):
        load_source(str(tmp_path))


@pytest.mark.parametrize("limit", [64, 0])
def test_reading_shows_how_far_it_is(folder: Path, limit: int, monkeypatch, capsys) -> None:
    monkeypatch.setattr("patchlight.progress.LINE_EVERY_S", 0.0)
    load_source(str(folder), memory_limit_mb=limit, on_bad="skip")
    assert "reading images 28/28  3 bad  0:00 left\n" in capsys.readouterr().err
    audit_source(str(folder))
    lines = capsys.readouterr().err.splitlines()
    assert "looking at images 1/28" in lines[0]
    assert "looking at images 28/28  3 bad" in lines[-1]
