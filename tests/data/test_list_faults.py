"""Lists as they are found in the world: official splits, several labels, folders of parts, tables of pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from source_files import chw, encode, picture

from patchlight.config import DataConfig
from patchlight.data.listing import Listing
from patchlight.data.sources import list_source, load_source
from patchlight.errors import PatchlightError

NAMES = ["ant", "bee", "cow"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve images, images/00.png to images/11.png."""
    (tmp_path / "images").mkdir()
    for index in range(12):
        picture(index).save(tmp_path / "images" / f"{index:02}.png")
    return tmp_path


def table(root: Path, **columns: list[Any]) -> Path:
    """A CSV file of the twelve images with other columns; the labels are those of NAMES, unless they are given."""
    every = {"image": [f"images/{i:02}.png" for i in range(12)], "label": NAMES * 4} | columns
    pd.DataFrame(every).to_csv(root / "all.csv", index=False)
    return root / "all.csv"


def listing(path: Path, **settings: Any) -> Listing:
    return list_source(DataConfig(source=str(path), **settings))


def sizes(found: Listing) -> dict[str, int]:
    return {key: len(split.labels) for key, split in found.splits.items()}


def told(found: Listing) -> str:
    return "\n".join([*found.notes, *found.left_out_sentences()])


def refused(path: Path, **settings: Any) -> str:
    with pytest.raises(PatchlightError) as caught:
        listing(path, **settings)
    return str(caught.value)


@pytest.mark.parametrize("name", ["set", "data set", "Usage", "partition", "phase", "whatever"])
def test_a_column_of_names_of_splits_is_the_split_whatever_it_is_called(name: str, root: Path) -> None:
    found = listing(table(root, **{name: ["Training"] * 7 + ["valid"] * 3 + ["test"] * 2}))
    assert sizes(found) == {"train": 7, "val": 3, "test": 2}
    assert f"from the column '{name}'" in told(found)


def test_two_test_splits_are_told_apart(root: Path) -> None:
    path = table(root, Usage=["Training"] * 6 + ["PublicTest"] * 3 + ["PrivateTest"] * 3)
    assert "2 splits for 'test': 'PublicTest', 'PrivateTest'; say which it is with data.test_split" in refused(path)
    found = listing(path, val_split="PublicTest", test_split="PrivateTest")
    assert sizes(found) == {"train": 6, "val": 3, "test": 3}


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("is_valid", [False] * 8 + [True] * 4, {"train": 8, "val": 4}),
        ("Is Test", ["false"] * 8 + ["TRUE"] * 4, {"train": 8, "test": 4}),
        ("istrain", [1] * 8 + [0] * 4, {"train": 8, "test": 4}),
        ("is_training_image", [1] * 8 + [0] * 4, {"train": 8, "test": 4}),
    ],
)
def test_truths_that_say_the_split(name: str, values: list[Any], expected: dict[str, int], root: Path) -> None:
    path = table(root, **{name: values})
    found = listing(path)
    assert sizes(found) == expected
    assert f"from the column '{name}', where True is " in told(found)
    raw = sorted({str(value) for value in values}, key=[str(value) for value in values].index)
    other = listing(path, split_column=name, train_split=raw[1], val_split=raw[0])
    assert sizes(other) == {"train": 4, "val": 8}


def test_what_is_no_split_column(root: Path) -> None:
    for values in (["car", "train", "bus"] * 4, ["train station", "test tube"] * 6, ["train"] * 12):
        found = listing(table(root, kind=values))
        assert sizes(found) == {"train": 12}
        assert "not used: kind" in told(found)
    assert listing(table(root, label=["train", "test"] * 6)).class_names == ("test", "train")
    two = refused(table(root, set=["train", "test"] * 6, is_valid=[True, False] * 6))
    assert "2 columns that name splits: 'set', 'is_valid'; say which with data.split_column" in two
    odd = refused(table(root, set=["train", "test", "extra"] * 4))
    assert "the column 'set' names splits, but also holds 'extra'; correct them" in odd
    assert sizes(listing(root / "all.csv", split_column="set", train_split="train", test_split="test")) == {
        "train": 4,
        "test": 4,
    }
    assert "also holds empty cells; " in refused(table(root, split=["train", "test", None] * 4))
    assert "also holds empty cells; " in refused(table(root, is_valid=[True, False, None] * 4))
    assert sizes(listing(table(root, is_valid=["no", "no", "yes"] * 4))) == {"train": 8, "val": 4}
    assert sizes(listing(table(root, is_valid=["no"] * 12))) == {"train": 12}
    assert "also holds 'none'; " in refused(table(root, split=["train", "test", "none"] * 4))


