"""Kinds of files that are no images, or none that Pillow can read, known by how they begin: what messages call them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from patchlight.data.heif import BRANDS

HEAD = 512  # bytes of a file that tell what it is

RAW = frozenset(".cr2 .cr3 .nef .arw .dng .raf .orf .rw2 .pef .srw".split())
VIDEO = frozenset(".mp4 .mov .avi .mkv .webm .mpg .mpeg .m4v".split())

# Behind "ftyp" at the fourth byte: still images that Pillow reads, and raw files of Canon. All else is videos.
STILL = frozenset({b"avif", b"avis", b"mif2"}) | BRANDS
CANON = b"crx "


@dataclass(frozen=True)
class Kind:
    """A kind of file: what a message calls many of them, and one, and how they are known."""

    about: str
    one: str
    matches: Callable[[str, bytes], bool]  # suffix in small letters, beginning of the file


def begins(*magic: bytes) -> Callable[[str, bytes], bool]:
    """A test of a file's first bytes."""
    return lambda suffix, head: head.startswith(magic)


# What may hold images, and is told of where a folder is read.
UNREADABLE: tuple[Kind, ...] = (
    Kind(
        "HEIC images, which need pillow-heif (pip install 'patchlight[heic]')",
        "a HEIC image that is damaged",
        lambda suffix, head: head[4:8] == b"ftyp" and head[8:12] in BRANDS,
    ),
    Kind(
        "JPEG XL images (store them as PNG)",
        "a JPEG XL image (store it as PNG)",
        begins(b"\xff\x0a", b"\x00\x00\x00\x0cJXL "),
    ),
    Kind(
        "raw files of cameras (store them as PNG or JPEG)",
        "a raw file of a camera (store it as PNG or JPEG)",
        lambda suffix, head: suffix in RAW or head[4:12] == b"ftyp" + CANON or head.startswith(b"FUJIFILMCCD-RAW"),
    ),
    Kind(
        "DICOM files (store them as PNG)",
        "a DICOM file (store it as PNG)",
        lambda suffix, head: head[128:132] == b"DICM" or suffix == ".dcm",
    ),
    Kind(
        "drawings (SVG; store them as PNG)",
        "a drawing (SVG; store it as PNG)",
        lambda suffix, head: suffix in (".svg", ".svgz") or (b"<svg" in head and is_text(head)),
    ),
    Kind(
        "videos",
        "a video (store the pictures that are meant as PNG or JPEG)",
        lambda suffix, head: (
            suffix in VIDEO
            or head.startswith((b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba"))
            or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
            or (head[4:8] == b"ftyp" and head[8:12] not in STILL | {CANON})
        ),
    ),
    Kind(
        "arrays of NumPy (an array of all images is a source itself)",
        "an array of NumPy (an array of all images is a source itself)",
        begins(b"\x93NUMPY"),
    ),
    Kind(
        "pointers of Git LFS (run `git lfs pull`)",
        "a pointer of Git LFS (run `git lfs pull`)",
        begins(b"version https://git-lfs"),
    ),
)

# What Pillow opens and does not decode, by its names of formats.
PACKED = "fits_gzip"
NOT_DECODED = {
    "EPS": "a drawing in PostScript, which is a program (EPS; store it as PNG)",
    PACKED: "a packed table (FITS; a small one may unpack to any size: unpack it with `funpack`)",
    "MPEG": "a video (store the pictures that are meant as PNG or JPEG)",
    "WMF": "a drawing of Windows (WMF or EMF; store it as PNG)",
    "HDF5": "an HDF5 file (store its images as .npy or PNG)",
    "GRIB": "weather data (GRIB; store them as PNG)",
    "BUFR": "weather data (BUFR; store them as PNG)",
}

IMAGES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP": "JPEG 2000",
}

# What holds none, and is told of where one of them is taken for an image or an archive by its name.
OTHERS: tuple[Kind, ...] = (
    Kind("empty files", "an empty file", lambda suffix, head: not head),
    Kind(
        "HTML pages",
        "an HTML page, as a download that failed leaves (get it again)",
        lambda suffix, head: (
            head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype html", b"<html"))
        ),
    ),
    Kind("PDF documents", "a PDF document (store its pages as PNG)", begins(b"%PDF-")),
    Kind("drawings of GIMP", "a drawing of GIMP (export it as PNG)", begins(b"gimp xcf")),
    Kind("zip archives", "a zip archive", begins(b"PK\x03\x04", b"PK\x05\x06")),
    Kind("7z archives", "a 7z archive", begins(b"7z\xbc\xaf\x27\x1c")),
    Kind("rar archives", "a rar archive", begins(b"Rar!\x1a\x07")),
    Kind("files compressed by zstd", "a file compressed by zstd", begins(b"\x28\xb5\x2f\xfd")),
    Kind("files compressed by lz4", "a file compressed by lz4", begins(b"\x04\x22\x4d\x18")),
    Kind(
        "compressed files",
        "a compressed file (unpack it)",
        begins(b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"),
    ),
    Kind("tar archives", "a tar archive", lambda suffix, head: head[257:262] == b"ustar"),
    Kind(
        "files of zeros",
        "a file of zeros, as a download or a copy that was broken off leaves (get it again)",
        lambda suffix, head: not head.strip(b"\0"),
    ),
    *(
        Kind(f"damaged {name} images", f"a {name} image that is cut off or damaged (get it again)", begins(magic))
        for magic, name in IMAGES.items()
    ),
    Kind("text files", "a text file", lambda suffix, head: is_text(head)),
)


def head_of(file: bytes | Path | io.BytesIO) -> bytes:
    """The beginning of a file; nothing of one that cannot be read."""
    if isinstance(file, io.BytesIO):
        return file.getvalue()[:HEAD]
    if isinstance(file, bytes):
        return file[:HEAD]
    try:
        with file.open("rb") as opened:
            return opened.read(HEAD)
    except OSError:
        return b""


def what_it_is(file: bytes | Path) -> str | None:
    """What a file that is no image and no archive is, as "an empty file"; None where that is not known."""
    head, suffix = head_of(file), file.suffix.lower() if isinstance(file, Path) else ""
    return next((kind.one for kind in (*UNREADABLE, *OTHERS) if kind.matches(suffix, head)), None)


def words_for(count: int, reason: str) -> str:
    """A count of files of a kind, as a Kind's `about` calls many of them: "2 videos", "1 video (...)"."""
    one = next((kind.one for kind in UNREADABLE if kind.about == reason), None) if count == 1 else None
    return one or f"{count:,} {reason}"


def is_text(head: bytes) -> bool:
    """Whether the beginning of a file is text in UTF-8."""
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < HEAD else "ignore")
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() or char in "\t\r\n\f\ufeff" for char in text)
