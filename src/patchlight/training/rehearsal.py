"""A few real steps before training, timed, so that a budget can be shared out. Nothing of them stays."""

from __future__ import annotations

import copy

from patchlight.machine.device import synchronize
from patchlight.training.budget import Pace, time_steps
from patchlight.training.loop import Trainer


def rehearse(trainer: Trainer, seconds: float) -> Pace:
    """Time `seconds` of steps, or a few, and a validation batch; then put the stage's tensors back as they were."""
    stage = trainer.stage
    weights, scale = copy.deepcopy(stage.model.state_dict()), stage.scaler.state_dict()
    stage.train_mode()
    pace = Pace(time_step(trainer, seconds), time_validation(trainer))
    stage.model.load_state_dict(weights)
    stage.scaler.load_state_dict(scale)
    for optimizer in stage.optimizers:
        optimizer.state.clear()
    stage.reset_average()
    return pace


def time_step(trainer: Trainer, seconds: float) -> float:
    """Median seconds of a training step, with its part of the time of batches that are made together."""
    batches, device = trainer.batches, trainer.stage.device

    def step(_: int) -> None:
        trainer.train_step(0, 0)
        synchronize(device)

    def make_batches(_: int) -> None:
        batches.group(0, 0)
        synchronize(device)

    step(0)  # its batch is there from now on
    return time_steps(step, seconds) + time_steps(make_batches, 0.0) / batches.together


def time_validation(trainer: Trainer) -> float:
    """Seconds of a validation, by the median of one batch's; 0 where there are no validation images."""
    images, stage = trainer.data.val, trainer.stage
    if images is None:
        return 0.0
    few = images.select(range(min(stage.config.eval.batch_size, len(images))))
    each_s = time_steps(lambda step: stage.task.score(stage.selected_model, few), 0.0) / len(few)
    return each_s * len(images)
