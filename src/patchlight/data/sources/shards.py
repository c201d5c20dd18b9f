"""WebDataset's shards: tar archives whose members are samples, `KEY.jpg` beside `KEY.cls`, `KEY.json` or `KEY.txt`.

A path may be one such archive or a folder of them, `train-000000.tar` and so on; the split is in a file's or a folder's
name. A sample is what follows each other under one key. Its image is the field that has an image file's suffix, its
label

- `cls`: a whole number or text; else
- `json`: what stands there under the only key of JSON_KEYS (data.label_column names another key); else
- `txt`: text, unless it looks like captions (data.label_column = "txt" takes them all the same).

Labels are read in a first walk over the shards, in which nothing is kept of an image but its place; images in a second.
Which class a number means may stand in `classnames.txt` or `labels.txt` beside the shards, a line for each.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.decode import Encoded
from patchlight.data.listing import LeftOut, Listing, RawSplit
from patchlight.data.names import match_splits
from patchlight.data.sources.choice import SUFFIXES, not_there, one_of, read_classes, splits_beside
from patchlight.data.sources.columns import LABEL_NAMES
from patchlight.data.sources.shard_files import class_lines, refuse_gaps, shard_files, shard_splits
from patchlight.data.tars import DAMAGE, blocks, damaged, open_stream, walk_tar
from patchlight.errors import PatchlightError
from patchlight.progress import Progress
from patchlight.units import counted

LABEL_FIELDS = ("cls", "json", "txt")
PEEK, PEEK_BYTES = 200, 2**25  # members and bytes of an archive that are looked at to tell samples from other archives
PEEK_SPLITS = 8
MAX_LABEL_BYTES = 2**24
JSON_KEYS = LABEL_NAMES | {"cls"}


@dataclass
class Samples:
    """A split's samples: where their images are, and their labels as they are written."""

    files: list[Path]
    shard: array[int] = field(default_factory=lambda: array("q"))  # places in `files`
    offset: array[int] = field(default_factory=lambda: array("q"))  # of the image in the unpacked tar, and
    size: array[int] = field(default_factory=lambda: array("q"))  # its bytes
    names: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)  # int, str or None
    fields: Counter[str] = field(default_factory=Counter)  # where labels were read
    without_image: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)  # fields and, of JSON, keys


@dataclass
class Sample:
    """The members of one key: images by field with offset and size, and the contents of label fields."""

    key: str
    images: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)


def is_shards(path: Path) -> bool:
    """Whether a path is a tar archive of samples, or a folder of such."""
    files = shard_files(path)
    if not files:
        return False
    try:
        firsts = [own[0] for own in shard_splits(files, path).values()]  # those of a test may have no labels
        return any(_holds_samples(file) for file in firsts[:PEEK_SPLITS])
    except PatchlightError:
        # A folder of nothing but tar archives is meant as shards, and reading them says what is damaged.
        return path.is_dir() and not any(entry.is_dir() for entry in path.iterdir())