def test_a_list_for_each_split_that_has_splits_in_it(root: Path) -> None:
    path = table(root, set=["train", "val", "val"] * 4)
    path.rename(root / "train.csv")
    table(root, set=["test"] * 12).rename(root / "test.csv")
    assert "has splits in its column 'set', but" in refused(root)
    table(root, set=["train"] * 12).rename(root / "train.csv")
    pd.DataFrame({"image": ["images/00.png"], "label": ["ant"], "set": ["test"]}).to_csv(root / "test.csv")
    assert sizes(listing(root)) == {"train": 12, "test": 1}


@pytest.mark.parametrize("kind", [int, float, bool, str])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_column_for_each_class_is_told(kind: Any, suffix: str, root: Path) -> None:
    path = root / f"all.{suffix}"

    def write(**columns: list[int]) -> None:
        hot = {name: [kind(value) for value in own] for name, own in columns.items()}
        frame = pd.DataFrame({"image": [f"images/{i:02}.png" for i in range(12)]} | hot)
        if suffix == "csv":
            frame.to_csv(path, index=False)
        elif suffix == "jsonl":
            frame.to_json(path, orient="records", lines=True)
        else:
            frame.to_parquet(path)

    write(healthy=[1, 0, 0] * 4, rust=[0, 1, 0] * 4, scab=[0, 0, 1] * 4)
    assert "3 columns of 0 and 1: healthy, rust, scab, one for each class" in refused(path)
    assert refused(path).endswith("df[cols].idxmax(axis=1) with cols the list of these")
    write(healthy=[1, 0, 0] * 4, rust=[0, 1, 0] * 4)
    assert refused(path).endswith("take out the 4 rows without a 1 before")
    write(healthy=[1, 0, 0] * 4, rust=[1, 1, 0] * 4)
    assert "4 rows with several 1s look like several labels for an image" in refused(path)
    write(healthy=[1, 0, 2] * 4, rust=[1, 1, 2] * 4)
    assert "columns of 0 and 1" not in refused(path, label_column="none")


def test_images_in_folders_of_parts(root: Path) -> None:
    for part in ("part_1", "part_2"):
        (root / "images" / part).mkdir()
    for index in range(12):
        (root / "images" / f"{index:02}.png").rename(root / "images" / f"part_{index % 2 + 1}" / f"{index:02}.png")
    for column, suffix in (("image_id", ""), ("Image Index", ".png"), ("image", ".png")):
        names = [f"{i:02}{suffix}" for i in range(12)]
        pd.DataFrame({column: names, "label": NAMES * 4}).to_csv(root / "all.csv", index=False)
        found = listing(root / "all.csv")
        assert sizes(found) == {"train": 12}
        assert "12 of 12 images found by name in the folders below" in told(found)
        assert [Path(name).stem for name, _ in found.splits["train"].items()] == [f"{i:02}" for i in range(12)]
    (root / "images" / "thumbs").mkdir()
    picture(0).save(root / "images" / "thumbs" / "00.png")
    assert "'00.png' can be images/part_1/00.png or images/thumbs/00.png of" in refused(root / "all.csv")
    path = table(root, image=["part_9/00.png", *(f"part_{i % 2 + 1}/{i:02}.png" for i in range(1, 12))])
    assert "images that are not there: 1, such as part_9/00.png" in told(
        listing(path)
    )  # that of another folder is another
    (root / "all.csv").write_text("\n".join(f"{i:02},{NAMES[i % 3]}" for i in range(1, 12)))
    assert "its first line has '01', which names an image; put a line before it" in refused(root / "all.csv")


def test_a_name_that_differs_from_the_file(root: Path) -> None:
    for written in ("images/{}.jpg", "Images/{}.PNG", "IMAGES\\{}.png"):
        said = refused(table(root, image=[written.format(f"{i:02}") for i in range(12)]))
        assert f"the first is {written.format('00')}, but in {root} there is images/00.png; write the paths" in said
    (root / "images" / "11.png").rename(root / "images" / "11.PNG")
    said = told(listing(table(root)))
    assert "images that are not there: 1, such as images/11.png (there is images/11.PNG)" in said


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("column", ["pixels", "image"])
@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (" ".join(["70"] * 2304), "the pixels themselves as text (70 70"),
        (" ".join(["70"] * 50_000), "the pixels themselves as text (70 70"),
        ("https://example.org/a.png", "addresses (https://example.org/a.png); download them first"),
        ("iVBORw0KGgoAAAANSUhEUg" * 50, "images as text, base64 as it looks (iVBORw0KGgo"),
        ("data:image/png;base64,iVBOR", "images as text, base64 as it looks (data:image/png"),
    ],
)
def test_cells_that_hold_images_in_a_way_that_is_not_read(
    suffix: str, column: str, cell: str, message: str, root: Path
) -> None:
    frame = pd.DataFrame(
        {"emotion": [0, 1] * 6, column: [cell] * 12, "Usage": ["Training", "PublicTest", "PrivateTest"] * 4}
    )
    if column == "image":  # whose splits are told of first
        frame = frame.drop(columns="Usage")
    if suffix == "csv":
        frame.to_csv(root / "all.csv", index=False)
    else:
        frame.to_parquet(root / "all.parquet")
    said = refused(root / f"all.{suffix}", label_column="emotion")
    assert message in said
    assert len(said) < 500


