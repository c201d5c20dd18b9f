"""What a mask's file says is inside, and how it is laid where its image lies.

Inside is every value but 0, of 1-bit, grey, 16-bit and float files; every colour but black, of colours and palettes;
and nothing that is transparent. An .npy array is (height, width), of booleans or numbers. Files that blur what they
hold, as JPEG does, are taken from half of the range on. What is not simply black and white is said.

Shapes: (h, w) the pixels of a mask's file, S pixels a side of what a model is shown.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from patchlight.data.decode import DAMAGE, MAX_PIXELS, ORIENTATION, open_image, to_rgb
from patchlight.data.heif import open_file
from patchlight.data.levels import KEY, Levels, more_of
from patchlight.data.sources.arrays import ARRAY_ERRORS
from patchlight.errors import PatchlightError
from patchlight.paths import printable

ARRAY = ".npy"

# Formats that may not keep each value. Where a mask in one has more than two, those from HALF on are inside.
LOSSY = frozenset({"JPEG", "MPO", "WEBP", "AVIF", "HEIF", "JPEG2000"})
HALF = 128

# What is said of masks.
SEVERAL = "masks of more than two values, as label maps and soft masks have (every value but 0 is inside)"
BLURRED = f"masks in a format that blurs their edges (values from {HALF} of 255 on are inside)"
OPAQUE = "masks that are black wherever they can be seen (what is not transparent is inside)"
MORE = "files of masks with more than one picture (the first is used)"


@dataclass(frozen=True)
class MaskPixels:
    """What is inside, (h, w) bool, and what there is to say of it, in the words above."""

    inside: np.ndarray
    said: tuple[str, ...] = ()


def read_mask(path: Path) -> MaskPixels:
    """What is inside in a mask's file, by the rules at the top of this module. Raises PatchlightError, beginning with
    the path, for a file that cannot be read as a mask.
    """
    if path.suffix.lower() == ARRAY:
        values = _array(path)
        return _decided(values, values, False, path, ())
    image = open_image(path, str(path))
    said = (MORE,) if more_of(image) else ()
    lossy = image.format in LOSSY
    try:
        if _orientation(image) != 1:
            image = ImageOps.exif_transpose(image)
        if _is_grey(image):
            values = _grey(image, path)
            return _decided(values, values, lossy, path, said)
        return _of_colours(image, lossy, path, said)
    except PatchlightError as error:
        named = str(error).startswith(printable(path))
        raise (error if named else PatchlightError(f"{printable(path)}: {error}")) from error.__cause__
    except DAMAGE as error:
        raise PatchlightError(f"{printable(path)} cannot be read as a mask ({error}); save it as PNG") from error


def is_turned(path: Path) -> bool:
    """Whether the EXIF data of an image's file turn or mirror it."""
    with contextlib.suppress(*DAMAGE), open_file(path) as image:
        return _orientation(image) != 1
    return False


def fit_mask(inside: np.ndarray, fit_size: int, size: int, image_size: tuple[int, int] | None = None) -> np.ndarray:
    """A mask (h, w) as its image is shown, (S, S) with S = `size`: the square that `fit_square` cuts out of the image
    for `fit_size`, and at each pixel the mask's pixel that lies in its middle (nearest).

    `image_size` is the image's height and width, where the mask is the same picture in other pixels; None for the
    mask's own.
    """
    height, width = inside.shape
    rows, columns = image_size or inside.shape
    left, top, across, down = _square(columns, rows, fit_size)
    middles = (np.arange(size) + 0.5) / size
    y = np.floor((top + middles * down) * height / rows).astype(np.int64).clip(0, height - 1)
    x = np.floor((left + middles * across) * width / columns).astype(np.int64).clip(0, width - 1)
    return inside[np.ix_(y, x)]


