"""A stage of training, ready to run: what `setup.py` makes, and the loop trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from patchlight.config import Config
from patchlight.models import ModelCard, structure_of
from patchlight.models.adapt import adapt_weights
from patchlight.training.tasks import Task
from patchlight.training.trainable import train_mode


@dataclass(frozen=True)
class Stage:
    """All that a stage needs, each thing made once. Its tensors change in training; nothing else does.

    Stages whose images are of one size share a model and its average.
    """

    config: Config  # without stages; precision and kind of attention are decided
    number: int  # from 1
    count: int  # of all stages
    batch_size: int
    steps_per_epoch: int
    images_per_epoch: int
    total_steps: int  # by train.epochs, without a budget
    device: torch.device
    model: nn.Module
    card: ModelCard
    forward: Callable[..., Any]  # the model, compiled where the recipe asks for it
    task: Task
    class_weights: tuple[float, ...] | None  # what an image counts in the loss, by its class; None: all alike
    optimizers: list[Optimizer]
    scaler: torch.amp.GradScaler  # of the loss in fp16; it does nothing in other precisions
    average: AveragedModel | None  # of the weights, where the recipe asks for it
    trainable: frozenset[str]  # names of the parameters that are trained
    frozen: tuple[nn.Module, ...]  # parts without any, which stay in evaluation mode

    @property
    def precision(self) -> str:
        return self.config.train.precision

    @property
    def budget_s(self) -> float:
        """Seconds of the budget; 0 without one, and in debugging, whose epochs are counted."""
        train = self.config.train
        return train.budget.seconds if train.budget and not train.debug else 0.0

    @property
    def selected_model(self) -> nn.Module:
        """The weights that are validated and kept: the moving average where there is one."""
        return self.model if self.average is None else self.average.module

    @property
    def kept_model(self) -> nn.Module:
        """Of those what is saved as the result: of a masked autoencoder the encoder."""
        return self.task.kept_part(self.selected_model)

    def images_in(self, steps: int) -> int:
        """How many images the first `steps` steps of the stage have; the last step of an epoch may have fewer."""
        epochs, step = divmod(steps, self.steps_per_epoch)
        return epochs * self.images_per_epoch + min(step * self.batch_size, self.images_per_epoch)

    def begin(self, before: nn.Module) -> None:
        """Go on with the weights of the model that was trained `before`, positions resampled where the size differs."""
        if before is not self.model:
            weights = adapt_weights(before.state_dict(), structure_of(self.model), new_head=False)
            self.model.load_state_dict(weights)
        for name, p in self.model.named_parameters():
            p.requires_grad_(name in self.trainable)
            p.grad = None
        self.reset_average()

    def reset_average(self) -> None:
        """Let the moving average begin with the model as it is."""
        if self.average is not None:
            self.average.module.load_state_dict(self.model.state_dict())
            self.average.n_averaged.zero_()

    def train_mode(self) -> None:
        """Training mode for all but the frozen parts."""
        train_mode(self.model, self.frozen)
