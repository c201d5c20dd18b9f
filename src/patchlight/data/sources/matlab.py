"""Arrays of numbers in MATLAB's files of level 5, the format of `save` without options ("MAT-File Format", MathWorks).

scipy reads these files, too, and more kinds of them. It is not used here, because a damaged file ends the whole process
in it (a bus error in scipy 1.17.1), and files of a data set come from anywhere: here every size is held against what
there is before anything is read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np

from patchlight.errors import PatchlightError

HEADER = 128  # bytes; the last four are the version and the order of bytes
HDF5 = b"\x89HDF\r\n\x1a\n"
MATRIX, COMPRESSED = 14, 15  # kinds of element
# The types of stored values, and the classes of arrays, which may be stored in a smaller type.
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
COMPLEX = 0x800
MAX_PART = 2**16  # bytes of the dimensions or the name of an array
MAX_NAME = 64  # MATLAB's own limit is 63
PIECE = 2**20

Order = Literal["<", ">"]
Read = Callable[[int], bytes]


@dataclass(frozen=True)
class Variable:
    """An array in a file: its shape, its type, and where it begins. The type is None where it is none of numbers."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype | None
    position: int
    order: Order


def list_variables(file: Path) -> dict[str, Variable]:
    """The variables of a file by name, without their values. Raises PatchlightError for a file that is damaged, or of
    another format.
    """
    found = {}
    try:
        with file.open("rb") as opened:
            order = _order(opened, file)
            size = file.stat().st_size
            at = HEADER
            while at < size:
                opened.seek(at)
                kind, length = _tag(opened.read, order)[:2]
                if length > size - at - 8:
                    raise ValueError("an element is longer than the file")
                variable = _variable(opened, at, order)
                if variable is not None:
                    found[variable.name] = variable
                # Uncompressed elements are padded to 8 bytes.
                at += 8 + (length if kind == COMPRESSED else -(-length // 8) * 8)
        return found
    except _ERRORS as error:
        raise _damaged(file, error) from error


def read_variable(file: Path, variable: Variable) -> np.ndarray:
    """The values of an array of numbers, in its own shape. Raises PatchlightError where the file is damaged."""
    try:
        with file.open("rb") as opened:
            read = _matrix(opened, variable.position, variable.order)
            if read is None or variable.dtype is None:
                raise ValueError("it is no array of numbers")
            _head(read, variable.order)
            kind, length, short = _tag(read, variable.order)
            stored = np.dtype(TYPES[kind]).newbyteorder(variable.order)
            count = 1
            for side in variable.shape:
                count *= side
            if length != count * stored.itemsize:
                raise ValueError(f"{length:,} bytes are not {count:,} values")
            data = short if short is not None else read(length)
            if isinstance(read, _Inflated):
                read.finish()
            return np.frombuffer(data[:length], dtype=stored).astype(variable.dtype).reshape(variable.shape, order="F")
    except _ERRORS as error:
        raise _damaged(file, error) from error


_ERRORS = (OSError, ValueError, LookupError, struct.error, zlib.error, MemoryError, OverflowError)


def _order(opened: IO[bytes], file: Path) -> Order:
    head = opened.read(HEADER)
    if head.startswith(HDF5) or head.startswith(b"MATLAB 7.3"):
        raise PatchlightError(f"{file} is of MATLAB 7.3 (HDF5), which is not read; save it with '-v7'")
    if head[124:] == b"\x00\x01IM":
        return "<"
    if head[124:] == b"\x01\x00MI":
        return ">"
    raise PatchlightError(
        f"{file} does not begin as a MATLAB file of level 5 does; save it with '-v7', or get it again"
    )


def _matrix(opened: IO[bytes], at: int, order: Order) -> Read | None:
    """How the contents of the array at `at` are read, unpacked where they are compressed; None where there is none."""
    opened.seek(at)
    kind, length, _ = _tag(opened.read, order)
    read: Read = _exactly(opened, length)
    if kind == COMPRESSED:
        read = _Inflated(read, length)
        kind = _tag(read, order)[0]
    return read if kind == MATRIX else None


def _variable(opened: IO[bytes], at: int, order: Order) -> Variable | None:
    read = _matrix(opened, at, order)
    if read is None:
        return None
    flags, shape, name = _head(read, order)
    numbers = CLASSES.get(flags & 0xFF) if not flags & COMPLEX else None
    return Variable(name, shape, np.dtype(numbers) if numbers else None, at, order)


def _head(read: Read, order: Order) -> tuple[int, tuple[int, ...], str]:
    """Flags, shape and name of an array, which come before its values."""
    flags = struct.unpack(f"{order}I", _part(read, order)[:4])[0]
    sides = _part(read, order)
    shape = tuple(int(side) for side in np.frombuffer(sides[: len(sides) // 4 * 4], dtype=f"{order}i4"))
    if any(side < 0 for side in shape):
        raise ValueError(f"the shape {shape} is none")
    name = _part(read, order).decode("ascii", "strict")
    if not name.isprintable() or len(name) > MAX_NAME:
        raise ValueError("the name of an array is none")
    return flags, shape, name


def _tag(read: Read, order: Order) -> tuple[int, int, bytes | None]:
    """The type of an element, its bytes, and its contents where they are so short that they stand in the tag."""
    tag = read(8)
    first, length = struct.unpack(f"{order}II", tag)
    if first >> 16:
        return first & 0xFFFF, min(4, first >> 16), tag[4:]
    return first, length, None


def _part(read: Read, order: Order) -> bytes:
    _, length, short = _tag(read, order)
    if short is not None:
        return short[:length]
    if length > MAX_PART:
        raise ValueError("a header is too long")
    return read(-(-length // 8) * 8)[:length]


def _exactly(opened: IO[bytes], limit: int) -> Read:
    """Reads of an element of `limit` bytes, none of them beyond its end."""
    left = limit

    def read(count: int) -> bytes:
        nonlocal left
        data = opened.read(count) if count <= left else b""
        left -= count
        if len(data) != count:
            raise ValueError("it ends early")
        return data

    return read


class _Inflated:
    """Reads of what is compressed in `length` bytes: only what is asked for is unpacked."""

    def __init__(self, packed: Read, length: int) -> None:
        self.pieces, self.rest = _unpacked(packed, length), bytearray()

    def __call__(self, count: int) -> bytes:
        while len(self.rest) < count:
            piece = next(self.pieces, None)
            if piece is None:
                raise ValueError("it ends early")
            self.rest.extend(piece)
        data = bytes(memoryview(self.rest)[:count])
        del self.rest[:count]
        return data

    def finish(self) -> None:
        """Unpack the rest, so that the checksum at its end is compared."""
        for _ in self.pieces:
            pass


def _unpacked(packed: Read, length: int) -> Iterator[bytes]:
    inflate = zlib.decompressobj()
    while length > 0 and not inflate.eof:
        size = min(PIECE, length)
        length -= size
        piece = packed(size)
        while piece and not inflate.eof:
            yield inflate.decompress(piece, PIECE)
            piece = inflate.unconsumed_tail
    if not inflate.eof:
        raise ValueError("it ends early")


def _damaged(file: Path, error: Exception) -> PatchlightError:
    if isinstance(error, PatchlightError):
        return error
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return PatchlightError(f"{file} is damaged or cut off ({text}); get it again")
