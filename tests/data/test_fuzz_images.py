"""Damaged image files: an image or a PatchlightError of one line, nothing else, and nothing on a terminal."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from fuzz import ROUNDS, mutated
from PIL import Image

from patchlight.data.decode import decode, header_dimensions
from patchlight.data.heard import listening
from patchlight.data.remarks import Remarks
from patchlight.data.sources import load_source
from patchlight.errors import PatchlightError


def files() -> list[bytes]:
    """Small files of the kinds that people have."""
    draw = np.random.default_rng(0)
    colour = Image.fromarray(draw.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    deep = Image.fromarray(draw.integers(0, 65536, (12, 12), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a text"
    made = []
    for image, kind, options in (
        *((colour, kind, {"exif": exif}) for kind in ("PNG", "WEBP", "TIFF", "JPEG")),
        (colour, "GIF", {}),
        (colour, "BMP", {}),
        (colour, "JPEG2000", {}),
        (colour, "PPM", {}),
        (colour.convert("P"), "PNG", {"transparency": 3}),
        (colour.convert("RGBA"), "TIFF", {"compression": "tiff_lzw"}),
        (colour.convert("CMYK"), "JPEG", {}),
        (deep, "PNG", {"transparency": 77}),
        (deep, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (deep, "PPM", {}),
        (deep, "JPEG2000", {}),
        (colour.convert("F"), "TIFF", {}),
        (colour.convert("I"), "TIFF", {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        made.append(buffer.getvalue())
    return [*made, b"P2 3 2 4095\n1 2 3 4 5 4095", b"P3 1 1 255\n1 2 3", b"Pf 2 1 -1.0\n" + b"\0" * 8]


@ROUNDS
def test_damaged_images(seed: int, times: int) -> None:
    refused, remarks = list[str](), Remarks()
    with warnings.catch_warnings(record=True) as raw, listening():
        for number, data in enumerate(mutated(files(), 400 * times, seed)):
            header_dimensions(data)
            try:
                found = decode(data, 8, "x", "bicubic", 65535 if number % 2 else 4095)
            except PatchlightError as error:
                refused.append(str(error))
            else:
                assert found.pixels.shape == (8, 8, 3)
                assert found.pixels.dtype == np.uint8
                remarks.add("x", found.facts, found.warnings)
    assert raw == []
    assert 50 * times < len(refused) < 390 * times
    assert all(message.startswith("x: ") and "\n" not in message for message in refused)
    assert all("\n" not in text and len(text) < 2000 for text in remarks.sentences(65535))


@ROUNDS
def test_folders_with_damaged_images(seed: int, times: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Left out or an error, in memory and from the cache alike."""
    for number, data in enumerate(mutated(files(), 60 * times, seed)):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.png").write_bytes(data)
    sets = [load_source(str(tmp_path), on_bad="skip", memory_limit_mb=limit)["train"] for limit in (64, 0, 0)]
    assert len({images.notes for images in sets}) == len({images.skipped for images in sets}) == 1
    assert len({tuple(images.hashes) for images in sets}) == 1
    with pytest.raises(PatchlightError, match=f"{len(sets[0].skipped)} of {60 * times} images are bad"):
        load_source(str(tmp_path))
    assert capfd.readouterr().err == ""
