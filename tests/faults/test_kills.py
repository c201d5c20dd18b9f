"""kill -9, whenever it comes, costs no more than the work since the last checkpoint, and changes no number."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from faulty import TRAIN, Nursery, leftovers, result_of


def killed_and_resumed(nursery: Nursery, folder: Path, seconds: list[float]) -> int:
    """Train in `folder`, killed after each of these times and gone on with; how often it was there to be killed."""
    kills = 0
    for after in seconds:
        there = (folder / "config.toml").exists()
        child = nursery.start(*TRAIN, "--out", folder, *(["--resume"] if there else []))
        time.sleep(after)
        child.send(signal.SIGKILL)
        code, _ = child.finish()
        kills += code == -signal.SIGKILL
    there = (folder / "config.toml").exists()
    code, last = nursery.run(*TRAIN, "--out", folder, *(["--resume"] if there else []))
    assert code == 0, last
    return kills


def test_killed_trainings_end_bit_for_bit_as_one_that_was_not(nursery: Nursery, whole: Path, tmp_path: Path) -> None:
    kills = killed_and_resumed(nursery, tmp_path / "run", [0.3, 0.9, 1.2])
    assert kills >= 2
    assert result_of(tmp_path / "run") == result_of(whole)
    assert leftovers(tmp_path / "run") == []


@pytest.mark.faults
def test_many_killed_trainings_end_bit_for_bit_as_one_that_was_not(
    nursery: Nursery, whole: Path, tmp_path: Path
) -> None:
    draw, kills = np.random.default_rng(0), 0
    for number in range(30):
        folder = tmp_path / f"run{number}"
        kills += killed_and_resumed(nursery, folder, list(draw.uniform(0.05, 2.5, 4)))
        assert result_of(folder) == result_of(whole), number
        assert leftovers(folder) == []
        shutil.rmtree(folder)
    print(f"{kills} kills")
    assert kills > 40
