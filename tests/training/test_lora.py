"""LoRA: what it changes, what it leaves alone, and that nothing of it is left in the kept model."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import timm
import torch
from saved import SAVED
from small import SMALL, run_fit, small_config, small_splits, stopped_at_save

from patchlight import explain
from patchlight.cli.main import main
from patchlight.config import LoraConfig
from patchlight.errors import UsageError
from patchlight.models import ResNet, VisionTransformer, load_model
from patchlight.models.lora import add_lora, has_lora, is_lora, merged
from patchlight.runs import Run
from patchlight.training.fit import fit
from patchlight.training.setup import prepare

OPTIONS = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}


def adapted(rank=2, **options):
    torch.manual_seed(0)
    plain = VisionTransformer(**OPTIONS, **options).eval()
    model = copy.deepcopy(plain)
    layers = add_lora(model, LoraConfig(rank=rank, alpha=6.0), 16)
    return plain, model, layers


def test_it_begins_as_the_same_function_and_ends_as_its_formula():
    plain, model, layers = adapted()
    images = torch.randn(3, 3, 16, 16)
    assert layers == 8  # qkv, proj, fc1, fc2 of two blocks
    torch.testing.assert_close(model(images), plain(images))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if is_lora(name):
                p.normal_(std=0.1)
    layer = model.blocks[1].mlp.fc1
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    alone = merged(model)
    assert not has_lora(alone)
    assert list(alone.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(alone.blocks[1].mlp.fc1.weight, plain.blocks[1].mlp.fc1.weight + 6.0 / 2 * b @ a)
    torch.testing.assert_close(alone(images), model(images), atol=1e-5, rtol=1e-5)
    assert has_lora(model)
    assert merged(plain) is plain


def test_its_size_is_that_of_two_narrow_matrices():
    _, model, _ = adapted(rank=3)
    own = sum(p.numel() for name, p in model.named_parameters() if is_lora(name))
    assert own == 2 * 3 * ((24 + 72) + (24 + 24) + 2 * (24 + 96))


def test_only_adapters_and_head_are_trained(tmp_path):
    lora = {"lora": {"rank": 2}, "optim": {"lr": 1e-2}}
    config = small_config(**lora, train={"trainable": "lora", "epochs": 4, "batch_size": 16, "select": "last"})
    setup = prepare(config, small_splits())
    model = setup.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run = Run.create(tmp_path / "run", config)
    fit(setup, run)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if is_lora(name) or name.startswith("head.")}
    kept, _ = load_model(run.path)
    step = kept.blocks[0].attn.qkv.weight - before["blocks.0.attn.qkv.base_layer.weight"]
    assert torch.linalg.matrix_rank(step, rtol=1e-4) == 2
    rows = run.epochs()
    assert rows[-1].train_loss < rows[0].train_loss
    images = setup.card.to_input(small_splits().test.images)
    torch.testing.assert_close(kept(images), model.eval()(images), atol=1e-5, rtol=1e-5)


def test_a_resumed_run_ends_as_an_unbroken_one(tmp_path):
    settings = {"train": {"trainable": "lora", "epochs": 3, "select": "last"}, "lora": {"dropout": 0.1}}
    _, whole = run_fit(tmp_path, "whole", **settings)
    with stopped_at_save(1):
        run_fit(tmp_path, "cut", **settings)
    _, again = run_fit(tmp_path, "cut", resume=True, **settings)
    for key, value in load_model(whole.path)[0].state_dict().items():
        torch.testing.assert_close(load_model(again.path)[0].state_dict()[key], value)


@pytest.mark.parametrize("library", SAVED)
def test_models_of_the_hubs(tmp_path, library, no_charts):
    folder = SAVED[library](tmp_path / "hub")
    name = f"local-dir:{folder}" if library == "timm" else str(folder)
    path = tmp_path / "run"
    words = ["train", "finetune", "--data.source", "digits", *SMALL[:8], "--model.name", name, "--model.img_size", "32"]
    words += [word for stage in "12" for word in (f"--stages.{stage}.train.trainable", "lora")]
    words += ["--train.debug", "--train.device", "cpu"]
    assert main([*words, "--out", str(path)]) == 0
    model, _ = load_model(path)
    assert not has_lora(model)
    assert explain(model, torch.randn(2, 3, 32, 32)).maps.isfinite().all()


def test_a_layer_that_is_not_called_is_left_alone():
    model = timm.create_model("beit_base_patch16_224", embed_dim=24, depth=1, num_heads=3, img_size=32)
    add_lora(model, LoraConfig(), 32)  # its attention reads qkv.weight
    names = {name for name, _ in model.named_parameters() if is_lora(name)}
    assert not any(".qkv." in name for name in names)
    assert any(".fc1." in name for name in names)


def test_what_cannot_be_asked_for():
    with pytest.raises(UsageError, match="this model has none"):
        add_lora(ResNet(), LoraConfig(), 32)
    stages = ({"train": {"trainable": "lora"}}, {"model": {"img_size": 32}})
    config = dataclasses.replace(small_config(), stages=stages)
    with pytest.raises(UsageError, match="keep the image size"):
        prepare(config, small_splits())
