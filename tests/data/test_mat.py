"""SVHN's MATLAB files, written by scipy and read as torchvision reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz import damaged_versions, outcomes
from scipy.io import savemat
from source_files import write_folder

from patchlight.config import DataConfig
from patchlight.data.sources import list_source, load_source
from patchlight.data.sources.matlab import list_variables, read_variable
from patchlight.errors import PatchlightError


def pixels(count: int, seed: int = 0) -> np.ndarray:
    """(32, 32, 3, count), as SVHN has them."""
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)


def digits(count: int) -> np.ndarray:
    return (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]


def write_svhn(folder: Path, extra: bool = False, compressed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate({"train": 20, "test": 10, **({"extra": 30} if extra else {})}.items()):
        content = {"X": pixels(count, seed), "y": digits(count)}
        savemat(folder / f"{split}_32x32.mat", content, do_compression=compressed)
    return folder


@pytest.mark.parametrize("compressed", [True, False])
def test_svhn_as_torchvision_reads_it(compressed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import SVHN

    write_svhn(tmp_path, compressed=compressed)
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda *_: True)  # the checksum of the real files
    sets = load_source(str(tmp_path))
    assert list(sets) == ["train", "test"]
    for split, images in sets.items():
        theirs = SVHN(str(tmp_path), split=split)
        assert np.array_equal(images.images.numpy(), theirs.data)
        assert images.labels.tolist() == theirs.labels.tolist()
        assert images.class_names == tuple("0123456789")
        assert images.notes == (f"{tmp_path}: the label 10 is the digit 0, as in SVHN",)
    assert len(load_source(str(tmp_path / "train_32x32.mat"))["train"]) == 20


def test_extra_is_told_of_and_may_be_named(tmp_path: Path) -> None:
    write_svhn(tmp_path, extra=True)
    with pytest.raises(
        PatchlightError, match=r"30 of 60 images would be left out \(images of the split 'extra' \(data\.train"
    ):
        load_source(str(tmp_path))
    sets = load_source(str(tmp_path), train_split="extra", test_split="test")
    assert {key: len(images) for key, images in sets.items()} == {"train": 30, "test": 10}
    listing = list_source(DataConfig(source=str(tmp_path), train_split="train", test_split="test"))
    assert [(each.count, each.expected) for each in listing.left_out] == [(30, True)]


def test_files_of_another_kind(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"images": pixels(4), "y": digits(4)},
            "no array of images called X, .* but images, y, and is not",
        ),
        ({}, "no array of images called X, as SVHN's files have, but nothing"),
        ({"annotations": digits(4)}, "called X, .* but annotations, and is not read; for image files, a list"),
        ({"X": pixels(4)}, "no array of labels called y"),
        ({"X": pixels(4).astype(float), "y": digits(4)}, r"X is float64 \(32, 32, 3, 4\), not uint8"),
        ({"X": pixels(4).transpose(3, 0, 1, 2), "y": digits(4)}, "X is uint8 .*, not uint8"),
        ({"X": pixels(4), "y": digits(3)}, "has 4 images and 3 labels"),
        ({"X": pixels(4), "y": np.eye(4, 3) * 0}, "multi-label"),
        ({"X": pixels(4), "y": digits(4) + 0.5}, "a label is text or a whole number"),
        ({"X": pixels(4), "y": np.array([{}] * 4, dtype=object)}, "y does not hold numbers"),
    ]
    path = tmp_path / "train_32x32.mat"
    for content, message in cases:
        savemat(path, content)
        with pytest.raises(PatchlightError, match=message):
            load_source(str(path))
    for head in (
        b"MATLAB 7.3 MAT-file, Platform: GLNXA64 HDF5 schema 1.00 .".ljust(512),
        b"\x89HDF\r\n\x1a\n" + bytes(600),
    ):
        path.write_bytes(head)
        with pytest.raises(PatchlightError, match=r"is of MATLAB 7\.3 \(HDF5\), which is not read; save it with '-v7'"):
            load_source(str(path))


@pytest.mark.parametrize("compressed", [True, False])
def test_arrays_of_all_kinds_are_scipys(compressed: bool, tmp_path: Path) -> None:
    from scipy.io import loadmat, whosmat

    draw = np.random.default_rng(0)
    content: dict[str, Any] = {
        kind: draw.integers(0, 100, (3, 1, 5)).astype(kind) for kind in ("i1 u1 i2 u2 i4 u4 i8 u8 f4 f8".split())
    }
    content |= {"one": 7, "empty": np.zeros((0, 3)), "text": "words", "cell": np.array([{}, 1], dtype=object)}
    content |= {"complex": np.array([1j]), "a_name_that_is_longer_than_others": np.eye(2), "struct": {"a": 1}}
    savemat(tmp_path / "all.mat", content, do_compression=compressed)
    found, theirs = list_variables(tmp_path / "all.mat"), loadmat(tmp_path / "all.mat")
    shapes = {name: shape for name, shape, kind in whosmat(tmp_path / "all.mat") if kind != "char"}
    assert {name: own.shape for name, own in found.items() if name != "text"} == shapes
    assert {name for name, own in found.items() if own.dtype is None} == {"text", "cell", "complex", "struct"}
    for name, variable in found.items():
        if variable.dtype is not None:
            values = read_variable(tmp_path / "all.mat", variable)
            assert values.dtype == theirs[name].dtype.newbyteorder("=")
            assert np.array_equal(values, theirs[name])


def test_a_class_that_may_be_none_is_told_of(tmp_path: Path) -> None:
    savemat(tmp_path / "train.mat", {"X": pixels(4), "y": np.array([[-1, 0, 1, -1]])})
    assert "'y' has the class -1; if that means no label" in load_source(str(tmp_path))["train"].notes[0]


def test_mat_files_beside_class_folders_are_about_something_else(tmp_path: Path) -> None:
    write_folder(tmp_path, ["ant", "bee"])
    savemat(tmp_path / "imagelabels.mat", {"labels": digits(4)})
    assert load_source(str(tmp_path))["train"].class_names == ("ant", "bee")


def test_the_cache_notices_changed_files(tmp_path: Path) -> None:
    write_svhn(tmp_path)
    load_source(str(tmp_path), memory_limit_mb=0)
    savemat(tmp_path / "train_32x32.mat", {"X": pixels(20, 9), "y": digits(20)})
    found = load_source(str(tmp_path), memory_limit_mb=0)["train"].gather(range(20))[0]
    assert torch.equal(found, torch.from_numpy(pixels(20, 9).transpose(3, 2, 0, 1).copy()))


def damaged(folder: Path, count: int, seed: int) -> None:
    for compressed in (True, False):
        path = write_svhn(folder, compressed=compressed) / "test_32x32.mat"
        whole = path.read_bytes()
        assert outcomes(path, damaged_versions(whole, count, seed, front=400))["refused"] > count / 4


def test_damaged_mat_files_end_in_a_sentence(tmp_path: Path) -> None:
    damaged(tmp_path, 40, 0)


@pytest.mark.fuzz
def test_many_damaged_mat_files_end_in_a_sentence(tmp_path: Path) -> None:
    damaged(tmp_path, 800, 1)
