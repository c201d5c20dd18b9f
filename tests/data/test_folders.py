"""Folders of image files: layouts, suffixes, strays, and files that are bad."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from source_files import chw, picture, write_folder, write_parquet

from patchlight.commands.audit import audit
from patchlight.data.cache import cache_folder
from patchlight.data.sources import load_source
from patchlight.data.sources.tree import NOT_ALWAYS_THERE, PREVIEWS
from patchlight.errors import PatchlightError, UsageError


@pytest.mark.parametrize(
    "suffix", ["png", "jpg", "jpeg", "JPG", "jfif", "webp", "avif", "bmp", "tif", "tiff", "gif", "ppm"]
)
def test_every_image_suffix(suffix: str, tmp_path: Path) -> None:
    train = load_source(str(write_folder(tmp_path, ["b", "a"], suffix=suffix)))["train"]
    assert train.class_names == ("a", "b")
    assert train.labels.tolist() == [0, 0, 1, 1]
    if suffix in ("png", "webp", "bmp", "ppm"):
        with Image.open(tmp_path / "a" / f"0.{suffix}") as first:
            assert torch.equal(train.images[0], chw(first.convert("RGB")))


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_splits_of_folders_share_their_classes(val: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "train", ["a", "c"])
    write_folder(tmp_path / val, ["c", "b"])
    write_folder(tmp_path / "test", ["a"])
    (tmp_path / "train" / "b").mkdir()
    (tmp_path / "scripts").mkdir()
    sets = load_source(str(tmp_path))
    assert list(sets) == ["train", "val", "test"]
    assert {images.class_names for images in sets.values()} == {("a", "b", "c")}
    assert [images.labels.tolist() for images in sets.values()] == [[0, 0, 2, 2], [1, 1, 2, 2], [0, 0]]
    assert any("scripts" in note for note in sets["train"].notes)


def test_hidden_and_other_files_are_ignored_and_strays_noted(tmp_path: Path) -> None:
    write_folder(tmp_path, ["a", "b"])
    write_folder(tmp_path, [".hidden"])
    (tmp_path / "a" / ".0.png").write_bytes(b"")
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    picture(0).save(tmp_path / "stray.png")
    with pytest.raises(PatchlightError, match=r"1 of 5 images would be left out \(.*set data\.max_left_out = 0\.2"):
        load_source(str(tmp_path))
    train = load_source(str(tmp_path), max_left_out=0.2)["train"]
    assert len(train) == 4
    assert train.class_names == ("a", "b")
    assert train.notes == (
        f"left out: images outside class folders: 1, such as {tmp_path / 'stray.png'}",
        f"left out: files that are no images: 1, such as {tmp_path / 'notes.txt'}",
        f"left out: hidden images, or images that a system made: 3, such as {tmp_path / '.hidden' / '0.png'}",
    )


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    train = load_source(str(write_folder(tmp_path, ["bus", "train"])))["train"]
    assert train.class_names == ("bus", "train")


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(PatchlightError, match="is empty; expected"):
        load_source(str(tmp_path))
    write_folder(tmp_path / "empty", ["a", "b"])
    (tmp_path / "empty" / "c").mkdir(parents=True)
    with pytest.raises(PatchlightError, match=r"class folder 'c' in .* is empty"):
        load_source(str(tmp_path / "empty"))
    (tmp_path / "empty" / "c" / "x.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "empty" / "c" / "x.xml").write_text("<x/>")
    with pytest.raises(PatchlightError, match=r"'c' in .* holds no image but an array of NumPy .*, 1 \.xml file;"):
        load_source(str(tmp_path / "empty"))
    write_folder(tmp_path / "twice" / "val", ["a"])
    write_folder(tmp_path / "twice" / "valid", ["a"])
    with pytest.raises(PatchlightError, match=r"2 splits for 'val': 'val', 'valid'; .* data\.val_split"):
        load_source(str(tmp_path / "twice"))


def test_bad_files_are_named_and_counted(tmp_path: Path) -> None:
    write_folder(tmp_path, ["a", "b"], per_class=4)
    (tmp_path / "a" / "1.png").write_bytes(b"nothing")
    reason = "it is not an image file that Pillow can read but a text file"
    ways = r"data\.on_bad = 'skip' leaves them out"
    expected = rf"a/1\.png: {reason} \(`patchlight data {tmp_path}` lists them; {ways}\)$"
    with pytest.raises(PatchlightError, match=expected):
        load_source(str(tmp_path))
    (tmp_path / "a" / "0.png").write_bytes(b"")
    (tmp_path / "b" / "3.png").write_bytes((tmp_path / "b" / "2.png").read_bytes()[:60])
    for limit in (1024, 0):
        with pytest.raises(PatchlightError, match=r"a/0\.png: .*; 3 of 8 images are bad"):
            load_source(str(tmp_path), memory_limit_mb=limit)
    assert list(cache_folder().iterdir()) == []
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(
        PatchlightError, match=r"none of the 8 images can be read \(`patchlight data \S+` lists them\)$"
    ):
        load_source(str(tmp_path))


def test_images_deeper_down_are_told_of(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets", ["cat", "dog"])
    write_folder(tmp_path / "pets" / "cat", ["2023", "2024"], per_class=3)
    write_folder(tmp_path / "pets" / "cat" / "2024", ["may", ".cache"], per_class=1)
    with pytest.raises(PatchlightError, match="7 of 11 images would be left out"):
        load_source(str(tmp_path / "pets"))
    train = load_source(str(tmp_path / "pets"), max_left_out=1)["train"]
    assert len(train) == 4
    assert train.notes[0] == (
        "left out: images in folders inside class folders (data.class_folders = 'outer' takes them): 7, such as "
        f"{tmp_path / 'pets' / 'cat' / '2023' / '0.png'}"
    )
    assert load_source(str(tmp_path / "pets"), class_folders="outer")["train"].class_counts().tolist() == [9, 2]


def test_parts_of_a_set_may_be_classes(tmp_path: Path) -> None:
    write_folder(tmp_path, ["part1", "part2"])
    with pytest.raises(PatchlightError, match="parts of one set"):
        load_source(str(tmp_path))
    assert load_source(str(tmp_path), class_folders="outer")["train"].class_names == ("part1", "part2")


def test_a_split_that_a_setting_names_is_not_left_out(tmp_path: Path) -> None:
    write_folder(tmp_path / "Train", ["0", "1"])
    write_folder(tmp_path, ["Test"])
    for name in ("Meta.csv", "Test.csv"):
        (tmp_path / name).write_text("some words\n")
    notes = load_source(str(tmp_path), train_split="Train")["train"].notes
    assert any("images without labels (the split test has no class folders): 2" in note for note in notes)
    told = r"data.test_split = 'Test' lie in no class folders; .*if Test.csv has their labels, .* leave data.test_split"
    with pytest.raises(PatchlightError, match=told):
        load_source(str(tmp_path), test_split="Test")


def test_what_patchlight_wrote_is_passed_over(tmp_path: Path) -> None:
    write_folder(tmp_path, ["a", "b", "previews/source", "runs/1/figures", "runs/2/checkpoints", "why"], per_class=1)
    for name in (*PREVIEWS, NOT_ALWAYS_THERE):
        shutil.copy(tmp_path / "a" / "0.png", tmp_path / "previews" / "source" / name)
    (tmp_path / "previews" / "source" / "0.png").unlink()
    for name in (
        "runs/1/config.toml",
        "runs/1/metrics.jsonl",
        "runs/2/config.toml",
        "why/explanation.json",
        "why/maps.npz",
    ):
        (tmp_path / name).write_text("[data]\n")
    train = load_source(str(tmp_path))["train"]
    assert train.class_names == ("a", "b")
    first = tmp_path / "previews" / "source" / "augmentation.png"
    assert train.notes == (f"left out: pictures that Patchlight wrote: 8, such as {first}",)
    write_folder(tmp_path / "runs", ["3"])
    assert load_source(str(tmp_path), class_folders="outer")["train"].class_names == ("a", "b", "runs")
    with pytest.raises(PatchlightError, match="holds nothing but what Patchlight wrote"):
        load_source(str(tmp_path / "previews"))


def test_a_project_with_a_config_of_its_own_is_no_run(tmp_path: Path) -> None:
    write_folder(tmp_path, ["a", "b"])
    (tmp_path / "config.toml").write_text("[tool]\n")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(PatchlightError, match=r"class folder 'checkpoints' .* is empty"):
        load_source(str(tmp_path))
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / "metrics.jsonl").touch()
    assert len(load_source(str(tmp_path))["train"]) == 4


def test_the_pictures_of_the_audit_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, ["a", "b"], per_class=8)
    monkeypatch.chdir(tmp_path)
    assert {Path(path).name for path in audit(".").figures} - {NOT_ALWAYS_THERE} == PREVIEWS
    assert audit(".", overwrite=True).classes == ("a", "b")


def test_class_folders_beside_a_table_are_counted(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", ["cat", "dog"])
    image = (tmp_path / "train" / "cat" / "0.png").read_bytes()
    write_parquet(tmp_path / "train.parquet", {"image": [image] * 4, "label": ["a", "b"] * 2})
    told = r"4 of 8 images would be left out \(images in class folders, as the source is read as Parquet \(name its"
    with pytest.raises(PatchlightError, match=told):
        load_source(str(tmp_path))
    assert load_source(str(tmp_path / "train.parquet"))["train"].notes == tuple(
        note.replace(str(tmp_path), str(tmp_path / "train.parquet"))
        for note in load_source(str(tmp_path), max_left_out=1)["train"].notes
        if not note.startswith("left out")
    )
    assert load_source(str(tmp_path / "train"))["train"].class_names == ("cat", "dog")
    write_parquet(tmp_path / "train.parquet", {"image": ["train/cat/0.png", "train/dog/0.png"], "label": ["a", "b"]})
    assert len(load_source(str(tmp_path))["train"]) == 2


@pytest.mark.parametrize(("labels", "told"), [("xyxy", True), (("dog", "dog", "cat", "cat"), True), (None, False)])
def test_a_list_that_overrides_folders_is_told(labels: tuple[str, ...] | None, told: bool, tmp_path: Path) -> None:
    files = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(2)]
    write_folder(tmp_path, ["cat", "dog"])
    rows = zip(files, labels or ("cat", "cat", "dog", "dog"), strict=True)
    (tmp_path / "metadata.csv").write_text("file_name,label\n" + "".join(f"{file},{label}\n" for file, label in rows))
    note = "the labels are those of the list; the folders cat, dog that its images lie in are not the classes"
    assert (note in load_source(str(tmp_path))["train"].notes) is told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.json", r"is a file that is no data source; write it as JSON Lines \(\.jsonl\)"),
        ("a.txt", "write it as a CSV file with the columns image and label"),
        ("a.XLSX", "save it as a CSV file"),
        ("a.pkl", "pickles may run code and are not opened"),
        ("a.pth", "may hold tensors or a model"),
        ("a.h5", "HDF5 is not read: store its images"),
        ("a.tfrecord", "shards of WebDataset or as Parquet"),
        ("a.arrow", "give the folder that `datasets` saved"),
        ("a.png", "is one image; give the folder"),
        ("t10k-labels-idx1-ubyte", "holds labels alone; give the file of the images beside it"),
        ("a.unknown", "a source is a folder of class folders, a list"),
        ("a", "a source is a folder of class folders, a list"),
    ],
)
def test_files_that_are_no_source_name_the_fix(name: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("[1]")
    with pytest.raises(UsageError, match=told):
        load_source(str(tmp_path / name))


def test_a_folder_with_a_list_alone_names_it(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,label\n/far/0.png,cat\n")
    with pytest.raises(PatchlightError, match=r"if labels.csv lists images .* data.source = '.*/labels.csv'$"):
        load_source(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("CIFAR10", "did you mean 'cifar10'"),
        ("xyz", "known: cifar10, cifar100, digits, planted$"),
        ("hf:", "hf: names no data set; write hf:owner/name"),
    ],
)
def test_names_that_are_no_source(source: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        load_source(source)


def test_interpolations_have_caches_of_their_own(tmp_path: Path) -> None:
    for index, size in enumerate([(20, 20), (31, 24), (20, 20), (18, 40)]):
        (tmp_path / "set" / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        picture(index, size).save(tmp_path / "set" / "ab"[index % 2] / f"{index}.png")
    source = str(tmp_path / "set")
    loaded = {}
    for _ in range(2):  # made, then read
        for kind in ("bicubic", "bilinear"):
            for limit in (0, 64):
                images = load_source(source, image_size=16, memory_limit_mb=limit, interpolation=kind)["train"]
                pixels = images.gather(range(4))[0]
                assert torch.equal(loaded.setdefault(kind, pixels), pixels)
        assert len(list(cache_folder().glob("*.pixels"))) == 2
    assert (loaded["bicubic"].int() - loaded["bilinear"].int()).abs().max() > 20
