"""HEIC and HEIF images, as telephones write them: Pillow reads them with the library of an extra, pillow-heif."""

from __future__ import annotations

import io
import stat
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from patchlight.errors import PatchlightError
from patchlight.machine.process import import_library

SUFFIXES = frozenset({".heic", ".heif", ".hif"})

# Kinds of file that HEVC-coded images have behind "ftyp": ISO/IEC 23008-12, and nokiatech.github.io/heif.
BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})


def open_file(file: Path | io.BytesIO) -> Image.Image:
    """`Image.open`, for HEIF files, too.

    Raises as it does, PatchlightError for a pipe or a device, of which reading may never end, and LibraryMissing for a
    HEIF file where pillow-heif is not installed. That is loaded with the first such file, since all others open
    without it.
    """
    if isinstance(file, Path):
        mode = file.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise PatchlightError("it is a pipe, a device or a socket; copy what it gives into a file")
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        if not is_heif(file):
            raise
        import_library("pillow_heif", "heic").register_heif_opener()
        return Image.open(file)


def is_heif(file: Path | io.BytesIO) -> bool:
    """Whether a file begins as HEIF images do."""
    if isinstance(file, io.BytesIO):
        head = file.getvalue()[:12]
    else:
        with file.open("rb") as opened:
            head = opened.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in BRANDS
