"""Values of more than 8 bits: every format that stores them comes out alike, and what is not exact is said."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from patchlight.config import DataConfig
from patchlight.data.audit import audit_source
from patchlight.data.decode import decode, decode_image
from patchlight.data.heard import listening
from patchlight.data.remarks import Remarks
from patchlight.data.sources import load_source
from patchlight.errors import PatchlightError

VALUES = np.array([[0, 257, 128 * 257, 65535], [128, 129, 1000, 65535 - 129]], dtype=np.uint16)
EXPECTED = [[0, 1, 128, 255], [0, 1, 4, 254]]


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pgm(values: np.ndarray, maxval: int, plain: bool = False) -> bytes:
    head = f"{'P2' if plain else 'P5'} {values.shape[1]} {values.shape[0]} {maxval}\n".encode()
    if plain:
        return head + " ".join(map(str, values.ravel().tolist())).encode()
    return head + values.astype(">u2").tobytes()


def tiff(values: np.ndarray, order: str = "<", sample: int = 1, photometric: int = 1, bits: int = 16) -> bytes:
    """An uncompressed grey TIFF file, written by hand: 16 bits of `sample` format (1 unsigned, 2 signed)."""
    height, width = values.shape
    data = values.astype(f"{order}{'i' if sample == 2 else 'u'}2").tobytes()
    if bits == 12:
        odd = values.ravel().astype(int).tolist()
        data = b"".join(
            bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in zip(odd[::2], odd[1::2], strict=True)
        )
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: height, 279: len(data)}
    tags |= {339: sample}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return head + struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0" + data


def png(rows: np.ndarray, bits: int, colour: int, key: bytes = b"") -> bytes:
    """A PNG file, written by hand: `rows` (H, bytes of a row) uint8, `colour` is the format's own number."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    width = rows.shape[1] * 8 // (bits * samples)
    head = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    middle = chunk(b"tRNS", key) if key else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + middle + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def be(values: np.ndarray) -> np.ndarray:
    """Rows of 16-bit values as a PNG file has them."""
    return np.ascontiguousarray(values.astype(">u2")).view(np.uint8).reshape(len(values), -1)


def test_all_sixteen_bit_grey_is_divided_by_257() -> None:
    files = {
        "png": saved(Image.fromarray(VALUES), "PNG"),
        "pgm": pgm(VALUES, 65535),
        "plain pgm": pgm(VALUES, 65535, plain=True),
        "tiff": saved(Image.fromarray(VALUES), "TIFF"),
        "tiff by hand": tiff(VALUES),
        "big-endian tiff": tiff(VALUES, ">"),
        "deflated tiff": saved(Image.fromarray(VALUES), "TIFF", compression="tiff_adobe_deflate"),
        "white is zero": tiff(65535 - VALUES, photometric=0),
    }
    for name, data in files.items():
        assert decode_image(data)[..., 1].tolist() == EXPECTED, name
    lossless = saved(Image.fromarray(np.tile(VALUES, (16, 8))), "JPEG2000", irreversible=False)
    assert decode_image(lossless)[:2, :4, 0].tolist() == EXPECTED


