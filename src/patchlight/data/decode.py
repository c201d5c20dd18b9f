"""One image, whatever its file, mode and size, as RGB pixels.

The rules, the same for training sets and for a single file given to `predict`:

- The EXIF orientation is applied.
- Transparent pixels show white behind them.
- Values of more than 8 bits become 0..255 as `levels.py` says: 16-bit grey is divided by 257.
- Every other mode (1, L, P, CMYK, YCbCr, HSV, LAB) goes through Pillow's own conversion.
- Of an animation or a document with pages, the first picture is taken, which is said.
- To fit a square, the shorter side is resized (bicubic or bilinear, antialiased) and the middle is cut out.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from patchlight.config.sections import Interpolation
from patchlight.data.heard import hearing
from patchlight.data.heif import open_file
from patchlight.data.kinds import NOT_DECODED, PACKED, what_it_is
from patchlight.data.levels import FULL, PLAIN, ImageFacts, colour_facts, keep_levels, levels_of, more_of, to_grey
from patchlight.errors import PatchlightError
from patchlight.paths import printable, user_path

# Below Pillow's own limit, where it begins to warn of decompression bombs.
MAX_PIXELS = 64_000_000

ORIENTATION = 0x0112  # the EXIF tag

# What Pillow and its decoders raise for a file that is damaged, or of a kind they only know in part: there is no end to
# it, as some hold a file's numbers against each other with `assert`, and some against nothing.
DAMAGE = (Exception,)

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

# What a source hands out for an image: a file's bytes, its path, pixels (3, H, W) uint8, or an image of Pillow's.
Encoded = bytes | Path | np.ndarray | Image.Image


@dataclass(frozen=True)
class Decoded:
    """The RGB pixels of an image, (H, W, 3) uint8, and what there is to say of it."""

    pixels: np.ndarray
    facts: ImageFacts = PLAIN
    warnings: tuple[str, ...] = ()  # Pillow's, inside of `listening`


def to_rgb(image: Image.Image, pixel_max: int = FULL) -> Image.Image:
    """The image in mode RGB, turned as its EXIF data ask, by the rules at the top of this module.

    `pixel_max` is the value that is white in 16-bit grey. Raises PatchlightError for a mode that cannot be turned into
    RGB or for values that are not finite.
    """
    return _to_rgb(image, pixel_max)[0]


def _to_rgb(image: Image.Image, pixel_max: int) -> tuple[Image.Image, ImageFacts]:
    with _pillow("it cannot be turned into RGB"):
        if _orientation(image) != 1:  # asked here because exif_transpose copies an image it need not turn
            image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image, colour_facts(image)
    if (grey := to_grey(image, pixel_max)) is not None:
        return grey
    with _pillow("it cannot be turned into RGB"):
        return _converted(image), colour_facts(image)


def _converted(image: Image.Image) -> Image.Image:
    """By Pillow's own conversions, white behind what is transparent."""
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "LAB", "RGB"))
        assert converted is not None  # it is None only where the image is changed in place
        return converted
    if image.has_transparency_data:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise PatchlightError(f"images of mode {image.mode} cannot be turned into RGB") from error


@contextlib.contextmanager
def _pillow(problem: str, encoded: Encoded | None = None) -> Iterator[None]:
    """Calls of Pillow: its errors about a file's contents become a PatchlightError that begins with `problem`, or says
    what `encoded` is, if it is no image.
    """
    try:
        yield
    except PatchlightError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PatchlightError("it has more pixels than an image may have; make it smaller") from None
    except Image.UnidentifiedImageError:
        known = what_it_is(encoded) if isinstance(encoded, bytes | Path) else None
        but = f" but {known}" if known else ""
        raise PatchlightError(f"it is not an image file that Pillow can read{but}") from None
    except FileNotFoundError:
        raise PatchlightError("there is no such file") from None
    except IsADirectoryError:
        raise PatchlightError(f"{problem}: it is a folder") from None
    except MemoryError:
        raise PatchlightError("it needs more memory than there is; make it smaller") from None
    except DAMAGE as error:
        raise PatchlightError(f"{problem}: {_first_line(error)}") from error


