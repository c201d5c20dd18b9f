"""Archives: unpacked once and safely, found again, and refused in one sentence where they are damaged or do harm."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz import damaged_versions, outcomes
from source_files import official, pack, picture, write_folder, write_parquet

from patchlight.config import DataConfig
from patchlight.data import tars, unpack
from patchlight.data.cache import cache_folder
from patchlight.data.sources import cifar, list_source, load_source
from patchlight.data.splits import load_splits
from patchlight.data.unpack import unpacked
from patchlight.errors import PatchlightError

SUFFIXES = ("zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz")
MODES = {"tar": "w", "tar.gz": "w:gz", "tgz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}


def packed(path: Path, folder: Path, inside: str = "") -> Path:
    """The folder's files as an archive, below `inside`."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, f"{inside}{file.relative_to(folder)}")
    else:
        with tarfile.open(path, MODES[path.name.split(".", 1)[1]]) as archive:
            for file in files:
                archive.add(file, f"{inside}{file.relative_to(folder)}")
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for split, seed in (("train", 0), ("test", 50)):
        write_folder(tmp_path / "pets" / split, ["ant", "bee"], seed=seed)
    return tmp_path / "pets"


def same(one: dict, other: dict) -> None:
    assert list(one) == list(other)
    for key, images in one.items():
        assert images.class_names == other[key].class_names
        assert torch.equal(images.images, other[key].images)
        assert torch.equal(images.labels, other[key].labels)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("inside", ["", "pets/", "./a/b/"])
def test_an_archive_is_what_is_in_it(suffix: str, inside: str, pets: Path, tmp_path: Path) -> None:
    archive = packed(tmp_path / f"all.{suffix}", pets, inside)
    sets = load_source(str(archive))
    same(sets, load_source(str(pets)))
    (note,) = sets["train"].notes
    assert f"{archive} is unpacked in {cache_folder()}/unpacked/all-" in note
    size = sum(file.stat().st_size for file in pets.rglob("*.png"))
    assert f"(8 files, {size / 1e3:.1f} kB)" in note
    assert sorted(p.name for p in (cache_folder() / "unpacked").iterdir())[0].startswith("all-")


def test_what_was_unpacked_is_found_again_and_changes_are_noticed(pets: Path, tmp_path: Path) -> None:
    archive = packed(tmp_path / "pets.zip", pets)
    first = unpacked(archive)
    kept = (first.folder.parent / unpack.DESCRIPTION).stat().st_mtime_ns
    assert unpacked(archive) == first
    assert (first.folder.parent / unpack.DESCRIPTION).stat().st_mtime_ns == kept, "it was not unpacked again"
    file = first.folder / "train" / "ant" / "0.png"
    good = file.read_bytes()
    for spoil in (
        lambda: file.write_bytes(good[:-1] + b"x"),  # as large as before
        file.unlink,
        lambda: (first.folder / "train" / "ant" / "9.png").write_bytes(good),
        (first.folder.parent / unpack.DESCRIPTION).unlink,
        lambda: (first.folder.parent / unpack.DESCRIPTION).write_text("{"),
    ):
        spoil()
        assert unpacked(archive) == first
        assert file.read_bytes() == good
        assert sorted(p.name for p in (first.folder / "train" / "ant").iterdir()) == ["0.png", "1.png"]
    shutil.rmtree(first.folder.parent)
    assert unpacked(archive) == first
    picture(77).save(pets / "train" / "ant" / "2.png")
    again = unpacked(packed(archive, pets))
    assert again.folder != first.folder
    assert again.files == 9
    assert [p for p in first.folder.parent.parent.iterdir() if p.name.startswith(".")] == []


