"""Numbers that are not finite are never saved; what is not bit for bit is said, recorded and shown."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from faulty import TRAIN, Nursery, leftovers, result_of
from small import run_fit, small_config, small_splits

from patchlight.errors import PatchlightError, UsageError
from patchlight.runs import Run
from patchlight.training import loop
from patchlight.training.checkpoint import damage_of, list_checkpoints
from patchlight.training.fit import fit
from patchlight.training.setup import prepare
from patchlight.training.tasks import Classification

SAID = (
    r"in step (\d+) of epoch (\d+), of the training images ([\d, ]+), counted from 0; it changed no weight, and what "
    r"was saved stays; lower optim\.lr"
)


@pytest.mark.parametrize("engine", ["loop", "hf"])
@pytest.mark.parametrize("what", ["loss", "gradients"])
def test_a_step_that_is_not_finite_stops_before_the_update(
    engine: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second step of the second epoch; the images of the message are those of the step."""
    own, calls = Classification.loss, []

    def poisoned(self, output, images, targets, batch=None):
        calls.append(1)
        loss, right = own(self, output, images, targets, batch)
        if len(calls) == 5:  # three steps an epoch
            if what == "loss":
                return loss * float("nan"), right
            output.register_hook(lambda gradient: gradient * float("inf"))
        return loss, right

    monkeypatch.setattr(Classification, "loss", poisoned)
    with pytest.raises(PatchlightError) as error:
        run_fit(tmp_path, train={"epochs": 3, "engine": engine})
    found = re.search(SAID, str(error.value))
    assert found, error.value
    assert found.groups()[:2] == ("2", "2")
    run = Run(tmp_path / "run")
    config, data = small_config(train={"batch_size": 16}), small_splits()
    card = prepare(config, data).card
    batches = loop.make_batches(data.train, config, card, torch.device("cpu"))
    assert found[3] == ", ".join(map(str, batches.indices(1, 1).tolist()))
    (checkpoint,) = list_checkpoints(run.path / "checkpoints")
    assert (checkpoint.name, damage_of(checkpoint)) == ("epoch-001", None)
    monkeypatch.setattr(Classification, "loss", own)
    state = fit(prepare(run.config(), small_splits()), run, resume=True)  # the cause being away, it goes on
    assert state.epochs_done == 3


def test_a_checkpoint_of_weights_that_are_not_finite_is_never_saved(nursery: Nursery, tmp_path: Path) -> None:
    """SIGTERM comes when an update has just made them so."""
    before = """
import os, signal, torch
from patchlight.training import loop
was, calls = loop.Trainer.end_step, []
def end_step(self, loss, correct):
    was(self, loss, correct)
    calls.append(1)
    if len(calls) == 5:
        with torch.no_grad():
            next(self.stage.model.parameters()).fill_(float("nan"))
        os.kill(os.getpid(), signal.SIGTERM)
loop.Trainer.end_step = end_step
"""
    folder = tmp_path / "run"
    code, last = nursery.run(*TRAIN, "--out", folder, before=before)
    assert code == 1
    assert "are no longer finite, and are not saved" in last
    assert all(damage_of(path) is None for path in list_checkpoints(folder / "checkpoints"))
    assert leftovers(folder) == []
    assert nursery.run(*TRAIN, "--out", folder, "--resume")[0] == 0


@pytest.mark.slow
def test_another_number_of_threads_or_version_is_said_recorded_and_shown(
    nursery: Nursery, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "eval.json").unlink()
    words = [word for word in TRAIN if word not in ("--train.threads", "1")]
    other = """
import dataclasses, torch
import patchlight.training.record as record
was = record.describe_machine
record.describe_machine = lambda device: dataclasses.replace(
    was(device), patchlight="0.0.1", versions={**was(device).versions, "torch": "2.0"})
record.torch.get_num_threads = lambda: 3
"""
    assert "--train.threads" not in words
    child = nursery.start(*TRAIN, "--out", folder, "--resume", before=other)
    assert child.finish()[0] == 0
    environment = json.loads((folder / "environment.json").read_text())
    (process,) = environment["resumed"]
    own = environment["versions"]["torch"]
    assert process["not_exact"] == [
        "threads 3, not 1",
        f"Patchlight 0.0.1, not {environment['patchlight']}",
        f"torch 2.0, not {own}",
    ]
    assert "not exact from here on, as this process is not like the one before (threads 3, not 1; " in child.said()
    assert "not exact: threads 3, not 1; " in (folder / "report.html").read_text(encoding="utf-8")
    assert nursery.run(*TRAIN, "--out", tmp_path / "again")[0] == 0
    shutil.copytree(tmp_path / "again", tmp_path / "exact")
    (tmp_path / "exact" / "eval.json").unlink()
    child = nursery.start(*TRAIN, "--out", tmp_path / "exact", "--resume")
    assert child.finish()[0] == 0
    assert "not exact" not in child.said()
    assert "; exact" in (tmp_path / "exact" / "report.html").read_text(encoding="utf-8")
    assert result_of(tmp_path / "exact") == result_of(whole)


def test_settings_that_only_save_memory_may_change_and_are_recorded(
    nursery: Nursery, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "eval.json").unlink()
    child = nursery.start(
        *TRAIN, "--out", folder, "--resume", "--train.micro_batch_size", "8", "--model.grad_checkpointing"
    )
    assert child.finish()[0] == 0
    assert "model.grad_checkpointing True, not None; train.micro_batch_size 8, not None" in child.said()
    (process,) = json.loads((folder / "environment.json").read_text())["resumed"]
    assert process["not_exact"] == ["model.grad_checkpointing True, not None", "train.micro_batch_size 8, not None"]


def test_a_changed_recipe_is_refused_with_all_that_differs(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small_config())
    changed = small_config(train={"epochs": 3, "seed": 7}, optim={"lr": 0.5}, model={"depth": 3})
    with pytest.raises(UsageError) as error:
        run.check_free(changed, resume=True)
    for words in (
        "model.depth = 2, not 3",
        "optim.lr = 0.003, not 0.5",
        "train.epochs = 2, not 3",
        "train.seed = 0, not 7",
    ):
        assert words in str(error.value)
