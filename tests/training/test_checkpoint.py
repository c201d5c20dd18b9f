from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import pytest
import torch
from small import small_config, small_splits
from torch.optim.swa_utils import AveragedModel

from patchlight.config import OptimConfig
from patchlight.errors import PatchlightError
from patchlight.models import ModelCard, ModelSpec, VisionTransformer, create_model, save_model
from patchlight.models.saved import save_tensors
from patchlight.runs import Run
from patchlight.training.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    read_state,
    save_checkpoint,
)
from patchlight.training.fit import fit
from patchlight.training.optim import OPTIMIZERS, build_optimizers
from patchlight.training.setup import prepare
from patchlight.training.state import LossScale, TrainState

SMALL = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 2, "num_classes": 3}


CARD = ModelCard(
    "vit-micro", ModelSpec("patchlight", "vit-micro", {}, 8, 3), ("a", "b", "c"), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
)


def at(steps: int) -> TrainState:
    """In the middle of an epoch of ten steps or, after whole tens, at its end."""
    return TrainState(epoch=steps // 10, step=steps % 10, done=steps, total_steps=100)


def write(folder, state, model, optimizers):
    """A checkpoint in `folder`, the `checkpoints` of a run."""
    return save_checkpoint(folder, state, model, None, optimizers, model, CARD)


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
    path = write(tmp_path, state, model, optimizers)
    step(model, optimizers, 3)

    again, others = fresh(name)
    assert load_checkpoint(path, again, None, others) == state
    step(again, others, 3)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_half_written_checkpoint_is_not_there(tmp_path):
    model, optimizers = fresh("adamw")
    write(tmp_path, at(5), model, optimizers)
    (tmp_path / ".epoch-001.part").mkdir()
    (tmp_path / "epoch-000-step-00000005.bak").mkdir()  # a copy that somebody made
    assert [p.name for p in list_checkpoints(tmp_path)] == ["epoch-000-step-00000005"]
    (tmp_path / ".epoch-000-step-00000003.part").mkdir()
    write(tmp_path, at(10), model, optimizers)  # what a crash left is no hindrance
    write(tmp_path, at(10), model, optimizers)
    assert not list(tmp_path.glob(".*"))  # and does not stay
    assert [p.name for p in list_checkpoints(tmp_path)] == ["epoch-000-step-00000005", "epoch-001"]


def test_the_best_epochs_weights_are_put_back(tmp_path):
    """A training that was killed after it kept an epoch's weights, and before its checkpoint, does that epoch again."""
    run = Run.create(tmp_path / "run", small_config(train={"epochs": 3}))
    setup = prepare(run.config(), small_splits())
    fit(setup, run)
    states = {path.name: read_state(path) for path in list_checkpoints(run.path / "checkpoints")}
    (*_, best) = [name for name, state in states.items() if state.steps_done == state.best_step]
    kept = run.path / "model" / "model.safetensors"
    own = kept.read_bytes()
    assert own == (run.path / "checkpoints" / best / "model.safetensors").read_bytes()
    save_model(kept.parent, create_model("vit-micro", embed_dim=24, depth=2, num_heads=2), setup.card)
    assert kept.read_bytes() != own
    fit(prepare(run.config(), small_splits()), run, resume=True)
    assert kept.read_bytes() == own


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as error:  # and not safetensors' own error, which is no OSError
        save_tensors({"a": torch.zeros(2)}, tmp_path / "none" / "model.safetensors")
    assert error.value.filename == str(tmp_path / "none" / "model.safetensors")


def test_pruning_keeps_the_last_and_the_asked_for(tmp_path):
    model, optimizers = fresh("adamw")
    paths = [write(tmp_path, at(n), model, optimizers) for n in (10, 20, 30, 35)]
    prune_checkpoints(paths[-1], replace(at(35), kept_steps=(10,)))
    assert list_checkpoints(tmp_path) == [paths[0], paths[2], paths[3]]  # the one before the last stays, too


def test_a_stop_at_the_start_of_a_stage_is_not_kept_for_good(tmp_path):
    """It has as many steps as the end of the stage before, which is one of those that stay."""
    model, optimizers = fresh("adamw")
    stopped = replace(at(20).next_stage(), total_steps=10)
    paths = [write(tmp_path, state, model, optimizers) for state in (at(20), stopped, at(30))]
    assert [path.name for path in paths] == ["epoch-002", "epoch-002-step-00000020", "epoch-003"]
    paths.append(write(tmp_path, at(40), model, optimizers))
    prune_checkpoints(paths[-1], replace(at(40), kept_steps=(20,)))
    assert list_checkpoints(tmp_path) == [paths[0], *paths[2:]]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damage_is_named(file, damage, tmp_path):
    model, optimizers = fresh("muon")
    step(model, optimizers, 1)
    path = write(tmp_path, at(1), model, optimizers)
    broken = path / file
    if damage == "missing":
        broken.unlink()
    else:
        broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    with pytest.raises(PatchlightError, match="epoch-000-step-00000001 cannot be resumed from") as error:
        load_checkpoint(path, model, None, optimizers)
    assert "\n" not in str(error.value)


def test_nothing_is_pickled(tmp_path):
    model, optimizers = fresh("adamw")
    step(model, optimizers, 1)
    path = write(tmp_path, at(1), model, optimizers)
    assert {p.suffix for p in path.iterdir()} == {".safetensors", ".json", ".jsonl"}


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
    path = write(tmp_path, at(3), fresh("adamw")[0], [])
    data = json.loads((path / "state.json").read_text()) | (changes or {})
    data = {key: value for key, value in data.items() if value is not ...}
    (path / "state.json").write_text(json.dumps(data if changes else {} if changes is None else changes))
    with pytest.raises(PatchlightError, match=f"epoch-000-step-00000003 cannot be resumed from .state.json: {message}"):
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
        ({"best_epoch": 5, "best_score": 0.8}, (0.8, 2)),
        ({"best_epoch": 5, "best_score": 0.0, "best_loss": 0.4}, (-0.4, 2)),  # masked autoencoding has no accuracy
        ({"best_epoch": 3, "best_score": 0.8}, (None, 3)),  # of an earlier stage
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


def test_names_are_in_the_order_of_epochs_and_steps(tmp_path):
    names = ["step-00000099", "step-00039050", "epoch-000-step-00000007", "epoch-009", "epoch-010"]
    names += [
        "epoch-010-step-00000790",
        "epoch-010-step-12345678",
        "epoch-011",
        "epoch-999",
        "epoch-1000",
        "epoch-12345",
    ]
    for name in [*reversed(names), "epoch-010.bak", "-step-00000001", ".epoch-3.old", "epoch-8.damaged", "notes"]:
        (tmp_path / name).mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == names


def test_the_end_of_an_epoch_and_the_beginning_of_a_stage_have_two_names(tmp_path):
    model, optimizers = fresh("adamw")
    end = TrainState(epoch=2, done=20, total_steps=20, progress=1.0)
    begin = dataclasses.replace(end.next_stage(), total_steps=30)
    assert write(tmp_path, end, model, optimizers).name == "epoch-002"
    assert write(tmp_path, begin, model, optimizers).name == "epoch-002-step-00000020"
    assert read_state(list_checkpoints(tmp_path)[-1]).stage == 1


def test_an_older_versions_checkpoints_are_pruned_too(tmp_path):
    model, optimizers = fresh("adamw")
    for steps in (10, 20):
        write(tmp_path, at(steps), model, optimizers).rename(tmp_path / f"step-{steps:08d}")
    damaged = write(tmp_path, at(30), model, optimizers)
    (damaged / "state.json").write_text("{")
    newest = write(tmp_path, at(40), model, optimizers)
    prune_checkpoints(newest, replace(at(40), kept_steps=(10,)))
    kept = ["step-00000010", "step-00000020", "epoch-003", "epoch-004"]  # the second is the newest sound one before
    assert [path.name for path in list_checkpoints(tmp_path)] == kept
    newest = write(tmp_path, at(50), model, optimizers)
    prune_checkpoints(newest, replace(at(50), kept_steps=(10,)))
    kept = ["step-00000010", "epoch-003", "epoch-004", "epoch-005"]
    assert [path.name for path in list_checkpoints(tmp_path)] == kept


def test_weights_in_training_are_never_mistaken_for_their_average(tmp_path):
    model, optimizers = fresh("adamw")
    average = AveragedModel(model)
    step(model, optimizers, 1)
    path = save_checkpoint(tmp_path, at(1), model, average, optimizers, average.module, CARD)
    again, others = fresh("adamw")
    load_checkpoint(path, again, AveragedModel(again), others)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    (path / "training.safetensors").unlink()
    with pytest.raises(PatchlightError, match=r"training\.safetensors is missing"):
        load_checkpoint(path, again, AveragedModel(again), others)
