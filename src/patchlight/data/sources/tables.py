"""Image tables: Parquet files, the Hugging Face hub, and what `datasets` saved to disk.

All three carry an Arrow schema in which `datasets` has written what the columns mean, so they share one reading;
`columns.py` says which columns are used.
"""

from __future__ import annotations

import functools
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.listing import LeftOut, Listing, RawSplit
from patchlight.data.names import Matched, match_splits, split_of
from patchlight.data.sources.cells import Items, Read, array_reader, cell_items, no_arrays
from patchlight.data.sources.choice import splits_beside
from patchlight.data.sources.columns import Column, Columns, arrow_columns, find_columns, label_column
from patchlight.data.sources.fence import fenced
from patchlight.data.sources.labels import read_labels
from patchlight.data.sources.located import none_there, picture_folder
from patchlight.data.sources.table import Table, divided, in_a_line
from patchlight.errors import PatchlightError
from patchlight.paths import is_there, user_path

BATCH_ROWS = 64  # rows that are in memory at a time: images of some megabytes each still fit
SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")


def list_parquet(path: Path, config: DataConfig) -> Listing:
    """The listing of a Parquet file, or of a folder of them as the hub has it: `train-00000-of-00001.parquet`,
    `data/test-...parquet` or `train/0000.parquet`. Raises PatchlightError for files that cannot be read or combined,
    and where some of a set are missing.
    """
    files = parquet_files(path)
    _check_folders(files, path)
    _check_shards(files)
    by_name: dict[str, list[Path]] = {}
    for file in files:
        by_name.setdefault(_split_name(file, path), []).append(file)
    every, notes = divided({name: _parquet_table(own, path, config) for name, own in by_name.items()}, config)
    matched = match_splits(every, str(path), config)
    tables = {key: every[name] for key, name in matched.splits.items()}

    return list_tables(
        tables,
        str(path),
        files,
        config,
        replace(matched, notes=(*notes, *matched.notes)),
        splits_beside(matched, lambda name: every[name].rows(), lambda name: f"{every[name].name}[0]", config),
    )


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files at a path, in a folder or in the folders right below it, hidden ones left out, sorted."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" else []
    files = (file for pattern in ("*", "*/*") for file in path.glob(pattern) if file.suffix.lower() == ".parquet")
    shown = (file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts))
    return sorted(file for file in shown if file.is_file())


def _check_folders(files: list[Path], root: Path) -> None:
    """Raises PatchlightError for files of several folders that are no splits of one set."""
    folders = sorted({file.parent for file in files if file.parent == root or split_of(file.parent.name)[0] is None})
    if len(folders) > 1:
        names = [str(folder.relative_to(root)) if folder != root else "the folder itself" for folder in folders]
        raise PatchlightError(
            f"{root} holds Parquet files in several places, which may be several data sets: {', '.join(names[:12])}; "
            "give one of them as the source"
        )


def _check_shards(files: list[Path]) -> None:
    """Raises PatchlightError where a file of a set that counts them (train-00000-of-00002.parquet) is missing."""
    numbers: dict[tuple[Path, str, int], set[int]] = {}
    for file in files:
        if match := SHARD.fullmatch(file.stem):
            key = (file.parent, match["name"], int(match["count"]))
            numbers.setdefault(key, set()).add(int(match["number"]))
    for (folder, name, count), own in numbers.items():
        if missing := sorted(set(range(count)) - own):
            raise PatchlightError(
                f"{len(missing)} of the {count} files {name}-*-of-{count:05} are missing in {folder}, such as "
                f"{name}-{missing[0]:05}-of-{count:05}.parquet; get them, or rename the others"
            )


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

    local = user_path(name)
    for folder, _, files in os.walk(local):  # `datasets` opens what is called as one of its files
        if odd := [file for file in files if is_there(Path(folder, file)) and not Path(folder, file).is_file()]:
            raise PatchlightError(f"{Path(folder, odd[0])} is a pipe, a device or a socket; get the data set again")
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
    except FileNotFoundError as error:
        raise PatchlightError(f"cannot load '{name}': {error.filename or error} is missing; get it again") from error
    except _load_errors() as error:  # damaged files, missing configurations, a data set that is refused
        raise PatchlightError(f"cannot load '{name}': {in_a_line(error)}") from error
    splits = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    return fenced(list_datasets(splits, name, config), _hub_folders(local), config)


