"""Arrays of 16 bits as images: what is white in them, and what is said where they look like fewer bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from patchlight.data.sources import load_source

GREY = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
GREY[0, 0, :2] = (0, 255)
LABELS = np.array([0, 1, 2] * 2)


def rgb(grey: np.ndarray) -> torch.Tensor:
    """(N, H, W) as the (N, 3, H, W) that a source gives."""
    return torch.from_numpy(np.repeat(grey[:, None], 3, axis=1))


TWELVE = (GREY.astype(np.uint16) * 16 + 7) % 4096


@pytest.mark.parametrize("kind", ["<u2", ">u2"])
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_twelve_bits_in_sixteen(kind: str, suffix: str, tmp_path: Path) -> None:
    array = TWELVE.astype(kind)
    array[0, 0, 0] = 4095
    if suffix == "npz":
        np.savez(tmp_path / "a.npz", x=array, y=LABELS)
    else:
        np.save(tmp_path / "x.npy", array)
        np.save(tmp_path / "y.npy", LABELS)
    dark = load_source(str(tmp_path))["train"]
    assert dark.images.max() == 16
    (note,) = [note for note in dark.notes if "uint16" in note]
    assert "uint16 pixels hold no value above 4095: they look like 12-bit values and are read as 0 to 65535" in note
    assert note.endswith("set data.pixel_max = 4095 if 4095 is white in them")
    bright = load_source(str(tmp_path), pixel_max=4095)["train"]
    assert torch.equal(bright.images, rgb(np.rint(array / (4095 / 255)).astype(np.uint8)))
    assert any(note.endswith("0 is black and data.pixel_max = 4095 is white") for note in bright.notes)
    clipped = load_source(str(tmp_path), pixel_max=1000)["train"]
    assert clipped.images.max() == 255
    assert any("they go up to 4095, and what is above 1000 is white" in note for note in clipped.notes)


def test_sixteen_bits_that_look_like_fewer(tmp_path: Path) -> None:
    for greatest, bits in ((1023, 10), (1024, 12), (4096, 13), (8191, 13), (16383, 14)):
        array = GREY.astype(np.uint16)
        array[0, 0, 0] = greatest
        np.savez(tmp_path / "a.npz", x=array, y=LABELS)
        note = load_source(str(tmp_path / "a.npz"))["train"].notes[0]
        assert f"look like {bits}-bit values" in note
        assert f"data.pixel_max = {2**bits - 1} if" in note
    np.savez(tmp_path / "a.npz", x=GREY.astype(np.uint16), y=LABELS)
    assert torch.equal(load_source(str(tmp_path / "a.npz"), pixel_max=255)["train"].images, rgb(GREY))
