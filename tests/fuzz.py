"""Random bytes and words for tests that want no other end than success or a PatchlightError. No test of its own.

The default tests try a few hundred of each kind; `make test-fuzz` tries FUZZ (10) times as many, by other seeds.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from patchlight.data.sources import load_source
from patchlight.errors import PatchlightError

TIMES = int(os.environ.get("FUZZ", "10"))
# A parameter of tests: their seed and by how much their number of cases is multiplied.
ROUNDS = pytest.mark.parametrize(
    ("seed", "times"), [pytest.param(0, 1, id="few"), pytest.param(1, TIMES, id="many", marks=pytest.mark.fuzz)]
)


def mutated(files: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Files with a few bytes changed, parts taken out, doubled, or cut off."""
    draw = np.random.default_rng(seed)
    for trial in range(count):
        data = bytearray(files[trial % len(files)])
        for _ in range(draw.integers(1, 6)):
            at, length = (int(draw.integers(max(1, len(data)))) for _ in range(2))
            kind = draw.integers(8)
            if kind == 0:
                data = data[:at]
            elif kind == 1:
                del data[at : at + length % 16]
            elif kind == 2:
                data[at:at] = data[at : at + length % 64]
            elif kind == 3:
                data[at:at] = draw.bytes(int(length % 8))
            elif data:
                data[min(at, len(data) - 1)] = draw.integers(256)
        yield bytes(data)


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
