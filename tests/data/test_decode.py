"""Every image mode, orientation and kind of damage, in real files; fitting against torchvision."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from patchlight.data import decode, levels
from patchlight.data.decode import (
    decode_image,
    fit_square,
    header_dimensions,
    image_dimensions,
    load_image,
    open_image,
    to_rgb,
)
from patchlight.errors import PatchlightError


def picture(width: int = 20, height: int = 12, seed: int = 0) -> Image.Image:
    """A smooth coloured picture."""
    corners = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def checks(image: Image.Image, expected: np.ndarray, tolerance: int = 0) -> None:
    pixels = np.asarray(to_rgb(image))
    assert pixels.shape == (image.height, image.width, 3)
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance


def test_rgb_is_kept() -> None:
    checks(picture(), np.asarray(picture()))


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGBX", "YCbCr", "HSV", "CMYK", "LAB", "RGBA", "LA", "PA", "La", "RGBa"]
)
def test_every_mode_of_pillow_becomes_rgb(mode: str) -> None:
    grey = picture().convert("L").convert("RGB")
    source = grey if mode in ("1", "L", "LA", "La", "PA") else picture()
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.applyTransform(source, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
        assert image is not None
    elif mode == "La":
        image = source.convert("LA").convert("La")
    elif mode == "RGBa":
        image = source.convert("RGBA").convert("RGBa")
    elif mode == "PA":
        image = source.convert("P").convert("PA")
    else:
        image = source.convert(mode)
    assert image.mode == mode
    tolerance = {"1": 255, "P": 60, "PA": 60, "LAB": 30, "HSV": 12, "YCbCr": 4}.get(mode, 0)
    checks(image, np.asarray(source).astype(int), tolerance)


def test_transparency_shows_white() -> None:
    pixels = np.zeros((2, 3, 4), dtype=np.uint8)
    pixels[0, :, 3] = [0, 255, 51]
    for image in (Image.fromarray(pixels), Image.fromarray(pixels[..., [0, 3]])):
        assert image.mode in ("RGBA", "LA")
        assert np.asarray(to_rgb(image))[0, :, 0].tolist() == [255, 0, 204]
        assert np.asarray(to_rgb(image))[1].tolist() == [[255] * 3] * 3


def test_a_transparent_palette_colour_shows_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    assert np.asarray(to_rgb(image)).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    for transparency in (0, b"\x00\xff"):
        again = Image.open(io.BytesIO(encoded(image, "PNG", transparency=transparency)))
        assert np.asarray(to_rgb(again)).tolist() == [[[255] * 3, [40, 50, 60]]]


def test_a_transparent_key_colour_shows_white() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    again = Image.open(io.BytesIO(encoded(image, "PNG", transparency=(1, 2, 3))))
    assert np.asarray(to_rgb(again)).tolist() == [[[255] * 3, [4, 5, 6]]]


def test_sixteen_bits_are_divided_by_257() -> None:
    values = np.array([[0, 257, 128 * 257, 65535], [128, 129, 1000, 65535 - 129]], dtype=np.uint16)
    data = encoded(Image.fromarray(values), "PNG")
    assert open_image(data, "x").mode == "I;16"
    assert decode_image(data)[..., 0].tolist() == [[0, 1, 128, 255], [0, 1, 4, 254]]
    big_endian = Image.frombytes("I;16B", (4, 2), values.astype(">u2").tobytes())
    assert np.asarray(to_rgb(big_endian))[..., 2].tolist() == [[0, 1, 128, 255], [0, 1, 4, 254]]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_modes_without_a_range_are_spread(kind: type) -> None:
    image = Image.fromarray(np.array([[-100, 0], [50, 155]], dtype=kind))
    data = encoded(image, "TIFF")
    assert open_image(data, "x").mode == ("I" if kind is np.int32 else "F")
    assert decode_image(data)[..., 1].tolist() == [[0, 100], [150, 255]]
    assert np.asarray(to_rgb(Image.fromarray(np.full((2, 2), 7, dtype=kind)))).max() == 0


def test_values_that_are_not_finite_are_refused() -> None:
    data = encoded(Image.fromarray(np.array([[0, np.nan]], dtype=np.float32)), "TIFF")
    with pytest.raises(PatchlightError, match=r"x\.tif: .*finite"):
        decode_image(data, name="x.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    image = picture(6, 4)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.asarray(image)
    turned = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels),
    }[orientation]
    np.testing.assert_array_equal(decode_image(encoded(image, "PNG", exif=exif)), turned)


def test_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("width", "height"), [(40, 20), (20, 40), (33, 32), (7, 5), (5, 7), (32, 32), (100, 31)])
def test_fitting_agrees_with_torchvision(width: int, height: int) -> None:
    from torchvision.transforms import v2

    oracle = v2.Compose([v2.Resize(32, v2.InterpolationMode.BICUBIC), v2.CenterCrop(32)])
    image = picture(width, height)
    np.testing.assert_array_equal(np.asarray(fit_square(image, 32)), np.asarray(oracle(image)))


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (5000, 3), (2, 70)])
def test_very_long_images_are_fitted_without_filling_the_memory(size: tuple[int, int]) -> None:
    columns = np.arange(max(size)) * 255 // (max(size) - 1)
    line = np.broadcast_to(columns[:, None, None], (max(size), min(size), 3)).astype(np.uint8)
    image = Image.fromarray(line if size[1] > size[0] else np.ascontiguousarray(line.transpose(1, 0, 2)))
    assert image.size == size
    fitted = np.asarray(fit_square(image, 32)).astype(int)
    assert fitted.shape == (32, 32, 3)
    assert abs(fitted.mean() - 127.5) < 3


def test_pixel_arrays_go_the_same_way() -> None:
    pixels = np.asarray(picture(8, 8))
    np.testing.assert_array_equal(decode_image(np.ascontiguousarray(pixels.transpose(2, 0, 1))), pixels)


def test_load_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture(40, 20).save(path)
    tensor = load_image(str(path), 16)
    assert tensor.shape == (3, 16, 16)
    assert tensor.dtype == torch.uint8
    assert tensor.is_contiguous()
    np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), np.asarray(fit_square(picture(40, 20), 16)))


def test_bad_files_are_named(tmp_path: Path) -> None:
    whole = {kind: encoded(picture(64, 64), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")}
    for kind, data in whole.items():
        path = tmp_path / f"cut.{kind.lower()}"
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(PatchlightError, match=rf"cut\.{kind.lower()}: "):
            load_image(path, 8)
    for name, data in (("empty.png", b""), ("text.png", b"no image at all")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(PatchlightError, match=f"{name}: it is not an image"):
            load_image(tmp_path / name, 8)
    with pytest.raises(PatchlightError, match=r"none\.png: there is no such file"):
        load_image(tmp_path / "none.png", 8)
    with pytest.raises(PatchlightError, match="cannot be read"):
        load_image(tmp_path, 8)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS (run `git lfs pull`)"),
        (b"\xef\xbb\xbf\n <!DOCTYPE html><html>", "an HTML page, as a download that failed leaves (get it again)"),
        (b"<HTML><body>404", "an HTML page"),
        (b"AccessDenied\n", "a text file"),
        (b"\xff\x0a" + b"\x11" * 40, "a JPEG XL image (store it as PNG)"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF document (store its pages as PNG)"),
        (b"\0\0\0 ftypisom" + b"\0" * 40, "a video"),
        (b"\0\0\0 ftypqt  " + b"\0" * 40, "a video"),
        (b"\x1aE\xdf\xa3" + b"\x93" * 40, "a video"),
        (b"\x00\x00\x01\xb3" + b"1" * 99, "a video"),
        (b"\0" * 128 + b"DICM" + b"\2" * 40, "a DICOM file (store it as PNG)"),
        (b"<?xml version='1.0'?><svg xmlns=''/>", "a drawing (SVG; store it as PNG)"),
        (b"\0\0\0\x18ftypcrx " + b"\0" * 40, "a raw file of a camera"),
        (b"\x93NUMPY\1\0" + b"v" * 40, "an array of NumPy"),
        (b"PK\3\4" + b"\x14\0" * 20, "a zip archive"),
        (b"\x1f\x8b\x08" + b"\0" * 20, "a compressed file"),
        (b"\0" * 4096, "a file of zeros"),
        (b"\xff\xd8\xff\xe0", "a JPEG image that is cut off or damaged (get it again)"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image that is cut off or damaged"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "an HDF5 file"),
    ],
)
def test_what_is_no_image_is_told(data: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    for encoded in (data, tmp_path / "a.jpg"):
        with pytest.raises(PatchlightError) as caught:
            decode_image(encoded, 8, "a.jpg")
        assert str(caught.value).startswith(f"a.jpg: it is not an image file that Pillow can read but {what}")


def test_what_is_not_known_is_not_told() -> None:
    with pytest.raises(PatchlightError, match=r"that Pillow can read$"):
        decode_image(bytes(range(128, 256)), 8, "a.jpg")


def test_damage_never_escapes_as_another_error() -> None:
    """Random bytes flipped in files of several kinds: an image or a PatchlightError, nothing else."""
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [encoded(picture(24, 24), kind, exif=exif) for kind in ("PNG", "WEBP", "TIFF", "JPEG")]
    files.append(encoded(picture(24, 24), "GIF"))
    refused = []
    for trial in range(300):
        data = bytearray(files[trial % len(files)])
        for _ in range(4):
            data[rng.integers(len(data))] = rng.integers(256)
        try:
            pixels = decode_image(bytes(data), 8, "x")
        except PatchlightError as error:
            refused.append(str(error))
        else:
            assert pixels.shape == (8, 8, 3)
    assert len(refused) > 20
    assert all(message.startswith("x: ") and "\n" not in message for message in refused)


def test_a_bug_of_our_own_is_not_called_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(values: np.ndarray) -> np.ndarray:
        raise TypeError("ours")

    monkeypatch.setattr(levels, "spread", fail)
    with pytest.raises(TypeError, match="ours"):
        decode_image(encoded(Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "TIFF"))


def test_decompression_bombs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    small = encoded(Image.new("1", (8, 8)), "PNG")
    for side in (8_500, 10_000, 100_000):  # below Pillow's warning, where it warns, and where it raises
        header = b"IHDR" + struct.pack(">II", side, side) + small[24:29]
        huge = small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]
        with pytest.raises(PatchlightError, match=r"bomb\.png: .*pixels"):
            decode_image(huge, 8, "bomb.png")
    monkeypatch.setattr(decode, "MAX_PIXELS", 63)
    with pytest.raises(PatchlightError, match=r"x: 8 x 8 pixels"):
        decode_image(encoded(picture(8, 8), "PNG"), 8, "x")


def test_heads_tell_what_decoding_finds() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    image = Image.new("RGB", (5, 3))
    for data in (encoded(image, "PNG"), encoded(image, "JPEG", exif=turned), np.zeros((3, 4, 7), dtype=np.uint8)):
        assert header_dimensions(data) == image_dimensions(data, "x")
    assert header_dimensions(b"no image") is None


def test_damaged_exif_data_turn_nothing() -> None:
    """A density of its own keeps Pillow from reading them when the file is opened."""
    data = encoded(Image.new("RGB", (5, 3), "red"), "JPEG", dpi=(72, 72), exif=b"Exif\x00\x00II*\x00broken")
    assert image_dimensions(data, "x") == (3, 5)
    assert decode_image(data).shape == (3, 5, 3)