def _hub_folders(local: Path) -> list[Path]:
    """Where `datasets` keeps what it gets from a hub, and the `local` copy, if it is one."""
    import datasets
    from huggingface_hub import constants

    kept = datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE
    return [*([local] if is_there(local) else []), *map(Path, kept)]


def list_datasets(splits: Mapping[str, Any], name: str, config: DataConfig) -> Listing:
    """The listing of sets of the library `datasets`, by the names of their splits. Raises as `list_tables` does."""
    every, notes = divided({str(own): _dataset_table(data, f"{name} {own}") for own, data in splits.items()}, config)
    matched = match_splits(every, f"'{name}'", config)
    tables = {key: every[own] for key, own in matched.splits.items()}
    used = [splits[own] for own in matched.splits.values() if own in splits] or list(splits.values())
    files = [Path(cached["filename"]) for data in used for cached in data.cache_files]
    return list_tables(
        tables,
        f"'{name}'",
        files,
        config,
        replace(matched, notes=(*notes, *matched.notes)),
        splits_beside(matched, lambda name: every[name].rows(), lambda name: f"{every[name].name}[0]", config),
    )


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
    tables: dict[str, Table],
    where: str,
    files: list[Path],
    config: DataConfig,
    matched: Matched,
    left_out: list[LeftOut],
) -> Listing:
    """The listing of some splits' tables. Reads all labels and no image."""
    first = next(iter(tables.values()))
    columns = find_columns(arrow_columns(first.schema), where, config, first.column)
    tables, unlabelled = _with_labels(tables, columns, config)
    values = {key: table.column(columns.label.name) for key, table in tables.items()}
    named = {key: table.name for key, table in tables.items()}
    labels = read_labels(values, columns.label, named, given=config.label_column is not None)
    splits: dict[str, RawSplit] = {}
    notes = (columns.note(where, first.schema.names), *matched.notes, *labels.notes)
    for key, own in labels.of_split.items():
        table, kept = tables[key], np.flatnonzero(own >= 0)
        if len(kept) == 0:
            unlabelled[key] = table
            continue
        if len(kept) < len(own):
            row = int(np.flatnonzero(own < 0)[0])
            left_out.append(LeftOut("rows without a label", len(own) - len(kept), f"{table.name}[{row}]"))
        items, read_notes = _items(table, columns.image, kept, config)
        splits[key] = RawSplit(own[kept], items)
        notes += read_notes
    for key, table in unlabelled.items():
        reason = f"images without labels (the split {key})"
        left_out.append(LeftOut(reason, table.rows(), table.name, expected=True))
    if not splits:
        raise PatchlightError(f"{where} has no labelled images")
    return Listing(
        splits,
        labels.class_names,
        notes=tuple(dict.fromkeys(notes)),
        left_out=tuple(each for each in left_out if each.count),
        files=tuple(files),
        folders=tuple({table.folder for table in tables.values() if table.folder}) if config.image_folder else (),
    )


def _with_labels(
    tables: dict[str, Table], columns: Columns, config: DataConfig
) -> tuple[dict[str, Table], dict[str, Table]]:
    """The tables that have the label column, and those that have none that can be one.

    Raises PatchlightError where one has another image or label column, or other classes, than the first.
    """
    labelled, without = {}, {}
    for key, table in tables.items():
        there = arrow_columns(table.schema)
        names = {column.name for column in there}
        if columns.image.name in names and columns.label.name not in names:
            try:
                label_column([c for c in there if c.name != columns.image.name], table.name, config)
            except PatchlightError:
                without[key] = table
                continue
        found = find_columns(there, table.name, config)
        if (found.image.name, found.label.name, found.class_names) != (
            columns.image.name,
            columns.label.name,
            columns.class_names,
        ):
            raise PatchlightError(_difference(table.name, found, columns))
        labelled[key] = table
    return labelled, without