def list_shards(path: Path, config: DataConfig) -> Listing:
    """The listing of WebDataset's shards. Reads all labels and keeps no image.

    Raises PatchlightError for shards that are damaged or missing, and where images or labels cannot be told.
    """
    files = shard_files(path)
    by_name = shard_splits(files, path)
    matched = match_splits(by_name, str(path), config)
    used = [file for name in matched.splits.values() for file in by_name[name]]
    begin = refuse_gaps(files)
    samples, total = {}, sum(file.stat().st_size for file in used)
    with Progress(max(1, total // 2**20), f"reading labels of {path.name} (MiB)") as progress:
        for key, name in matched.splits.items():
            samples[key] = _read_split(by_name[name], config, progress)
    _refuse_settings(samples, config, str(path))
    lines = class_lines(path if path.is_dir() else path.parent)
    where = {key: f"{path}: {name}" for key, name in matched.splits.items()}
    captions = config.label_column is None and any(own.fields["txt"] for own in samples.values())
    values = {key: own for key, own in _numbers_or_text(samples).items() if own}
    name = "txt" if captions else config.label_column or _usual_field(samples)
    classes = read_classes(values, where, names=lines[1] if lines else None, given=not captions, name=name)
    lost = [name for own in samples.values() for name in own.without_image]
    left_out = (LeftOut("samples without an image", len(lost), lost[0]),) if lost else ()
    return Listing(
        {key: RawSplit(labels, _items(samples[key], classes.rows[key])) for key, labels in classes.labels.items()},
        classes.class_names,
        notes=(*matched.notes, *begin, *_notes(samples, lines, str(path)), *classes.notes),
        left_out=(
            *splits_beside(matched, lambda name: _count(by_name[name]), lambda name: str(by_name[name][0]), config),
            *left_out,
            *classes.left_out,
        ),
        files=(*used, *([lines[0]] if lines else [])),
    )


def _usual_field(samples: dict[str, Samples]) -> str:
    """The field that most labels are read from."""
    counts = sum((own.fields for own in samples.values()), Counter[str]())
    return counts.most_common(1)[0][0] if counts else "labels"


def _count(files: list[Path]) -> int:
    """How many samples with an image there are."""
    return sum(bool(sample.images) for file in files for sample in _samples(file))


def _refuse_settings(samples: dict[str, Samples], config: DataConfig, where: str) -> None:
    """Raises UsageError where data.image_column or data.label_column names what no sample has."""
    if not any(own.names or own.without_image for own in samples.values()):
        raise PatchlightError(f"{where} has no samples (KEY.jpg beside KEY.cls, KEY.json or KEY.txt)")
    if config.label_column is not None and not any(own.fields for own in samples.values()):
        fields = {name for own in samples.values() for name in own.seen}
        raise not_there("label", config.label_column, where, fields)


def _holds_samples(file: Path) -> bool:
    """Whether the first files of an archive are images with their labels beside them.

    Images in several folders with .json or .txt beside them may be class folders with notes on each image, so there
    only .cls counts. Where all that comes first is images in no folder, or labels, the others may come later; reading
    such a shard refuses it.
    """
    fields: dict[str, set[str]] = {}
    sorts = set[str]()  # of the members
    for count, member in enumerate(walk_tar(file)):
        if (count >= PEEK or member.position > PEEK_BYTES) and sorts not in ({"image"}, {"label"}):
            break
        if member.contents is None:
            continue
        key, name = split_key(member.header.name)
        sorts.add(
            "other" if "/" in key else "image" if _is_image(name) else "label" if name in LABEL_FIELDS else "other"
        )
        fields.setdefault(key, set()).add(name)
    with_image = [own for own in fields.values() if any(_is_image(name) for name in own)]
    if any("cls" in own for own in with_image):
        return True
    in_folders = any("/" in key for key in fields)
    return not in_folders and any(own & {"json", "txt"} for own in with_image)


def split_key(name: str) -> tuple[str, str]:
    """A member's key and field: "a/0001" and "seg.png" of "a/0001.seg.png", as WebDataset takes them."""
    name = name.removeprefix("./")
    folder, slash, base = name.rpartition("/")
    key, _, rest = base.partition(".")
    return folder + slash + key, rest.lower()


def _is_image(name: str) -> bool:
    return f".{name.rpartition('.')[2]}" in SUFFIXES


def _samples(file: Path) -> Iterator[Sample]:
    """The samples of one shard, in order."""
    sample: Sample | None = None
    for member in walk_tar(file):
        key, name = split_key(member.header.name)
        if member.contents is None or not key or key.rpartition("/")[2].startswith("__"):
            continue  # folders, and facts about the shard
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(key)
        header = member.header
        if _is_image(name):
            if header.issparse():
                raise PatchlightError(f"{file}: {header.name} is a sparse member, which is not read; pack it anew")
            sample.images[name] = (header.name, header.offset_data, header.size)
        elif name in LABEL_FIELDS:
            if header.size > MAX_LABEL_BYTES:
                raise PatchlightError(f"{file}: {header.name} has {header.size:,} bytes, too many for a label")
            sample.texts[name] = b"".join(blocks(member.contents, file))
    if sample is not None:
        yield sample


def _read_split(files: list[Path], config: DataConfig, progress: Progress) -> Samples:
    found, done = Samples(files), float(progress.done)
    for index, file in enumerate(files):
        alone = dict[str, bool]()  # keys whose image or label stands alone: whether it is the image
        for sample in _samples(file):
            whole, is_image = bool(sample.images and sample.texts), bool(sample.images)
            if not whole and alone.setdefault(sample.key, is_image) != is_image:
                raise _scattered(file, sample.key)
            if not is_image:
                found.without_image.append(f"{file.name}:{sample.key}")
                continue
            label, name = _label(sample, config, f"{file}: {sample.key}")
            member, offset, size = _image(sample, config, f"{file}: {sample.key}")
            found.shard.append(index)
            found.offset.append(offset)
            found.size.append(size)
            found.names.append(f"{file.name}:{member}")
            found.labels.append(label)
            found.seen.update(sample.texts)
            if name is not None:
                found.fields[name] += 1
            if progress.due():
                progress.show(f"{len(found.names):,} samples")
        done += file.stat().st_size / 2**20
        progress.advance(min(progress.total, int(done)) - progress.done)
    return found


def _scattered(file: Path, key: str) -> PatchlightError:
    return PatchlightError(
        f"{file}: the image and the label of the sample '{key}' do not follow each other, as the members of a sample "
        "must in WebDataset's shards; pack the files anew in the order of their names (`tar --sort=name`)"
    )


def _image(sample: Sample, config: DataConfig, where: str) -> tuple[str, int, int]:
    names = list(sample.images)
    if config.image_column is not None and config.image_column.lower().lstrip(".") in names:
        return sample.images[config.image_column.lower().lstrip(".")]
    return sample.images[one_of(names, "image", where, names)]


def _label(sample: Sample, config: DataConfig, where: str) -> tuple[Any, str | None]:
    """The label of a sample, None where it has none, and the field that it is from."""
    asked = config.label_column
    if asked is not None and asked.lower().lstrip(".") in LABEL_FIELDS:
        names: tuple[str, ...] = (asked.lower().lstrip("."),)
    elif asked is not None:
        names = ("json",)
    else:
        names = LABEL_FIELDS
    for name in names:
        if name not in sample.texts:
            continue
        text = _text(sample.texts[name], f"{where}.{name}")
        if name != "json":
            return text, name
        value, clear = _json_label(text, asked if asked != "json" else None, f"{where}.json")
        if clear:
            return value, name
    return None, None


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise PatchlightError(f"{where} is no UTF-8 text; a label is a whole number or text") from None


def _json_label(text: str, key: str | None, where: str) -> tuple[Any, bool]:
    """The label in a sample's JSON, and whether there is one."""
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PatchlightError(f"{where} is no JSON: {error}") from error
    if isinstance(about, dict):
        names = [name for name in about if (name == key if key else name.casefold() in JSON_KEYS)]
        if not names:
            return None, False
        value = about[one_of(names, "label", where, names)]
    else:
        value = about
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or isinstance(value, (int, str)):
        return value, True
    raise PatchlightError(f"{where}: the label is {json.dumps(value)[:60]}; one class per image is a number or text")


def _numbers_or_text(samples: dict[str, Samples]) -> dict[str, list[Any]]:
    """The labels by split. Those written as text are numbers where all of them, in all splits, are whole numbers."""
    texts = [v for own in samples.values() for v in own.labels if isinstance(v, str) and v]
    if not all(_is_whole(text) for text in texts):
        return {key: own.labels for key, own in samples.items()}
    return {key: [int(v) if isinstance(v, str) and v else v for v in own.labels] for key, own in samples.items()}


def _is_whole(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) < 19


def _notes(samples: dict[str, Samples], lines: tuple[Path, tuple[str, ...]] | None, where: str) -> tuple[str, ...]:
    fields = sum((own.fields for own in samples.values()), Counter[str]())
    notes = []
    if fields:
        counts = ", ".join(
            f".{name} ({counted(count, 'sample')})" if len(fields) > 1 else f".{name}" for name, count in fields.items()
        )
        notes.append(f"{where}: labels are read from {counts}")
    if lines is not None:
        notes.append(f"class names are read from {lines[0]}")
    return tuple(notes)


def _items(samples: Samples, rows: np.ndarray) -> Callable[[], Iterator[tuple[str, Encoded]]]:
    """A walk over the images, shard by shard and from front to back, so that compressed ones are unpacked once."""

    def items() -> Iterator[tuple[str, Encoded]]:
        wanted = rows.tolist()
        at = 0
        for index, file in enumerate(samples.files):
            end = at
            while end < len(wanted) and samples.shard[wanted[end]] == index:
                end += 1
            if end > at:
                yield from _images_of(file, samples, wanted[at:end])
            at = end

    return items


def _images_of(file: Path, samples: Samples, rows: list[int]) -> Iterator[tuple[str, Encoded]]:
    try:
        with file.open("rb") as raw, open_stream(raw) as stream:
            for row in rows:
                stream.seek(samples.offset[row])
                data = stream.read(samples.size[row])
                if len(data) != samples.size[row]:
                    raise PatchlightError(f"{file} has changed while it was read; try again")
                yield samples.names[row], data
    except PatchlightError:
        raise
    except DAMAGE as error:
        raise damaged(file, error) from error
