"""Lists as they are found in the world: official splits, several labels, folders of parts, tables of pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from source_files import picture

from patchlight.config import DataConfig
from patchlight.data.listing import Listing
from patchlight.data.sources import list_source
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
    assert "also holds 'none'; " in refused(table(root, split=["train", "test", "none"] * 4))


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
