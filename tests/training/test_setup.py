"""What training begins with: a model for the data, what was chosen on this machine, and the record of both."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from small import make_images, run_fit, small_config, small_splits

from patchlight.config import Config, ModelConfig
from patchlight.data.splits import Splits
from patchlight.errors import PatchlightError, UsageError
from patchlight.machine import device
from patchlight.models.mae import MaskedAutoencoder
from patchlight.runs import Environment, Weights
from patchlight.training import setup as setting_up
from patchlight.training.record import describe_run
from patchlight.training.setup import build, choices_of, prepare

CPU = torch.device("cpu")

STEM = {"name": "vit-compact", "embed_dim": 24, "depth": 1, "num_heads": 2, "stem_whitening": 12}


def other_splits() -> Splits:
    """Of the same classes, but the pixels of another world."""
    images = make_images(n=72, seed=1)
    images.images.copy_(255 - images.images.roll(3, 2))
    return Splits(images.select(range(48)), images.select(range(48, 60)), images.select(range(60, 72)))


def test_a_new_stem_is_whitened_by_the_training_images():
    first, _ = build(small_config(model=STEM), small_splits())
    second, _ = build(small_config(model=STEM), other_splits())
    assert not torch.equal(first.patch_embed.whitening.weight, second.patch_embed.whitening.weight)


def test_trained_weights_keep_their_whitening_on_other_images(tmp_path):
    _, run = run_fit(tmp_path, model=STEM)
    config = replace(small_config(), model=ModelConfig(name=str(run.path)))
    same, _ = build(config, small_splits())
    other, _ = build(config, other_splits())
    for name, weights in same.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name]), name


def test_masked_autoencoding_is_for_a_vit_of_ours():
    config = small_config(train={"task": "reconstruct"})
    model, card = build(config, small_splits())
    assert isinstance(model, MaskedAutoencoder)
    assert card.class_names == ()
    with pytest.raises(UsageError, match="not for resnet18"):
        build(replace(config, model=ModelConfig(name="resnet18")), small_splits())


def record_of(config: Config, **changes) -> Environment:
    return replace(describe_run(prepare(config, small_splits()), "patchlight train x"), **changes)


def test_a_run_goes_on_with_the_commit_that_it_began_with():
    config = small_config(train={"precision": "fp32"})
    record = record_of(config)
    assert choices_of(record, config, CPU) == config
    weights = Weights(library="timm", id="x", commit="abc")
    record = replace(record, model=replace(record.model, weights=weights))
    assert choices_of(record, config, CPU).model.revision == "abc"
    asked = replace(config, model=replace(config.model, revision="v1"))
    assert choices_of(record, asked, CPU) == asked


def test_a_run_goes_on_with_what_was_chosen_on_the_same_kind_of_device():
    open_choice = small_config(train={"precision": "auto"}, model={"name": "vit-micro"})
    open_choice = replace(open_choice, model=replace(open_choice.model, fused_attn=None))
    record = record_of(open_choice, precision="bf16", fused_attn=False)
    chosen = prepare(open_choice, small_splits(), record).config
    assert (chosen.train.precision, chosen.model.fused_attn) == ("bf16", False)
    elsewhere = replace(record, hardware=replace(record.hardware, device="cuda"))
    assert choices_of(elsewhere, open_choice, CPU) == open_choice


def test_the_record_of_a_run_and_of_its_resumption():
    config = small_config()
    setup = prepare(config, small_splits())
    first = describe_run(setup, "patchlight train x")
    assert first.current is first
    assert first.model.trainable == (first.model.params,)
    assert (first.data.train, first.data.val, first.data.test) == (48, 12, 12)
    second = describe_run(setup, "other words", first)
    assert second.command == "patchlight train x"
    assert second.current.started >= first.started
    assert len(second.resumed) == 1
    with pytest.raises(PatchlightError, match="have changed since the run was started"):
        describe_run(prepare(config, other_splits()), "patchlight train x", first)


def test_each_thing_is_built_once(tmp_path, monkeypatch):
    """Three stages of two sizes: optimizers for each, a model for each size, one teacher."""
    _, teacher = run_fit(tmp_path, "teacher")
    built = []

    def counted(name):
        inner = getattr(setting_up, name)
        monkeypatch.setattr(setting_up, name, lambda *words, **named: built.append(name) or inner(*words, **named))

    for name in ("build_optimizers", "load_backbone", "resize_model", "Teacher"):
        counted(name)
    stages = [{"train": {"epochs": 1}}, {"train": {"epochs": 1}}, {"model": {"img_size": 8}, "train": {"epochs": 1}}]
    state, _ = run_fit(tmp_path, train={"teacher": str(teacher.path)}, stages=stages)
    assert state.epochs_done == 3
    assert sorted(built) == ["Teacher", *["build_optimizers"] * 3, "load_backbone", "resize_model"]


def test_a_rate_for_another_batch_size_is_scaled_and_said(capsys):
    config = small_config(optim={"lr": 1e-3, "lr_base_size": 96}, train={"batch_size": 12})
    (stage,) = prepare(config, small_splits()).stages
    assert stage.config.optim.lr == pytest.approx(1e-3 / 8)
    assert {group["peak_lr"] for group in stage.optimizers[0].param_groups} == {stage.config.optim.lr}
    assert "optim.lr 0.001 for batches of 96 is 0.000125 for batches of 12" in capsys.readouterr().err


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_precision_without_instructions_is_said(monkeypatch, capsys, goes_on):
    """Also where a run goes on that was started on a processor that has them."""
    config = small_config(train={"precision": "bf16", "device": "cpu"})
    before = describe_run(prepare(config, small_splits()), "patchlight train x") if goes_on else None
    monkeypatch.setattr(device, "processor_multiplies", lambda precision: False)
    capsys.readouterr()
    prepare(small_config(train={"device": "cpu"}) if goes_on else config, small_splits(), before)
    assert capsys.readouterr().err.count("no bf16 instructions") == 1


def test_a_cycle_of_momentum_is_onecycles():
    with pytest.raises(UsageError, match="cycle_momentum is for"):
        prepare(small_config(schedule={"name": "cosine", "cycle_momentum": True}), small_splits())


@pytest.mark.parametrize(("cycles", "length"), [(1, "all 8"), (2, "a cycle of 4")])
def test_a_warmup_that_is_too_long_is_said(tmp_path, capsys, cycles, length):
    schedule = {"name": "cosine_restarts", "cycles": cycles, "warmup_steps": 8 // cycles}
    run_fit(tmp_path, schedule=schedule, train={"epochs": 2, "batch_size": 12})
    assert f"the warm-up of {8 // cycles} steps is not over after {length}" in capsys.readouterr().err


def test_a_run_that_goes_on_keeps_the_interpolation_that_it_began_with(tmp_path):
    """A record without one is of a version that resized by bicubic alone, whatever the weights say."""
    _, run = run_fit(tmp_path)
    card = json.loads((run.path / "model" / "config.json").read_text())
    (run.path / "model" / "config.json").write_text(json.dumps({**card, "interpolation": "bilinear"}))
    (run.path / "model" / "manifest.jsonl").unlink()
    config = replace(small_config(), model=ModelConfig(name=str(run.path), img_size=24))
    assert prepare(config, small_splits()).card.interpolation == "bilinear"
    record = describe_run(prepare(config, small_splits()), "patchlight train x")
    assert prepare(config, small_splits(), record).card.interpolation == "bilinear"
    before = replace(record, model=replace(record.model, interpolation=None))
    assert prepare(config, small_splits(), before).card.interpolation == "bicubic"
