"""CSV, TSV and JSON Lines that list image files with their labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from source_files import chw, picture

from patchlight.config import DataConfig
from patchlight.data.sources import list_source, load_source
from patchlight.errors import PatchlightError, UsageError

NAMES = ["ant", "bee", "cow"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve images, pics/00.png to pics/11.png."""
    (tmp_path / "pics").mkdir()
    for index in range(12):
        picture(index).save(tmp_path / "pics" / f"{index:02}.png")
    return tmp_path


def rows(count: int = 12, **more: Any) -> dict[str, list[Any]]:
    return {"image": [f"pics/{i:02}.png" for i in range(count)], "label": [NAMES[i % 3] for i in range(count)], **more}


def write(path: Path, columns: dict[str, list[Any]], **keywords: Any) -> Path:
    """As pandas writes it."""
    frame = pd.DataFrame(columns)
    if path.suffix in (".jsonl", ".ndjson"):
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else keywords.pop("sep", ","), **keywords)
    return path


def classes_of(source: Path, **settings: Any) -> dict[str, list[str]]:
    listing = list_source(DataConfig(source=str(source), **settings))
    return {key: [listing.class_names[i] for i in split.labels.tolist()] for key, split in listing.splits.items()}


def notes_of(source: Path, **settings: Any) -> str:
    listing = list_source(DataConfig(source=str(source), **settings))
    return "\n".join([*listing.notes, *listing.left_out_sentences()])


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "ndjson", "CSV"])
def test_every_kind_of_list(suffix: str, pictures: Path) -> None:
    path = write(pictures / f"all.{suffix}", rows())
    train = load_source(str(path))["train"]
    assert train.class_names == tuple(NAMES)
    assert train.labels.tolist() == [i % 3 for i in range(12)]
    assert torch.equal(train.images, torch.stack([chw(picture(i)) for i in range(12)]))
    assert train.notes[-1] == f"columns of {path}: images from 'image', labels from 'label'"


def test_names_are_found_whatever_their_case_and_order(pictures: Path) -> None:
    columns = {"Breed": ["x"] * 12, "File_Name": rows()["image"], "fold": [i % 4 for i in range(12)]}
    path = write(pictures / "a.csv", columns)
    with pytest.raises(
        PatchlightError, match=r"2 columns that can be the label: Breed \(text\), fold \(text\); .*label_"
    ):
        load_source(str(path))
    assert classes_of(path, label_column="fold")["train"] == [str(i % 4) for i in range(12)]
    assert classes_of(path, label_column="breed") == {"train": ["x"] * 12}
    with pytest.raises(UsageError, match=r"data.label_column: .* has no such column 'bred'; did you mean 'Breed'"):
        load_source(str(path), label_column="bred")
    write(path, {**columns, "Label": NAMES * 4})
    assert classes_of(path)["train"] == NAMES * 4
    write(path, {**columns, "Label": NAMES * 4, "class": [0, 1] * 6})
    with pytest.raises(PatchlightError, match=r"2 columns that can be the label: Label .*, class"):
        load_source(str(path))
    write(path, {**columns, "path": rows()["image"]})
    with pytest.raises(PatchlightError, match=r"2 columns that can be the image: File_Name .*, path"):
        load_source(str(path))


def test_an_identity_is_no_label(pictures: Path) -> None:
    path = write(pictures / "a.csv", {"image": rows()["image"], "id": list(range(12))})
    with pytest.raises(PatchlightError, match="the column 'id' has 12 values in 12 rows, too many for labels"):
        load_source(str(path))
    assert len(load_source(str(path), label_column="id")["train"].class_names) == 12


def test_a_split_column_and_its_names(pictures: Path) -> None:
    column = ["train"] * 6 + ["Valid"] * 3 + ["test"] * 3
    path = write(pictures / "a.csv", rows(split=column))
    assert {key: len(own) for key, own in classes_of(path).items()} == {"train": 6, "val": 3, "test": 3}
    assert "from the column 'split'" in notes_of(path)
    write(path, rows(fold=["0"] * 8 + ["1"] * 4))
    with pytest.raises(PatchlightError, match="has no split called train, val or test, but '0', '1'"):
        load_source(str(path), split_column="fold")
    splits = classes_of(path, split_column="fold", train_split="0", test_split="1")
    assert {key: len(own) for key, own in splits.items()} == {"train": 8, "test": 4}
    with pytest.raises(UsageError, match=r"data.split_column: .* has no column 'part'"):
        load_source(str(path), split_column="part")


