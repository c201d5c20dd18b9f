"""The loop and Hugging Face's Trainer: the same recipe, seed and batches give the same losses, step by step."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from small import rows_of, run_fit, small_config, small_splits, stopped_at_save

from patchlight.cli.main import main
from patchlight.config import config_from_dict
from patchlight.errors import UsageError
from patchlight.runs import Run, Snapshots
from patchlight.runs.folder import CONTENTS
from patchlight.training.fit import fit
from patchlight.training.loop import Trainer
from patchlight.training.setup import prepare

RECIPES = {
    "plain": {},
    "everything": {
        "model": {"drop_path_rate": 0.2, "proj_drop_rate": 0.1, "attn_drop_rate": 0.1},
        "augment": {"crop_padding": 2, "flip": "random", "mixup_alpha": 0.8, "cutmix_alpha": 1.0, "erasing_prob": 0.3},
        "optim": {"grad_clip": 1.0, "layer_decay": 0.8, "lr": 3e-3},
        "schedule": {"name": "cosine", "warmup_epochs": 1, "min_lr": 1e-5},
        "train": {"label_smoothing": 0.1, "ema_decay": 0.9, "epochs": 2.5, "batch_size": 20, "drop_last": False},
    },
    "uneven classes": {
        "data": {"sampler": "balanced"},
        "augment": {"mixup_alpha": 0.8, "mix_prob": 0.5},
        "train": {"class_weights": [0.5, 2.0, 5.0], "label_smoothing": 0.1, "select": "best_f1"},
    },
    "sgd, frozen": {
        "optim": {"name": "sgd", "lr": 0.05},
        "schedule": {"name": "onecycle"},
        "train": {"trainable": "last 1"},
    },
}


def recipe(name: str, engine: str, **train):
    sections = {key: dict(values) for key, values in RECIPES[name].items()}
    sections["train"] = {"batch_size": 16, **sections.get("train", {}), "engine": engine, **train}
    return small_config(**sections)


def losses_of(tmp_path, monkeypatch, config, resume=False):
    """The loss of each step, the run, and the weights at the end."""
    losses = []
    if config.train.engine == "loop":
        step = Trainer.train_step

        def watched(self, *args):
            loss, right = step(self, *args)
            losses.append(loss.item())
            return loss, right

        monkeypatch.setattr(Trainer, "train_step", watched)
    else:
        from patchlight.training.hf_trainer import HuggingFaceTrainer

        inner = HuggingFaceTrainer.compute_loss

        def seen(self, *args, **options):
            loss = inner(self, *args, **options)
            losses.append(loss.item())
            return loss

        monkeypatch.setattr(HuggingFaceTrainer, "compute_loss", seen)
    setup = prepare(config, small_splits())
    run = Run.create(tmp_path, config, resume=resume)
    try:
        fit(setup, run, resume=resume)
    finally:
        monkeypatch.undo()
    return losses, run, setup.model


@pytest.mark.parametrize("name", RECIPES)
def test_both_engines_make_the_same_steps(tmp_path, monkeypatch, name):
    ours, run, model = losses_of(tmp_path / "loop", monkeypatch, recipe(name, "loop"))
    theirs, other, their_model = losses_of(tmp_path / "hf", monkeypatch, recipe(name, "hf"))
    assert len(ours) == len(theirs) > 4
    assert theirs == pytest.approx(ours, rel=1e-5)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(their_model.state_dict()[key], value, atol=1e-4, rtol=1e-4)
    keys = ("epoch", "step", "lr", "best")
    assert [[row[key] for key in keys] for row in rows_of(run)] == [
        [row[key] for key in keys] for row in rows_of(other)
    ]
    for key in ("train/loss", "train/top1", "val/loss", "val/top1"):
        assert [row[key] for row in rows_of(other)] == pytest.approx([row[key] for row in rows_of(run)], rel=1e-4)


def test_a_stopped_run_of_the_trainer_goes_on(tmp_path, monkeypatch):
    config = recipe("everything", "hf", epochs=3)
    whole, run, model = losses_of(tmp_path / "whole", monkeypatch, config)
    with stopped_at_save(1):
        losses_of(tmp_path / "cut", monkeypatch, config)
    rest, cut, again = losses_of(tmp_path / "cut", monkeypatch, config, resume=True)
    assert rest == pytest.approx(whole[len(whole) - len(rest) :], rel=1e-6)
    assert len(rows_of(cut)) == len(rows_of(run))
    for key, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value)


def test_stages_with_the_trainer(tmp_path, monkeypatch):
    stages = [{"train": {"trainable": "head", "epochs": 1}}, {"train": {"epochs": 1}}]
    runs = {}
    for engine in ("loop", "hf"):
        config = config_from_dict({**recipe("plain", engine).to_dict(), "stages": stages})
        runs[engine], _, _ = losses_of(tmp_path / engine, monkeypatch, config)
    assert runs["hf"] == pytest.approx(runs["loop"], rel=1e-5)


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        ({"optim": {"name": "muon"}}, "optim.name 'muon', which is two optimizers"),
        ({"train": {"budget": "1m"}}, "train.budget"),
        ({"train": {"micro_batch_size": 4}}, "train.micro_batch_size"),
        ({"train": {"precision": "fp16"}}, "train.precision 'fp16'"),
    ],
)
def test_what_the_trainer_cannot_do_is_told_before_training(sections, what):
    config = small_config(**{**sections, "train": {**sections.get("train", {}), "engine": "hf"}})
    with pytest.raises(UsageError, match=f"train.engine 'hf' cannot do {what}"):
        prepare(config, small_splits())


@pytest.mark.slow
def test_its_run_ends_in_the_same_report(tmp_path, capsys, no_charts):
    words = ["train", "finetune", "--data.source", "digits", "--train.debug", "--data.train_per_class", "10"]
    words += ["--data.val_per_class", "4", "--data.test_per_class", "4", "--model.img_size", "32"]
    from saved import save_hugging_face

    words += ["--model.name", str(save_hugging_face(tmp_path / "weights")), "--train.device", "cpu"]
    pages = {}
    for engine in ("loop", "hf"):
        path = tmp_path / engine
        capsys.readouterr()
        assert main([*words, "--train.engine", engine, "--train.precision", "fp32", "--out", str(path), "--json"]) == 0
        pages[engine] = json.loads(capsys.readouterr().out)  # the Trainer's own lines would be no JSON
        assert ("Hugging Face's Trainer" in (path / "report.html").read_text().replace("&#39;", "'")) == (
            engine == "hf"
        )
        assert {p.name for p in path.iterdir()} <= {*CONTENTS, "manifest.jsonl", ".lock"}
    assert pages["hf"]["loss"] == pytest.approx(pages["loop"]["loss"], rel=1e-4)


def test_precision_of_steps_is_not_that_of_what_follows_an_epoch(tmp_path):
    """In bf16 the steps are autocast; the maps of snapshots, which are in fp32, are not disturbed."""
    _, run = run_fit(
        tmp_path,
        train={"engine": "hf", "precision": "bf16", "batch_size": 16},
        optim={"name": "adamw"},
        explain={"snapshots_every": 1},
    )
    assert len(run.epochs()) == 2
    assert run.read(Snapshots).maps.dtype == np.float32
