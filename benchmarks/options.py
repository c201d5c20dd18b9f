"""What a benchmark is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

ROOT = Path(__file__).resolve().parents[1]

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """`quick` is to see that everything works, in seconds and with tiny sizes: its numbers mean nothing."""

    quick: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rounds: int | None = None  # of the interleaved timer, or seeds of what trains; None is the benchmark's own choice
    minutes: float = 5.0  # the budget of what trains
    source: str = "digits"  # the images of what trains
    model: str = ""  # the weights that `transfer` begins with
    recipes: tuple[str, ...] = ()  # ours; empty is the benchmark's own choice
    keep: Path | None = (
        None  # where the runs of `pretraining`, `transfer` and `full` stay, to go on from; None: the benchmark's own
    )

    def pick(self, full: T, quick: T) -> T:
        """One of two sizes."""
        return quick if self.quick else full

    def rounds_or(self, full: int, quick: int = 2) -> int:
        """How often the contenders take turns."""
        return self.rounds or self.pick(full, quick)

    def calls(self, cpu: int, cuda: int) -> int:
        """How many calls make a round: a GPU needs more of them to be worth a look at the clock."""
        return self.pick(cuda if self.device.type == "cuda" else cpu, 1)
