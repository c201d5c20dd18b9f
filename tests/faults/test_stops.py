"""What ends a training and what does not: fp16 that always overflows, signals between steps, output nobody takes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faulty import TRAIN, Nursery, result_of
from small import rows_of, run_fit, small_config, small_splits

from patchlight.errors import Interrupted, PatchlightError
from patchlight.progress import Progress, say
from patchlight.runs import Run
from patchlight.training import loop
from patchlight.training.checkpoint import list_checkpoints, read_state
from patchlight.training.fit import fit
from patchlight.training.setup import prepare
from patchlight.training.state import SKIPPED_AT_MOST, TrainState
from patchlight.training.tasks import Classification


def overflow(patch: pytest.MonkeyPatch, first: int, end: int) -> None:
    """Make the gradients of the steps `first` .. `end` - 1, from 0, of all training infinite."""
    own, calls = Classification.loss, []

    def poisoned(self, output, images, targets, batch=None):
        loss, right = own(self, output, images, targets, batch)
        if first <= len(calls) < end:
            output.register_hook(lambda gradient: gradient * float("inf"))
        calls.append(1)
        return loss, right

    patch.setattr(Classification, "loss", poisoned)


def test_fp16_that_always_overflows_stops_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After two steps that were made, of three in each epoch; the first skip is the third step."""
    overflow(monkeypatch, 2, 10**6)
    with pytest.raises(PatchlightError, match="32 times in a row, the last time in step 1 of epoch 12, of the train"):
        run_fit(tmp_path, train={"epochs": 14, "precision": "fp16"})
    state = read_state(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])
    assert (state.epochs_done, state.skipped_in_a_row) == (11, SKIPPED_AT_MOST - 1)
    with pytest.raises(PatchlightError, match="32 times in a row, the last time in step 1 of epoch 12"):
        run_fit(tmp_path, resume=True, train={"epochs": 14, "precision": "fp16"})  # what was skipped before counts


