"""The second engine: Hugging Face's `Trainer` makes the steps of a stage.

Batches, loss, rates and random numbers are Patchlight's, so its losses are the loop's; so is all that follows an epoch
(validation, the best weights, checkpoints, the line for `metrics.jsonl`), which is called back from it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from patchlight.machine.compat import use_one_gpu
from patchlight.machine.device import autocast
from patchlight.training.loop import Trainer
from patchlight.training.optim import clip_gradients, update_average
from patchlight.training.state import StopSignal

StepNumber = dict[str, Tensor]  # what stands for a batch, which `begin_step` makes


def run(trainer: Trainer, stop: StopSignal) -> None:
    """Make the steps of the stage from where it stands; raises Interrupted as the loop does."""
    stage, state = trainer.stage, trainer.state
    if state.is_over:
        return
    with tempfile.TemporaryDirectory() as folder:  # for files of its own, which it does not write
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            max_steps=state.total_steps - state.done,
            per_device_train_batch_size=stage.batch_size,
            max_grad_norm=stage.config.optim.grad_clip,
            seed=stage.config.train.seed,
            use_cpu=stage.device.type == "cpu",
            save_strategy="no",
            logging_strategy="no",
            eval_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            logging_nan_inf_filter=False,
        )
        use_one_gpu(arguments)
        HuggingFaceTrainer(trainer, stop, arguments).train()


class StepNumbers:
    """The data loader of Hugging Face's `Trainer`: the numbers of the steps that are still to come."""

    def __init__(self, first: int, end: int) -> None:
        self.steps = range(first, end)

    def __iter__(self) -> Iterator[StepNumber]:
        for step in self.steps:
            yield {"step": torch.tensor(step)}


class HuggingFaceTrainer(transformers.Trainer):
    """Hugging Face's `Trainer` on the model, optimizer and batches of Patchlight's."""

    def __init__(self, ours: Trainer, stop: StopSignal, arguments: Any) -> None:
        self.ours, self.task = ours, ours.stage.task
        self.loss, self.correct = torch.zeros(()), torch.zeros(())  # of the newest step
        optimizer = ours.stage.optimizers[0]
        super().__init__(
            model=ours.stage.model,
            args=arguments,
            optimizers=(optimizer, LambdaLR(optimizer, lambda _: 1.0)),  # `begin_step` sets the rates
            callbacks=[AfterStep(self, stop)],
        )
        self.remove_callback(transformers.PrinterCallback)  # standard output is for results

    def get_train_dataloader(self) -> Any:
        return StepNumbers(self.ours.state.done, self.ours.state.total_steps)

    def compute_loss(
        self, model: nn.Module, inputs: StepNumber, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        state, stage = self.ours.state, self.ours.stage
        stage.train_mode()  # Hugging Face's puts frozen parts in training mode, too
        images, targets = self.ours.begin_step(state.epoch, state.step)
        with autocast(stage.precision, stage.device):  # the library's own would stay on for validation and maps
            output = model(images)
        loss, correct = self.task.loss(output, images, targets)
        self.loss = loss.detach()
        self.correct = torch.zeros_like(self.loss) if correct is None else correct
        return (loss, output) if return_outputs else loss


class AfterStep(transformers.TrainerCallback):
    """What the loop does between two steps."""

    def __init__(self, theirs: HuggingFaceTrainer, stop: StopSignal) -> None:
        self.theirs, self.stop = theirs, stop

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        ours = self.theirs.ours
        norm = clip_gradients(ours.stage.model, 0.0)
        ours.check_step(ours.state.epoch, ours.state.step, self.theirs.loss, norm)

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> Any:
        ours, stage = self.theirs.ours, self.theirs.ours.stage
        if stage.average is not None:
            update_average(stage.average, stage.model, stage.config.train.ema_decay)
        ours.end_step(self.theirs.loss, self.theirs.correct)
        if ours.epoch_is_over or self.stop.requested:
            ours.pause(self.stop)
        control.should_training_stop = ours.state.is_over
        return control
