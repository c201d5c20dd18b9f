"""Random bytes and words for tests that want no other end than success or a PatchlightError. No test of its own.

The default tests try a few hundred of each kind; `make test-fuzz` tries FUZZ (10) times as many, by other seeds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

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
