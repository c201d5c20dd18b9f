"""Parquet and hub tables: columns by type, labels of every kind, splits by name."""

from __future__ import annotations

import io
import json
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
        ({"image": data, "x": [0, 1], "y": [2, 0]}, {}, r"2 columns that can be the label: x \(int64\), y \(int64\)"),
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


PNG = [encode(picture(i)) for i in range(16)]


def write_arrow(path: Path, columns: dict[str, Any], features: Any = None) -> Path:
    """A Parquet file with the metadata that `datasets` writes, whatever is in it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return path


def names_and_labels(path: Path, **settings: Any) -> tuple[tuple[str, ...], list[int]]:
    train = load_source(str(path), **settings)["train"]
    return train.class_names, train.labels.tolist()


def class_label(*names: str) -> dict[str, Any]:
    return {"names": list(names), "_type": "ClassLabel"}


def test_the_label_is_not_guessed(tmp_path: Path) -> None:
    breeds, folds = ["pug", "beagle"] * 8, [0, 1, 2, 3] * 4
    path = write_arrow(tmp_path / "a.parquet", {"image": PNG, "breed": breeds, "fold": folds})
    with pytest.raises(PatchlightError, match=r"2 columns that can be the label: breed \(string\), fold \(int64\)"):
        load_source(str(path))
    assert names_and_labels(path, label_column="breed")[0] == ("beagle", "pug")
    assert len(names_and_labels(path, label_column="fold")[0]) == 4
    path = write_arrow(tmp_path / "a.parquet", {"image": PNG, "id": list(range(16))})
    with pytest.raises(PatchlightError, match="'id' has 16 values in 16 rows, too many for labels"):
        load_source(str(path))
    path = write_arrow(tmp_path / "a.parquet", {"image": PNG, "LABEL": breeds, "fold": folds})
    assert names_and_labels(path)[0] == ("beagle", "pug")
    path = write_arrow(tmp_path / "a.parquet", {"image": PNG, "Label": breeds, "target": folds})
    with pytest.raises(PatchlightError, match=r"2 columns .* the label: Label .*, target .*data\.label_column"):
        load_source(str(path))
    path = write_arrow(tmp_path / "a.parquet", {"left": PNG, "right": PNG, "label": folds})
    with pytest.raises(PatchlightError, match=r"2 columns that can be the image: left .*, right .*data\.image_column"):
        load_source(str(path))
    assert (
        load_source(str(path), image_column="right")["train"]
        .notes[0]
        .endswith("'right', labels from 'label'; not used: left")
    )


def test_labels_that_do_not_fit_their_names(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    four = {"image": PNG[:4], "label": [0, 1, 2, 1]}
    write_arrow(path, four, {"label": class_label("a", "b")})
    with pytest.raises(PatchlightError, match="row 2 has the label 2 in the column 'label', whose 2 classes are a, b"):
        load_source(str(path))
    write_arrow(path, {**four, "label": ["b", "a", "b", "b"]}, {"label": class_label("b", "a")})
    assert names_and_labels(path) == (("b", "a"), [0, 1, 0, 0])
    write_arrow(path, {**four, "label": ["b", "c", "b", "b"]}, {"label": class_label("b", "a")})
    with pytest.raises(PatchlightError, match="row 1 has the label 'c'"):
        load_source(str(path))
    for without in ({"_type": "ClassLabel"}, {"num_classes": 3, "names": None, "_type": "ClassLabel"}):
        write_arrow(path, four, {"label": without})
        assert names_and_labels(path) == (("0", "1", "2"), [0, 1, 2, 1])
    for features in (None, [], [1], "x", {"label": None}, {"label": [1]}, {"image": {"_type": 3}}):
        write_arrow(path, four, features)
        assert names_and_labels(path) == (("0", "1", "2"), [0, 1, 2, 1])


def test_types_of_labels(tmp_path: Path) -> None:
    import decimal

    import pyarrow as pa

    path = tmp_path / "train.parquet"

    def labelled(values: Any) -> Path:
        return write_arrow(path, {"image": PNG[: len(values)], "label": values})

    names = ["b", "a", "b", "b"]
    assert names_and_labels(labelled(pa.array(names).dictionary_encode())) == (("a", "b"), [1, 0, 1, 1])
    assert names_and_labels(labelled(pa.array([7, 3, 7, 7]).dictionary_encode())) == (("3", "7"), [1, 0, 1, 1])
    assert names_and_labels(labelled([2.0, 0.0, 2.0])) == (("0", "2"), [1, 0, 1])
    assert names_and_labels(labelled([decimal.Decimal(2), decimal.Decimal(0)])) == (("0", "2"), [1, 0])
    assert names_and_labels(labelled(pa.array(names, pa.large_string()))) == (("a", "b"), [1, 0, 1, 1])
    with pytest.raises(PatchlightError, match=r"holds 0\.5; a label is text or a whole number"):
        load_source(str(labelled([0.5, 1.0])))
    with pytest.raises(PatchlightError, match="holds inf; a label"):
        load_source(str(labelled([float("inf"), 1.0])))
    with pytest.raises(PatchlightError, match=r"1 of 3 .*rows without a label"):
        load_source(str(labelled([float("nan"), 1.0, 2.0])))
    with pytest.raises(PatchlightError, match=r"several labels for an image; .*multi-label data are not supported"):
        load_source(str(labelled([[0, 1], [1]])))
    with pytest.raises(PatchlightError, match=r"the column 'label' holds date32\[day\], no labels"):
        load_source(str(labelled(pa.array([1, 2], pa.date32()))))
    with pytest.raises(PatchlightError, match="no labels"):
        load_source(str(labelled([{"a": 1}, {"a": 2}])))


def test_splits_whose_labels_have_different_types(tmp_path: Path) -> None:
    write_arrow(tmp_path / "train.parquet", {"image": PNG[:2], "label": ["cat", "dog"]})
    write_arrow(tmp_path / "test.parquet", {"image": PNG[2:4], "label": [0, 1]})
    with pytest.raises(PatchlightError, match=r"the column 'label' holds text in .*train.*, numbers in .*test"):
        load_source(str(tmp_path))


def test_a_missing_part_is_an_error(tmp_path: Path) -> None:
    for number in (0, 2):
        write_arrow(tmp_path / f"train-{number:05}-of-00004.parquet", {"image": PNG[:2], "label": [0, 1]})
    with pytest.raises(PatchlightError, match=r"2 of the 4 files train-\*-of-00004 are missing .*train-00001-of-00004"):
        load_source(str(tmp_path))


def test_folders_that_are_no_splits_are_not_merged(tmp_path: Path) -> None:
    for name in ("cats", "planes"):
        write_arrow(tmp_path / name / "train.parquet", {"image": PNG[:2], "label": [0, 1]})
    with pytest.raises(PatchlightError, match="may be several data sets: cats, planes; give one of them"):
        load_source(str(tmp_path))
    write_arrow(tmp_path / "cats" / "TEST.PARQUET", {"image": PNG[:2], "label": [0, 1]})
    assert list(load_source(str(tmp_path / "cats"))) == ["train", "test"]


@pytest.mark.parametrize(
    ("make", "note"),
    [
        (lambda x: x.astype("uint8"), ""),
        (lambda x: x.transpose(0, 2, 3, 1).astype("uint8"), ""),
        (lambda x: (x / 255).astype("float32"), "pixels of 0 to 1 are multiplied by 255"),
        (lambda x: x.astype("int64"), "int64 pixels from 0 to 255 are read as whole numbers"),
    ],
)
def test_images_as_arrays(make: Any, note: str, tmp_path: Path) -> None:
    pixels = torch.stack([chw(picture(i)) for i in range(6)]).numpy()
    pixels[0, 0, 0, :2] = 0, 255
    write_arrow(tmp_path / "train.parquet", {"image": make(pixels).tolist(), "label": [0, 1] * 3})
    train = load_source(str(tmp_path))["train"]
    assert torch.equal(train.images, torch.from_numpy(pixels))
    assert any(note in each for each in train.notes)


def test_arrays_of_datasets_and_arrays_that_are_no_images(tmp_path: Path) -> None:
    import datasets

    grey = [chw(picture(i)).numpy()[0] for i in range(4)]
    features = datasets.Features({"image": datasets.Array2D((8, 8), "uint8"), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict({"image": grey, "label": [0, 1, 0, 1]}, features).to_parquet(tmp_path / "train.parquet")
    train = load_source(str(tmp_path))["train"]
    assert torch.equal(train.images[2], torch.from_numpy(grey[2]).expand(3, 8, 8))
    for values, message in (
        ([[1.0, 2.0]] * 4, "rows of 2 numbers, not images"),
        ([[[1, 300], [2, 3]]] * 4, "neither of 0..1 nor whole numbers"),
        ([[[1, 9], [2]]] * 4, "its rows have different lengths"),
        ([[["a"]]] * 4, "holds list<.*string.*>, no images"),
    ):
        path = write_arrow(tmp_path / "bad" / "train.parquet", {"image": values, "label": [0, 1, 0, 1]})
        with pytest.raises(PatchlightError, match=message):
            load_source(str(path))


@pytest.mark.parametrize("declared", [False, True])
def test_arrays_in_what_datasets_saved(declared: bool, tmp_path: Path) -> None:
    import datasets

    pixels = [chw(picture(i)).permute(1, 2, 0).numpy() for i in range(6)]
    features = datasets.Features({"image": datasets.Array3D((8, 8, 3), "uint8"), "label": datasets.Value("int64")})
    made = datasets.Dataset.from_dict({"image": pixels, "label": [0, 1] * 3}, features if declared else None)
    datasets.concatenate_datasets([made, made]).save_to_disk(tmp_path / "saved")  # in two pieces
    train = load_source(str(tmp_path / "saved"))["train"]
    assert torch.equal(train.images, torch.stack([chw(picture(i)) for i in range(6)] * 2))


def test_paths_in_a_column_of_text(tmp_path: Path) -> None:
    for index in range(4):
        picture(index).save(tmp_path / f"{index}.png")
    write_arrow(tmp_path / "train.parquet", {"file_name": [f"{i}.png" for i in range(4)], "label": [0, 1, 0, 1]})
    assert torch.equal(load_source(str(tmp_path))["train"].images[3], chw(picture(3)))


def test_a_table_of_pixels_is_told(tmp_path: Path) -> None:
    columns = {"label": [0, 1]} | {f"pixel{i}": [0, 255] for i in range(784)}
    with pytest.raises(PatchlightError, match="as a table of pixels has; store them as an array"):
        load_source(str(write_arrow(tmp_path / "train.parquet", columns)))
    lines = [",".join(columns), *(",".join(str(values[row]) for values in columns.values()) for row in range(2))]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    with pytest.raises(PatchlightError, match=r"785 columns of numbers .* as a table of pixels has"):
        load_source(str(tmp_path / "train.csv"))


def test_pictures_of_a_table_that_are_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    for index in range(4):
        picture(index).save(tmp_path / "pics" / f"{index}.png")
    path = write_arrow(tmp_path / "train.parquet", {"path": [f"{i}.png" for i in range(4)], "label": [0, 1, 0, 1]})
    with pytest.raises(PatchlightError, match=r"the first is 0\.png, but in .* there is pics/0\.png"):
        load_source(str(path))
    assert len(load_source(str(path), image_folder=str(tmp_path / "pics"))["train"]) == 4


def test_what_differs_between_splits_is_said(tmp_path: Path) -> None:
    write_arrow(tmp_path / "train.parquet", {"image": PNG[:2], "label": [0, 1]}, {"label": class_label("a", "b")})
    write_arrow(tmp_path / "test.parquet", {"image": PNG[:2], "label": [0, 1]}, {"label": class_label("b", "a")})
    with pytest.raises(PatchlightError, match="those of 'label' are b, a, not a, b; give all files the same"):
        load_source(str(tmp_path))
