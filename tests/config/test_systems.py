"""The five systems' recipes have the settings that their descriptions say in numbers, and the options named there."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from patchlight.cli.parser import split_settings
from patchlight.config import load_recipe

DOCS = Path(__file__).parents[2] / "docs"
FROM_SCRATCH: dict[str, Any] = {
    "train.epochs": 100,
    "train.batch_size": 128,
    "optim.name": "adamw",
    "optim.lr": 3e-4,
    "optim.weight_decay": 0.05,
    "schedule.name": "cosine",
    "schedule.warmup_epochs": 5,
    "schedule.min_lr": 1e-6,
    "model.proj_drop_rate": 0.1,
    "model.pos_drop_rate": 0.1,
    "model.drop_path_rate": 0.1,
    "augment.mixup_alpha": 0.2,
    "augment.mix_mode": "batch",
    "train.label_smoothing": 0.1,
}
SYSTEMS: dict[str, dict[str, Any]] = {
    "vit-tiny": FROM_SCRATCH | {"model.name": "vit-tiny"},
    "vit-small": FROM_SCRATCH | {"model.name": "vit-small"},
    "vit-base": FROM_SCRATCH | {"model.name": "vit-base"},
    "vit-tiny-cpu": {
        "model.name": "deit-tiny",
        "model.proj_drop_rate": 0.1,
        "train.epochs": 100,
        "train.batch_size": 64,
        "optim.lr": 1e-3,
        "optim.weight_decay": 0.05,
        "schedule.warmup_epochs": 10,
        "augment.policy": "autoaugment",
        "train.checkpoint_every": 10,
    },
    "deit-tiny-300": {
        "model.name": "deit-tiny",
        "model.mlp_drop_rate": 0.1,
        "model.pos_drop_rate": 0.1,
        "model.attn_drop_rate": 0.0,
        "train.epochs": 300,
        "train.batch_size": 1024,
        "optim.name": "adamw",
        "optim.lr": 5e-4,
        "optim.lr_base_size": 512,  # so 1e-3 for its batches
        "optim.weight_decay": 0.05,
        "schedule.name": "onecycle",
        "schedule.cycle_momentum": True,
        "augment.policy": "randaugment",
        "augment.flip": "random",
        "augment.resized_crop_scale": (0.08, 1.0),
        "augment.mixup_alpha": 0.8,
        "augment.cutmix_alpha": 1.0,
        "augment.mix_mode": "batch",
        "train.precision": "auto",
    },
    "vit-base-frozen": {
        "model.name": "google/vit-base-patch16-224",
        "model.img_size": 224,
        "data.val_fraction": 0.1,  # 45,000 and 5,000
        "train.trainable": "head",
        "train.epochs": 10,
        "train.batch_size": 32,
        "train.drop_last": False,
        "train.checkpoint_every": 1,
        "train.select": "best",
        "optim.name": "adamw",
        "optim.lr": 5e-5,
        "optim.weight_decay": 0.01,
        "schedule.name": "linear",
        "schedule.warmup_steps": 500,
    },
    "vit-small8-two-stage": {
        "model.img_size": 32,
        "data.train_per_class": 2000,
        "data.val_per_class": 500,
        "data.subset_test_per_class": 500,
        "data.split_seed": 42,
        "data.mean": (0.4914, 0.4822, 0.4465),
        "data.std": (0.2023, 0.1994, 0.2010),
        "augment.crop_padding": 4,
        "augment.flip": "random",
        "augment.mixup_alpha": 1.0,
        "augment.cutmix_alpha": 1.0,
        "augment.mix_prob": 1.0,
        "train.label_smoothing": 0.1,
        "train.batch_size": 128,
        "train.drop_last": False,
        "train.select": "last",
        "optim.weight_decay": 0.05,
        "optim.decay_all": True,
    },
}
# What docs/recipes.md names as an option, and what it sets.
OPTIONS: list[tuple[str, str, dict[str, Any]]] = [
    (
        "deit-tiny-300",
        "--augment.resized_crop_scale none --augment.crop_padding 4",
        {"augment.resized_crop_scale": None, "augment.crop_padding": 4},
    ),
    ("vit-tiny", "--augment.policy autoaugment", {"augment.policy": "autoaugment"}),
    (
        "vit-tiny",
        "--schedule.name cosine_restarts --schedule.cycles 2",
        {"schedule.name": "cosine_restarts", "schedule.cycles": 2, "schedule.restart_warmup": True},
    ),
    ("vit-tiny", "--train.debug true", {"train.debug": True, "train.epochs": 2}),
    ("vit-base-frozen", "--train.trainable all", {"train.trainable": "all"}),
    (
        "vit-base-frozen",
        "--train.engine hf --optim.lr 2e-5 --optim.grad_clip 1",
        {"train.engine": "hf", "optim.lr": 2e-5, "optim.grad_clip": 1.0},
    ),
    (
        "vit-base-frozen",
        "--data.mean 0.485,0.456,0.406 --data.std 0.229,0.224,0.225",
        {"data.mean": (0.485, 0.456, 0.406), "data.std": (0.229, 0.224, 0.225)},
    ),
    ("vit-small", "--optim.decay_all true", {"optim.decay_all": True}),
    ("vit-tiny-cpu", "--train.drop_last false", {"train.drop_last": False}),
    ("vit-base", "--train.precision fp32", {"train.precision": "fp32"}),
]


def values_of(config: Any, keys: Any) -> dict[str, Any]:
    parts = (key.split(".") for key in keys)
    return {f"{section}.{name}": getattr(getattr(config, section), name) for section, name in parts}


@pytest.mark.parametrize("recipe", SYSTEMS)
def test_a_recipe_is_that_systems(recipe):
    wanted = SYSTEMS[recipe]
    assert values_of(load_recipe(recipe), wanted) == wanted


@pytest.mark.parametrize(("recipe", "words", "wanted"), OPTIONS, ids=lambda value: str(value)[:40])
def test_an_option_that_the_page_names(recipe, words, wanted):
    text = " ".join((DOCS / "recipes.md").read_text().split())
    assert f"`{words}`" in text
    assert f"`{recipe}`" in text
    rest, settings = split_settings(shlex.split(words))
    assert not rest
    assert values_of(load_recipe(recipe, settings), wanted) == wanted
