"""Reading .npz files that somebody else may have written: their sizes are known before anything is read."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib import format as npy

from patchlight.runs.codec import RecordError

MOST_BYTES = 2**30  # of all arrays of a file; the largest that a run writes, of a ViT with 196 patches, has some 60 MB
MOST_ARRAYS = 64
KINDS = "biufU"  # of arrays: true or false, numbers, text

# What zipfile, zlib and NumPy raise of a file that is none of theirs.
NOT_AN_NPZ = (ValueError, EOFError, KeyError, AttributeError, TypeError, NotImplementedError, SyntaxError, TokenError)


def read_arrays(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name.

    Raises RecordError where it is no .npz of plain arrays, or where these are larger than MOST_BYTES.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if size > MOST_BYTES or len(members) > MOST_ARRAYS:
                raise RecordError(
                    f"it has {len(members):,} arrays of {size:,} bytes in all, and the limits are {MOST_ARRAYS} and "
                    f"{MOST_BYTES:,}"
                )
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except RecordError:
        raise
    except (*NOT_AN_NPZ, zipfile.BadZipFile, zlib.error, OSError, MemoryError, RuntimeError):
        raise RecordError("it is no .npz of plain arrays") from None


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """An array whose header says just the size that the member has."""
    with archive.open(member) as part:
        version = npy.read_magic(part)
        read: Any = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, _, dtype = read(part)
        size = part.tell() + math.prod(shape) * dtype.itemsize
    if dtype.kind not in KINDS or dtype.hasobject or size != member.file_size or min(shape, default=0) < 0:
        raise RecordError(
            f"the array {_name(member)} is of {dtype} and {' x '.join(map(str, shape)) or 'one value'}, which is not "
            "what the file holds of it, or no plain array"
        )
    with archive.open(member) as part:
        return npy.read_array(part, allow_pickle=False)


def _name(member: zipfile.ZipInfo) -> str:
    name = member.filename.removesuffix(".npy")
    return f"'{name}'" if name.isidentifier() and len(name) < 40 else "of an odd name"
