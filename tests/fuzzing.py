"""Damaged versions of a file, for readers that must take each or refuse it in one sentence. No test of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from patchlight.data.sources import load_source
from patchlight.errors import PatchlightError


def damaged_versions(whole: bytes, count: int, seed: int, front: int = 2**40) -> list[bytes]:
    """A third of them cut off, the others with 1 to 4 other bytes, half of these among the first `front`."""
    draw, versions = np.random.default_rng(seed), []
    for number in range(count):
        data = bytearray(whole)
        if number % 3 == 0:
            del data[int(draw.integers(0, len(data))) :]
        else:
            reach = min(front, len(data)) if number % 2 else len(data)
            for at in draw.integers(0, reach, 1 + number % 4):
                data[at] = draw.integers(256)
        versions.append(bytes(data))
    return versions


def outcomes(
    path: Path,
    versions: list[bytes],
    source: Path | None = None,
    load: Callable[..., object] = load_source,
) -> Counter[str]:
    """How many of the versions, put at `path`, are read as part of `source` (by default the path itself), and how many
    are refused. Any error but a PatchlightError of one line goes through.
    """
    found, sentences = Counter[str](), []
    for data in versions:
        path.write_bytes(data)
        try:
            load(str(source or path), max_left_out=1.0)
            found["read"] += 1
        except PatchlightError as error:
            sentences.append(str(error))
    assert [text for text in sentences if not text or "\n" in text or len(text) > 1500] == []
    return found + Counter(refused=len(sentences))
