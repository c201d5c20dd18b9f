"""MNIST's idx files, as MNIST, Fashion-MNIST, KMNIST and EMNIST have them: `train-images-idx3-ubyte`, also with a dot
before `idx3`, also gzipped, also with a set's name before (`emnist-letters-train-images-idx3-ubyte.gz`).

The format (yann.lecun.com/exdb/mnist): two zero bytes, a byte for the type (8: unsigned bytes), a byte for the number
of dimensions, each dimension as a big-endian 32-bit number, then the values. EMNIST's images are stored with rows and
columns exchanged; they are turned where a file is named emnist.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.decode import MAX_PIXELS, Encoded
from patchlight.data.listing import Listing, RawSplit
from patchlight.data.names import match_splits
from patchlight.data.sources.choice import read_classes, splits_beside
from patchlight.errors import PatchlightError
from patchlight.units import counted

NAME = re.compile(
    r"^(?:(?P<set>.+)-)?(?P<split>train|t10k|test|val|valid|validation)[-._](?P<what>images|labels)[-.]idx\d-?ubyte(?:\.gz)?$",
    re.IGNORECASE,
)
DEFLATE_RATIO = 1100  # deflate makes nothing larger than this many times
UNSIGNED_BYTE = 8


@dataclass
class IdxSet:
    """The files of one set, by split."""

    images: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, Path] = field(default_factory=dict)
    spare: list[Path] = field(default_factory=list)  # the same files again, gzipped


def is_idx(path: Path) -> bool:
    """Whether a path is a file of images of this kind, or a folder of them, or torchvision's folder around one."""
    return bool(_sets(path))


def list_idx(path: Path, config: DataConfig) -> Listing:
    """The listing of idx files. A file of images stands for its set; a folder may hold one set.

    Raises PatchlightError for files that are damaged or missing, and for a folder with several sets.
    """
    sets = _sets(path)
    if len(sets) > 1:
        examples = "; ".join(str(own.images.get("train", next(iter(own.images.values())))) for own in sets.values())
        raise PatchlightError(f"{path} has several sets of images; name one by a file of its images: {examples}")
    (_, name), own = next(iter(sets.items()))
    matched = match_splits(own.images, str(path), config)
    emnist = name.lower().startswith("emnist")
    notes = list(matched.notes)
    if own.spare:
        notes.append(f"{path}: not read, as it is there unpacked: {', '.join(sorted(f.name for f in own.spare))}")
    if emnist:
        notes.append(f"{path}: EMNIST's images are stored with rows and columns exchanged, and are turned")
    pixels = {key: _read(own.images[split], 3) for key, split in matched.splits.items()}
    values: dict[str, list[int | None]] = {}
    for key, split in matched.splits.items():
        values[key] = _labels(own, split, len(pixels[key]), needed=key == "train" or len(matched.splits) == 1)
    files = [*own.images.values(), *own.labels.values()]
    mapping = _mapping(next(iter(own.images.values())).parent, name)
    where = {key: str(own.labels.get(split, own.images[split])) for key, split in matched.splits.items()}
    classes = read_classes(values, where)
    class_names = classes.class_names
    if mapping is not None:
        class_names, files = _named(class_names, *mapping), [*files, mapping[0]]
    return Listing(
        {
            key: RawSplit(labels, _items(pixels[key], classes.rows[key], own.images[matched.splits[key]].name, emnist))
            for key, labels in classes.labels.items()
        },
        class_names,
        notes=(*notes, *classes.notes),
        left_out=(
            *splits_beside(
                matched, lambda split: len(_read(own.images[split], 3)), lambda split: f"{own.images[split]}[0]", config
            ),
            *classes.left_out,
        ),
        files=tuple(files),
    )


def _labels(own: IdxSet, split: str, count: int, *, needed: bool) -> list[int | None]:
    """The labels of a split's `count` images; None for each where it has none and they are not `needed`."""
    if split not in own.labels:
        if needed:
            raise PatchlightError(f"{own.images[split]} has no labels beside it: a file named like it, with 'labels'")
        return [None] * count
    labels: list[int | None] = _read(own.labels[split], 1).tolist()
    if len(labels) != count:
        raise PatchlightError(
            f"{own.images[split]} has {counted(count, 'image')} and {own.labels[split].name} "
            f"{counted(len(labels), 'label')}; get both again"
        )
    return labels


def _items(
    pixels: np.ndarray, rows: np.ndarray, name: str, turned: bool
) -> Callable[[], Iterator[tuple[str, Encoded]]]:
    def items() -> Iterator[tuple[str, Encoded]]:
        for index in rows.tolist():
            image = np.asarray(pixels[index])
            grey = image.T if turned else image
            yield f"{name}[{index}]", np.repeat(grey[None], 3, axis=0)

    return items