def test_a_folder_of_lists(pictures: Path) -> None:
    every = pd.DataFrame(rows())
    every[:8].to_csv(pictures / "train.csv", index=False)
    every[8:].drop(columns="label").to_csv(pictures / "test.csv", index=False)
    (pictures / "sample_submission.csv").write_text("image,label\npics/00.png,ant\n")
    assert {key: len(own) for key, own in classes_of(pictures).items()} == {"train": 8}
    assert "images without labels (the split test): 4" in notes_of(pictures)
    every[8:].to_csv(pictures / "test.csv", index=False)
    assert {key: len(own) for key, own in classes_of(pictures).items()} == {"train": 8, "test": 4}
    every[8:].rename(columns={"label": "Species"}).to_csv(pictures / "test.csv", index=False)
    with pytest.raises(PatchlightError, match=r"test.csv has no column 'label'; is 'Species' its label\?"):
        load_source(str(pictures))


def test_the_metadata_file_of_datasets(pictures: Path) -> None:
    frame = pd.DataFrame({"file_name": [f"{i:02}.png" for i in range(12)], "label": NAMES * 4})
    frame.to_csv(pictures / "pics" / "metadata.csv", index=False)
    assert classes_of(pictures / "pics") == {"train": NAMES * 4}
    for split in ("train", "test"):
        (pictures / "both" / split).mkdir(parents=True)
        for index in range(3):
            picture(index).save(pictures / "both" / split / f"{index}.png")
        lines = [json.dumps({"file_name": f"{i}.png", "label": NAMES[i]}) for i in range(3)]
        (pictures / "both" / split / "metadata.jsonl").write_text("\n".join(lines))
    assert classes_of(pictures / "both") == {"train": NAMES, "test": NAMES}


def test_paths_begin_in_a_folder_and_may_lack_a_suffix(pictures: Path) -> None:
    ids = [f"{i:02}" for i in range(12)]
    (pictures / "lists").mkdir()
    path = write(pictures / "lists" / "labels.csv", {"id": ids, "breed": NAMES * 4})
    with pytest.raises(PatchlightError, match=r"none of the columns id, breed names an image in .*data\.image_folder"):
        load_source(str(path))
    found = load_source(str(path), image_folder=str(pictures / "pics"))["train"]
    assert torch.equal(found.images, torch.stack([chw(picture(i)) for i in range(12)]))
    assert found.class_names == tuple(NAMES)
    with pytest.raises(UsageError, match=r"data.image_folder: there is no folder"):
        load_source(str(path), image_folder=str(pictures / "none"))
    write(path, {"image": [f"{i}.png" for i in ids], "label": NAMES * 4})
    with pytest.raises(PatchlightError, match=r"none of its 12 images is there; the first is 00\.png, looked for in"):
        load_source(str(path))
    path = pictures / "labels.csv"
    write(path, {"image": [f"pics\\{i}.png" for i in ids], "label": NAMES * 4})
    assert len(load_source(str(path))["train"]) == 12
    write(path, {"image": [str(pictures / "pics" / f"{i}.png") for i in ids], "label": NAMES * 4})
    assert len(load_source(str(path))["train"]) == 12
    write(path, {"image": [f"https://example.org/{i}.png" for i in ids], "label": NAMES * 4})
    with pytest.raises(PatchlightError, match=r"its images are addresses \(https://example.org/00.png\); download"):
        load_source(str(path))


