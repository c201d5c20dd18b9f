"""Image files to give to commands. No test of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, size: tuple[int, int] = (37, 50), mode: str = "RGB") -> Path:
    """Write an image of noise, (width, height) pixels, and return its path."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path
