"""What an image file says of its values where they have more than 8 bits, and how these become 0..255; and whether it
holds further pictures, of which nothing is read.

- 16-bit grey, whatever mode Pillow reports for it: 0 is black and 65535 is white, or the value of data.pixel_max. A PGM
  file with a maxval below 65535 and a TIFF file of 12 bits say themselves what is white, and that holds.
- Signed 16-bit grey: -32768 is black and 32767 white; with data.pixel_max 0 is black.
- Colour of 16 bits: Pillow gives the upper 8 of them.
- Modes without a fixed range (32-bit integers, floats) are spread so that their least value becomes 0 and their
  greatest 255; a flat image becomes black, and one with values that are no finite numbers is refused.

No range is guessed of the values but in the last case. `ImageFacts` are what a reader is told of each image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from patchlight.errors import PatchlightError

FULL = 65535  # the greatest value of 16 bits
DARK = 4095  # the greatest of 12 bits: of 0..65535 they are nearly black
KEY = "patchlight"  # of Pillow's `info`, which goes with an image where it is copied or turned

BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # TIFF's tags
KEY_SCALES = {"L;2": 85, "L;4": 17}
WHITE_IS_ZERO, SIGNED = 0, 2  # values of the last two


More = Literal["", "frames", "pages", "beside"]  # what a file holds but the one picture that is read

# Formats that may hold several pictures. Of a GIF file Pillow has to look behind the first; the others say it in front.
SEVERAL: dict[str | None, More] = {
    "GIF": "frames",
    "WEBP": "frames",
    "PNG": "frames",
    "AVIF": "frames",
    "TIFF": "pages",
    "MPO": "beside",
    "HEIF": "beside",
}


@dataclass(frozen=True)
class Levels:
    """What a file says of its values, and of pictures behind the first, read before its pixels are."""

    bits: int = 8  # of a sample; 16 for all of more than 8 and at most 16
    white: int | None = None  # the value that the file itself calls white
    signed: bool = False
    inverted: bool = False  # 0 is white
    key_scale: int = 1  # of a PNG file of 2 or 4 bits: by which Pillow multiplies pixels, and not what is transparent
    more: More = ""


@dataclass(frozen=True)
class ImageFacts:
    """What there is to say of an image beside its pixels."""

    greatest: int | None = None  # of 16-bit grey whose file does not say what is white
    above: bool = False  # some lie outside of what black and white are
    signed: bool = False  # 16 bits, and data.pixel_max is not set
    spread: bool = False
    dark_colour: bool = False  # 16 bits, none above DARK
    colour: bool = False  # 16 bits
    more: More = ""


PLAIN = ImageFacts()
EIGHT_BITS = Levels()


def levels_of(image: Image.Image) -> Levels:
    """Of an image that was opened and not loaded yet: where its pixels are read, Pillow forgets how they are stored.

    Of a GIF file it is not known yet whether there is more.
    """
    levels = _values_of(image)
    kind = SEVERAL.get(image.format, "")
    if not kind or image.format == "GIF" or not getattr(image, "is_animated", False):
        return levels
    return replace(levels, more=kind)


def _values_of(image: Image.Image) -> Levels:
    raw, *others = _arguments(image)
    if image.format == "PPM" and image.mode == "I":  # which Pillow scales to 0..65535 by the file's maxval
        return Levels(16, white=FULL if others and others[-1] != FULL else None)
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits, kinds = tags.get(BITS, (1,)), tags.get(SAMPLE_FORMAT, (1,))
        return Levels(
            bits=16 if 8 < bits[0] <= 16 else bits[0],
            white=DARK if bits[0] == 12 and image.mode.startswith("I") else None,
            signed=kinds[0] == SIGNED,
            inverted=tags.get(PHOTOMETRIC) == WHITE_IS_ZERO,
        )
    if image.format == "PNG" and raw in KEY_SCALES:
        return Levels(key_scale=KEY_SCALES[raw])
    return Levels(16) if ";16" in str(raw) or ";16" in image.mode else EIGHT_BITS


def keep_levels(image: Image.Image, levels: Levels) -> None:
    """Keep what its file says with the image. A grey value that is transparent is put on the scale of the pixels."""
    if levels is not EIGHT_BITS:
        image.info[KEY] = levels
    key = image.info.get("transparency")
    if image.format == "PNG" and isinstance(key, int) and image.mode in ("1", "L"):
        image.info["transparency"] = 255 * bool(key) if image.mode == "1" else key * levels.key_scale


def to_grey(image: Image.Image, pixel_max: int) -> tuple[Image.Image, ImageFacts] | None:
    """An image of more than 8 bits as RGB, and what there is to say of it; None where Pillow converts it itself.

    Raises PatchlightError for values that are not finite.
    """
    levels = _kept(image) or Levels(16 if image.mode.startswith("I;16") else 32)
    if image.mode.startswith("I;16") or (image.mode == "I" and levels.bits == 16):
        grey, facts = _sixteen(np.asarray(image).astype(np.int32), levels, pixel_max)
        key = image.info.get("transparency")
        if isinstance(key, int):
            grey[np.asarray(image) == key] = 255
    elif image.mode in ("I", "F"):
        with np.errstate(invalid="ignore"):  # numbers that are none, which are refused
            values = np.asarray(image).astype(np.float64)
        grey, facts = spread(values), ImageFacts(spread=True)
        grey = 255 - grey if levels.inverted else grey
    else:
        return None
    return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB"), facts


def _kept(image: Image.Image) -> Levels | None:
    kept = image.info.get(KEY)
    return kept if isinstance(kept, Levels) else None  # a file may have a text of that name


def _sixteen(values: np.ndarray, levels: Levels, pixel_max: int) -> tuple[np.ndarray, ImageFacts]:
    """(H, W) whole numbers as 0..255, not rounded."""
    facts = PLAIN
    low, high = int(values.min()), int(values.max())
    black, white = 0, levels.white or pixel_max
    if levels.white is None:
        facts = ImageFacts(greatest=high)
    if levels.signed and pixel_max == FULL:
        black, white = -32768, 32767
        facts = ImageFacts(signed=True)
    elif low < black or high > white:
        facts = replace(facts, above=True)
    grey = (values.clip(black, white) - black) / ((white - black) / 255)
    return 255 - grey if levels.inverted else grey, facts


def more_of(image: Image.Image) -> More:
    """What the file of an image holds but the picture that was read."""
    levels = _kept(image)
    return levels.more if levels else ""


def colour_facts(image: Image.Image) -> ImageFacts:
    """Of an image that Pillow gave the upper 8 bits of."""
    levels = _kept(image)
    if levels is None or levels.bits != 16 or image.mode not in ("RGB", "RGBA", "RGBX"):
        return PLAIN
    greatest = max(int(band[1]) for band in image.getextrema()[:3])  # type: ignore[index]
    return ImageFacts(colour=True, dark_colour=0 < greatest <= DARK >> 8)


def bits_of(greatest: int) -> int | None:
    """How many bits values of 16 bits look like, where none is above `greatest`: 8, 10, 12, 13 or 14; None for more."""
    return next((bits for bits in (8, 10, 12, 13, 14) if 0 < greatest < 2**bits), None)


def looks_like(greatest: int, trained: bool = False) -> str | None:
    """The end of a sentence on 16-bit values that were read as 0 to 65535 and look like fewer bits; None for others.

    `trained` is as `Remarks.sentences` takes it.
    """
    if (bits := bits_of(greatest)) is None:
        return None
    share, white = max(1, round(255 * greatest / FULL)), 2**bits - 1
    advice = f"data.pixel_max = {white} if {white} is white in them"
    return (
        f"look like {bits}-bit values and are read as 0 to {FULL}, so that nothing is brighter than {share} of 255; "
        + (f"{trained_with(FULL)} ({advice})" if trained else f"set {advice}")
    )


def trained_with(pixel_max: int) -> str:
    """Why no setting helps where a model reads files."""
    return f"the model was trained with data.pixel_max = {pixel_max}, which is set when training"


def spread(values: np.ndarray) -> np.ndarray:
    """(H, W) numbers of any range, moved and stretched to 0..255. Raises PatchlightError where some are not finite."""
    if not np.isfinite(values).all():
        raise PatchlightError("some of its values are not finite numbers")
    low, high = values.min(), values.max()
    return np.zeros_like(values) if low == high else (values - low) * (255 / (high - low))


def _arguments(image: Image.Image) -> tuple[Any, ...]:
    """Those of the decoder that Pillow has chosen for the file, the name of its raw mode first."""
    arguments: Any = image.tile[0][3] if getattr(image, "tile", None) else ""  # type: ignore[attr-defined]
    return arguments if isinstance(arguments, tuple) else (arguments,)
