"""MNIST's idx files, as torchvision writes and reads them, and EMNIST's, which are transposed."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz import damaged_versions, outcomes

from patchlight.config import DataConfig
from patchlight.data.sources import list_source, load_source
from patchlight.errors import PatchlightError


def write_idx(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def grey(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 5, 5), dtype=np.uint8)


def write_set(folder: Path, prefix: str = "", dot: str = "-", gz: str = "", first: int = 0) -> Path:
    for split, count, seed in (("train", 6, 0), ("t10k" if not prefix else "test", 4, 1)):
        labels = (np.arange(count) % 3 + first).astype(np.uint8)
        write_idx(folder / f"{prefix}{split}-images{dot}idx3-ubyte{gz}", grey(count, seed))
        write_idx(folder / f"{prefix}{split}-labels{dot}idx1-ubyte{gz}", labels)
    return folder


def rgb(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values[:, None].repeat(3, axis=1))


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("gz", ["", ".gz"])
def test_mnist(dot: str, gz: str, tmp_path: Path) -> None:
    write_set(tmp_path, dot=dot, gz=gz)
    for source in (tmp_path, tmp_path / f"train-images{dot}idx3-ubyte{gz}"):
        sets = load_source(str(source))
        assert list(sets) == ["train", "test"]
        assert torch.equal(sets["train"].images, rgb(grey(6, 0)))
        assert torch.equal(sets["test"].images, rgb(grey(4, 1)))
        assert sets["train"].labels.tolist() == [0, 1, 2, 0, 1, 2]
        assert sets["train"].class_names == ("0", "1", "2")
        assert sets["train"].notes == ()


def test_torchvisions_folder_reads_alike(tmp_path: Path) -> None:
    from torchvision.datasets import MNIST

    raw = write_set(tmp_path / "MNIST" / "raw")
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):  # torchvision leaves what it downloaded
        (raw / f"{name}.gz").write_bytes(gzip.compress((raw / name).read_bytes()))
    for source in (tmp_path, tmp_path / "MNIST", raw):
        sets = load_source(str(source))
        for train, ours in ((True, sets["train"]), (False, sets["test"])):
            theirs = MNIST(str(tmp_path), train=train)
            assert torch.equal(ours.images[:, 0], theirs.data)
            assert torch.equal(ours.labels, theirs.targets)
        assert "not read, as it is there unpacked: train-images-idx3-ubyte.gz" in sets["train"].notes[0]


def test_emnist_is_turned_and_its_classes_named(tmp_path: Path) -> None:
    folder = write_set(tmp_path, prefix="emnist-letters-", gz=".gz", first=1)
    (folder / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n3 67 99\n4 68 100\n")
    sets = load_source(str(folder))
    assert torch.equal(sets["train"].images, rgb(grey(6, 0).transpose(0, 2, 1)))
    assert sets["train"].class_names == ("Aa", "Bb", "Cc")
    assert any("are turned" in note for note in sets["train"].notes)
    write_set(tmp_path, prefix="emnist-digits-", gz=".gz")
    with pytest.raises(
        PatchlightError, match=r"several sets of images; name one by a file of its images: .*digits-train"
    ):
        load_source(str(folder))
    one = load_source(str(folder / "emnist-digits-test-images-idx3-ubyte.gz"))
    assert one["train"].class_names == ("0", "1", "2")
    for text, message in (
        ("1 65\n", "no name for the label 2"),
        ("1 x", "no list of labels"),
        ("1 65\n2 65\n3 66", "one name"),
    ):
        (folder / "emnist-letters-mapping.txt").write_text(text)
        with pytest.raises(PatchlightError, match=message):
            load_source(str(folder / "emnist-letters-test-images-idx3-ubyte.gz"))


def test_a_test_without_labels_is_left_out_and_a_train_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    listing = list_source(DataConfig(source=str(tmp_path)))
    assert list(listing.splits) == ["train"]
    assert (listing.left_out[0].count, listing.left_out[0].expected) == (4, True)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(PatchlightError, match="train-images-idx3-ubyte has no labels beside it"):
        load_source(str(tmp_path))


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    write_set(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(5, np.uint8))
    with pytest.raises(PatchlightError, match="has 6 images and train-labels-idx1-ubyte 5 labels; get both again"):
        load_source(str(tmp_path))
    file = tmp_path / "train-labels-idx1-ubyte"
    for data, message in (
        (b"", "does not begin as an idx file does"),
        (b"\0\0\x0d\1" + struct.pack(">I", 6) + bytes(24), "holds type 13 in 1 dimensions"),
        (b"\0\0\x08\3" + bytes(18), "holds type 8 in 3 dimensions, not unsigned bytes"),
        (b"\0\0\x08\1" + struct.pack(">I", 6) + bytes(5), "its header says 6 of 1 bytes each, and 5 bytes follow"),
        (b"\0\0\x08\1" + struct.pack(">I", 6) + bytes(7), "its header says 6 of 1 bytes each, and 7 bytes follow"),
        (b"\0\0\x08\1" + struct.pack(">I", 0), r"gives the shape \(0,\)"),
    ):
        file.write_bytes(data)
        with pytest.raises(PatchlightError, match=message):
            load_source(str(tmp_path))
    write_set(tmp_path)
    write_idx(tmp_path / "test-labels.idx1-ubyte", np.zeros(5, np.uint8))
    with pytest.raises(PatchlightError, match="are the same split's labels; remove one"):
        load_source(str(tmp_path))


def test_the_cache_notices_changed_files(tmp_path: Path) -> None:
    write_set(tmp_path)
    load_source(str(tmp_path), memory_limit_mb=0)
    write_idx(tmp_path / "train-images-idx3-ubyte", grey(6, 9))
    assert torch.equal(load_source(str(tmp_path), memory_limit_mb=0)["train"].gather(range(6))[0], rgb(grey(6, 9)))


def damaged(root: Path, count: int, seed: int) -> None:
    for gz in ("", ".gz"):
        folder = write_set(root / f"set{gz}", prefix="emnist-a-", gz=gz)
        (folder / "emnist-a-mapping.txt").write_text("0 65\n1 66\n2 67\n")
        for name in (f"train-images-idx3-ubyte{gz}", f"test-labels-idx1-ubyte{gz}", "mapping.txt"):
            path = folder / f"emnist-a-{name}"
            whole = path.read_bytes()
            outcomes(path, damaged_versions(whole, count, seed, front=20), folder)
            path.write_bytes(whole)


def test_damaged_idx_files_end_in_a_sentence(tmp_path: Path) -> None:
    damaged(tmp_path, 20, 0)


@pytest.mark.fuzz
def test_many_damaged_idx_files_end_in_a_sentence(tmp_path: Path) -> None:
    damaged(tmp_path, 400, 1)