def test_a_column_of_addresses_beside_the_images_is_no_fault(root: Path) -> None:
    path = table(root, url=["https://example.org/a.png"] * 12)
    pd.read_csv(path).rename(columns={"image": "id"}).to_csv(path, index=False)
    assert sizes(listing(path)) == {"train": 12}


def test_a_table_of_pixels_without_names_of_columns(root: Path) -> None:
    (root / "a.csv").write_text("\n".join(",".join(["3"] + ["0"] * 784) for _ in range(12)))
    assert "785 columns of numbers and none of images, as a table of pixels has" in refused(root / "a.csv")
    (root / "a.csv").write_text("image,,\nimages/00.png,1,2\n")
    assert "has two columns without a name; rename one" in refused(root / "a.csv")


def test_what_separates_cells_is_said(root: Path) -> None:
    body = "\n".join(["image;label", *(f"images/{i:02}.png;{NAMES[i % 3]}" for i in range(12))])
    for sign, shown in ((";", ";"), ("\t", "\\t"), ("|", "|"), (":", ":")):
        (root / "a.csv").write_text(f"sep={sign}\r\n" + body.replace(";", sign))
        found = listing(root / "a.csv")
        assert sizes(found) == {"train": 12}
        assert f"is read with '{shown}' between cells, as its first line says" in told(found)
    (root / "a.tsv").write_text(body.replace(";", ","))
    assert "is read as a table with commas" in told(listing(root / "a.tsv"))
    (root / "a.tsv").write_text(body.replace(";", "\t"))
    assert "is read as a table" not in told(listing(root / "a.tsv"))


def test_a_quote_that_is_not_closed(root: Path) -> None:
    lines = ["image,label", *(f"images/{i:02}.png,{NAMES[i % 3]}" for i in range(12))]
    lines[5] = 'images/04.png,"bee'
    (root / "a.csv").write_text("\n".join(lines))
    assert "a quote that opens in line 6 is not closed" in refused(root / "a.csv")
    lines[9] = 'images/08.png,"cow"'
    (root / "a.csv").write_text("\n".join(lines))
    assert "(line 6)" in refused(root / "a.csv")


def test_json_lines(root: Path) -> None:
    lines = [f'{{"image": "images/{i:02}.png", "label": {i % 2}}}' for i in range(12)]
    path = root / "a.jsonl"

    def said(last: str) -> str:
        path.write_text("\n".join([*lines[:11], last]))
        return refused(path)

    assert "line 12 is no JSON: Unterminated string starting at, column 11" in said('{"image": "images/11.png}')
    path.write_text("\n".join([*lines[:11], '{"image": "images/11.png", "label": NaN}']))
    assert "rows without a label: 1, such as row 12" in told(listing(path))
    objects = [line.replace('"label": ', '"label": {"id": ') + "}" for line in lines]
    path.write_text("\n".join(objects))
    assert "the column 'label' holds objects, no labels" in refused(path)
    assert "values of several types (number, object), no labels" in said(objects[11])
    path.write_text("\n".join([*lines[:11], '{"image": "images/11.png", "label": 1.0}']))
    assert listing(path).class_names == ("0", "1")
    path.write_text("[" + ",\n".join(lines) + "]")
    assert sizes(listing(path)) == {"train": 12}
    assert "is one JSON array, whose objects are read as lines" in told(listing(path))
    path.write_text("[" + ",\n".join([*lines, "3"]) + "]")
    assert "entry 13 is no JSON object" in refused(path)