def _difference(where: str, found: Columns, first: Columns) -> str:
    """What is different in the columns of one split."""
    if (found.image.name, found.label.name) == (first.image.name, first.label.name):
        ours, theirs = (", ".join(names.class_names or ("none",))[:80] for names in (found, first))
        return (
            f"{where} has other classes than the first of the splits: those of '{found.label.name}' are {ours}, not "
            f"{theirs}; give all files the same, in the same order"
        )
    return (
        f"{where} has other image and label columns than the first of the splits ('{found.image.name}' and "
        f"'{found.label.name}', not '{first.image.name}' and '{first.label.name}'); give all files the same, or name "
        "them with data.image_column and data.label_column"
    )


def _items(table: Table, column: Column, kept: np.ndarray, config: DataConfig) -> tuple[Items, tuple[str, ...]]:
    """A walk over the images of the `kept` rows, which are in order, and notes on how they are read."""
    read: Read = no_arrays
    notes: tuple[str, ...] = ()
    if column.kind == "text":
        _check_there(table, column)
    if column.kind == "list":
        read, notes = array_reader(table.batches([column.name]), column.name, table.name, config.pixel_max)
    return cell_items(functools.partial(table.cells, column.name), kept, table.name, table.folder, read), notes


def _check_there(table: Table, column: Column) -> None:
    """Raises PatchlightError where a column of paths names no file at all: the folder is wrong."""
    folder, paths = table.folder or Path(), [path for path in table.cells(column.name) if path]
    if paths and not any(is_there(folder / path) for path in paths):
        raise PatchlightError(none_there(table.name, len(paths), paths[0], folder))


def _parquet_table(files: list[Path], root: Path, config: DataConfig) -> Table:
    import pyarrow
    import pyarrow.parquet as pq

    def walk(columns: list[str]) -> Iterator[Any]:
        for file in files:
            try:
                with pq.ParquetFile(file) as opened:
                    yield from opened.iter_batches(BATCH_ROWS, columns=columns)
            except (OSError, ValueError, pyarrow.ArrowException) as error:
                raise PatchlightError(f"cannot read {file}: {in_a_line(error)}") from error

    schemas = []
    for file in files:
        try:
            schemas.append(pq.read_schema(file))
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise PatchlightError(f"cannot read {file}: {in_a_line(error)}") from error
    first = _shape_of(schemas[0])
    for file, schema in zip(files, schemas, strict=True):
        if _shape_of(schema) != first:
            raise PatchlightError(
                f"{file} has other columns or other classes than {files[0].name} beside it; give both the same"
            )
    folder = picture_folder(root if root.is_dir() else root.parent, config)
    name = str(files[0]) if len(files) == 1 else f"{files[0].parent}/{_split_name(files[0], root)}-*"
    return Table(name, schemas[0], walk, lambda: sum(pq.read_metadata(file).num_rows for file in files), folder)


def _shape_of(schema: Any) -> list[tuple[str, tuple[str, ...] | None]]:
    """What the files of one split have in common: their columns, and the names of classes."""
    return [(column.name, column.class_names) for column in arrow_columns(schema)]


def _dataset_table(dataset: Any, name: str) -> Table:
    def walk(columns: list[str]) -> Iterator[Any]:
        for part in dataset.select_columns(columns).with_format("arrow").iter(BATCH_ROWS):
            yield from part.to_batches()  # as Parquet files give them: a table's columns come in pieces

    return Table(name, dataset.features.arrow_schema, walk, lambda: len(dataset))


def _split_name(file: Path, root: Path) -> str:
    """The split a Parquet file belongs to, by its own name: "train" of train-00000-of-00002.parquet, of
    train/0000.parquet, "mnist_train" of mnist_train.parquet; of another name what is left of it without numbers.
    """
    match = SHARD.fullmatch(file.stem)
    stem = match["name"] if match else file.stem
    if split_of(stem)[0]:
        return re.sub(r"([-_.]\d+)+$", "", stem)  # train-0 and train-1 are one split
    split, says_nothing_else = split_of(file.parent.name)
    if split and (says_nothing_else or file.parent not in (root, root.parent)):
        return file.parent.name
    if file == root:
        return "train"
    words = re.split(r"[-_.]", stem)
    return "-".join(word for word in words if not word.isdigit() and word != "of") or stem
