"""Random numbers that depend on (seed, purpose, epoch, step) alone, and not on what was drawn before."""

from __future__ import annotations

import numpy as np
import torch

# A number for each purpose, so that what is drawn for one never changes what is drawn for another.
STREAMS = {
    "init": 0,
    "order": 1,
    "augment": 2,
    "dropout": 3,
    "samples": 4,
    "input": 5,
    "faithfulness": 6,
    "snapshots": 7,
    "decoder": 8,
    "mix": 9,
    "sampler": 10,
}


def derive_seed(seed: int, stream: str, *counts: int) -> int:
    """A 63-bit seed that depends on nothing but its arguments: `derive_seed(0, "augment", epoch, step)`."""
    words = np.random.SeedSequence([seed, STREAMS[stream], *counts]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def seeded_generator(seed: int, stream: str, *counts: int) -> torch.Generator:
    """A generator on the CPU with the seed that `derive_seed` gives."""
    return torch.Generator().manual_seed(derive_seed(seed, stream, *counts))
