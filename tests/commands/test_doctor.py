"""The doctor: what it finds on this machine, and whether its forecast is what training then does."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from patchlight.cli.main import main
from patchlight.commands import doctor as module
from patchlight.commands.doctor import Checkup, Forecast, doctor
from patchlight.config import load_recipe
from patchlight.data.sources import TRAIN_IMAGES, load_source
from patchlight.errors import UsageError
from patchlight.training.budget import Pace

ROW = Forecast(
    recipe="",
    images_per_s=1.0,
    epochs=1.0,
    share=1.0,
    enough=True,
    own_s=1.0,
    memory_gb=1.0,
    top1=None,
    source="cifar10",
)


@pytest.mark.parametrize("name", ["digits", "planted"])
def test_the_known_sizes_are_the_sources_own(name):
    assert len(load_source(name)["train"]) == TRAIN_IMAGES[name]


@pytest.mark.slow
def test_the_known_size_of_cifar10(cifar10_parquet):
    assert len(load_source(str(cifar10_parquet))["train"]) == TRAIN_IMAGES["cifar10"]


def test_the_machine():
    checkup = doctor(device="cpu")
    assert checkup.precision in ("fp32", "bf16")
    assert (checkup.bf16_speedup is None) == (module.probe_precision(torch.device("cpu")) is None)
    assert checkup.threads == torch.get_num_threads()
    plain = json.loads(json.dumps(checkup.to_json(), allow_nan=False))
    assert Checkup.from_json(plain) == checkup
    assert plain.keys() == {
        *("hardware", "versions", "device", "precision", "bf16_speedup", "threads", "allocator", "compiler", "advice")
    }


def test_the_best_is_the_most_accurate_that_is_trained_for_long_enough():
    rows = [
        replace(ROW, recipe="short", share=1.5, top1=0.8),
        replace(ROW, recipe="long", share=1.0, top1=0.9),
        replace(ROW, recipe="too long", share=0.2, top1=0.95),
        replace(ROW, recipe="unknown", share=9.0, top1=None),
        replace(ROW, recipe="digits", share=9.0, top1=0.99, source="digits"),
    ]
    assert module.best(rows).recipe == "long"
    assert module.best(rows[2:]).recipe == "too long"
    assert module.best(rows[3:]) is None


def test_a_forecast_of_one_recipe(monkeypatch):
    monkeypatch.setattr(module, "recipe_names", lambda: ["quickstart"])
    result = doctor("1m", device="cpu")
    (row,) = result.recipes
    assert row.recipe == "quickstart"
    assert row.images_per_s > 1
    assert row.memory_gb > 0.05
    assert result.best is None  # it is for digits


def test_a_forecast_is_what_the_pace_says(monkeypatch):
    """0.1 s a step and, of the doctor's few validation images, 0.5 s."""
    monkeypatch.setattr(module, "recipe_names", lambda: ["cifar10-cpu-10min"])
    monkeypatch.setattr(module, "rehearse", lambda trainer, seconds: Pace(0.1, 0.5))
    (row,) = doctor("2m", device="cpu").recipes
    steps, val_s = 45_000 // 256, 0.5 * 5_000 / module.VAL_IMAGES
    epoch_s = 0.1 * steps + val_s
    planned = round(row.epochs * steps)
    assert 0.1 * planned + val_s * math.ceil(planned / steps) <= 120
    assert 0.1 * (planned + 1) + val_s * math.ceil((planned + 1) / steps) > 120
    assert row.images_per_s == pytest.approx(2560)
    recipe = load_recipe("cifar10-cpu-10min").train
    assert row.share == pytest.approx(row.epochs / recipe.epochs)
    assert row.own_s == pytest.approx(recipe.epochs * epoch_s)


@pytest.mark.slow
def test_a_recipe_without_labels_is_tried_too(monkeypatch):
    monkeypatch.setattr(module, "recipe_names", lambda: ["mae-cifar10"])
    result = doctor("1m", device="cpu")
    (row,) = result.recipes
    assert row.images_per_s > 1
    assert row.top1 is None
    assert result.best is None  # it has no accuracy


def test_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(module, "recipe_names", lambda: ["quickstart"])
    assert main(["doctor", "--budget", "30s", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "precision" in out
    assert "epochs in 0:30" in out
    assert "advice: " in out
    assert main(["doctor", "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == "cpu"
    assert main(["doctor", "--budget", "soon"]) == 2
    assert '--budget must be a time such as "90s"' in capsys.readouterr().err


def test_a_time_is_needed():
    with pytest.raises(UsageError, match="must be a time"):
        doctor("ten minutes", device="cpu")


def test_every_recipe_can_be_forecast():
    """Its source has a known size, or it is left out on purpose."""
    assert sorted(module.recipes_not_tried()) == ["finetune", "vit-base-frozen", "vit-small8-two-stage"]


def test_a_recipe_that_does_not_fit_is_left_out(monkeypatch, capsys):
    forecast = module._forecast

    def full(config, seconds):
        if config.about.name == "planted":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forecast(config, seconds)

    monkeypatch.setattr(module, "recipe_names", lambda: ["planted", "quickstart"])
    monkeypatch.setattr(module, "can_be_forecast", lambda config: True)
    monkeypatch.setattr(module, "_forecast", full)
    assert [row.recipe for row in doctor("20s", device="cpu").recipes] == ["quickstart"]
    assert "planted does not fit into the memory" in capsys.readouterr().err