def test_labels_that_are_numbers_in_other_words(root: Path) -> None:
    found = listing(table(root, label=["0", "1.0", "1", "0.0"] * 3))
    assert found.class_names == ("0", "1")
    assert "labels of 'label' such as 0.0 are read as whole numbers" in told(found)
    assert listing(table(root, label=["10.0", "2.0", "1.0", "-3."] * 3)).class_names == ("-3", "1", "2", "10")
    assert listing(table(root, label=["10.0", "2.0", "nan", "1.0"] * 3)).class_names == ("1", "2", "10")
    for labels, alike in (
        (["1", "01", "2"], "'01' and '1'"),
        (["1.5", "1.50", "x"], "'1.5' and '1.50'"),
        (["Cat", "cat", "the  dog", "The dog"], "'Cat' and 'cat', 'The dog' and 'the  dog'"),
    ):
        found = listing(table(root, label=labels * (12 // len(labels))))
        assert set(found.class_names) == set(labels)
        assert f"'label' has classes that look alike: {alike}; if they are one" in told(found)
    assert "look alike" not in told(listing(table(root)))


def test_several_labels_in_a_cell(root: Path) -> None:
    for labels in (
        ["Cardiomegaly|Emphysema", "Cardiomegaly", "No Finding"],
        ["a;b", "b; c", "d"],
        ["a|b", "b|a", "d"],
        ["a, b", "a", "b"],
    ):
        assert f"holds '{labels[0]}', several labels for an image" in refused(table(root, label=labels * 4))
    for labels in (["a|b", "c|d", "e"], ["a, b", "a", "c"], ["a|", "|a", "c"]):
        assert set(listing(table(root, label=labels * 4)).class_names) == set(labels)


def test_classes_that_may_be_none(root: Path) -> None:
    path = table(root, label=["?", "null", "a"] * 4)
    assert "'label' has the classes ?, null; if these mean no label, leave" in told(listing(path))


def test_splits_beside_name_an_image_and_say_why_once(root: Path) -> None:
    path = table(root, fold=[0, 1, 2, 3] * 3)
    said = refused_to_load(path, split_column="fold", train_split="0")
    assert said == ""  # left out on purpose
    path = table(root, set=["train", "test", "fold two", "fold three"] * 3)
    said = refused_to_load(path, split_column="set")
    assert "images of the splits 'fold two', 'fold three' (data.train_split, val" in said
    assert "name the splits): 6, such as images/02.png)" in said
    assert said.count("data.train_split") == 1


def refused_to_load(path: Path, **settings: Any) -> str:
    """What is said of too much that is left out; "" where it is not too much."""
    return listing(path, **settings).too_much_left_out(0.01) or ""


def test_a_column_without_a_name(root: Path) -> None:
    frame = pd.read_csv(table(root))
    frame.to_csv(root / "all.csv")  # with its index
    assert told(listing(root / "all.csv")).endswith("not used: a column without a name")


def test_labels_of_another_kind_in_another_split(root: Path) -> None:
    lines = [f'{{"image": "images/{i:02}.png", "label": "{i % 2}"}}' for i in range(12)]
    (root / "train.jsonl").write_text("\n".join(lines[:8]))
    (root / "test.jsonl").write_text('{"image": "images/08.png", "label": ["1"]}')
    assert "test.jsonl: the column 'label' holds list values, no labels" in refused(root)


@pytest.mark.parametrize("kind", ["parquet", "saved", "arrays", "paths"])
@pytest.mark.parametrize("column", ["set", "is_valid"])
def test_a_table_with_a_column_of_splits(kind: str, column: str, tmp_path: Path) -> None:
    import datasets

    pixels = [chw(picture(i)) for i in range(150)]  # more than a batch
    last = [index % 3 == 2 for index in range(150)]
    says = last if column == "is_valid" else ["val" if other else "train" for other in last]
    images: list[Any] = [encode(picture(i)) for i in range(150)]
    features: dict[str, Any] = {}
    if kind == "arrays":
        images = [image.permute(1, 2, 0).numpy() for image in pixels]
        fields = {"breed": datasets.Value("string"), column: datasets.Value("bool" if says is last else "string")}
        features = {"features": datasets.Features({"image": datasets.Array3D((8, 8, 3), "uint8")} | fields)}
    elif kind == "paths":
        images = [f"{i}.png" for i in range(150)]
        for index in range(150):
            picture(index).save(tmp_path / f"{index}.png")
    made = datasets.Dataset.from_dict(
        {"image": images, "breed": ["a", "b", "c", "d"] * 37 + ["a", "b"], column: says}, **features
    )
    path = tmp_path / ("saved" if kind in ("saved", "arrays") else "all.parquet")
    if path.name == "saved":
        made.save_to_disk(path)
    else:
        made.to_parquet(path)
    sets = load_source(str(path))
    assert torch.equal(
        sets["train"].images, torch.stack([own for own, val in zip(pixels, last, strict=True) if not val])
    )
    assert torch.equal(sets["val"].images, torch.stack([own for own, val in zip(pixels, last, strict=True) if val]))
    assert sets["val"].labels.tolist() == [index % 4 for index in range(150) if last[index]]
    assert f"from the column '{column}'" in "\n".join(sets["train"].notes)
    assert "not used" not in "\n".join(sets["train"].notes)
