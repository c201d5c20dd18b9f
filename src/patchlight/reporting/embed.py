"""Charts and pictures as the page holds them: inside it, as data."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from patchlight.figures import galleries
from patchlight.figures.style import Theme, darkened, svg

TILE = 128  # pixels a side of a picture in the page; smaller ones are enlarged by the browser, crisply
Draw = Callable[[Theme], Figure]
Part = dict[str, Any]


def chart(draw: Draw, words: str) -> Part:
    """A chart for the page: the same figure for light and for dark, its width in CSS pixels, and a text for the ear."""
    figure = draw("light")
    light = svg(figure, "light")
    # Drawing takes longest. Pixels inside may be of a scale of colours, which has one of its own for the dark.
    dark = svg(draw("dark"), "dark") if "<image" in light else darkened(light)
    uris: Part = {name: data_uri("svg+xml", text.encode()) for name, text in (("light", light), ("dark", dark))}
    width, height = figure.get_size_inches() * 96
    return {**uris, "alt": words, "width": round(width), "height": round(height)}


def picture(image: np.ndarray) -> Part:
    """An image for the page. A small one keeps its pixels; a large one is made small, as nobody sees more of it."""
    small = _small(image)
    crisp = small is image
    uri = data_uri("png", encode(image, "png")) if crisp else data_uri("jpeg", encode(small, "jpeg"))
    return {"uri": uri, "crisp": crisp, "width": small.shape[1], "height": small.shape[0]}


def overlay(image: np.ndarray, weights: np.ndarray) -> Part:
    mixed = galleries.overlay(_small(image), weights, side=96)
    kind = "png" if max(image.shape[:2]) <= TILE // 2 else "jpeg"
    return {
        "uri": data_uri(kind, encode(mixed, kind)),
        "crisp": False,
        "width": mixed.shape[1],
        "height": mixed.shape[0],
    }


def _small(image: np.ndarray) -> np.ndarray:
    if max(image.shape[:2]) <= TILE:
        return image
    smaller = Image.fromarray(image)
    smaller.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    return np.asarray(smaller)


def encode(image: np.ndarray, kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, format=kind, optimize=True, quality=88)
    return out.getvalue()


def data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