def test_rows_that_cannot_be_used_are_counted(pictures: Path) -> None:
    columns = rows()
    columns["image"][3] = "pics/gone.png"
    columns["label"][5] = None
    path = write(pictures / "a.csv", columns)
    with pytest.raises(PatchlightError, match="2 of 12 images would be left out") as caught:
        load_source(str(path))
    assert "rows without a label: 1, such as row 6 of" in str(caught.value)
    assert "images that are not there: 1, such as pics/gone.png" in str(caught.value)
    train = load_source(str(path), max_left_out=0.2)["train"]
    assert torch.equal(train.images, torch.stack([chw(picture(i)) for i in range(12) if i not in (3, 5)]))


def test_cells_are_text_and_whole_numbers_stay_in_order(pictures: Path) -> None:
    path = write(pictures / "a.csv", {"image": rows()["image"], "label": [str(i) for i in range(12)]})
    labels = {"label_column": "label"}
    assert load_source(str(path), **labels)["train"].class_names == tuple(str(i) for i in range(12))
    write(path, {"image": rows()["image"], "label": [f"{i:03}" for i in range(12)]})
    assert load_source(str(path), **labels)["train"].class_names[1] == "001"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"image,label\n", "has no rows"),
        (b"image,label\na.png,x,y\n", "row 1 has 3 cells where the first line has 2"),
        (b"image,image\na.png,x\n", "two columns called 'image'"),
        (b'image,label\n"a.png,x\n', "is no table with commas"),
        ("image;label\npics/00.png;é".encode("latin-1"), "is not UTF-8 text"),
        ("image,label\npics/00.png,x".encode("utf-16"), "is not UTF-8 text"),
        (b"\x00\x01\x02", "a character of value 0 in line 1, as no text has"),
    ],
)
def test_tables_that_cannot_be_read(content: bytes, message: str, pictures: Path) -> None:
    (pictures / "a.csv").write_bytes(content)
    with pytest.raises(PatchlightError, match=message):
        load_source(str(pictures / "a.csv"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("{", "line 1 is no JSON"),
        ("[1]", "line 1 is no JSON object"),
        ('{"image": "pics/00.png", "label": ["ant", "bee"]}', "several labels for an image"),
        ('{"image": "pics/00.png", "label": 0.5}', "holds 0.5; a label is text or a whole number"),
        ('{"image": "pics/00.png", "label": {"a": 1}}', "no labels"),
        ('{"image": 3, "label": 1}', r"no image column; its columns are image \(number\), label"),
        ('{"image": "pics/00.png", "label": 1}\n{"image": "pics/01.png", "label": "x"}', "numbers and text"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_json_lines_that_cannot_be_read(lines: str, message: str, pictures: Path) -> None:
    (pictures / "a.jsonl").write_text(lines)
    with pytest.raises(PatchlightError, match=message):
        load_source(str(pictures / "a.jsonl"))


def test_odd_tables_that_are_read(pictures: Path) -> None:
    path = write(pictures / "a.csv", rows(), sep=";", encoding="utf-8-sig")
    assert classes_of(path) == {"train": NAMES * 4}
    assert "is read as a table with semicolons" in notes_of(path)
    (pictures / "a.csv").write_text("\n".join(f"pics/{i:02}.png,{NAMES[i % 3]}" for i in range(12)))
    assert classes_of(path) == {"train": NAMES * 4}
    assert "does not name its columns; they are called column 1, column 2" in notes_of(path)
    (pictures / "a.csv").write_text('image,label\r\n\r\n"pics/00.png","ant, red"\r\n pics/01.png , bee \r\n')
    assert classes_of(path) == {"train": ["ant, red", "bee"]}


def test_the_cache_notices_a_changed_list(pictures: Path) -> None:
    path = write(pictures / "a.csv", rows())
    first = load_source(str(path), memory_limit_mb=0)["train"]
    picture(77).save(pictures / "pics" / "00.png")
    second = load_source(str(path), memory_limit_mb=0)["train"]
    assert torch.equal(second.images[0], chw(picture(77)))
    assert torch.equal(first.images[1:], second.images[1:])


def test_nothing_of_a_split_column_is_dropped(pictures: Path) -> None:
    for odd in ("", "extra"):
        path = write(pictures / "a.csv", rows(split=["train"] * 8 + [odd] + ["test"] * 3))
        with pytest.raises(PatchlightError, match="the column 'split' names splits, but also"):
            load_source(str(path))
    write(path, rows(split=["train", "Train", "TRAIN "] * 3 + ["test"] * 3))
    assert {key: len(own) for key, own in classes_of(path).items()} == {"train": 9, "test": 3}


def test_a_metadata_file_above_the_folders_of_splits(pictures: Path) -> None:
    for split in ("train", "test"):
        (pictures / split).mkdir()
        for index in range(4):
            picture(index).save(pictures / split / f"{index}.png")
    names = [f"{split}/{index}.png" for split in ("train", "test") for index in range(4)]
    write(pictures / "metadata.csv", {"file_name": names, "label": [0, 1] * 4})
    assert {key: len(own) for key, own in classes_of(pictures).items()} == {"train": 4, "test": 4}


def test_a_first_row_is_not_taken_for_names(pictures: Path) -> None:
    lines = [f"{i:02}.png,{NAMES[i % 3]}" for i in range(12)]
    path = pictures / "a.csv"
    folder = {"image_folder": str(pictures / "pics")}
    path.write_text("\n".join(lines))
    assert len(classes_of(path, **folder)["train"]) == 12
    path.write_text("\n".join(line.replace(".png", "") for line in lines))
    assert len(classes_of(path, **folder)["train"]) == 12
    path.write_text("\n".join(["gone.png,ant", *lines]))
    with pytest.raises(PatchlightError, match=r"1 of 13 .*images that are not there: 1, such as gone.png"):
        load_source(str(path), **folder)
    path.write_text("# a comment\nimage,label\na,b\n")
    with pytest.raises(PatchlightError, match="the first line has one cell, '# a comment'"):
        load_source(str(path))


def test_cells_that_stand_for_no_label_or_for_several(pictures: Path) -> None:
    columns = rows()
    columns["label"][0] = "nan"
    path = write(pictures / "a.csv", columns)
    with pytest.raises(PatchlightError, match=r"1 of 12 .*rows without a label: 1"):
        load_source(str(path))
    columns["label"][0] = "N/A"
    write(path, columns)
    frame = path.read_text()
    assert "N/A" in frame
    assert "'label' has the class N/A; if that means no label" in notes_of(path)
    for several in ("ant|bee", "ant, cow", "[0, 1]"):
        columns["label"][0] = several
        with pytest.raises(PatchlightError, match="several labels for an image"):
            load_source(str(write(path, columns)))


def test_an_image_that_is_listed_twice(pictures: Path) -> None:
    columns = {key: own + own[:3] for key, own in rows().items()}
    path = write(pictures / "a.csv", columns)
    assert len(classes_of(path)["train"]) == 12
    assert "rows that name an image again: 3, such as pics/00.png" in notes_of(path)
    columns["label"][-1] = "ant"
    with pytest.raises(PatchlightError, match=r"02\.png is listed with two labels, in the rows 3 and 15"):
        load_source(str(write(path, columns)))


def test_names_of_images_that_are_not_clear(pictures: Path) -> None:
    picture(50).save(pictures / "pics" / "img.v0.png")
    path = write(pictures / "a.csv", {"image": ["img.v0", "00"] * 2, "label": [0, 1] * 2})
    assert len(classes_of(path, image_folder=str(pictures / "pics"))["train"]) == 2
    picture(51).save(pictures / "pics" / "00.jpg")
    with pytest.raises(PatchlightError, match=r"'00' can be 00\.jpg or 00\.png of .*; write the suffix"):
        load_source(str(path), image_folder=str(pictures / "pics"))
    for name in ("/home/alice/x.png", "C:\\Users\\me\\x.png"):
        write(path, {"image": [name] * 4, "label": [0, 1] * 2})
        with pytest.raises(PatchlightError, match="an absolute path; make the paths relative"):
            load_source(str(path))
    assert (
        len(
            classes_of(
                write(pictures / "b.csv", {"image": ["00.png", "01.png"], "label": [0, 1]}), image_folder="pics"
            )["train"]
        )
        == 2
    )