def _sets(path: Path) -> dict[tuple[Path, str], IdxSet]:
    """The sets at a path, by folder and name."""
    if path.is_file():
        found = NAME.match(path.name)
        if not found or found["what"].lower() != "images":
            return {}
        wanted = found["set"] or ""
        return {key: own for key, own in _sets_in([path.parent]).items() if key[1] == wanted}
    if not path.is_dir():
        return {}
    below = [place for place in (path / "raw", *sorted(path.glob("*/raw"))) if place.is_dir()]
    return _sets_in([path]) or _sets_in(below)


def _sets_in(folders: list[Path]) -> dict[tuple[Path, str], IdxSet]:
    sets: dict[tuple[Path, str], IdxSet] = {}
    for folder in folders:
        # A file that stands there unpacked and gzipped is read unpacked: shorter names come first.
        for file in sorted(folder.iterdir(), key=lambda file: (file.name.endswith(".gz"), file.name)):
            found = NAME.match(file.name)
            if not found or not file.is_file():
                continue
            own = sets.setdefault((folder, found["set"] or ""), IdxSet())
            there = own.images if found["what"].lower() == "images" else own.labels
            split = "test" if found["split"].lower() == "t10k" else found["split"].lower()  # ten thousand, of MNIST
            if split not in there:
                there[split] = file
            elif file.name.lower().removesuffix(".gz") == there[split].name.lower():
                own.spare.append(file)
            else:
                raise PatchlightError(
                    f"{file} and {there[split].name} are the same split's {found['what']}; remove one"
                )
    return {key: own for key, own in sets.items() if own.images}


def _read(file: Path, dimensions: int) -> np.ndarray:
    """The values of an idx file: images (N, H, W) or labels (N,), uint8. Memory-mapped where it is not gzipped."""
    packed = file.name.lower().endswith(".gz")
    try:
        with gzip.open(file) if packed else file.open("rb") as opened:
            head = opened.read(4)
            sizes = opened.read(4 * dimensions)
            if len(head) < 4 or head[:2] != b"\0\0" or head[3] == 0:
                raise PatchlightError(f"{file} does not begin as an idx file does; get it again")
            if head[2] != UNSIGNED_BYTE or head[3] != dimensions:
                raise PatchlightError(
                    f"{file} holds type {head[2]} in {head[3]} dimensions, not unsigned bytes (8) in {dimensions}"
                )
            shape = tuple(int(size) for size in np.frombuffer(sizes[: len(sizes) // 4 * 4], dtype=">u4"))
            if len(shape) != dimensions or 0 in shape or math.prod(shape[1:]) > MAX_PIXELS:
                raise PatchlightError(f"{file} is damaged: its header gives the shape {shape}; get it again")
            count, begin = math.prod(shape), 4 + 4 * dimensions
            there = file.stat().st_size - begin if not packed else None
            if packed and count > DEFLATE_RATIO * file.stat().st_size:
                there = DEFLATE_RATIO * file.stat().st_size
            elif packed:
                data = opened.read(count + 1)
                there = len(data)
            if there != count:
                raise PatchlightError(
                    f"{file} is damaged or cut off: its header says {shape[0]:,} of {count // shape[0]:,} bytes each, "
                    f"and {there:,} bytes follow; get it again"
                )
        if packed:
            return np.frombuffer(data, dtype=np.uint8).reshape(shape)
        return np.memmap(file, dtype=np.uint8, mode="r", offset=begin, shape=shape)
    except PatchlightError:
        raise
    except (OSError, EOFError, zlib.error, MemoryError, ValueError) as error:
        raise PatchlightError(
            f"{file} cannot be read ({str(error)[:200] or type(error).__name__}); get it again"
        ) from error


def _mapping(folder: Path, name: str) -> tuple[Path, dict[str, str]] | None:
    """EMNIST's file of classes, a line for each: its label, and the code points of the letters that it stands for."""
    file = folder / f"{name}-mapping.txt"
    if not name or not file.is_file():
        return None
    try:
        lines = [line.split() for line in file.read_text(encoding="ascii").splitlines() if line.strip()]
        return file, {str(int(label)): "".join(chr(int(code)) for code in codes) for label, *codes in lines}
    except (ValueError, OverflowError, OSError) as error:
        raise PatchlightError(f"{file} is no list of labels and code points ({error}); get it again") from error


def _named(labels: tuple[str, ...], file: Path, names: dict[str, str]) -> tuple[str, ...]:
    absent = [label for label in labels if not names.get(label)]
    if absent:
        raise PatchlightError(f"{file} has no name for the label {absent[0]}; get it again")
    named = tuple(names[label] for label in labels)
    if len(set(named)) != len(named):
        raise PatchlightError(f"{file} gives one name to two labels; get it again")
    return named