def test_a_training_that_is_over_without_a_step_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overflow(monkeypatch, 0, 10**6)
    with pytest.raises(PatchlightError, match="overflowed in fp16 in all steps, 6, so none changed a weight"):
        run_fit(tmp_path, train={"epochs": 2, "precision": "fp16"})
    assert [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == ["epoch-001"]


def test_steps_that_fp16_skips_are_counted_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overflow(monkeypatch, 0, 2)
    state, run = run_fit(tmp_path, train={"epochs": 2, "precision": "fp16"})
    assert [row.get("skipped_steps") for row in rows_of(run)] == [2, None]
    assert "skipped_steps" not in rows_of(run)[1]  # and so records of before are read as they were
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert line.startswith("epoch 1/2 ")
    assert "  2 steps skipped (fp16 overflowed)  " in line
    assert (state.skipped, state.skipped_in_a_row, state.scaler.scale if state.scaler else 0) == (0, 0, 2**14)


# SIGTERM comes where no step looks at it.
SEND = """
import os, signal
{owner}
was = owner.{name}
def now(*a, **b):
    found = was(*a, **b)
    os.kill(os.getpid(), signal.SIGTERM)
    return found
owner.{name} = now
"""


def test_a_signal_after_the_last_step_is_not_lost(nursery: Nursery, whole: Path, tmp_path: Path) -> None:
    before = SEND.format(owner="from patchlight.training.state import TrainState as owner", name="next_stage")
    code, last = nursery.run(*TRAIN, "--out", tmp_path / "run", before=before)
    assert (code, "stopped by SIGTERM after 6 epochs and 0 steps; the checkpoint is saved: repeat" in last) == (143, 1)
    assert not (tmp_path / "run" / "eval.json").exists()
    assert read_state(list_checkpoints(tmp_path / "run" / "checkpoints")[-1]).is_over
    model = Path("model", "model.safetensors")
    assert (tmp_path / "run" / model).read_bytes() == (whole / model).read_bytes()


def test_a_signal_during_restoring_and_rehearsal_is_not_lost(nursery: Nursery, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "eval.json").unlink()
    before = SEND.format(owner="import patchlight.training.fit as owner", name="restore")
    code, last = nursery.run(*TRAIN, "--out", folder, "--resume", before=before)
    assert code == 143
    assert "before training went on; what was saved before stays (6 epochs and 0 steps): repeat the command" in last
    assert not (folder / "eval.json").exists()
    before = SEND.format(owner="import patchlight.training.fit as owner", name="rehearse")
    budget = [word if word != "none" else "2s" for word in TRAIN]
    code, last = nursery.run(*budget, "--out", tmp_path / "other", before=before)
    assert code == 143
    assert "before training began; no step was made yet: repeat the command with --resume to go on" in last
    assert list_checkpoints(tmp_path / "other" / "checkpoints") == []


@pytest.mark.parametrize("engine", ["loop", "hf"])
def test_a_signal_between_stages_is_not_lost(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = TrainState.next_stage

    sent = []

    def next_stage(self: TrainState) -> TrainState:
        if self.stage not in sent:  # once after each of both
            os.kill(os.getpid(), signal.SIGTERM)
        sent.append(self.stage)
        return own(self)

    monkeypatch.setattr(TrainState, "next_stage", next_stage)
    stages = [{"train": {"epochs": 1}}, {"train": {"epochs": 2}}]
    train = {"engine": engine}
    with pytest.raises(Interrupted, match="after 1 epoch and 0 steps; the checkpoint is saved: repeat") as error:
        run_fit(tmp_path, stages=stages, train=train)
    assert error.value.number == signal.SIGTERM
    with pytest.raises(Interrupted, match="after 3 epochs and 0 steps; the checkpoint is saved: repeat"):
        run_fit(tmp_path, resume=True, stages=stages, train=train)
    monkeypatch.setattr(TrainState, "next_stage", own)
    assert run_fit(tmp_path, resume=True, stages=stages, train=train)[0].epochs_done == 3


# Standard error becomes a full disk, or a pipe that nobody reads.
DEAF = {"full": "w = os.open('/dev/full', os.O_WRONLY)", "pipe": "r, w = os.pipe()\nos.close(r)"}
AS_STDERR = "\nos.dup2(w, 2)\nsys.stderr = os.fdopen(2, 'w', buffering=1, closefd=False)\n"


@pytest.mark.parametrize("kind", [pytest.param("full", marks=pytest.mark.faults), "pipe"])
def test_output_that_cannot_be_written_ends_no_training(
    nursery: Nursery, whole: Path, tmp_path: Path, kind: str
) -> None:
    code, _ = nursery.run(*TRAIN, "--out", tmp_path / "run", before="import os, sys\n" + DEAF[kind] + AS_STDERR)
    assert code == 0
    assert result_of(tmp_path / "run") == result_of(whole)
    assert (tmp_path / "run" / "report.html").is_file()


def test_errors_that_cannot_be_said_have_their_exit_code() -> None:
    """In a Python of its own, which writes what is left at its end, and would end with 120 where that fails."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([sys.executable, "-m", "patchlight", "no-command"], stderr=full, stdout=subprocess.PIPE)
    assert (ended.returncode, ended.stdout) == (2, b"")
    words = "import sys\nsys.stderr = None\nfrom patchlight.cli.main import main\nsys.exit(main(['no-command']))"
    ended = subprocess.run([sys.executable, "-c", words], stdout=subprocess.PIPE)
    assert (ended.returncode, ended.stdout) == (2, b"")  # and no message among the results


def test_work_goes_on_without_a_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = Path(os.devnull).open("w")  # noqa: SIM115
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr("sys.stderr", stream)
        say("a line")
        with Progress(3, "work") as progress:
            progress.advance(2)
            progress.show("so far")
        assert progress.done == 2
    assert capsys.readouterr().out == ""


def test_a_bar_on_a_terminal_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real terminal whose other side was closed: writing gives EIO."""
    import pty

    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setattr("patchlight.progress.DELAY_S", 0.0)
        with Progress(3, "work") as progress:
            assert progress.terminal
            os.close(ours)
            progress.advance(2)
            progress.show("so far")
            progress.bar.refresh()
            say("a line")
        assert progress.done == 2
        with pytest.raises(OSError, match="Input/output error"):
            os.write(terminal.fileno(), b"x")
        os.dup2(os.open(os.devnull, os.O_WRONLY), terminal.fileno())  # for what is left in it


def test_an_epoch_is_saved_before_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(train={"batch_size": 16})
    run = Run.create(tmp_path / "run", config)
    own, saved = loop.epoch_line, []

    def line(label, row, left_s):
        saved.append((row.epoch, read_state(list_checkpoints(run.path / "checkpoints")[-1]).epochs_done))
        return own(label, row, left_s)

    monkeypatch.setattr(loop, "epoch_line", line)
    fit(prepare(config, small_splits()), run)
    assert saved == [(1, 1), (2, 2)]
