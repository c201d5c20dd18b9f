"""The official CIFAR files: checksums first, no foreign pickle, nothing extracted."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_files import official, official_pixels, pack, pixels_of

from patchlight.data.images import ImageSet
from patchlight.data.sources import cifar, load_source
from patchlight.errors import PatchlightError


def check_official(sets: dict[str, ImageSet], layout: cifar.Layout) -> None:
    assert list(sets) == ["train", "test"]
    for split, files in (("train", layout.train), ("test", layout.test)):
        assert sets[split].class_names == ("ant", "bee", "cow")
        assert sets[split].labels.tolist() == [2, 0, 1, 1] * len(files)
        assert np.array_equal(pixels_of(sets[split]).numpy(), np.concatenate([official_pixels(n) for n in files]))


@pytest.mark.parametrize("layout", cifar.LAYOUTS, ids=lambda layout: layout.title)
def test_checksums_are_torchvisions(layout: cifar.Layout) -> None:
    from torchvision.datasets import CIFAR10, CIFAR100

    theirs = {"CIFAR-10": CIFAR10, "CIFAR-100": CIFAR100}[layout.title]
    assert layout.archive == (theirs.filename, theirs.tgz_md5)
    assert layout.folder == theirs.base_folder
    assert list(layout.train.items()) == [tuple(row) for row in theirs.train_list]
    assert list(layout.test.items()) == [tuple(row) for row in theirs.test_list]
    assert layout.meta == {theirs.meta["filename"]: theirs.meta["md5"]}
    assert layout.names_key == theirs.meta["key"]


@pytest.mark.parametrize("number", [0, 1])
def test_official_files_as_folder_parent_and_archive(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = pack(tmp_path, official(tmp_path, cifar.LAYOUTS[number]))
    monkeypatch.setattr(cifar, "LAYOUTS", (layout,))
    for path in (tmp_path / layout.folder, tmp_path, tmp_path / layout.archive[0]):
        check_official(load_source(str(path)), layout)


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_tampered_file_is_refused_before_it_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = pack(tmp_path, official(tmp_path, cifar.LAYOUTS[0]))
    monkeypatch.setattr(cifar, "LAYOUTS", (layout,))
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    pickle.loads(trap).close()
    assert (tmp_path / "sprung").exists(), "the trap works"
    (tmp_path / "sprung").unlink()
    for name in layout.files:
        path = tmp_path / layout.folder / name
        kept = path.read_bytes()
        path.write_bytes(trap)
        with pytest.raises(PatchlightError, match=f"{name} is not CIFAR-10's official file"):
            load_source(str(tmp_path / layout.folder))
        path.write_bytes(kept)
    (tmp_path / layout.folder / "test_batch").write_bytes(trap)
    pack(tmp_path, layout)
    with pytest.raises(PatchlightError, match="is no official CIFAR archive or is damaged"):
        load_source(str(tmp_path / layout.archive[0]))
    assert not (tmp_path / "sprung").exists()


def test_a_trap_with_the_right_checksum_does_not_spring_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    layout = pack(tmp_path, official(tmp_path, cifar.LAYOUTS[0], {"test_batch": trap}))
    monkeypatch.setattr(cifar, "LAYOUTS", (layout,))
    for path in (tmp_path / layout.folder, tmp_path / layout.archive[0]):
        with pytest.raises(PatchlightError, match=r"test_batch is no pickle of arrays: it names (io|_io)\.open"):
            load_source(str(path))
    assert not (tmp_path / "sprung").exists()


def test_other_contents_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content, message in (
        ("shape", {"data": np.zeros((4, 3071), dtype=np.uint8), "labels": [0] * 4}, "not rows of 3072 uint8"),
        ("kind", [1, 2], "holds a list, not a dictionary"),
    ):
        layout = official(tmp_path / name, cifar.LAYOUTS[0], {"test_batch": pickle.dumps(content, protocol=2)})
        with monkeypatch.context() as patch:
            patch.setattr(cifar, "LAYOUTS", (layout,))
            with pytest.raises(PatchlightError, match=message):
                load_source(str(tmp_path / name))


def test_an_archive_is_never_extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members with absolute names, with "..", and links: nothing is written, and links are no files."""
    layout = official(tmp_path / "source", cifar.LAYOUTS[0])
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in layout.files:
            if name != "test_batch":
                archive.add(tmp_path / "source" / layout.folder / name, f"{layout.folder}/{name}")
        for name in (str(tmp_path / "absolute"), "../above"):
            archive.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo(f"{layout.folder}/test_batch")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "source" / layout.folder / "test_batch")
        archive.addfile(link)
    layout = replace(layout, archive=("x", hashlib.md5(path.read_bytes()).hexdigest()))
    monkeypatch.setattr(cifar, "LAYOUTS", (layout,))
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(PatchlightError, match="has no file cifar-10-batches-py/test_batch"):
        load_source(str(path))
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_cut_archive_and_a_missing_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = pack(tmp_path, official(tmp_path, cifar.LAYOUTS[0]))
    path = tmp_path / layout.archive[0]
    path.write_bytes(path.read_bytes()[:-500])
    cut = replace(layout, archive=("x", hashlib.md5(path.read_bytes()).hexdigest()))
    monkeypatch.setattr(cifar, "LAYOUTS", (cut,))
    with pytest.raises(PatchlightError, match=r"cannot be unpacked|has no file"):
        load_source(str(path))
    (tmp_path / layout.folder / "data_batch_4").unlink()
    with pytest.raises(PatchlightError, match=r"cannot read .*data_batch_4"):
        load_source(str(tmp_path / layout.folder))
