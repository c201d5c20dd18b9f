"""Parquet and hub tables: columns by type, labels of every kind, splits by name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from source_files import chw, encode, picture, write_parquet

from patchlight.config import DataConfig
from patchlight.data.sources import list_source, load_source
from patchlight.errors import PatchlightError


def test_the_real_cifar10(cifar10_parquet: Path) -> None:
    import pyarrow.parquet as pq

    listing = list_source(DataConfig(source=str(cifar10_parquet)))
    assert {key: len(split.labels) for key, split in listing.splits.items()} == {"train": 50_000, "test": 10_000}
    assert np.bincount(listing.splits["train"].labels).tolist() == [5000] * 10
    sets = load_source(str(cifar10_parquet / "test-00000-of-00001.parquet"))  # a sixth of it, to be quick
    assert sets["test"].image_size == (32, 32)
    assert sets["test"].class_names[:3] == ("airplane", "automobile", "bird")
    assert sets["test"].class_counts().tolist() == [1000] * 10
    assert [note.rpartition(": ")[2] for note in sets["test"].notes] == ["images from 'img', labels from 'label'"]
    rows = pq.read_table(cifar10_parquet / "test-00000-of-00001.parquet")
    for index in np.random.default_rng(0).integers(0, 10_000, 50).tolist():
        image = Image.open(io.BytesIO(rows["img"][index]["bytes"].as_py()))
        pixels, label = sets["test"].gather([index])
        assert torch.equal(pixels[0], chw(image))
        assert label.item() == rows["label"][index].as_py()


@pytest.mark.parametrize(
    ("column", "values", "names", "labels"),
    [
        ("label", [7, 3, 7, 5], ("3", "5", "7"), [2, 0, 2, 1]),
        ("kind", ["b", "a", "b", "c"], ("a", "b", "c"), [1, 0, 1, 2]),
        ("is_cat", [True, False, True, True], ("False", "True"), [1, 0, 1, 1]),
    ],
)
def test_labels_without_class_names(
    column: str, values: list[Any], names: tuple[str, ...], labels: list[int], tmp_path: Path
) -> None:
    data = [{"bytes": encode(picture(i)), "path": None} for i in range(4)]
    path = write_parquet(tmp_path / "train.parquet", {"picture": data, column: values})
    train = load_source(str(path))["train"]
    assert (train.class_names, train.labels.tolist()) == (names, labels)
    assert torch.equal(train.images, torch.stack([chw(picture(i)) for i in range(4)]))


def test_plain_bytes_are_images_too_and_a_column_called_label_wins(tmp_path: Path) -> None:
    columns = {"id": [9, 8], "png": [encode(picture(i)) for i in range(2)], "label": ["x", "y"], "caption": ["p", "q"]}
    train = load_source(str(write_parquet(tmp_path / "all.parquet", columns)))["train"]
    assert train.class_names == ("x", "y")


def test_class_ids_come_from_all_splits(tmp_path: Path) -> None:
    for split, values in (("train", ["a", "c"]), ("validation", ["b", "c"]), ("test", ["d", "a"])):
        data = [encode(picture(i)) for i in range(2)]
        write_parquet(tmp_path / f"{split}-00000-of-00001.parquet", {"image": data, "label": values})
    sets = load_source(str(tmp_path))
    assert list(sets) == ["train", "val", "test"]
    assert {images.class_names for images in sets.values()} == {("a", "b", "c", "d")}
    assert [images.labels.tolist() for images in sets.values()] == [[0, 2], [1, 2], [3, 0]]


def test_parquet_in_parts_and_in_folders_of_splits(tmp_path: Path) -> None:
    for index in range(3):
        columns = {"image": [encode(picture(index))], "label": [index]}
        write_parquet(tmp_path / "parts" / f"train-{index:05}-of-00003.parquet", columns)
        write_parquet(tmp_path / "folders" / "train" / f"{index:04}.parquet", columns)
        write_parquet(tmp_path / "folders" / ".cache" / "train.parquet", {"other": [1]})
    for name in ("parts", "folders"):
        train = load_source(str(tmp_path / name))["train"]
        assert train.labels.tolist() == [0, 1, 2]
        assert torch.equal(train.images, torch.stack([chw(picture(i)) for i in range(3)]))


def test_paths_inside_a_table_are_relative_to_its_folder(tmp_path: Path) -> None:
    picture(3).save(tmp_path / "a.png")
    write_parquet(tmp_path / "train.parquet", {"image": [{"bytes": None, "path": "a.png"}], "label": [0]})
    assert torch.equal(load_source(str(tmp_path))["train"].images[0], chw(picture(3)))


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    import datasets

    data = [encode(picture(i)) for i in range(2)]
    label = {"image": datasets.Value("binary"), "label": datasets.ClassLabel(names=["a", "b"])}
    rows: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        (
            {"text": ["a", "b"], "label": [0, 1]},
            {},
            r"no image column; its columns are text \(string\), label \(int64\)",
        ),
        ({"image": data, "x": [0, 1], "y": [1, 0]}, {}, r"2 columns that can be the label: x \(int64\), y \(int64\)"),
        ({"image": data, "score": [0.5, 1.0]}, {}, "no column that can be the label"),
        ({"image": data, "label": [0, None]}, {}, r"1 of 2 images would be left out \(rows without a label: 1"),
        ({"image": data, "label": [-1, -1]}, label, "no labelled images"),
    ]
    for number, (columns, features, message) in enumerate(rows):
        path = write_parquet(tmp_path / f"{number}" / "train.parquet", columns, **features)
        with pytest.raises(PatchlightError, match=message):
            load_source(str(path))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(PatchlightError, match=r"cannot read .*broken\.parquet"):
        load_source(str(tmp_path / "broken.parquet"))
    write_parquet(tmp_path / "two" / "train-0.parquet", {"image": data, "label": [0, 1]})
    write_parquet(tmp_path / "two" / "train-1.parquet", {"image": data, "kind": [0, 1]})
    with pytest.raises(PatchlightError, match=r"train-1\.parquet has other columns"):
        load_source(str(tmp_path / "two"))
    other = {**label, "label": datasets.ClassLabel(names=["b", "a"])}
    write_parquet(tmp_path / "swapped" / "train-0.parquet", {"image": data, "label": [0, 1]}, **label)
    write_parquet(tmp_path / "swapped" / "train-1.parquet", {"image": data, "label": [0, 1]}, **other)
    with pytest.raises(PatchlightError, match=r"train-1\.parquet has other columns or other classes"):
        load_source(str(tmp_path / "swapped"))
    write_parquet(tmp_path / "three" / "train.parquet", {"image": data, "label": [0, 1]})
    write_parquet(tmp_path / "three" / "test.parquet", {"image": data, "kind": [0, 1]})
    with pytest.raises(PatchlightError, match=r"test\.parquet has other image and label columns"):
        load_source(str(tmp_path / "three"))
    for name in ("aa", "bb"):
        write_parquet(tmp_path / "four" / f"{name}.parquet", {"image": data, "label": [0, 1]})
    with pytest.raises(PatchlightError, match="no split called train, val or test, but 'aa', 'bb'"):
        load_source(str(tmp_path / "four"))


def test_an_unlabelled_split_is_left_out_with_a_note(tmp_path: Path) -> None:
    import datasets

    features = {"image": datasets.Value("binary"), "label": datasets.ClassLabel(names=["a", "b"])}
    for split, labels in (("train", [0, 1]), ("test", [-1, -1]), ("extra", [0, 0])):
        columns = {"image": [encode(picture(i)) for i in range(2)], "label": labels}
        write_parquet(tmp_path / f"{split}.parquet", columns, **features)
    with pytest.raises(PatchlightError, match=r"2 of 4 images would be left out \(images of the split 'extra'"):
        load_source(str(tmp_path))
    sets = load_source(str(tmp_path), train_split="train")
    assert list(sets) == ["train"]
    assert any("images without labels (the split test): 2" in note for note in sets["train"].notes)
    assert any("extra" in note for note in sets["train"].notes)


@pytest.mark.parametrize(
    "names",
    [
        ("mnist_train", "mnist_test"),
        ("train-00000-of-00001", "test-00000-of-00001"),
        ("my-set.train", "my-set.test"),
        ("train/0000", "test/0000"),
        ("train/part-0-a1b2.snappy", "test/part-0-c3d4.snappy"),
    ],
)
def test_a_split_is_found_in_a_name(tmp_path: Path, names: tuple[str, str]) -> None:
    for index, name in enumerate(names):
        columns = {"image": [encode(picture(index))], "label": [index]}
        write_parquet(tmp_path / f"{name}.parquet", columns)
    sets = load_source(str(tmp_path))
    assert [int(sets[key].labels[0]) for key in ("train", "test")] == [0, 1]


def test_parts_of_another_name_are_one_split(tmp_path: Path) -> None:
    for index in range(3):
        columns = {"image": [encode(picture(index))], "label": [index]}
        write_parquet(tmp_path / f"part-{index:05}-of-00003.parquet", columns)
    assert len(load_source(str(tmp_path))["train"]) == 3
    write_parquet(tmp_path / "more.parquet", columns)
    with pytest.raises(PatchlightError, match="no split called train, val or test, but 'more', 'part'"):
        load_source(str(tmp_path))


def test_the_cache_notices_changed_images_beside_a_table(tmp_path: Path) -> None:
    columns = {"image": [{"bytes": None, "path": f"{i}.png"} for i in range(3)], "label": [0, 1, 0]}
    write_parquet(tmp_path / "train.parquet", columns)
    for index in range(3):
        picture(index).save(tmp_path / f"{index}.png")
    first = load_source(str(tmp_path), memory_limit_mb=0)["train"]
    picture(77).save(tmp_path / "1.png", compress_level=1)
    second = load_source(str(tmp_path), memory_limit_mb=0)["train"]
    assert torch.equal(second.images[1], chw(picture(77)))
    assert torch.equal(second.images[0], first.images[0])


def test_minus_one_alone_is_no_label(tmp_path: Path) -> None:
    """Of numbers without names, where no other split has it."""
    data = [encode(picture(i)) for i in range(2)]
    write_parquet(tmp_path / "a" / "train.parquet", {"image": data, "label": [0, 1]})
    write_parquet(tmp_path / "a" / "test.parquet", {"image": data, "label": [-1, -1]})
    assert list(load_source(str(tmp_path / "a"))) == ["train"]
    write_parquet(tmp_path / "b" / "train.parquet", {"image": data, "label": [-1, 1]})
    write_parquet(tmp_path / "b" / "test.parquet", {"image": data, "label": [-1, -1]})
    assert load_source(str(tmp_path / "b"))["test"].labels.tolist() == [0, 0]
