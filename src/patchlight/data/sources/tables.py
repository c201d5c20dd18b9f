"""Image tables: Parquet files, the Hugging Face hub, and what `datasets` saved to disk.

All three carry an Arrow schema in which `datasets` has written what the columns mean, so they share one reading.
Columns are found by type, not by name:

- the image column is the first one of the feature type Image, else the first that holds bytes;
- the label column is the one of the feature type ClassLabel, the one with most classes where there are several
  (CIFAR-100's 100 fine labels, not its 20 coarse ones); else the one called "label", "labels", "class" or "target",
  else the only column of whole numbers, else the only one of text. Its values, sorted, are the classes.
"""

from __future__ import annotations

import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.decode import Encoded
from patchlight.data.listing import SPLIT_NAMES, Listing, RawSplit, file_facts, hash_of, match_splits
from patchlight.errors import PatchlightError

LABEL_NAMES = ("label", "labels", "class", "target")
BATCH_ROWS = 64  # rows that are in memory at a time: images of some megabytes each still fit


@dataclass(frozen=True)
class Table:
    """One split as Arrow: its name in messages, its schema, and a walk over batches of some of its columns."""

    name: str
    schema: Any
    batches: Callable[[list[str]], Iterator[Any]]
    folder: Path | None = None  # what image paths inside the table are relative to


@dataclass(frozen=True)
class Columns:
    """Where the image and the label are; `class_names` is None where the label's values are the classes."""

    image: str
    label: str
    class_names: tuple[str, ...] | None


