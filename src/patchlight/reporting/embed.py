"""Charts and pictures as the page holds them: inside it, as data."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from patchlight.figures import overlays
from patchlight.figures.style import Theme, darkened, svg

TILE = 128  # pixels a side of a picture in the page; smaller ones are enlarged by the browser, crisply
Draw = Callable[[Theme], Figure]


@dataclass(frozen=True)
class Chart:
    """A figure as addresses for light and for dark, a text for who cannot see it, and its size in CSS pixels."""

    light: str
    dark: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Picture:
    """An image's address, its size in pixels, and whether a browser enlarges it without smoothing."""

    uri: str
    width: int
    height: int
    crisp: bool


def chart(draw: Draw, alt: str) -> Chart:
    figure = draw("light")
    light = svg(figure, "light")
    # Drawing takes longest. Pixels inside may be of a scale of colours, which has one of its own for the dark.
    return as_chart(figure, light, alt, svg(draw("dark"), "dark") if "<image" in light else None)


def as_chart(figure: Figure, light: str, alt: str, dark: str | None = None) -> Chart:
    """The chart of a figure whose SVG is `light`; its colours are made `dark` where that is not given."""
    dark = darkened(light) if dark is None else dark
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return Chart(data_uri("svg+xml", light.encode()), data_uri("svg+xml", dark.encode()), alt, width, height)


def picture(image: np.ndarray) -> Picture:
    """An image (H, W, 3) uint8, or (H, W, 4) with clear parts. A small one keeps its pixels; a large one is made small,
    as nobody sees more of it.
    """
    small = _small(image)
    crisp = small is image
    kind = "png" if crisp or image.shape[2] == 4 else "jpeg"  # JPEG has no clear parts
    return Picture(data_uri(kind, encode(small, kind)), small.shape[1], small.shape[0], crisp)


def overlay(image: np.ndarray, weights: np.ndarray, covered: overlays.Shares = overlays.WHOLE) -> Picture:
    """A map over its image (H, W, 3) uint8: of pixels, or of patches (r, c) that are `covered` as `overlays` has it."""
    crisp = overlays.of_pixels(image, weights)
    mixed = overlays.overlay(image if crisp else _small(image), weights, side=96, covered=covered)
    kind = "png" if max(image.shape[:2]) <= TILE // 2 else "jpeg"
    return Picture(data_uri(kind, encode(mixed, kind)), mixed.shape[1], mixed.shape[0], crisp=False)


def colour_scale() -> str:
    """The address of an image of the colours of all maps, from least to most."""
    return data_uri("png", encode(overlays.heat(np.linspace(0, 1, 128)[None, :].repeat(8, axis=0)), "png"))


def palette() -> list[list[int]]:
    """The 256 colours of maps, for the page's scripts."""
    return overlays.heat(np.linspace(0, 1, 256)).tolist()


def base64_bytes(values: np.ndarray) -> str:
    """An array of uint8, for the page's scripts."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def _small(image: np.ndarray) -> np.ndarray:
    if max(image.shape[:2]) <= TILE:
        return image
    smaller = Image.fromarray(image)
    smaller.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    return np.asarray(smaller)


def encode(image: np.ndarray, kind: str) -> bytes:
    out = io.BytesIO()
    few = with_palette(image) if kind == "png" and image.shape[2] == 3 else None
    (few or Image.fromarray(image)).save(out, format=kind, optimize=True, quality=88)
    return out.getvalue()


def with_palette(image: np.ndarray) -> Image.Image | None:
    """The same picture (H, W, 3) as numbers of up to 256 colours, a third of the bytes; None where it has more."""
    colours, places = np.unique(image.reshape(-1, 3), axis=0, return_inverse=True)
    if len(colours) > 256:
        return None
    picture = Image.fromarray(places.reshape(image.shape[:2]).astype(np.uint8))
    picture.putpalette(colours.tobytes())
    return picture


def data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
