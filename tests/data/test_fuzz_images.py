"""Folders of damaged image files are read alike in memory and from the cache, and nothing is on a terminal.

What a damaged file may come to, `tests/faults/test_strange_images.py` holds.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import ROUNDS, mutated
from strange_images import good_files

from patchlight.data.sources import load_source
from patchlight.errors import PatchlightError


@ROUNDS
def test_folders_with_damaged_images(seed: int, times: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Left out or an error, in memory and from the cache alike."""
    for number, data in enumerate(mutated(list(good_files()), 60 * times, seed)):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.png").write_bytes(data)
    sets = [load_source(str(tmp_path), on_bad="skip", memory_limit_mb=limit)["train"] for limit in (64, 0, 0)]
    assert len({images.notes for images in sets}) == len({images.skipped for images in sets}) == 1
    assert len({tuple(images.hashes) for images in sets}) == 1
    with pytest.raises(PatchlightError, match=f"{len(sets[0].skipped)} of {60 * times} images are bad"):
        load_source(str(tmp_path))
    assert capfd.readouterr().err == ""