def fit_square(image: Image.Image, size: int, interpolation: Interpolation = "bicubic") -> Image.Image:
    """The middle of the image, `size` x `size` pixels: the shorter side is resized to `size` and the rest cut off.

    An image of that size stays as it is.
    """
    if image.size == (size, size):
        return image
    image = _without_far_ends(image)
    width, height = image.size
    short = min(width, height)
    width, height = max(size, width * size // short), max(size, height * size // short)
    image = image.resize((width, height), FILTERS[interpolation])
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def open_image(encoded: Encoded, name: str) -> Image.Image:
    """The image as its file has it, pixels read: mode and size are the file's own.

    Raises PatchlightError, beginning with `name`, where it is missing, damaged, cut off, huge or no image.
    """
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(np.ascontiguousarray(encoded.transpose(1, 2, 0)))
    if isinstance(encoded, Image.Image):
        return encoded
    try:
        with _pillow("it cannot be read", encoded), open_file(_file(encoded)) as image:
            if known := NOT_DECODED.get(_kind(image)):
                raise PatchlightError(f"it is not an image file that Pillow can read but {known}")
            if image.width * image.height > MAX_PIXELS:
                raise PatchlightError(
                    f"{image.width} x {image.height} pixels are more than the {MAX_PIXELS // 10**6} million that an "
                    "image may have; make it smaller"
                )
            levels = levels_of(image)
            image.load()
            if image.format == "GIF" and _has_frames(encoded):
                levels = replace(levels, more="frames")
            keep_levels(image, levels)
            key = image.info.get("transparency")
            if levels.bits == 16 and image.mode == "RGB" and isinstance(key, tuple):
                return _without_key(image, encoded, key)
            return image
    except PatchlightError as error:
        raise PatchlightError(f"{printable(name)}: {error}") from error.__cause__


def _kind(image: Image.Image) -> str:
    """What NOT_DECODED knows an image by: its format, or the decoder that it asks for."""
    packed = any(tile[0] == PACKED for tile in getattr(image, "tile", ()))
    return PACKED if packed else image.format or ""


def _file(encoded: bytes | Path) -> io.BytesIO | Path:
    return io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded


def _has_frames(encoded: bytes | Path) -> bool:
    """Whether a second picture begins behind the first of a GIF file.

    The file is opened anew, as looking spoils what was read; where it is damaged behind the first picture, no second
    can be told.
    """
    with contextlib.suppress(*DAMAGE), Image.open(_file(encoded)) as again:
        return bool(again.is_animated)  # type: ignore[attr-defined]
    return False


def _without_key(image: Image.Image, encoded: bytes | Path, key: tuple[int, int, int]) -> Image.Image:
    """A PNG image of 16-bit colour with its transparent colour (16 bits each) made transparent.

    Pillow reads the upper 8 bits of each value, and compares them with 16; so the lower ones are read, too.
    """
    with Image.open(_file(encoded)) as lower:
        lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
        lower.load()
        values = np.asarray(image).astype(np.int32) * 256 + np.asarray(lower)
    opaque = (values != key).any(axis=2)
    image.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    del image.info["transparency"]
    return image


def decode(
    encoded: Encoded, size: int | None, name: str, interpolation: Interpolation = "bicubic", pixel_max: int = FULL
) -> Decoded:
    """What `decode_image` gives, with what there is to say of it."""
    with hearing() as said:
        image = open_image(encoded, name)
        pixels, facts = pixels_and_facts(image, size, name, interpolation, pixel_max)
    return Decoded(pixels, facts, tuple(said))


def decode_image(
    encoded: Encoded,
    size: int | None = None,
    name: str | None = None,
    interpolation: Interpolation = "bicubic",
    pixel_max: int = FULL,
) -> np.ndarray:
    """The RGB pixels of an image, (H, W, 3) uint8; fitted to (size, size, 3) by `interpolation` unless `size` is None.

    `name` is what an error calls it; a path names itself. `pixel_max` is the value that is white in 16-bit grey. Raises
    as `open_image` and `to_rgb` do.
    """
    if name is None:
        name = str(encoded) if isinstance(encoded, Path) else "image"
    return rgb_pixels(open_image(encoded, name), size, name, interpolation, pixel_max)


def rgb_pixels(
    image: Image.Image,
    size: int | None,
    name: str,
    interpolation: Interpolation = "bicubic",
    pixel_max: int = FULL,
) -> np.ndarray:
    """What `decode_image` gives, of an image that is open already."""
    return pixels_and_facts(image, size, name, interpolation, pixel_max)[0]


def pixels_and_facts(
    image: Image.Image,
    size: int | None,
    name: str,
    interpolation: Interpolation = "bicubic",
    pixel_max: int = FULL,
) -> tuple[np.ndarray, ImageFacts]:
    """What `decode_image` gives, of an image that is open already, and what there is to say of it."""
    more = more_of(image)
    try:
        image, facts = _to_rgb(image, pixel_max)
    except PatchlightError as error:
        raise PatchlightError(f"{printable(name)}: {error}") from error.__cause__
    facts = replace(facts, more=more) if more else facts
    return np.asarray(image if size is None else fit_square(image, size, interpolation)), facts


def load_image(path: str | Path, size: int, interpolation: Interpolation = "bicubic", pixel_max: int = FULL) -> Tensor:
    """An image file as a model's input before normalisation: (3, size, size) uint8. A card says the rest.

    Raises PatchlightError, beginning with the path, where the file is missing or no image.
    """
    pixels = decode_image(user_path(path), size, interpolation=interpolation, pixel_max=pixel_max)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def image_dimensions(encoded: Encoded, name: str) -> tuple[int, int]:
    """Height and width after the EXIF orientation. Raises as `decode_image` does."""
    if isinstance(encoded, np.ndarray):
        return int(encoded.shape[1]), int(encoded.shape[2])
    with hearing():  # what Pillow says is said where pixels are used
        height, width, _ = decode_image(encoded, None, name).shape
    return height, width


def header_dimensions(encoded: Encoded) -> tuple[int, int] | None:
    """Height and width after the EXIF orientation, from the file's header alone; None where that cannot be read."""
    if isinstance(encoded, np.ndarray):
        return int(encoded.shape[1]), int(encoded.shape[2])
    if isinstance(encoded, Image.Image):
        return encoded.height, encoded.width
    try:
        with hearing(), open_file(_file(encoded)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:  # Pillow reads the pixels of some formats to find the orientation
                return None
            return (width, height) if _orientation(image) >= 5 else (height, width)
    except DAMAGE:
        return None  # a PatchlightError is a ValueError; what is wrong is said where pixels are read


def _orientation(image: Image.Image) -> int:
    """1 to 8, from 5 on with width and height exchanged; 1 where the EXIF data are damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except DAMAGE:
        return 1


def _without_far_ends(image: Image.Image) -> Image.Image:
    """The middle of a very long image: the square crop reaches no further, and resizing all could fill the memory."""
    width, height = image.size
    reach = 5 * min(width, height)
    if max(width, height) <= 2 * reach:
        return image
    left, top = max(0, (width - reach) // 2), max(0, (height - reach) // 2)
    return image.crop((left, top, min(width, left + reach), min(height, top + reach)))


def _first_line(error: Exception) -> str:
    text = str(getattr(error, "strerror", None) or error).strip()
    return text.splitlines()[0] if text else f"its content is damaged ({type(error).__name__})"