def test_decoded_images_are_still_those_of_an_archive_that_is_unpacked_again(pets: Path, tmp_path: Path) -> None:
    for archive in (packed(tmp_path / "pets.zip", pets), packed(tmp_path / "pets.tar.gz", pets)):
        before = load_source(str(archive), memory_limit_mb=0)
        pixels = set(cache_folder().glob("*.pixels"))
        shutil.rmtree(cache_folder() / "unpacked")
        same(load_source(str(archive), memory_limit_mb=0), before)
        assert set(cache_folder().glob("*.pixels")) == pixels


def test_a_crash_leaves_nothing_that_is_believed(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = packed(tmp_path / "pets.zip", pets)
    real, count = unpack._write, 0

    def crash(*args: object) -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        real(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(unpack, "_write", crash)
        with pytest.raises(KeyboardInterrupt):
            unpacked(archive)
    assert list((cache_folder() / "unpacked").iterdir()) == []
    # A process that was killed could not clean up: its folder is not taken, and goes after a day.
    left = cache_folder() / "unpacked" / ".pets-0-x.tmp"
    (left / "content").mkdir(parents=True)
    unpacked(archive)
    assert left.is_dir()
    for place in (left / "content", left):
        os.utime(place, (0, 0))
    load_source(str(packed(tmp_path / "more.zip", pets)))
    assert not left.exists()


@pytest.mark.slow
def test_processes_that_unpack_at_the_same_time(pets: Path, tmp_path: Path) -> None:
    archive = packed(tmp_path / "pets.tar.xz", pets)
    code = (
        "import pathlib, sys; from patchlight.data.unpack import unpacked; print(unpacked(pathlib.Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(archive)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0] * 4
    assert len(answers) == 1
    assert [p.name.startswith("pets-") for p in (cache_folder() / "unpacked").iterdir()] == [True]


def tar_of(path: Path, *members: tuple[str, bytes, bytes]) -> Path:
    """A tar of members given by name, type and contents (of a link: its target)."""
    with tarfile.open(path, "w:gz") as archive:
        for name, kind, data in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(data)
            else:
                info.linkname = data.decode()
            archive.addfile(info, io.BytesIO(data) if kind == tarfile.REGTYPE else None)
    return path


FILE, SYMLINK, HARDLINK, FIFO, DEVICE = b"0", b"2", b"1", b"6", b"3"


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("/etc/passwd.png", FILE, "the member '/etc/passwd.png' has an absolute path"),
        ("C:/win.png", FILE, "the member 'C:/win.png' has an absolute path"),
        ("a/../../b.png", FILE, r"the path of the member 'a/\.\./\.\./b\.png' leads out of it"),
        ("..", FILE, r"the path of the member '\.\.' leads out of it"),
        ("a/pipe", FIFO, "the member 'a/pipe' is a device or a pipe"),
        ("a/disk", DEVICE, "the member 'a/disk' is a device or a pipe"),
        ("a/" + "n" * 300, FILE, "cannot be written: File name too long"),
        ("a/0.png/b.png", FILE, "the member 'a/0.png/b.png' cannot be written"),
    ],
)
def test_hostile_members_refuse_the_archive(name: str, kind: bytes, message: str, tmp_path: Path) -> None:
    data = encode()
    path = tar_of(tmp_path / "bad.tar.gz", ("a/0.png", FILE, data), (name, kind, data if kind == FILE else b""))
    with pytest.raises(PatchlightError, match=message):
        load_source(str(path))
    if kind == FILE and len(name) < 250:
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            archive.writestr("a/0.png", data)
            archive.writestr(zipfile.ZipInfo(name), data)
        with pytest.raises(PatchlightError, match=message):
            load_source(str(tmp_path / "bad.zip"))
    assert list((cache_folder() / "unpacked").iterdir()) == []
    assert {p.name for p in tmp_path.iterdir()} <= {"bad.tar.gz", "bad.zip"}


def encode(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


def test_links_are_not_followed_and_counted(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    picture(1).save(tmp_path / "secret" / "s.png")
    good = [(f"{name}/{i}.png", FILE, encode(i)) for name in "ab" for i in range(3)]
    links = [
        ("c", SYMLINK, str(tmp_path / "secret").encode()),
        ("c/evil.png", FILE, encode()),
        ("a/h.png", HARDLINK, b"a/0.png"),
    ]
    path = tar_of(tmp_path / "links.tgz", *good, *links)
    with pytest.raises(PatchlightError, match=r"2 of 9 images would be left out \(links in the archive, which are not"):
        load_source(str(path))
    listing = list_source(DataConfig(source=str(path)))
    assert listing.left_out[0].count == 2
    assert listing.left_out[0].example == "c"
    assert sorted(p.name for p in (tmp_path / "secret").iterdir()) == ["s.png"], "nothing was written through the link"
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as archive:
        for name, _, data in good:
            archive.writestr(name, data)
        info = zipfile.ZipInfo("a/link.png")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert list_source(DataConfig(source=str(tmp_path / "links.zip"))).left_out[0].example == "a/link.png"


def test_clutter_of_systems_is_skipped_and_said(pets: Path, tmp_path: Path) -> None:
    archive = packed(tmp_path / "pets.zip", pets, "pets/")
    with zipfile.ZipFile(archive, "a") as more:
        for name in ("__MACOSX/pets/._train", "pets/.DS_Store", "pets/train/Thumbs.db", "pets/train/ant/._0.png"):
            more.writestr(name, b"junk")
    same(load_source(str(archive)), load_source(str(pets)))
    (left,) = list_source(DataConfig(source=str(archive))).left_out
    assert (left.count, left.expected) == (4, True)
    assert "operating system" in left.reason


def test_a_member_that_is_there_twice_is_the_last_and_said(tmp_path: Path) -> None:
    members = [(f"{name}/{i}.png", FILE, encode(i)) for name in "ab" for i in range(3)]
    path = tar_of(tmp_path / "twice.tgz", *members, ("a/0.png", FILE, encode(9)))
    listing = list_source(DataConfig(source=str(path)))
    assert "a later one of the same name replaces" in listing.left_out[0].reason
    sets = load_source(str(path), max_left_out=0.5)
    assert torch.equal(sets["train"].images[0], torch.from_numpy(np.asarray(picture(9)).transpose(2, 0, 1).copy()))


def test_names_in_odd_encodings(tmp_path: Path) -> None:
    """Zip files of old programs do not say how names are encoded; Windows' own have backslashes."""
    for encoding, expected in (("utf-8", ("große", "кот")), ("cp437", ("große", "katze"))):
        path = tmp_path / f"{encoding}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for number, name in enumerate(expected):
                for i in range(2):
                    stand_in = f"{'#' * len(name.encode(encoding))}{number}/{i}.png"
                    archive.writestr(stand_in, encode(i))
        data = path.read_bytes()
        for number, name in enumerate(expected):
            raw = name.encode(encoding)
            data = data.replace(b"#" * len(raw) + b"%d/" % number, raw + b"%d/" % number)
        path.write_bytes(data)
        sets = load_source(str(path))
        assert sets["train"].class_names == tuple(sorted(f"{name}{number}" for number, name in enumerate(expected)))
        assert any("code page 437" in note for note in sets["train"].notes) is (encoding == "cp437")
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for name in ("ant", "bee"):
            archive.writestr(f"{name}#0.png", encode())
    data = (tmp_path / "windows.zip").read_bytes().replace(b"ant#", b"ant\\").replace(b"bee#", b"bee\\")
    (tmp_path / "windows.zip").write_bytes(data)
    sets = load_source(str(tmp_path / "windows.zip"))
    assert sets["train"].class_names == ("ant", "bee")
    assert any("backslashes" in note for note in sets["train"].notes)
    with tarfile.open(tmp_path / "latin.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for name in ("größe", "bee"):
            info = tarfile.TarInfo(f"{name}/0.png")
            info.size = len(encode())
            tar.addfile(info, io.BytesIO(encode()))
    sets = load_source(str(tmp_path / "latin.tar"))
    assert sets["train"].class_names == ("bee", "größe")
    assert any("Latin-1" in note for note in sets["train"].notes)


def test_encrypted_and_unknown_archives_name_the_fix(pets: Path, tmp_path: Path) -> None:
    archive = packed(tmp_path / "pets.zip", pets)
    data = bytearray(archive.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    data[at + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(
        PatchlightError, match=r"is encrypted \(such as 'train/bee/1.png'\); unpack it with its password"
    ):
        load_source(str(archive))
    data[at + 8] &= 0xFE
    data[at + 10 : at + 12] = struct.pack("<H", 97)  # WavPack
    archive.write_bytes(data)
    with pytest.raises(PatchlightError, match="compressed in a way that is not read"):
        load_source(str(archive))
    for name in ("pets.7z", "pets.rar", "pets.tar.zst"):
        (tmp_path / name).write_bytes(b"anything")
        with pytest.raises(PatchlightError, match=r"archive, which is not read; pack it as \.zip or \.tar\.gz"):
            load_source(str(tmp_path / name))


@pytest.mark.parametrize(
    ("real", "called", "form"),
    [
        ("tgz", "zip", "tar"),
        ("tar", "zip", "tar"),
        ("tar.xz", "ZIP", "tar"),
        ("zip", "tar", "zip"),
        ("zip", "tar.gz", "zip"),
        ("zip", "tgz", "zip"),
        ("zip", "gz", "zip"),
        ("zip", "rar", "zip"),
        ("tar.gz", "tar.bz2", None),
        ("tar.bz2", "tar", None),
    ],
)
def test_the_content_says_what_an_archive_is(
    real: str, called: str, form: str | None, pets: Path, tmp_path: Path
) -> None:
    archive = packed(tmp_path / f"all.{real}", pets).rename(tmp_path / f"mine.{called}")
    note = f"{archive} is a {form} archive, which its name does not say, and is read as one"
    for _ in range(2):  # unpacked, and found again
        sets = load_source(str(archive))
        same(sets, load_source(str(pets)))
        assert (note in sets["train"].notes) == (form is not None)


def test_a_zip_in_a_tar_is_a_member(pets: Path, tmp_path: Path) -> None:
    """Python's is_zipfile takes such a tar for a zip archive."""
    inner = tmp_path / "more"
    inner.mkdir()
    packed(inner / "z.zip", pets)
    (inner / "a.txt").write_text("first")
    outer = packed(tmp_path / "all.tar", inner)
    assert zipfile.is_zipfile(outer)
    assert sorted(path.name for path in unpacked(outer).folder.iterdir()) == ["a.txt", "z.zip"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is an empty file; get it again"),
        (b"<!doctype html><title>404", "is no archive but an HTML page, as a download that failed leaves"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            r"is no archive but a pointer of Git LFS \(run `git lfs pull`",
        ),
        (b"7z\xbc\xaf\x27\x1c" + b"\1" * 50, r"is a 7z archive, which is not read; pack it as \.zip or \.tar\.gz"),
        (b"\x28\xb5\x2f\xfd" + b"\1" * 50, "is a file compressed by zstd, which is not read"),
        (b"Not found", "is no archive but a text file"),
        (b"\0" * 10240, "holds no files|is damaged or cut off"),
    ],
)
@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_what_is_no_archive_is_told(data: bytes, message: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PatchlightError, match=message):
        load_source(str(tmp_path / name))


@pytest.mark.parametrize(("suffix", "fix"), [("gz", "gunzip"), ("bz2", "bunzip2"), ("xz", "unxz")])
@pytest.mark.parametrize("stem", ["labels.csv", "photo.nii", "set.tar"])
def test_a_compressed_file_that_is_no_tar(stem: str, suffix: str, fix: str, tmp_path: Path) -> None:
    path = tmp_path / f"{stem}.{suffix}"
    data = b"\1\2\3" * 300 if stem == "photo.nii" else b"image,label\n0.png,cat\n" * 99
    path.write_bytes({"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[suffix](data))
    with pytest.raises(PatchlightError, match=rf"and no tar archive; unpack it \({fix}\) and name what is in it$"):
        load_source(str(path))


def test_shards_that_are_zip_archives_are_told(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    packed(tmp_path / "a.zip", pets).rename(tmp_path / "shards" / "train-000.tar")
    with pytest.raises(PatchlightError, match=r"train-000\.tar is a zip archive and no tar"):
        load_source(str(tmp_path / "shards"))


def test_one_file_is_told_of_as_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(2 * 64, dtype=np.uint8).reshape(2, 8, 8), y=[0, 1])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.npz", "a.npz")
    assert any("(1 file, " in note for note in load_source(str(tmp_path / "a.zip"))["train"].notes)


def test_bombs_and_full_disks(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/zeros.bmp", bytes(300 * 2**20))
    with tarfile.open(tmp_path / "bomb.tgz", "w:gz") as tar:
        info = tarfile.TarInfo("a/zeros.bmp")
        info.size = 300 * 2**20
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    for name in ("bomb.zip", "bomb.tgz"):
        with pytest.raises(PatchlightError, match="grows to more than 200 times its size"):
            load_source(str(tmp_path / name))
        assert list((cache_folder() / "unpacked").iterdir()) == []
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    for suffix in ("zip", "tar"):
        archive = packed(tmp_path / f"pets.{suffix}", pets)
        monkeypatch.setattr(unpack, "CHECK_EVERY", 100)
        with pytest.raises(PatchlightError, match="has 0 MiB free; PATCHLIGHT_CACHE chooses another folder"):
            load_source(str(archive))
    monkeypatch.setattr(unpack, "MAX_MEMBERS", 5)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(PatchlightError, match="has more than 5 members"):
        load_source(str(tmp_path / "pets.zip"))


def test_a_tar_that_is_cut_between_two_members_is_damaged(pets: Path, tmp_path: Path) -> None:
    """Python's own tarfile takes this for the end."""
    whole = packed(tmp_path / "pets.tar", pets).read_bytes()
    with tarfile.open(tmp_path / "pets.tar") as archive:
        offsets = [member.offset for member in archive.getmembers()]
    for offset in offsets[1:]:
        (tmp_path / "cut.tar").write_bytes(whole[:offset])
        with tarfile.open(tmp_path / "cut.tar") as archive:
            assert 0 < len(archive.getmembers()) < len(offsets)
        with pytest.raises(PatchlightError, match="is damaged or cut off"):
            load_source(str(tmp_path / "cut.tar"))
        spoilt = whole[: offset + 148] + b"12345678" + whole[offset + 156 :]  # the checksum of a header
        (tmp_path / "cut.tar").write_bytes(spoilt)
        with pytest.raises(PatchlightError, match="is damaged or cut off"):
            load_source(str(tmp_path / "cut.tar"))


def test_a_header_with_a_negative_size_ends(tmp_path: Path) -> None:
    """Such a header leads back to itself, and Python's tarfile walks in a circle (CVE-2025-8194)."""
    path = tar_of(tmp_path / "loop.tgz", ("a/0.png", FILE, encode()))
    data = bytearray(tars.gzip.decompress(path.read_bytes()))
    data[124:136] = b"\xff" * 11 + b"\x00"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    (tmp_path / "loop.tar").write_bytes(data)
    with pytest.raises(PatchlightError, match="is damaged or cut off"):
        load_source(str(tmp_path / "loop.tar"))


def test_archives_of_other_sources(tmp_path: Path) -> None:
    write_parquet(tmp_path / "p" / "train.parquet", {"image": [encode(i) for i in range(4)], "label": ["a", "b"] * 2})
    assert load_source(str(packed(tmp_path / "table.zip", tmp_path / "p")))["train"].class_names == ("a", "b")
    (tmp_path / "n").mkdir()
    np.savez(tmp_path / "n" / "x.npz", images=np.zeros((4, 5, 5), np.uint8), labels=[0, 1, 0, 1])
    assert len(load_source(str(packed(tmp_path / "arrays.tgz", tmp_path / "n", "deep/er/")))["train"]) == 4
    write_folder(tmp_path / "one" / "cat", [""])
    one = packed(tmp_path / "one.zip", tmp_path / "one")
    with pytest.raises(PatchlightError, match="has one class, 'cat'"):
        load_splits(DataConfig(source=str(one)))
    (tmp_path / "z").mkdir()
    shutil.copy(tmp_path / "table.zip", tmp_path / "z" / "train.zip")
    with pytest.raises(PatchlightError, match=r"holds archives \(train.zip\); unpack it, and name one of them"):
        load_source(str(packed(tmp_path / "outer.zip", tmp_path / "z")))
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    with pytest.raises(PatchlightError, match=r"empty\.zip holds no files"):
        load_source(str(tmp_path / "empty.zip"))
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "read.me").write_text("hello")
    with pytest.raises(PatchlightError, match=r"\(that is .*text\.zip, unpacked\)"):
        load_source(str(packed(tmp_path / "text.zip", tmp_path / "t")))


def test_imagenettes_archive(tmp_path: Path) -> None:
    root = tmp_path / "imagenette2-160"
    for split, seed in (("train", 0), ("val", 40)):
        write_folder(root / split, ["n01440764", "n02102040"], per_class=3, suffix="JPEG", seed=seed)
    (root / "noisy_imagenette.csv").write_text("path,noisy_labels_0\ntrain/n02979186/n02979186_9036.JPEG,n02979186\n")
    sets = load_source(str(packed(tmp_path / "imagenette2-160.tgz", root, "imagenette2-160/")))
    assert {key: len(images) for key, images in sets.items()} == {"train": 6, "val": 6}
    assert sets["train"].class_names == ("n01440764", "n02102040")


def test_cifars_archive_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = pack(tmp_path, official(tmp_path, cifar.LAYOUTS[0]))
    monkeypatch.setattr(cifar, "LAYOUTS", (layout,))
    other = tmp_path / "mine.tgz"
    shutil.copy(tmp_path / layout.archive[0], other)
    assert load_source(str(other))["train"].class_names == ("ant", "bee", "cow")
    assert not (cache_folder() / "unpacked").exists()
    (tmp_path / layout.folder / "extra.txt").write_text("changed")
    pack(tmp_path, layout)
    shutil.copy(tmp_path / layout.archive[0], other)
    with pytest.raises(PatchlightError, match="is no official CIFAR archive or is damaged: its MD5 is"):
        load_source(str(other))


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_damaged_archives_end_in_a_sentence(suffix: str, tmp_path: Path, pets: Path) -> None:
    whole = packed(tmp_path / f"pets.{suffix}", pets).read_bytes()
    assert outcomes(tmp_path / f"pets.{suffix}", damaged_versions(whole, 24, 0))["refused"] > 6


@pytest.mark.fuzz
@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_many_damaged_archives_end_in_a_sentence(suffix: str, tmp_path: Path, pets: Path) -> None:
    whole = packed(tmp_path / f"pets.{suffix}", pets).read_bytes()
    outcomes(tmp_path / f"pets.{suffix}", damaged_versions(whole, 400, 1))


def test_progress_is_shown(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("patchlight.progress.LINE_EVERY_S", 0.0)
    unpacked(packed(tmp_path / "pets.tgz", pets))
    assert "unpacking pets.tgz (MiB) " in capsys.readouterr().err


def test_the_description_is_of_the_files(pets: Path, tmp_path: Path) -> None:
    found = unpacked(packed(tmp_path / "pets.zip", pets))
    about = json.loads((found.folder.parent / unpack.DESCRIPTION).read_text())
    assert len(about["files"]) == found.files == 8
    assert found.size == sum(size for size, _ in about["files"].values())
