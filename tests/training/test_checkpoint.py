from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from patchlight.config import OptimConfig
from patchlight.errors import PatchlightError
from patchlight.models import VisionTransformer
from patchlight.training.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    read_state,
    save_checkpoint,
)
from patchlight.training.optim import OPTIMIZERS, build_optimizers
from patchlight.training.state import LossScale, TrainState

SMALL = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 2, "num_classes": 3}


def at(steps: int) -> TrainState:
    return TrainState(done=steps, total_steps=100)


def step(model, optimizers, seed):
    torch.manual_seed(seed)
    model(torch.randn(4, 3, 8, 8)).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


def fresh(name):
    torch.manual_seed(0)
    # Channels-last kernels have other strides than the tensors in a file.
    model = VisionTransformer(**SMALL, stem="conv").to(memory_format=torch.channels_last)
    return model, build_optimizers(model, OptimConfig(name=name))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_bit_for_bit(name, tmp_path):
    model, optimizers = fresh(name)
    step(model, optimizers, 1)
    step(model, optimizers, 2)
    state = TrainState(epoch=1, step=1, done=2, total_steps=3, progress=2 / 3, loss_sum=0.1, kept_steps=(1,))
    state.scaler = LossScale(2.0, 2.0, 0.5, 2000, 7)
    path = save_checkpoint(tmp_path, state, model, None, optimizers)
    step(model, optimizers, 3)

    again, others = fresh(name)
    assert load_checkpoint(path, again, None, others) == state
    step(again, others, 3)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_half_written_checkpoint_is_not_there(tmp_path):
    model, optimizers = fresh("adamw")
    save_checkpoint(tmp_path, at(5), model, None, optimizers)
    (tmp_path / ".step-00000010.part").mkdir()
    (tmp_path / "step-00000005.bak").mkdir()  # a copy that somebody made
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000005"]
    save_checkpoint(tmp_path, at(10), model, None, optimizers)  # what a crash left is no hindrance
    save_checkpoint(tmp_path, at(10), model, None, optimizers)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000005", "step-00000010"]


def test_pruning_keeps_the_last_and_the_asked_for(tmp_path):
    model, optimizers = fresh("adamw")
    paths = [save_checkpoint(tmp_path, at(n), model, None, optimizers) for n in (10, 20, 30, 35)]
    prune_checkpoints(tmp_path, paths[-1], {20})
    assert list_checkpoints(tmp_path) == [paths[1], paths[3]]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damage_is_named(file, damage, tmp_path):
    model, optimizers = fresh("muon")
    step(model, optimizers, 1)
    path = save_checkpoint(tmp_path, at(1), model, None, optimizers)
    broken = path / file
    if damage == "missing":
        broken.unlink()
    else:
        broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    with pytest.raises(PatchlightError, match="step-00000001 cannot be resumed from") as error:
        load_checkpoint(path, model, None, optimizers)
    assert "\n" not in str(error.value)


def test_nothing_is_pickled(tmp_path):
    model, optimizers = fresh("adamw")
    step(model, optimizers, 1)
    path = save_checkpoint(tmp_path, at(1), model, None, optimizers)
    assert {p.suffix for p in path.iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": "3"}, "epoch must be a whole number, not '3'"),
        ({"loss_sum": None}, "loss_sum must be a number, not None"),
        ({"total_steps": 0}, "total_steps must be at least 1, not 0"),
        ({"kept_steps": 3}, "kept_steps must be a list"),
        ({"scaler": {"scale": 2.0}}, r"scaler\.growth_factor is missing"),
        ({"best_top1": ...}, "best_top1 is missing"),
        (None, "stage is missing"),
        ([], "the record must be an object"),
    ],
    ids=str,
)
def test_a_state_that_is_none_is_told(tmp_path, changes, message):
    """One field is wrong or left out, or there is none."""
    path = save_checkpoint(tmp_path, at(3), *fresh("adamw")[:1], None, [])
    data = json.loads((path / "state.json").read_text()) | (changes or {})
    data = {key: value for key, value in data.items() if value is not ...}
    (path / "state.json").write_text(json.dumps(data if changes else {} if changes is None else changes))
    with pytest.raises(PatchlightError, match=f"step-00000003 cannot be resumed from .state.json: {message}"):
        read_state(path)


def test_a_state_without_progress(tmp_path):
    """Of a checkpoint that an earlier version saved, whose budget was a number of steps."""
    state = TrainState(stage=1, steps_before=10, epochs_before=2, epoch=1, step=2, total_steps=20, wall_s=3.5)
    path = tmp_path / "step-00000017"
    path.mkdir()
    new = ("done", "progress", "epoch_start", "stage_best", "epochs_since_better")
    old = {key: value for key, value in state.to_json().items() if key not in new}
    (path / "state.json").write_text(json.dumps({**old, "scaler": {}}))
    assert read_state(path) == dataclasses.replace(state, done=7, progress=7 / 20, epoch_start=5, epochs_since_better=1)


@pytest.mark.parametrize(
    ("best", "found"),
    [
        ({"best_epoch": 5, "best_top1": 0.8}, (0.8, 2)),
        ({"best_epoch": 5, "best_top1": 0.0, "best_loss": 0.4}, (-0.4, 2)),  # masked autoencoding has no accuracy
        ({"best_epoch": 3, "best_top1": 0.8}, (None, 3)),  # of an earlier stage
    ],
)
def test_a_state_without_a_count_for_early_stopping(tmp_path, best, found):
    """Of a checkpoint that version 0.2.0 saved, which counted the epochs since the best of all stages."""
    state = TrainState(stage=1, epochs_before=4, epoch=3, done=9, total_steps=20, **best)
    path = tmp_path / "step-00000009"
    path.mkdir()
    old = {k: v for k, v in state.to_json().items() if k not in ("stage_best", "epochs_since_better")}
    (path / "state.json").write_text(json.dumps(old))
    again = read_state(path)
    assert (again.stage_best, again.epochs_since_better) == found
