"""SIGTERM and SIGINT in every phase: the exit code of the signal, one sentence on how to go on, and no work lost."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from faulty import TRAIN, Nursery, leftovers, result_of

# Where the signal comes: a function of a module, before which the process sends it to itself.
PHASES = {
    "set-up": (
        "patchlight.commands.train",
        "load_splits",
        "before training began; nothing is lost: repeat the command",
    ),
    "the first step": ("patchlight.commands.train", "fit", "at once; `--resume` goes on from the newest checkpoint"),
    "training": ("patchlight.training.loop", "epoch_line", "after 1 epoch and 0 steps; the checkpoint is saved"),
    "the test": ("patchlight.commands.train", "conclude", "repeat the command with --resume, which trains no more"),
    "the page": ("patchlight.commands.train", "report", "before the report was written; `patchlight report"),
}
SEND = """
import os, signal, sys
import {module} as module
was = module.{name}
def now(*a, **b):
    module.{name} = was
    os.kill(os.getpid(), signal.{signal})
    return was(*a, **b)
module.{name} = now
"""


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), pytest.param("SIGINT", 130, marks=pytest.mark.faults)])
def test_a_signal_ends_every_phase_with_how_to_go_on(
    nursery: Nursery, whole: Path, tmp_path: Path, phase: str, name: str, code: int
) -> None:
    module, function, words = PHASES[phase]
    folder = tmp_path / "run"
    child = nursery.start(*TRAIN, "--out", folder, before=SEND.format(module=module, name=function, signal=name))
    ended, last = child.finish()
    assert ended == code
    assert last.startswith(f"patchlight: stopped by {name} ")
    assert words in last
    assert folder.exists() == (phase != "set-up")
    if name == "SIGINT" and phase not in ("training", "the test"):
        return  # going on is the same after either
    child = nursery.start(*TRAIN, "--out", folder, "--resume")
    assert child.finish()[0] == 0
    assert ("there is no run at" in child.said()) == (phase == "set-up")  # and it is started
    assert result_of(folder) == result_of(whole)
    assert leftovers(folder) == []
    if phase in ("the test", "the page"):
        assert "epoch 6/6" not in child.said()  # nothing is trained again


def test_a_second_signal_does_not_wait_for_the_step(nursery: Nursery, whole: Path, tmp_path: Path) -> None:
    twice = SEND.format(module="patchlight.training.loop", name="model_input", signal="SIGTERM")
    twice = twice.replace("    return was", "    os.kill(os.getpid(), signal.SIGTERM)\n    return was")
    code, last = nursery.run(*TRAIN, "--out", tmp_path / "run", before=twice)
    assert code == 143
    assert "stopped by SIGTERM at once" in last
    assert nursery.run(*TRAIN, "--out", tmp_path / "run", "--resume")[0] == 0
    assert result_of(tmp_path / "run") == result_of(whole)


def test_other_commands_end_with_the_code_of_the_signal(nursery: Nursery, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for name, code in (("SIGTERM", 143), ("SIGINT", 130)):
        before = SEND.format(module="patchlight.commands.evaluate", name="own_images", signal=name)
        assert nursery.run("eval", folder, before=before) == (
            code,
            f"patchlight: stopped by {name}; repeat the command",
        )
    assert nursery.run("eval", folder)[0] == 0
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
