"""Image files as strangers send them, drawn by Hypothesis: of all formats that Pillow knows, and damaged.

No test of its own.
"""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from functools import cache

import numpy as np
from hypothesis import strategies as st
from PIL import Image

# A number in a header is a size, a count or a place; these are the ones that programs trip over.
NUMBERS = (0, 1, 2, 3, 7, 8, 16, 127, 255, 256, 4095, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
FORMATS = ("B", ">H", "<H", ">I", "<I", ">Q")
ANIMATED = {"GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO", "ICO"}
MODES = ("RGB", "L", "P", "1", "RGBA", "LA", "PA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F")
DRAWN = ("EPS", "PDF", "PALM", "BUFR", "GRIB", "HDF5", "WMF")  # which Pillow writes, and does not read as pixels


def _base() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8))


def _in_mode(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.random.default_rng(1).integers(0, 65536, (12, 12), dtype=np.uint16))
    if mode == "LAB":
        return Image.frombytes("LAB", (12, 12), _base().tobytes())
    return _base().convert("RGBA").convert(mode) if mode in ("LA", "PA", "RGBA") else _base().convert(mode)


def _written(image: Image.Image, kind: str, **options: object) -> bytes | None:
    """The image as a file, where Pillow can write one."""
    buffer = io.BytesIO()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RuntimeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.save(buffer, kind, **options)
        return buffer.getvalue()
    return None


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x829A] = 6, "a text", 0.5
    return exif.tobytes()


def fits_file(values: bytes, **cards: object) -> bytes:
    """A FITS file, plain or of a compressed table."""
    lines = [f"{key:<8}= {value!s:>20}".ljust(80) for key, value in cards.items()] + ["END".ljust(80)]
    header = "".join(lines).encode()
    return header.ljust(-(-len(header) // 2880) * 2880) + values.ljust(2880, b"\0")


def _xpm() -> bytes:
    rows = ",\n".join('"' + "ab" * 6 + '"' for _ in range(12))
    return f'/* XPM */\nstatic char *x[] = {{\n"12 12 2 1",\n"a c #ff0000",\n"b c #0000ff",\n{rows}\n}};\n'.encode()


def _psd() -> bytes:
    return struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, 12, 12, 8, 3) + bytes(12) + b"\0\0" + _base().tobytes()


def _fli() -> bytes:
    palette = struct.pack("<IHHBB", 6 + 4 + 768, 4, 1, 0, 0) + bytes(range(256)) * 3
    pixels = struct.pack("<IH", 6 + 144, 16) + bytes(range(144))
    frame = struct.pack("<IHH8x", 16 + len(palette) + len(pixels), 0xF1FA, 2) + palette + pixels
    return struct.pack("<IHHHHHHI", 128 + len(frame), 0xAF12, 1, 12, 12, 8, 3, 10).ljust(128, b"\0") + frame


def _others() -> list[bytes]:
    """Formats that Pillow only reads, and texts that are images."""
    size = {"NAXIS": 2, "NAXIS1": 12, "NAXIS2": 12}
    plain = fits_file(bytes(range(144)), SIMPLE="T", BITPIX=8, **size)
    bmp = _written(_base(), "BMP") or b""
    cursor = struct.pack("<HHHBBBBHHII", 0, 2, 1, 12, 12, 0, 0, 0, 0, len(bmp) - 14, 22) + bmp[14:]
    brush = struct.pack(">IIIII4sI", 28 + 4, 2, 12, 12, 4, b"GIMP", 10) + b"abc\0" + bytes(576)
    pcx = _written(_base(), "PCX") or b""
    pages = struct.pack("<III", 0x3ADE68B1, 12, 0) + pcx
    texts = [b"P2 3 2 4095\n1 2 3 4 5 4095", b"P3 1 1 255\n1 2 3", b"P1 2 2\n1 0 0 1", b"Pf 2 1 -1.0\n" + bytes(8)]
    pam = b"P7\nWIDTH 2\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(6)
    return [plain, _xpm(), _psd(), _fli(), cursor, brush, pages, pam, *texts]


@cache
def good_files() -> tuple[bytes, ...]:
    """One file of each format and mode that Pillow writes, animations, and what only is read."""
    Image.init()
    found = list[bytes | None]()
    for kind in sorted(set(Image.SAVE) - set(DRAWN)):
        for mode in MODES:
            found.append(_written(_in_mode(mode), kind))
        if kind in ANIMATED:
            found.append(_written(_base(), kind, save_all=True, append_images=[_in_mode("RGBA"), _in_mode("P")]))
        found.append(_written(_base(), kind, exif=_exif(), icc_profile=b"no profile" * 20, dpi=(3, 3)))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4", "webp", "zstd"):
        found.append(_written(_in_mode("1" if compression == "group4" else "RGB"), "TIFF", compression=compression))
    found += [_written(_in_mode("I;16"), "PNG", transparency=77), _written(_in_mode("P"), "PNG", transparency=3)]
    found += [_written(_base(), "JPEG", progressive=True), _written(_base(), "WEBP", lossless=True)]
    with contextlib.suppress(ImportError):
        import pillow_heif

        buffer = io.BytesIO()
        pillow_heif.from_pillow(_base().resize((64, 64))).save(buffer)
        found.append(buffer.getvalue())
    return tuple(dict.fromkeys(each for each in [*found, *_others()] if each))


def _with_right_sums(data: bytes) -> bytes:
    """A PNG file whose checksums are those of its chunks again, so that what they hold is read."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4])
        if end + 4 > len(out):
            break
        out[end : end + 4] = zlib.crc32(out[at + 4 : end]).to_bytes(4)
        at = end + 4
    return bytes(out)


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """A file in which some numbers are others, parts are missing, doubled, cut off, or of another file."""
    files = good_files()
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(0, 5))):
        # Most of what a file says of itself stands at its front.
        front = draw(st.booleans())
        at = draw(st.integers(0, max(0, min(len(data), 64 if front else len(data)) - 1)))
        kind = draw(st.sampled_from(["number"] * 4 + ["byte", "byte", "cut", "remove", "double", "insert", "other"]))
        if kind == "number":
            code, number = draw(st.sampled_from(FORMATS)), draw(st.sampled_from(NUMBERS))
            packed = struct.pack(code, number % 256 ** struct.calcsize(code))
            data[at : at + len(packed)] = packed
        elif kind == "byte" and data:
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[at:]
        elif kind == "remove":
            del data[at : at + draw(st.integers(1, 16))]
        elif kind == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 64))] * draw(st.sampled_from([1, 1, 1, 200]))
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=8))
        elif kind == "other":
            data[at:] = draw(st.sampled_from(files))[at:]
    return _with_right_sums(bytes(data)) if draw(st.booleans()) else bytes(data)
