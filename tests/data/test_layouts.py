"""Ways in which people lay out folders of images: understood where they mean one thing, refused where they mean two."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image
from source_files import encode, picture

from patchlight.config import DataConfig
from patchlight.data.names import split_of
from patchlight.data.sources import list_source, load_source
from patchlight.data.splits import load_splits
from patchlight.errors import PatchlightError, UsageError


def lay(root: Path, paths: Iterable[str], seed: int = 0) -> Path:
    """A small image at each path that ends in an image's suffix; an empty folder or a text file at the others."""
    for index, path in enumerate(paths):
        file = root / path
        if path.endswith("/"):
            file.mkdir(parents=True, exist_ok=True)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in (".png", ".jpg", ".JPEG"):
            file.write_bytes(encode(picture(seed + index, (4, 4))))
        else:
            file.write_text(
                "file_name,score\ncat/0.png,1\ndog/0.png,2\n" if file.name == "metadata.csv" else "some words\n"
            )
    return root


def sets_of(source: Path, **settings: object) -> dict[str, list[str]]:
    """By split, the class of each image, in order."""
    listing = list_source(DataConfig(source=str(source), **settings))  # type: ignore[arg-type]
    return {key: [listing.class_names[i] for i in split.labels.tolist()] for key, split in listing.splits.items()}


def notes_of(source: Path, **settings: object) -> str:
    listing = list_source(DataConfig(source=str(source), **settings))  # type: ignore[arg-type]
    return "\n".join([*listing.notes, *listing.left_out_sentences()])


AB = {"train": ["a", "b"], "test": ["a", "b"]}