@pytest.mark.parametrize("maxval", [1023, 4095, 16383, 300, 65534])
@pytest.mark.parametrize("plain", [False, True])
def test_a_pgm_file_says_what_is_white(maxval: int, plain: bool) -> None:
    values = np.array([[0, maxval // 2, maxval]], dtype=np.uint16)
    for pixel_max in (65535, 4095):
        data = pgm(values, maxval, plain)
        assert decode_image(data, pixel_max=pixel_max)[0, :, 0].tolist() == [
            0,
            round(255 * (maxval // 2) / maxval),
            255,
        ]
        assert decode(data, None, "a", "bicubic", pixel_max).facts.greatest is None


def test_a_twelve_bit_tiff_says_what_is_white() -> None:
    data = tiff(np.array([[0, 2048, 4095, 4095]], dtype=np.uint16), bits=12)
    assert decode_image(data)[0, :, 0].tolist() == [0, 128, 255, 255]
    assert decode_image(data, pixel_max=1023)[0, :, 0].tolist() == [0, 128, 255, 255]


@pytest.mark.parametrize("order", ["<", ">"])
def test_signed_sixteen_bits_have_one_range_too(order: str) -> None:
    data = tiff(np.array([[-32768, -1, 0, 100, 32767]]), order, sample=2)
    assert decode_image(data)[0, :, 0].tolist() == [0, 127, 128, 128, 255]
    assert decode_image(data, pixel_max=100)[0, :, 0].tolist() == [0, 0, 0, 255, 255]


def test_pixel_max_is_white() -> None:
    values = np.array([[0, 2048, 4095, 5000]], dtype=np.uint16)
    for data in (saved(Image.fromarray(values), "PNG"), pgm(values, 65535), tiff(values), tiff(values, ">")):
        found = decode(data, None, "a", "bicubic", 4095)
        assert found.pixels[0, :, 0].tolist() == [0, 128, 255, 255]
        assert found.facts.above
        assert not decode(data, None, "a", "bicubic", 5000).facts.above


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_value_shows_white(bits: int) -> None:
    """Of eight pixels 0 1 0 1 ..., those of the value 1 are transparent."""
    values = np.array([[0, 1] * 4], dtype=np.uint16)
    if bits == 16:
        rows = be(values)
    elif bits == 8:
        rows = values.astype(np.uint8)
    else:
        packed = sum(int(v) << (bits * (7 - i)) for i, v in enumerate(values[0].tolist()))
        rows = np.frombuffer(packed.to_bytes(bits, "big"), dtype=np.uint8)[None]
    assert decode_image(png(rows, bits, 0, struct.pack(">H", 1)))[0, :, 0].tolist() == [0, 255] * 4
    scale = {1: 255, 2: 85, 4: 17}.get(bits, 1)
    one = 0 if bits == 16 else scale
    assert decode_image(png(rows, bits, 0, struct.pack(">H", 0)))[0, :, 0].tolist() == [255, one] * 4


def test_sixteen_bits_with_transparency_show_white() -> None:
    grey_alpha = np.array([[[0, 0], [0, 65535], [257 * 100, 65535], [9, 0]]], dtype=np.uint16)
    assert decode_image(png(be(grey_alpha.reshape(1, -1)), 16, 4))[0, :, 0].tolist() == [255, 0, 100, 255]
    colours = np.array([[[0, 257 * 9, 0, 0], [257 * 7, 0, 257 * 200, 65535]]], dtype=np.uint16)
    assert decode_image(png(be(colours.reshape(1, -1)), 16, 6)).tolist() == [[[255] * 3, [7, 0, 200]]]


def test_a_transparent_colour_of_sixteen_bits_is_compared_in_full() -> None:
    """The second pixel has the same upper 8 bits as the first, which is transparent."""
    colours = np.array([[[1000, 2000, 3000], [1000, 2000, 3001], [1001, 2000, 3000]]], dtype=np.uint16)
    key = struct.pack(">HHH", 1000, 2000, 3000)
    assert decode_image(png(be(colours.reshape(1, -1)), 16, 2, key)).tolist() == [[[255] * 3, [3, 7, 11], [3, 7, 11]]]


def remarks(*files: bytes, pixel_max: int = 65535, trained: bool = False) -> list[str]:
    found = Remarks()
    with listening():
        for number, data in enumerate(files):
            decoded = decode(data, None, f"{number}.x", "bicubic", pixel_max)
            found.add(f"{number}.x", decoded.facts, decoded.warnings)
    again = Remarks.from_json(found.to_json())
    assert again == found
    return list(again.sentences(pixel_max, trained))


def grey(*values: int) -> bytes:
    return saved(Image.fromarray(np.array([values], dtype=np.uint16)), "PNG")


def test_what_looks_like_twelve_bits_is_said_with_the_setting() -> None:
    (said,) = remarks(grey(0, 4095), grey(7, 300))
    assert said == (
        "all 2 images of 16 bits hold no value above 4095, such as 0.x: they look like 12-bit values and are read as 0 "
        "to 65535, so that nothing is brighter than 16 of 255; set data.pixel_max = 4095 if 4095 is white in them"
    )
    assert "look like 10-bit values" in remarks(grey(0, 1000))[0]
    assert "look like 14-bit values" in remarks(grey(0, 9000))[0]
    (some,) = remarks(grey(0, 65535), grey(0, 4095), grey(1, 2))
    assert some.startswith("2 of 3 images of 16 bits hold no value above 4095, such as 1.x: they are nearly black")
    assert remarks(grey(0, 65535), grey(0, 40000)) == []
    assert remarks(grey(0, 4095), pgm(np.array([[0, 4095]]), 65535), pixel_max=4095) == []
    assert remarks(pgm(np.array([[0, 12]]), 4095)) == []  # a dark image, whose file says what is white
    (clipped,) = remarks(grey(0, 4096), grey(1, 2), pixel_max=4095)
    assert clipped.startswith("1 image of 16 bits, such as 0.x, holds values below 0 or above the white")


def test_what_has_no_range_is_said() -> None:
    floats = saved(Image.fromarray(np.array([[0.5, 3]], dtype=np.float32)), "TIFF")
    ints = saved(Image.fromarray(np.array([[5, 300]], dtype=np.int32)), "TIFF")
    (said,) = remarks(floats, ints)
    assert said.startswith("2 images of 32-bit integers or floats, such as 0.x, have no fixed range")
    (said,) = remarks(tiff(np.array([[0, 5]]), sample=2))
    assert said.startswith("1 image of signed 16 bits")
    dark = png(be(np.array([[0, 9, 4095]], dtype=np.uint16)), 16, 2)
    (said,) = remarks(dark)
    assert said.startswith("1 image of 16 bits in colour holds no value above 4095")
    assert any("data.pixel_max is for grey ones" in line for line in remarks(dark, pixel_max=4095))


def test_one_image_is_told_of_as_one() -> None:
    floats = saved(Image.fromarray(np.array([[0.5, 3]], dtype=np.float32)), "TIFF")
    assert remarks(floats)[0].startswith(
        "1 image of 32-bit integers or floats, such as 0.x, has no fixed range: its own"
    )
    assert remarks(grey(0, 4095))[0].startswith(
        "1 image of 16 bits holds no value above 4095, such as 0.x: such values look like 12-bit values"
    )
    (said,) = remarks(grey(0, 65535), grey(0, 4095))
    assert said.startswith("1 of 2 images of 16 bits holds no value above 4095, such as 1.x: it is nearly black")
    dark = png(be(np.array([[0, 9, 4095]], dtype=np.uint16)), 16, 2)
    assert any("1 image of 16 bits in colour, such as 0.x, is read by" in line for line in remarks(dark, pixel_max=9))


def test_where_a_model_reads_files_no_setting_is_advised() -> None:
    trained = "the model was trained with data.pixel_max = 65535, which is set when training"
    for files in ([grey(0, 4095)], [grey(0, 65535), grey(0, 4095)], [tiff(np.array([[0, 5]]), sample=2)]):
        (said,) = remarks(*files, trained=True)
        assert trained in said
        assert "set data.pixel_max" not in said
        assert trained not in remarks(*files)[0]
    (clipped,) = remarks(grey(0, 4096), pixel_max=4095, trained=True)
    assert "the white of data.pixel_max = 4095, with which the model was trained: they are black or white" in clipped


def moving(kind: str, count: int = 3, **options: object) -> bytes:
    first, *more = [Image.new("RGB", (4, 4), (80 * index, 0, 0)) for index in range(count)]
    return saved(first, kind, save_all=True, append_images=more, **options)


@pytest.mark.parametrize(
    ("kind", "one", "two"),
    [
        ("GIF", "1 image is an animation, such as 0.x: its first picture is", "2 images are animations, such as 0.x"),
        ("WEBP", "1 image is an animation", "2 images are animations, such as 0.x: the first picture of each is used"),
        ("PNG", "1 image is an animation", "2 images are animations"),
        (
            "TIFF",
            "1 image (TIFF) has several pages",
            "2 images (TIFF) have several pages or copies in other sizes, such",
        ),
        ("MPO", "1 image (MPO or HEIC) holds further pictures", "2 images (MPO or HEIC) hold further pictures"),
    ],
)
def test_pictures_behind_the_first_are_said(kind: str, one: str, two: str) -> None:
    data, still = moving(kind), moving(kind, 1)
    assert decode_image(data)[0, 0, 0] < 20  # the first one
    assert remarks(still) == []
    assert remarks(data, still)[0].startswith(one)
    assert remarks(data)[0].endswith(" is used and no other")
    assert remarks(data, still, data)[0].startswith(two)


def test_damage_behind_the_first_picture_of_a_gif_is_no_error() -> None:
    data = moving("GIF")
    for end in range(len(data) - 40, len(data)):
        assert decode_image(data[:end])[0, 0, 0] < 20


def test_pillows_warnings_are_counted_by_kind() -> None:
    plain = Image.new("RGB", (4, 4))
    broken = saved(plain, "JPEG", dpi=(72, 72), exif=b"Exif\x00\x00II*\x00broken")
    cut = saved(plain, "JPEG", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x09\x00\x01\x02")
    with warnings.catch_warnings(record=True) as raw:
        warnings.simplefilter("always")
        (said,) = remarks(broken, cut, broken, saved(plain, "PNG"))
    assert raw == []
    assert said.startswith("Pillow warned of 3 images: '")
    assert said.endswith(", such as 0.x")


def test_a_log_line_of_pillow_is_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    import logging

    with listening():
        logging.getLogger("PIL.TiffImagePlugin").error("nobody decodes this")
    assert remarks() == []
    assert capfd.readouterr().err == ""


def folder_of(root: Path, **files: bytes) -> Path:
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        for index in range(6):
            noise = np.random.default_rng(index).integers(0, 4096, (8, 8), dtype=np.uint16)
            (root / label / f"{label}{index}.png").write_bytes(saved(Image.fromarray(noise), "PNG"))
    return root


@pytest.mark.parametrize("limit", [64, 0])
def test_sets_say_it_in_memory_and_from_the_cache(tmp_path: Path, limit: int) -> None:
    root = folder_of(tmp_path / "grey")
    dark = load_source(str(root), memory_limit_mb=limit)["train"]
    for again in (dark, load_source(str(root), memory_limit_mb=limit)["train"]):
        assert sum("look like 12-bit values" in note for note in again.notes) == 1
    bright = load_source(str(root), memory_limit_mb=limit, pixel_max=4095)["train"]
    assert bright.notes == ()
    assert bright.images.float().mean() > 100 > 16 > dark.images.float().mean()


@pytest.mark.parametrize("limit", [64, 0])
def test_animations_are_said_of_a_source(tmp_path: Path, limit: int) -> None:
    for name in ("a/1.gif", "a/2.gif", "b/1.gif", "b/2.gif"):
        (tmp_path / "gifs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "gifs" / name).write_bytes(moving("GIF", 2 if name == "b/2.gif" else 1))
    for _ in range(2):
        notes = load_source(str(tmp_path / "gifs"), memory_limit_mb=limit)["train"].notes
        assert sum("1 image is an animation, such as " in note and "b/2.gif" in note for note in notes) == 1
    said = audit_source(str(tmp_path / "gifs"), DataConfig(source="")).notes
    assert any("1 image is an animation" in note for note in said)


def test_pixel_max_has_a_range() -> None:
    for wrong in (0, 65536, 1.5):
        with pytest.raises(PatchlightError, match="pixel_max must be"):
            DataConfig(pixel_max=wrong)  # type: ignore[arg-type]


def test_text_chunks_do_not_disturb(tmp_path: Path) -> None:
    about = PngInfo()
    about.add_text("patchlight", "a text of the same name")
    data = saved(Image.fromarray(VALUES), "PNG", pnginfo=about)
    assert decode_image(data)[..., 0].tolist() == EXPECTED
    red = saved(Image.new("RGB", (2, 2), "red"), "PNG", pnginfo=about)
    assert decode_image(red)[0, 0].tolist() == [255, 0, 0]