def list_parquet(path: Path, config: DataConfig) -> Listing:
    """The listing of a Parquet file, or of a folder of them as the hub has it: `train-00000-of-00001.parquet`,
    `data/test-...parquet` or `train/0000.parquet`. Raises PatchlightError for files that cannot be read or combined.
    """
    files = parquet_files(path)
    by_name: dict[str, list[Path]] = {}
    for file in files:
        by_name.setdefault(_split_name(file), []).append(file)
    matched, notes = match_splits(by_name, str(path))
    tables = {key: _parquet_table(by_name[name], path) for key, name in matched.items()}

    def fingerprint() -> str:
        pictures = (picture for table in tables.values() for picture in _picture_files(table))
        return hash_of([file_facts(files), file_facts(pictures)])

    return list_tables(tables, str(path), fingerprint, notes)


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files at a path, in a folder or in the folders right below it, hidden ones left out, sorted."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    files = (file for pattern in ("*.parquet", "*/*.parquet") for file in path.glob(pattern) if file.is_file())
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts))


def is_saved_dataset(path: Path) -> bool:
    """Whether `datasets` wrote this folder with `save_to_disk`."""
    return (path / "dataset_dict.json").is_file() or all(
        (path / name).is_file() for name in ("state.json", "dataset_info.json")
    )


def list_hub(name: str, config: DataConfig) -> Listing:
    """The listing of `owner/name` or `owner/name:config` on the Hugging Face hub, or of a local copy of one by path.

    `datasets` keeps downloads in its own cache. Raises PatchlightError where the hub cannot be reached, has no such
    data set, or the data set has no images or labels.
    """
    import datasets

    local = Path(name).expanduser()
    try:
        if is_saved_dataset(local):
            loaded = datasets.load_from_disk(str(local))
        elif local.exists():
            loaded = datasets.load_dataset(str(local))
        else:
            owner_and_name, _, configuration = name.partition(":")
            loaded = datasets.load_dataset(owner_and_name, configuration or None)
    except datasets.exceptions.DatasetNotFoundError:
        raise PatchlightError(
            f"the Hugging Face hub has no data set '{name}', or it is private (`hf auth login` lets you in)"
        ) from None
    except ConnectionError:
        raise PatchlightError(
            f"cannot reach the Hugging Face hub for '{name}' and it was not downloaded before; check the network, or "
            "give the path of a local copy"
        ) from None
    except _load_errors() as error:  # damaged files, missing configurations, a data set that is refused
        raise PatchlightError(f"cannot load '{name}': {' '.join(str(error).split())[:400]}") from error
    splits = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    matched, notes = match_splits((str(key) for key in splits), f"'{name}'")
    tables = {key: _dataset_table(splits[own], f"{name} {own}") for key, own in matched.items()}
    used = [Path(cached["filename"]) for own in matched.values() for cached in splits[own].cache_files]
    return list_tables(tables, f"'{name}'", lambda: hash_of([name, *file_facts(used)]), notes)


def _load_errors() -> tuple[type[Exception], ...]:
    """What `datasets` and the libraries under it raise for data that they cannot load."""
    import datasets
    import pyarrow
    from huggingface_hub.errors import HfHubHTTPError

    return (
        datasets.exceptions.DatasetsError,
        pyarrow.ArrowException,
        *HfHubHTTPError.__bases__,  # those of the HTTP library, which releases of the hub's client choose differently
        OSError,
        ValueError,
        RuntimeError,
        TypeError,  # this and the next: metadata of another form
        LookupError,
        ImportError,  # a library that decodes the files
        EOFError,
        *(zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error),
    )


def list_tables(
    tables: dict[str, Table], where: str, fingerprint: Callable[[], str], notes: tuple[str, ...] = ()
) -> Listing:
    """The listing of some splits' tables. Reads all labels and no image."""
    columns = find_columns(next(iter(tables.values())).schema, where)
    values: dict[str, list[Any]] = {}
    for key, table in tables.items():
        if find_columns(table.schema, table.name) != columns:
            raise PatchlightError(
                f"{table.name} has other image and label columns, or other classes, than {where}'s first; give all "
                "files the same"
            )
        values[key] = [v for batch in table.batches([columns.label]) for v in batch.column(columns.label).to_pylist()]
    if columns.class_names is None:
        _forget_blanks(values)
    for key, labels_of_split in list(values.items()):
        missing = sum(_is_missing(value, columns) for value in labels_of_split)
        if missing and missing == len(labels_of_split):
            notes += (f"left out of {where}: the split {key} has no labels",)
            del values[key]
        elif missing:
            raise PatchlightError(f"{tables[key].name}: {missing} of {len(labels_of_split)} images have no label")
    values = {key: own for key, own in values.items() if own}
    if not values:
        raise PatchlightError(f"{where} has no labelled images")
    names, labels = _classes(values, columns)
    splits = {key: RawSplit(labels[key], _items(tables[key], columns.image)) for key in values}
    return Listing(splits, names, fingerprint, notes=notes)


def find_columns(schema: Any, where: str) -> Columns:
    """The image and the label column of an Arrow schema, by the rules at the top of this module.

    Raises PatchlightError, listing the columns there are, where one is missing or cannot be chosen.
    """
    features = _features(schema)
    kinds = {name: features.get(name, {}).get("_type", "") for name in schema.names}
    there = ", ".join(
        f"{name} ({kinds[name] if kinds[name] in ('Image', 'ClassLabel') else schema.field(name).type})"
        for name in schema.names
    )
    images = [name for name in schema.names if kinds[name] == "Image"]
    images = images or [name for name in schema.names if _holds_bytes(schema.field(name).type)]
    if not images:
        raise PatchlightError(f"{where} has no image column; its columns are {there}; store encoded images as bytes")
    classes = _class_names(schema)
    if classes:
        label = max(classes, key=lambda name: len(classes[name]))  # the first of equals
        return Columns(images[0], label, classes[label])
    plain = _plain_label(schema)
    if plain is None:
        raise PatchlightError(
            f"{where} has no column that is clearly the label; its columns are {there}; rename that of the "
            "labels to 'label'"
        )
    return Columns(images[0], plain, None)


def _class_names(schema: Any) -> dict[str, tuple[str, ...]]:
    """By name of each column of the type ClassLabel, the names of its classes in order."""
    features = _features(schema)
    kinds = {name: features.get(name, {}).get("_type") for name in schema.names}
    return {name: tuple(features[name]["names"]) for name in schema.names if kinds[name] == "ClassLabel"}


def _plain_label(schema: Any) -> str | None:
    import pyarrow.types as kind

    def is_text(of: Any) -> bool:
        return kind.is_string(of) or kind.is_large_string(of)

    numbers = [field.name for field in schema if kind.is_integer(field.type) or kind.is_boolean(field.type)]
    texts = [field.name for field in schema if is_text(field.type)]
    for name in LABEL_NAMES:
        if name in numbers + texts:
            return name
    return next((names[0] for names in (numbers, texts) if len(names) == 1), None)


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """What `datasets` wrote about the columns, by their names; {} where it wrote nothing."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return {name: about for name, about in features.items() if isinstance(about, dict)}


def _holds_bytes(kind: Any) -> bool:
    import pyarrow.types

    if pyarrow.types.is_struct(kind):
        return "bytes" in [kind.field(index).name for index in range(kind.num_fields)]
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _is_missing(value: Any, columns: Columns) -> bool:
    """`datasets` writes -1 where a ClassLabel is not known."""
    return value is None or (columns.class_names is not None and value == -1)


def _forget_blanks(values: dict[str, list[Any]]) -> None:
    """Where labels are numbers without names: a split of -1 alone, which no other split has, is one without labels."""
    for key, own in values.items():
        others = (value for other, theirs in values.items() if other != key for value in theirs)
        if len(values) > 1 and own and set(own) == {-1} and -1 not in others:
            values[key] = [None] * len(own)


def _classes(values: dict[str, list[Any]], columns: Columns) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    if columns.class_names is not None:
        return columns.class_names, {key: np.array(own, dtype=np.int64) for key, own in values.items()}
    distinct = sorted({value for own in values.values() for value in own})
    ids = {value: index for index, value in enumerate(distinct)}
    labels = {key: np.array([ids[value] for value in own], dtype=np.int64) for key, own in values.items()}
    return tuple(str(value) for value in distinct), labels


def _items(table: Table, column: str) -> Callable[[], Iterator[tuple[str, Encoded]]]:
    def items() -> Iterator[tuple[str, Encoded]]:
        index = 0
        for batch in table.batches([column]):
            for cell in batch.column(column).to_pylist():
                path, data = (cell.get("path"), cell.get("bytes")) if isinstance(cell, dict) else (None, cell)
                name = f"{table.name}[{index}]" + (f" ({path})" if path else "")
                if data is None and path:
                    yield name, (table.folder or Path()) / path
                else:
                    yield name, data or b""  # an empty cell is a bad image, and decoding says so
                index += 1

    return items


def _parquet_table(files: list[Path], root: Path) -> Table:
    import pyarrow
    import pyarrow.parquet as pq

    def walk(columns: list[str]) -> Iterator[Any]:
        for file in files:
            try:
                with pq.ParquetFile(file) as opened:
                    yield from opened.iter_batches(BATCH_ROWS, columns=columns)
            except (OSError, ValueError, pyarrow.ArrowException) as error:
                raise PatchlightError(f"cannot read {file}: {error}") from error

    schemas = []
    for file in files:
        try:
            schemas.append(pq.read_schema(file))
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise PatchlightError(f"cannot read {file}: {error}") from error
    for file, schema in zip(files, schemas, strict=True):
        if schema.names != schemas[0].names or _class_names(schema) != _class_names(schemas[0]):
            raise PatchlightError(
                f"{file} has other columns or other classes than {files[0].name} beside it; give both the same"
            )
    folder = root if root.is_dir() else root.parent
    name = str(files[0]) if len(files) == 1 else f"{files[0].parent}/{_split_name(files[0])}-*"
    return Table(name, schemas[0], walk, folder)


def _dataset_table(dataset: Any, name: str) -> Table:
    def walk(columns: list[str]) -> Iterator[Any]:
        return iter(dataset.select_columns(columns).with_format("arrow").iter(BATCH_ROWS))

    return Table(name, dataset.features.arrow_schema, walk)


def _split_name(file: Path) -> str:
    """The split a Parquet file belongs to: "train" of train-00000-of-00002.parquet, of train/0000.parquet and of
    mnist_train.parquet; of another name what is left of it without numbers.
    """
    words = re.split(r"[-_.]", file.stem)
    for name in (words[0], file.parent.name, *reversed(words)):
        if name.lower() in SPLIT_NAMES:
            return name
    return "-".join(word for word in words if not word.isdigit() and word != "of")


def _picture_files(table: Table) -> Iterator[Path]:
    """The image files beside a Parquet table that holds their paths."""
    import pyarrow.types

    column = find_columns(table.schema, table.name).image
    kind = table.schema.field(column).type
    if not pyarrow.types.is_struct(kind) or kind.get_field_index("path") < 0:
        return
    for batch in table.batches([f"{column}.path"]):
        for cell in batch.column(column).to_pylist():
            if cell and cell["path"] and (picture := (table.folder or Path()) / cell["path"]).is_file():
                yield picture
