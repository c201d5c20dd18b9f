"""A few real steps before training, timed: what a budget is planned by. Nothing of them stays."""

from __future__ import annotations

import copy

from torch.optim.swa_utils import AveragedModel

from patchlight.machine.device import synchronize
from patchlight.training.budget import Pace, time_steps
from patchlight.training.loop import Trainer


def rehearse(trainer: Trainer, seconds: float) -> Pace:
    """Time `seconds` of steps, or a few, and a validation batch; then put model and optimizers back as they were."""
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train_mode()
    pace = Pace(time_step(trainer, seconds), time_validation(trainer))
    trainer.model.load_state_dict(before)
    for optimizer in trainer.optimizers:
        optimizer.state.clear()
    if trainer.ema is not None:
        trainer.ema = AveragedModel(trainer.model)
    return pace


def time_step(trainer: Trainer, seconds: float) -> float:
    """Median seconds of a training step, with its part in the making of the batches that are made together."""

    def step(_: int) -> None:
        trainer.train_step(0, 0)
        synchronize(trainer.device)

    def share(_: int) -> None:
        trainer.batches.group(0, 0)
        synchronize(trainer.device)

    step(0)  # its batch is there from now on
    return time_steps(step, seconds) + time_steps(share, 0.0) / trainer.batches.together


def time_validation(trainer: Trainer) -> float:
    """Seconds of a validation, by the median of one batch's; 0 where there are no validation images."""
    images = trainer.data.val
    if images is None:
        return 0.0
    few = images.select(range(min(trainer.config.eval.batch_size, len(images))))
    each_s = time_steps(lambda step: trainer.task.score(trainer.selected_model, few), 0.0) / len(few)
    return each_s * len(images)