def _square(width: int, height: int, size: int) -> tuple[float, float, float, float]:
    """Where the square of `fit_square` lies in an image of these pixels: left, top, width and height, in its pixels.

    It is computed as there, rounding included. Of a very long image the middle part is taken first, as there.
    """
    reach = 5 * min(width, height)
    long = max(width, height) > 2 * reach
    left, top = ((max(0, (each - reach) // 2) if long else 0) for each in (width, height))
    width, height = ((min(each, reach) if long else each) for each in (width, height))
    short = min(width, height)
    across, down = max(size, width * size // short), max(size, height * size // short)
    x, y = round((across - size) / 2), round((down - size) / 2)
    return left + x * width / across, top + y * height / down, size * width / across, size * height / down


def _array(path: Path) -> np.ndarray:
    """The values (h, w) of an .npy file, which is data and no pickle."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a header that Python 2 wrote, or that is damaged
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ARRAY_ERRORS as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise PatchlightError(f"{printable(path)} cannot be read as an array ({text}); save it with np.save") from error
    if not isinstance(array, np.ndarray):  # an archive of several
        raise PatchlightError(f"{printable(path)} holds no single array; save it with np.save")
    shape = array.shape
    if array.ndim == 3 and 1 in (shape[0], shape[2]):
        array = array[0] if shape[0] == 1 else array[..., 0]
    if array.ndim != 2 or not array.size or array.dtype.kind not in "biuf":
        raise PatchlightError(
            f"{printable(path)} holds {array.dtype} of shape {shape}; a mask is (height, width), of booleans or numbers"
        )
    if array.size > MAX_PIXELS:
        raise PatchlightError(
            f"{printable(path)}: {array.shape[1]} x {array.shape[0]} values are more than the {MAX_PIXELS // 10**6} "
            "million that a mask may have; make it smaller"
        )
    _check_finite(array, path)
    return np.asarray(array)


def _check_finite(values: np.ndarray, path: Path) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise PatchlightError(
            f"{printable(path)} holds values that are no finite numbers; write 0 where it is outside, 1 where inside"
        )


def _is_grey(image: Image.Image) -> bool:
    """Whether pixels have one value each, and none of these is transparent."""
    deep = image.mode.startswith("I") or image.mode == "F"
    return deep or (image.mode in ("1", "L") and "transparency" not in image.info)


def _grey(image: Image.Image, path: Path) -> np.ndarray:
    """The values as they stand in the file, (h, w)."""
    levels = image.info.get(KEY)
    if isinstance(levels, Levels) and levels.inverted and image.mode not in ("1", "L"):  # else Pillow turns them round
        raise PatchlightError(f"{printable(path)} is a TIFF file in which 0 is white; save it as PNG")
    values = np.asarray(image)
    _check_finite(values, path)
    return values


def _of_colours(image: Image.Image, lossy: bool, path: Path, said: tuple[str, ...]) -> MaskPixels:
    """Black is outside, and what is transparent. Where all that can be seen is black, transparency alone is the
    mask.
    """
    alpha = None
    if image.has_transparency_data:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
        image = image.convert("RGB")
    colours = np.asarray(to_rgb(image))
    bright = colours.max(axis=2)
    red, green, blue = (colours[..., channel].astype(np.uint32) for channel in range(3))
    packed = red << 16 | green << 8 | blue  # one number for each colour
    if alpha is not None:
        bright = np.minimum(bright, alpha)
        packed = np.where(bright > 0, packed << 8 | alpha, 0)
        if bright.max() < (HALF if lossy else 1) and alpha.any() and not alpha.all():
            return _decided(alpha, alpha, lossy, path, (*said, OPAQUE))
    return _decided(bright, packed, lossy, path, said)


def _decided(bright: np.ndarray, kinds: np.ndarray, lossy: bool, path: Path, said: tuple[str, ...]) -> MaskPixels:
    """Inside is where `bright` (h, w) is not 0; of a lossy format, where it is at least HALF, unless all `kinds` (h, w)
    of pixels are two. Raises PatchlightError for labels in a lossy format, which cannot be told from blur.
    """
    several = bool(((kinds != kinds.min()) & (kinds != kinds.max())).any())
    if not (lossy and several):
        return MaskPixels(bright != 0, (*said, SEVERAL) if several else said)
    if bright.max() < HALF:
        raise PatchlightError(
            f"{printable(path)} has no value above {bright.max()} of 255, in a format that does not keep values; save "
            "it as PNG"
        )
    return MaskPixels(bright >= HALF, (*said, BLURRED))


def _orientation(image: Image.Image) -> int:
    """As the EXIF data have it; 1, upright, where they are damaged."""
    with contextlib.suppress(*DAMAGE):
        return int(image.getexif().get(ORIENTATION, 1))
    return 1
