"""Random tables, lists and folders, whole and damaged: image sets or a PatchlightError of one line, nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz import ROUNDS, mutated
from source_files import encode, picture

from patchlight.config import DataConfig
from patchlight.data.sources import load_source
from patchlight.data.splits import load_splits
from patchlight.errors import PatchlightError

PNGS = [encode(picture(i, (4, 4))) for i in range(8)]
NAMES = ["image", "IMG", "file_name", "label", "Label", "class", "id", "fold", "split", "", "x y", "données", "🐈"]


def one_sentence(load: Callable[[], object]) -> bool:
    """Whether it loads; what it raises is a PatchlightError of one line, or goes through."""
    try:
        load()
        return True
    except PatchlightError as error:
        text = str(error)
        assert text, "an empty sentence"
        assert "\n" not in text
        assert len(text) < 2500
        return False


def columns(draw: np.random.Generator, rows: int) -> list[Any]:
    """A column of every kind that a table may hold."""
    words = ["cat", "dog", "", " ", "cat ", "1", "-1", "nan", "a/b.png", "0.png", None]
    return [
        [PNGS[i % 8] for i in range(rows)],
        [{"bytes": PNGS[i % 8], "path": None} for i in range(rows)],
        [{"bytes": None, "path": f"{i}.png"} for i in range(rows)],
        [b"", *[b"no image"] * (rows - 1)],
        [f"{i}.png" for i in range(rows)],
        [words[i] for i in draw.integers(0, len(words), rows)],
        draw.integers(-2, 4, rows).tolist(),
        [None if value < 0 else int(value) for value in draw.integers(-2, 4, rows)],
        draw.normal(size=rows).tolist(),
        [float(value) for value in draw.integers(0, 3, rows)],
        [float("nan"), *[1.0] * (rows - 1)],
        [bool(value) for value in draw.integers(0, 2, rows)],
        [[int(value)] for value in draw.integers(0, 3, rows)],
        draw.integers(0, 256, (rows, 4, 4, 3)).tolist(),
        [[[1, 2], [3]]] * rows,
        [None] * rows,
        [{"a": 1}] * rows,
        pa.array([["cat", "dog"][i % 2] for i in range(rows)]).dictionary_encode(),
        pa.array(list(range(rows)), pa.date32()),
        pa.array([2**63 + i for i in range(rows)], pa.uint64()),
    ]


def features(draw: np.random.Generator, names: list[str]) -> object:
    """What `datasets` may have written about the columns, or something else."""
    kinds: list[object] = [
        None,
        [],
        {"_type": "ClassLabel"},
        {"_type": "ClassLabel", "names": ["cat", "dog", "cow"]},
        {"_type": "ClassLabel", "names": "cat"},
        {"_type": "ClassLabel", "names": [1, None]},
        {"_type": "Image"},
        {"_type": 7},
        {"dtype": "int64", "_type": "Value"},
    ]
    whole: list[object] = [None, [], "x", {name: kinds[draw.integers(len(kinds))] for name in names}]
    return whole[draw.integers(len(whole))]


def write_table(path: Path, draw: np.random.Generator) -> None:
    rows = int(draw.integers(0, 12))
    there = columns(draw, rows) if rows else [[]] * 20
    names = list(dict.fromkeys(NAMES[i] for i in draw.integers(0, len(NAMES), draw.integers(1, 5))))
    chosen = {name: there[draw.integers(len(there))] for name in names}
    if draw.random() < 0.5:
        chosen |= {"image": there[draw.integers(3)], "label": there[draw.integers(5, len(there))]}
    table = pa.table(chosen)
    if draw.random() < 0.5:
        info = {"info": {"features": features(draw, names)}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def settings(draw: np.random.Generator) -> dict[str, Any]:
    """Now and then, settings that name columns, splits or nothing."""
    found = {}
    for name in ("image_column", "label_column", "split_column", "train_split", "test_split"):
        if draw.random() < 0.15:
            found[name] = NAMES[draw.integers(len(NAMES))]
    return found


@ROUNDS
def test_random_tables(seed: int, times: int, tmp_path: Path) -> None:
    draw, read = np.random.default_rng(seed), 0
    files = ["train.parquet", "test.parquet", "train-00000-of-00002.parquet", "a/b.parquet", "data.PARQUET"]
    for number in range(150 * times):
        root = tmp_path / str(number)
        for file in files[: 1 + number % 2] if number % 5 else [files[i] for i in draw.integers(0, 5, 2)]:
            write_table(root / file, draw)
        given = {"max_left_out": 1.0, **settings(draw)}
        read += one_sentence(lambda: load_source(str(root), **given))  # noqa: B023
        shutil.rmtree(root)
    assert read > 0


@ROUNDS
def test_damaged_tables(seed: int, times: int, tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    write_table(path, np.random.default_rng(3))
    pq.write_table(pa.table({"image": PNGS, "label": ["a", "b"] * 4}), path)
    for data in mutated([path.read_bytes()], 100 * times, seed):
        path.write_bytes(data)
        one_sentence(lambda: load_source(str(path), max_left_out=1.0, memory_limit_mb=0))


LISTS = [
    b"image,label\n" + b"".join(b"%d.png,%s\n" % (i, b"ab"[i % 2 : i % 2 + 1]) for i in range(8)),
    b"\xef\xbb\xbfpath;class;split\n" + b"".join(b"%d.png;%d;train\n" % (i, i % 3) for i in range(8)),
    b"".join(b'"%d.png","a ""b"", c"\n' % i for i in range(8)),
    b"label\timage\n" + b"".join(b"%d\t%d.png\n" % (i % 2, i) for i in range(8)),
]
LINES = [b"".join(b'{"file_name": "%d.png", "label": %d, "more": [1, null]}\n' % (i, i % 2) for i in range(8))]


@ROUNDS
@pytest.mark.parametrize(("suffix", "whole"), [("csv", LISTS), ("tsv", LISTS), ("jsonl", LINES)])
def test_damaged_lists(seed: int, times: int, suffix: str, whole: list[bytes], tmp_path: Path) -> None:
    for index, data in enumerate(PNGS):
        (tmp_path / f"{index}.png").write_bytes(data)
    path, read = tmp_path / f"all.{suffix}", 0
    for data in [*whole, *mutated(whole, 100 * times, seed)]:
        path.write_bytes(data)
        read += one_sentence(lambda: load_source(str(path), max_left_out=1.0))
    assert read > 0


FOLDERS = [
    "train",
    "test",
    "val",
    "Training",
    "a",
    "b",
    "images",
    "set",
    "seg_test",
    "pred",
    ".x",
    "__MACOSX",
    "1",
    "train_val",
]
FILES = [
    "0.png",
    "1.png",
    "x",
    "b.txt",
    "labels.csv",
    "c.heic",
    "._0.png",
    "val_annotations.txt",
    "metadata.csv",
    "m.jsonl",
]


@ROUNDS
def test_random_folders(seed: int, times: int, tmp_path: Path) -> None:
    draw, read = np.random.default_rng(seed), 0
    for number in range(200 * times):
        root = tmp_path / f"root{number}"
        root.mkdir()
        for name in ("cat", "dog") if number % 2 else ():
            for index in range(4):
                (root / name).mkdir(exist_ok=True)
                (root / name / f"{index}.png").write_bytes(PNGS[draw.integers(8)])
        for _ in range(draw.integers(1, 4 + 10 * (number % 3))):
            parts = [FOLDERS[i] for i in draw.integers(0, len(FOLDERS), draw.integers(0, 4))]
            file = root.joinpath(*parts, FILES[draw.integers(len(FILES))])
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                if file.name == "c.heic" and draw.random() < 0.3:
                    file.symlink_to("nowhere")
                else:
                    file.write_bytes(PNGS[draw.integers(8)] if draw.random() < 0.7 else b"a.png\tx\n")
            except (FileExistsError, NotADirectoryError):
                continue
        given = {"max_left_out": 1.0, "on_bad": ["error", "skip"][draw.integers(2)], "image_size": 8}
        if draw.random() < 0.3:
            given["class_folders"] = ["outer", "inner"][draw.integers(2)]
        config = DataConfig(source=str(root), val_fraction=0.0, **given)
        read += one_sentence(lambda: load_splits(config))  # noqa: B023
        shutil.rmtree(root)
    assert read > 0
