"""Every setting of a recipe: its name, type, default, meaning and range; a module for each kind.

The meaning stands in the annotation, so that help texts and checks are made of it. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from patchlight.config.fields import RATE, Section
from patchlight.config.sections.data import AugmentConfig, CropMode, DataConfig, Flip, Interpolation
from patchlight.config.sections.model import LoraConfig, MaeConfig, ModelConfig
from patchlight.config.sections.results import EvalConfig, ExplainConfig
from patchlight.config.sections.training import OptimConfig, Precision, ScheduleConfig, TrainConfig

__all__ = [
    "SECTIONS",
    "STAGE_FIELDS",
    "About",
    "AugmentConfig",
    "CropMode",
    "DataConfig",
    "EvalConfig",
    "ExplainConfig",
    "Flip",
    "Interpolation",
    "LoraConfig",
    "MaeConfig",
    "ModelConfig",
    "OptimConfig",
    "Precision",
    "ScheduleConfig",
    "TrainConfig",
]


@dataclass(frozen=True)
class About(Section):
    """What a recipe says of itself; nothing here changes the training."""

    name: Annotated[str, "the recipe's name, and its run's folder in runs/ unless --out names another"] = "run"
    title: Annotated[str, "what the recipe trains, in one line"] = ""
    source: Annotated[str, "the paper or system that the settings come from"] = ""
    command: Annotated[str, "the command that trains by this recipe"] = ""
    cost: Annotated[str, "how long training takes, and on which hardware"] = ""
    expect: Annotated[str, "the result to expect, and who measured it"] = ""
    top1: Annotated[float | None, "the test accuracy after train.epochs that about.expect states", RATE] = None


SECTIONS: dict[str, type[Section]] = {
    "about": About,
    "data": DataConfig,
    "augment": AugmentConfig,
    "model": ModelConfig,
    "optim": OptimConfig,
    "schedule": ScheduleConfig,
    "train": TrainConfig,
    "lora": LoraConfig,
    "mae": MaeConfig,
    "eval": EvalConfig,
    "explain": ExplainConfig,
}

# What a stage of training may change; all other settings are the same in all stages.
STAGE_FIELDS = (
    "data.sampler",
    "augment.",
    "optim.",
    "schedule.",
    "model.img_size",
    "train.epochs",
    "train.budget",
    "train.trainable",
    "train.batch_size",
    "train.micro_batch_size",
    "train.label_smoothing",
    "train.class_weights",
    "train.early_stop_epochs",
)
