"""The cells of a table's image column as images: encoded bytes, paths, or arrays of numbers as nested lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from patchlight.data.decode import Encoded
from patchlight.data.sources.pictures import channels_first, layout_of, scales
from patchlight.errors import PatchlightError

Cells = Callable[[], Iterator[Any]]  # a walk over all cells of a column, in order
Items = Callable[[], Iterator[tuple[str, Encoded]]]
Read = Callable[[Any, str], Encoded]  # of a cell that is neither bytes nor path, and what a message calls it


def cell_items(cells: Cells, kept: np.ndarray, name: str, folder: Path | None, read: Read) -> Items:
    """A walk over the images of the `kept` rows (ascending). Paths in cells are relative to `folder`; `read` takes what
    is neither bytes nor path.
    """
    wanted, last = set(kept.tolist()), int(kept[-1])

    def items() -> Iterator[tuple[str, Encoded]]:
        for index, cell in enumerate(cells()):
            if index > last:
                return
            if index not in wanted:
                continue
            path, data = (cell.get("path"), cell.get("bytes")) if isinstance(cell, dict) else (None, cell)
            if isinstance(data, str):
                path, data = data, None
            place = f"{name}[{index}]" + (f" ({path})" if path else "")
            if data is None and path:
                yield place, (folder or Path()) / path
            elif isinstance(data, bytes) or data is None:
                yield place, data or b""  # an empty cell is a bad image, and decoding says so
            else:
                yield place, read(data, place)

    return items


def no_arrays(cell: Any, name: str) -> Encoded:
    """For columns that hold no arrays. Raises PatchlightError."""
    raise PatchlightError(f"{name} is a {type(cell).__name__}, no image")


def array_reader(batches: Iterable[Any], column: str, where: str, pixel_max: int) -> tuple[Read, tuple[str, ...]]:
    """What turns a cell of nested lists into (3, H, W) uint8, and notes on how values are read.

    Arrow `batches` of the `column` are walked once, since what 0 to 1 or 0 to 255 means is a question to all images.
    Raises PatchlightError for values and shapes that are no images.
    """
    extremes: list[np.ndarray] = []
    dtype: np.dtype[Any] | None = None
    for batch in batches:
        values = _numbers(batch.column(column))
        if values is None:
            raise PatchlightError(f"{where}: the column '{column}' holds {batch.schema.field(column).type}, no images")
        if values.size:
            dtype = values.dtype
            broken = values[values != np.rint(values)][:1] if values.dtype.kind == "f" else values[:0]
            extremes.append(np.concatenate([[values.min(), values.max()], broken]))
    if dtype is None:
        raise PatchlightError(f"{where}: the column '{column}' is empty")
    name = f"the column '{column}' of {where}"
    scale, notes = scales({name: np.concatenate(extremes).astype(dtype)}, pixel_max)

    def read(cell: Any, place: str) -> Encoded:
        try:
            array = np.asarray(cell, dtype=dtype)[None]
        except (ValueError, TypeError, OverflowError):
            raise PatchlightError(f"{place}: its rows have different lengths, or hold what are no numbers") from None
        return channels_first(scale[name](array)[0], layout_of(array.shape, place), place)

    return read, notes


def _numbers(column: Any) -> np.ndarray | None:
    """All numbers of nested lists, flat; None where there are none in them."""
    import pyarrow.types as kind

    values = getattr(column, "storage", column)
    while kind.is_list(values.type) or kind.is_large_list(values.type) or kind.is_fixed_size_list(values.type):
        values = values.flatten()
    if not (kind.is_integer(values.type) or kind.is_floating(values.type) or kind.is_boolean(values.type)):
        return None
    return np.asarray(values.drop_null().to_numpy(zero_copy_only=False))
