from __future__ import annotations

import pytest
import torch

from patchlight.config import OptimConfig
from patchlight.errors import PatchlightError
from patchlight.models import VisionTransformer
from patchlight.training.checkpoint import list_checkpoints, load_checkpoint, prune_checkpoints, save_checkpoint
from patchlight.training.optim import OPTIMIZERS, build_optimizers

SMALL = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 2, "num_classes": 3}


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
    path = save_checkpoint(tmp_path, 2, model, None, optimizers, {"epoch": 1, "loss_sum": 0.1})
    step(model, optimizers, 3)

    again, others = fresh(name)
    assert load_checkpoint(path, again, None, others) == {"epoch": 1, "loss_sum": 0.1}
    step(again, others, 3)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_half_written_checkpoint_is_not_there(tmp_path):
    model, optimizers = fresh("adamw")
    save_checkpoint(tmp_path, 5, model, None, optimizers, {})
    (tmp_path / ".step-00000010.part").mkdir()
    (tmp_path / "step-00000005.bak").mkdir()  # a copy that somebody made
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000005"]
    save_checkpoint(tmp_path, 10, model, None, optimizers, {})  # what a crash left is no hindrance
    save_checkpoint(tmp_path, 10, model, None, optimizers, {})
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000005", "step-00000010"]


def test_pruning_keeps_the_last_and_the_asked_for(tmp_path):
    model, optimizers = fresh("adamw")
    paths = [save_checkpoint(tmp_path, n, model, None, optimizers, {}) for n in (10, 20, 30, 35)]
    prune_checkpoints(tmp_path, paths[-1], {20})
    assert list_checkpoints(tmp_path) == [paths[1], paths[3]]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damage_is_named(file, damage, tmp_path):
    model, optimizers = fresh("muon")
    step(model, optimizers, 1)
    path = save_checkpoint(tmp_path, 1, model, None, optimizers, {"epoch": 1})
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
    path = save_checkpoint(tmp_path, 1, model, None, optimizers, {})
    assert {p.suffix for p in path.iterdir()} == {".safetensors", ".json"}
