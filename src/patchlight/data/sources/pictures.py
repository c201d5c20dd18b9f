"""Arrays of numbers as images: how they lie, and what turns their values into 0..255.

Layouts are (N, H, W), (N, H, W, C) with C of 1, 3 or 4, and (N, C, H, W) with C of 1 or 3; where a shape could be two
of them, it is an error. Values are

- uint8: as they are, and bool: black and white;
- floats: of 0..1, times 255, or whole ones of 0..255;
- uint16: 0 is black and data.pixel_max is white (65535, unless it is set), as in image files of 16-bit grey;
- other whole numbers of 0..255.

All arrays of a source that have one type are read alike. Nothing is converted before it is asked for, and then a few
images at a time, so that an array may be larger than memory where it is memory-mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import numpy as np
from PIL import Image

from patchlight.data.decode import MAX_PIXELS, Encoded, rgb_pixels
from patchlight.data.levels import FULL, looks_like
from patchlight.errors import PatchlightError

Layout = Literal["NHW", "NHWC", "NCHW"]
Scale = Callable[[np.ndarray], np.ndarray]  # any of the types above to uint8

CHUNK_BYTES = 2**24
CHANNELS_LAST, CHANNELS_FIRST = (1, 3, 4), (1, 3)


def layout_of(shape: tuple[int, ...], where: str) -> Layout:
    """How images of this shape lie. Raises PatchlightError where they are none, or it cannot be told."""
    if len(shape) == 2:
        raise PatchlightError(
            f"{where} has the shape {shape}: rows of {shape[1]} numbers, not images; store it as (N, H, W) or "
            "(N, H, W, C)"
        )
    if len(shape) not in (3, 4):
        raise PatchlightError(f"{where} has the shape {shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W)")
    if 0 in shape:
        raise PatchlightError(f"{where} has the shape {shape}, which holds no images")
    layout: Layout = "NHW"
    if len(shape) == 4:
        last, first = shape[3] in CHANNELS_LAST, shape[1] in CHANNELS_FIRST
        if last and first:
            raise PatchlightError(
                f"{where} has the shape {shape}, in which channels may come second or last; store (N, H, W, C) images "
                "of more than 4 pixels a side"
            )
        if not last and not first:
            raise PatchlightError(
                f"{where} has the shape {shape}; images are (N, H, W, C) with 1, 3 or 4 channels or (N, C, H, W) with "
                "1 or 3"
            )
        layout = "NHWC" if last else "NCHW"
    height, width = (shape[2], shape[3]) if layout == "NCHW" else (shape[1], shape[2])
    if height * width > MAX_PIXELS:
        raise PatchlightError(
            f"{where} has images of {width} x {height} pixels, more than {MAX_PIXELS // 10**6} million"
        )
    return layout


def scales(arrays: Mapping[str, np.ndarray], pixel_max: int = FULL) -> tuple[dict[str, Scale], tuple[str, ...]]:
    """For each array, by its name in messages, what turns its values into uint8, and notes on what is done.

    `pixel_max` is the value that is white in uint16. Raises PatchlightError for types and values that are none of those
    at the top of this module.
    """
    found: dict[str, Scale] = {}
    notes: list[str] = []
    by_type: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        kind = array.dtype.kind if array.dtype.kind in "bf" else str(array.dtype.newbyteorder("="))
        by_type.setdefault(kind, {})[name] = array
    for kind, own in by_type.items():
        scale, note = _scale(kind, own, pixel_max)
        found |= dict.fromkeys(own, scale)
        notes += [note] if note else []
    return found, tuple(notes)


def _scale(kind: str, arrays: Mapping[str, np.ndarray], pixel_max: int) -> tuple[Scale, str | None]:
    names = " and ".join(arrays)
    if kind == "b":
        return lambda values: values.astype(np.uint8) * 255, f"{names}: false is black and true is white"
    if kind == "uint8":
        dark = all(_all_dark(array) for array in arrays.values())
        return np.asarray, f"{names}: no pixel is above 1 of 255, so all is black" if dark else None
    type_name = " and ".join(dict.fromkeys(str(array.dtype) for array in arrays.values()))
    if kind != "f" and kind[0] not in "iu":
        raise PatchlightError(f"{names}: pixels of type {type_name} are not read; store uint8 of 0 to 255")
    low, high, whole = _range(arrays)
    if kind == "uint16":
        return _sixteen(names, int(high), pixel_max)
    if kind == "f" and low >= 0 and high <= 1:
        note = f"{names}: {type_name} pixels of 0 to 1 are multiplied by 255"
        return lambda values: np.rint(values.astype(np.float64) * 255).astype(np.uint8), note
    if low >= 0 and high <= 255 and whole and (high > 1 or kind == "f"):
        note = f"{names}: {type_name} pixels from {low:g} to {high:g} are read as whole numbers of 0..255"
        return lambda values: values.astype(np.uint8), note
    raise PatchlightError(
        f"{names}: {type_name} pixels from {low:g} to {high:g} are neither of 0..1 nor whole numbers of 0..255; store "
        f"uint8 of 0 to 255{_or_sixteen(low, high, whole)}"
    )


def _or_sixteen(low: float, high: float, whole: bool) -> str:
    """The second way to store what fits into 16 bits."""
    return (
        ", or uint16 with the value that is white as data.pixel_max"
        if whole and low >= 0 and 255 < high <= FULL
        else ""
    )


def _sixteen(names: str, greatest: int, pixel_max: int) -> tuple[Scale, str]:
    """uint16 pixels of which none is above `greatest`: 0 is black and `pixel_max` is white."""
    if greatest <= 255 and pixel_max == FULL:
        raise PatchlightError(
            f"{names}: uint16 pixels of 0 to {FULL} are read, and none of these is above {greatest}; store them as "
            "uint8, or set data.pixel_max to the value that is white"
        )

    def scale(values: np.ndarray) -> np.ndarray:
        return np.rint(values.clip(0, pixel_max) / (pixel_max / 255)).astype(np.uint8)

    if pixel_max != FULL:
        above = f"; they go up to {greatest}, and what is above {pixel_max} is white" if greatest > pixel_max else ""
        return scale, f"{names}: of uint16 pixels 0 is black and data.pixel_max = {pixel_max} is white{above}"
    if few := looks_like(greatest):
        return scale, f"{names}: uint16 pixels hold no value above {greatest}: they {few}"
    return scale, f"{names}: uint16 pixels are divided by 257, so that 0..{FULL} becomes 0..255"


def _all_dark(array: np.ndarray) -> bool:
    return bool(array[:64].max() <= 1) and all(bool(part.max() <= 1) for part in _parts(array))


def _range(arrays: Mapping[str, np.ndarray]) -> tuple[float, float, bool]:
    """The least and greatest value, and whether all are whole. Raises PatchlightError where one is not finite."""
    low, high, whole = np.inf, -np.inf, True
    for name, array in arrays.items():
        for part in _parts(array):
            least, greatest = float(part.min()), float(part.max())
            if not (np.isfinite(least) and np.isfinite(greatest)):
                raise PatchlightError(f"{name}: some pixels are not finite numbers; store uint8 of 0 to 255")
            low, high = min(low, least), max(high, greatest)
            whole = whole and bool((part == np.rint(part)).all())
    return low, high, whole


def _parts(array: np.ndarray) -> Iterator[np.ndarray]:
    step = images_at_a_time(array)
    return (np.asarray(array[at : at + step]) for at in range(0, len(array), step))


def images_at_a_time(array: np.ndarray) -> int:
    """How many images of an array (N, ...) are converted together."""
    return max(1, CHUNK_BYTES // max(1, array[:1].nbytes))


def picture_items(
    array: np.ndarray, rows: np.ndarray, layout: Layout, scale: Scale, name: str
) -> Iterator[tuple[str, Encoded]]:
    """The images of the given rows (ascending) as (name, (3, H, W) uint8), converted a few at a time."""
    step = images_at_a_time(array)
    for at in range(0, len(rows), step):
        chosen = rows[at : at + step]
        part = array[chosen[0] : chosen[-1] + 1] if chosen[-1] - chosen[0] + 1 == len(chosen) else array[chosen]
        pixels = scale(np.asarray(part))
        for row, image in zip(chosen.tolist(), pixels, strict=True):
            yield f"{name}[{row}]", channels_first(image, layout, name)


def channels_first(image: np.ndarray, layout: Layout, name: str) -> np.ndarray:
    """One image of uint8 as (3, H, W): grey three times, and white behind what is transparent."""
    if layout == "NHW":
        return np.repeat(image[None], 3, axis=0)
    if layout == "NHWC":
        if image.shape[2] == 4:
            image = rgb_pixels(Image.fromarray(np.ascontiguousarray(image)), None, name)
        image = image.transpose(2, 0, 1)
    return np.repeat(image, 3, axis=0) if len(image) == 1 else image