UNDERSTOOD: dict[str, tuple[list[str], dict[str, list[str]], str]] = {
    "a wrapper": (["data/a/0.png", "data/b/0.png"], {"train": ["a", "b"]}, "are those of data"),
    "two wrappers and a file": (["x/y/a/0.png", "x/y/b/0.png", "x/read.me"], {"train": ["a", "b"]}, "are those of x/y"),
    "a wrapper beside annotations": (
        ["images/a/0.png", "images/b/0.png", "annotations/0.xml"],
        {"train": ["a", "b"]},
        "without images: annotations",
    ),
    "a wrapper of splits": (
        [f"set/{split}/{name}/0.png" for split in ("train", "test") for name in "ab"],
        AB,
        "are those of set",
    ),
    "Kaggle's seg_train/seg_train": (
        [
            *(f"seg_{split}/seg_{split}/{name}/0.png" for split in ("train", "test") for name in "ab"),
            "seg_pred/seg_pred/0.png",
        ],
        AB,
        "splits of .*: 'seg_train' as train, 'seg_test' as test",
    ),
    "training_set": (
        [f"{split}/{split}/{name}/0.png" for split in ("training_set", "test_set") for name in "ab"],
        AB,
        "'training_set' as train, 'test_set' as test",
    ),
    "train_images": (
        [f"{split}_images/{name}/0.png" for split in ("train", "test", "validation") for name in "ab"],
        {"train": ["a", "b"], "val": ["a", "b"], "test": ["a", "b"]},
        "'validation_images' as val",
    ),
    "TrainSet": ([f"{split}/{name}/0.png" for split in ("TrainSet", "TestData") for name in "ab"], AB, "'TestData' as"),
    "splits inside classes": (
        [f"{name}/{split}/0.png" for split in ("train", "test") for name in "ab"],
        AB,
        "the folders inside class folders are splits",
    ),
    "a folder of the same name in each class": (
        ["train/a/images/0.png", "train/a/boxes.txt", "train/b/images/0.png", "test/a/images/0.png"],
        {"train": ["a", "b"], "test": ["a"]},
        "the images of each class are in its folder 'images'",
    ),
    "a test split without labels": (
        ["train/a/0.png", "train/b/0.png", "test/0.png", "test/1.png"],
        {"train": ["a", "b"]},
        r"images without labels \(the split test has no class folders\): 2",
    ),
    "the same, in a folder": (
        ["train/a/0.png", "train/b/0.png", "test/images/0.png"],
        {"train": ["a", "b"]},
        r"images without labels \(the split test has no class folders\): 1",
    ),
    "unlabelled images beside splits": (
        ["train/a/0.png", "train/b/0.png", "unlabeled/0.png"],
        {"train": ["a", "b"]},
        "images without labels: 1",
    ),
    "what macOS adds": (
        ["set/a/0.png", "set/b/0.png", "__MACOSX/set/a/._0.png", "set/.ipynb_checkpoints/0.png"],
        {"train": ["a", "b"]},
        "hidden images, or images that a system made: 2",
    ),
    "classes called as splits": (
        ["train/0.png", "bus/0.png", "test_tube/0.png"],
        {"train": ["bus", "test_tube", "train"]},
        "",
    ),
    "classes with words of splits": (
        [f"{name}/{i}.png" for name in ("positive test", "negative test") for i in range(2)],
        {"train": ["negative test"] * 2 + ["positive test"] * 2},
        "",
    ),
    "masks in each class": (
        [f"{name}/{kind}/{i}.png" for name in "ab" for kind in ("images", "masks") for i in range(2)],
        {"train": ["a", "a", "b", "b"]},
        "left out: masks beside their images: 4, such as",
    ),
    "classes of masks": (
        [f"{kind}/{name}/0.png" for name in "ab" for kind in ("img", "Ground_Truth", "trimaps")],
        {"train": ["a", "b"]},
        "masks beside their images: 4",
    ),
    "masks of files": (
        [f"a/a (0){end}.png" for end in ("", "_mask", ".Mask-1")] + ["b/0.png", "b/with_mask.png"],
        {"train": ["a", "b", "b"]},
        "masks beside their images: 2, such as .*a .0.[.]Mask-1.png",
    ),
    "masks as a class": (["faces/0.png", "masks/0.png"], {"train": ["faces", "masks"]}, ""),
    "masks, photos and more": (
        [f"{name}/0.png" for name in ("masks", "photos", "sketches")],
        {"train": ["masks", "photos", "sketches"]},
        "",
    ),
    "numbered classes": (["class 1/0.png", "class 2/0.png"], {"train": ["class 1", "class 2"]}, ""),
    "lists beside classes": (
        ["a/0.png", "b/0.png", "labels.csv", "train_test_split.txt"],
        {"train": ["a", "b"]},
        r"lists, which are not read \(one that has labels or splits can be the source\): 2",
    ),
    "one split": (["train/a/0.png", "train/b/0.png"], {"train": ["a", "b"]}, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_layouts_that_mean_one_thing(name: str, tmp_path: Path) -> None:
    paths, expected, told = UNDERSTOOD[name]
    root = lay(tmp_path / "root", paths)
    assert sets_of(root) == expected
    listing = list_source(DataConfig(source=str(root)))
    assert listing.too_much_left_out(0) is None
    if told:
        import re

        assert re.search(told, notes_of(root))
    else:
        assert notes_of(root) == ""


REFUSED: dict[str, tuple[list[str], str]] = {
    "nested breeds": (
        ["dog/pug/0.png", "dog/beagle/0.png", "cat/siamese/0.png", "cat/persian/0.png"],
        r"holds no images itself but in its folders persian, siamese; say which folders name the classes with "
        r"data.class_folders: 'outer' for 2 classes \(cat, dog\), or 'inner' for 4 classes \(beagle, persian, pug, "
        r"siamese\), or 'path' for 4 classes \(cat/persian",
    ),
    "some nested": (["dog/pug/0.png", "cat/0.png"], "say which folders name the classes"),
    "flat splits": (["train/0.png", "test/0.png"], "look like splits, but have no class folders"),
    "flat splits with a list": (
        ["train/0.png", "test/0.png", "labels.csv"],
        r"if labels.csv has their labels, give it as the source: data.source = '.*labels.csv'",
    ),
    "only files": (
        ["0.png", "1.png"],
        "2 images in no or one class folder, as 0.png; labels are missing: put the images of each class",
    ),
    "only files with a list": (["images/0.png", "images/1.png", "y.csv"], r"if y.csv has their labels"),
    "two names for one split": (
        ["train/a/0.png", "training/a/0.png", "test/a/0.png"],
        r"2 splits for 'train': 'train', 'training'; say which it is with data.train_split",
    ),
    "no images": (["a/0.txt", "b/0.npz"], r"holds no image but 1 .npz file, 1 .txt file, 2 folders; expected"),
    "an empty class": (["a/0.png", "b/0.png", "c/"], r"class folder 'c' in .* is empty"),
    "classes without images": (
        ["a/0.png", "b/0.png", "c/x.xml", "d/"],
        r"'c' \(and 1 other class folder\) in .*no class$",
    ),
    "parts of a data set": (["images/0.png", "depth/0.png"], "are called as parts of a data set, not as classes"),
    "masks": (["images/0.png", "masks/0.png"], "has 1 image in no or one class folder, as images/0.png; labels are"),
    "Oxford's pets": (
        ["images/0.png", "images/1.png", "annotations/trimaps/0.png", "annotations/list.csv"],
        r"labels are missing: if list.csv has their labels, give it as the source: data.source = '.*/list.csv'$",
    ),
    "parts": (
        ["HAM10000_images_part_1/0.png", "HAM10000_images_part_2/0.png", "meta.csv"],
        r"HAM10000_images_part_1, HAM10000_images_part_2 of .* look like parts of one set, not like classes; if "
        r"meta.csv has .* data.source = '..*meta.csv'; if .* data.class_folders = 'outer'$",
    ),
    "parts without a list": (["images_001/images/0.png", "images_002/images/0.png"], "like classes; put the images of"),
    "VOC": (
        ["Annotations/0.xml", "JPEGImages/0.png", "ImageSets/Main/x.txt"],
        "'Annotations' .and 1 other class folder. .*; it looks like a set for detection, which has boxes",
    ),
    "COCO": (["train2017/0.png", "val2017/0.png", "annotations/instances_val2017.json"], "a set for detection"),
    "YOLO": (["images/train/0.png", "images/val/0.png", "labels/train/0.txt"], "a set for detection"),
    "three flat splits": (
        ["test/0.png", "train/0.png", "valid/0.png"],
        r"test, train, valid look like splits, .* as in train/CLASS/\*.png",
    ),
    "downloads": (["train.zip", "test.zip", "labels.csv"], r"give an archive as the source, such as .*test.zip"),
    "a submission": (
        ["train/0.png", "test1/0.png", "sampleSubmission.csv"],
        "put the images of each class into a folder",
    ),
    "metadata beside classes": (
        ["cat/0.png", "dog/0.png", "metadata.csv"],
        r"has class folders \(cat, dog\) and metadata.csv with the column 'score'",
    ),
    "train without class folders": (["train/0.png", "test/a/0.png", "test/b/0.png"], "in no or one class folder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_layouts_that_mean_two_things_or_nothing(name: str, tmp_path: Path) -> None:
    paths, message = REFUSED[name]
    with pytest.raises(PatchlightError, match=message):
        load_source(str(lay(tmp_path / "root", paths)))


def test_which_folders_name_the_classes(tmp_path: Path) -> None:
    lay(tmp_path, ["dog/pug/0.png", "dog/other/0.png", "cat/siamese/0.png", "cat/other/old/0.png", "cat/other/1.png"])
    assert sets_of(tmp_path, class_folders="outer") == {"train": ["cat"] * 3 + ["dog"] * 2}
    assert sets_of(tmp_path, class_folders="inner") == {"train": ["old", "other", "other", "pug", "siamese"]}
    paths = ["cat/other", "cat/other/old", "cat/siamese", "dog/other", "dog/pug"]
    assert sets_of(tmp_path, class_folders="path") == {"train": paths}


def test_splits_are_chosen_by_settings(tmp_path: Path) -> None:
    lay(tmp_path, [f"{split}/{name}/0.png" for split in ("train", "extra", "valid", "val") for name in "ab"])
    with pytest.raises(PatchlightError, match="2 splits for 'val'"):
        load_source(str(tmp_path))
    assert list(sets_of(tmp_path, val_split="valid")) == ["train", "val"]
    assert "images in folders beside the splits" in notes_of(tmp_path, val_split="valid")
    assert list(sets_of(tmp_path, train_split="extra", test_split="val", val_split="valid")) == ["train", "val", "test"]
    load_source(str(tmp_path), val_split="valid")
    with pytest.raises(UsageError, match=r"data.test_split: .* has no split 'tset'; known: extra, train, val, valid"):
        load_source(str(tmp_path), test_split="tset")
    with pytest.raises(UsageError, match=r"name one split of .* twice"):
        load_source(str(tmp_path), test_split="val", val_split="val")


def test_a_folder_beside_the_splits_is_counted(tmp_path: Path) -> None:
    lay(tmp_path, [f"{split}/{name}/{i}.png" for split in ("train", "extra") for name in "ab" for i in range(3)])
    with pytest.raises(
        PatchlightError, match=r"6 of 12 images would be left out \(images in folders beside the splits"
    ):
        load_source(str(tmp_path))
    assert len(load_source(str(tmp_path), max_left_out=0.5)["train"]) == 6


def test_tiny_imagenet(tmp_path: Path) -> None:
    lay(tmp_path, [f"train/{wnid}/images/{wnid}_{i}.JPEG" for wnid in ("n01", "n02") for i in range(2)])
    lay(tmp_path, ["train/n01/n01_boxes.txt", "train/n02/n02_boxes.txt", "wnids.txt", "words.txt"])
    lay(tmp_path, [*(f"val/images/val_{i}.JPEG" for i in range(3)), "test/images/test_0.JPEG"], seed=90)
    (tmp_path / "val" / "val_annotations.txt").write_text(
        "val_0.JPEG\tn02\t0\t32\t44\t62\nval_1.JPEG\tn01\t5\t3\t4\t6\nval_2.JPEG\tn02\t5\t3\t4\t6\n"
    )
    wrapped = tmp_path.rename(tmp_path.parent / "outer") and tmp_path.parent / "outer"
    sets = load_source(str(wrapped))
    assert {key: images.class_counts().tolist() for key, images in sets.items()} == {"train": [2, 2], "val": [1, 2]}
    assert sets["val"].class_names == ("n01", "n02")
    notes = "\n".join(sets["train"].notes)
    assert "are those of val_annotations.txt" in notes
    assert "lists, which are not read" not in notes
    assert "images without labels (the split test has no class folders): 1" in notes
    (wrapped / "val" / "val_annotations.txt").unlink()
    with pytest.raises(
        PatchlightError, match=r"3 of 7 .*images without labels \(the split val has no class folders\): 3"
    ):
        load_splits(DataConfig(source=str(wrapped)))


def test_images_are_known_by_their_content(tmp_path: Path) -> None:
    lay(tmp_path, ["a/0.png", "b/0.png"])
    for index, (name, kind) in enumerate(
        [("1.tga", "TGA"), ("2.ico", "ICO"), ("3", "PNG"), ("4.dat", "JPEG"), ("5.pcx", "PCX"), ("6.sgi", "SGI")]
    ):
        picture(index, (16, 16)).save(tmp_path / "a" / name, kind)
    assert sets_of(tmp_path) == {"train": ["a"] * 7 + ["b"]}
    assert load_source(str(tmp_path), image_size=4)["train"].class_counts().tolist() == [7, 1]


def test_what_is_no_image_is_told_by_kind(tmp_path: Path) -> None:
    lay(tmp_path, [*(f"a/{i}.png" for i in range(4)), "b/0.png", "a/notes.txt", "a/box.xml"])
    (tmp_path / "a" / "x.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    (tmp_path / "a" / "y.svg").write_text("<svg/>")
    (tmp_path / "b" / "z.dcm").write_bytes(bytes(128) + b"DICM" + bytes(20))
    (tmp_path / "b" / "lfs.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (tmp_path / "b" / "random.bin").write_bytes(bytes(range(250, 256)) * 10)
    with pytest.raises(PatchlightError, match=r"4 of 9 images would be left out") as caught:
        load_source(str(tmp_path))
    for words in ("HEIC images, which need pillow-heif", "DICOM files", "drawings (SVG", "run `git lfs pull`"):
        assert words in str(caught.value)
    assert "files that are no images: 3" in "\n".join(load_source(str(tmp_path), max_left_out=0.5)["train"].notes)


def test_links_that_lead_nowhere_are_counted(tmp_path: Path) -> None:
    lay(tmp_path, ["a/0.png", "b/0.png"])
    for index in range(3):
        (tmp_path / "a" / f"annex{index}.png").symlink_to(f"../.git/annex/objects/{index}")
    with pytest.raises(PatchlightError, match=r"3 of 5 images would be left out \(links to files that are not there"):
        load_source(str(tmp_path))
    (tmp_path / "b" / "round").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "b" / "linked.png").symlink_to(tmp_path / "b" / "0.png")
    assert sets_of(tmp_path) == {"train": ["a", "b", "b"]}


def test_names_of_classes_that_look_alike_are_told(tmp_path: Path) -> None:
    names = ["Cat", "cat", "dog", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"]
    lay(tmp_path, [f"{name}/{i}.png" for name in names for i in range(3)])
    notes = load_splits(DataConfig(source=str(tmp_path), val_fraction=0)).notes
    (alike,) = (note for note in notes if "look alike" in note)
    assert all(name in alike for name in names if name != "dog")
    assert f"({names[3]}: these names differ only in how Unicode writes their accents; rename one" in alike
    assert "dog" not in alike


@pytest.mark.parametrize(
    ("name", "split", "alone"),
    [
        ("train", "train", True),
        ("TRAIN", "train", True),
        ("training_set", "train", True),
        ("trainImages", "train", True),
        ("seg_test", "test", False),
        ("mnist-valid", "val", False),
        ("test_with_labels", "test", False),
        ("train_val", None, False),
        ("trainer", None, False),
        ("contest", None, False),
        ("latest", None, False),
        ("", None, False),
    ],
)
def test_names_of_splits(name: str, split: str | None, alone: bool) -> None:
    assert split_of(name) == (split, alone)


def test_the_exact_name_of_a_split_wins(tmp_path: Path) -> None:
    lay(tmp_path, [f"{split}/{name}/0.png" for split in ("train", "train_noisy", "test") for name in "ab"])
    assert sets_of(tmp_path) == AB
    assert list_source(DataConfig(source=str(tmp_path))).too_much_left_out(0.01) is not None


def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    lay(tmp_path, ["a/0.png", "b/0.png"])
    (tmp_path / "b").chmod(0)
    with pytest.raises(PatchlightError, match="cannot read"):
        load_source(str(tmp_path))


def test_a_page_that_was_saved_as_an_image_is_bad_and_not_left_out(tmp_path: Path) -> None:
    lay(tmp_path, ["a/0.png", "b/0.png"])
    (tmp_path / "a" / "1.jpg").write_text("<html>not found</html>")
    with pytest.raises(PatchlightError, match=r"1\.jpg: it is not an image file that Pillow can read"):
        load_source(str(tmp_path))


def test_animated_and_odd_images_are_read_by_their_own_kind(tmp_path: Path) -> None:
    lay(tmp_path, ["a/0.png", "b/0.png"])
    buffer = io.BytesIO()
    picture(1, (4, 4)).save(buffer, "WEBP", save_all=True, append_images=[Image.new("RGB", (4, 4))])
    (tmp_path / "a" / "moving").write_bytes(buffer.getvalue())
    assert sets_of(tmp_path) == {"train": ["a", "a", "b"]}


def test_of_lists_for_each_split_that_of_training_is_named(tmp_path: Path) -> None:
    for split in ("test", "train", "valid"):
        lay(tmp_path, [f"{split}/0.png", f"{split}/_classes.csv"])
    with pytest.raises(PatchlightError, match=r"data\.source = '.*/train/_classes\.csv'"):
        load_source(str(tmp_path))


def test_a_split_that_a_setting_names_needs_class_folders_with_a_list_or_without(tmp_path: Path) -> None:
    lay(tmp_path, ["Train/a/0.png", "Train/b/0.png", "Test/0.png"])
    with pytest.raises(PatchlightError, match=r"lie in no class folders; .* of its own, or leave data\.test_split out"):
        load_source(str(tmp_path), train_split="Train", test_split="Test")
