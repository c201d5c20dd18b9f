"""The second engine: Hugging Face's `Trainer` makes the steps of a stage.

It gets Patchlight's batches, loss, rates and random numbers, so that its losses are the loop's; what follows an epoch
(validation, the best weights, checkpoints, the line for `metrics.jsonl`) is the loop's own, called back from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from patchlight.machine.compat import use_one_gpu
from patchlight.machine.seeds import derive_seed
from patchlight.training.loop import Trainer
from patchlight.training.optim import update_average
from patchlight.training.state import StopSignal

Batch = dict[str, Tensor]


def train(trainer: Trainer, stop: StopSignal) -> None:
    """Make the steps of the stage that `trainer` holds, from where it stands; raises Interrupted as the loop does."""
    if trainer.is_over:
        return
    arguments = transformers.TrainingArguments(
        output_dir=str(trainer.run.path),
        max_steps=trainer.state.total_steps - trainer.done,
        per_device_train_batch_size=trainer.batches.batch_size,
        max_grad_norm=trainer.config.optim.grad_clip,
        seed=trainer.config.train.seed,
        bf16=trainer.precision == "bf16",
        use_cpu=trainer.device.type == "cpu",
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
    engine = Engine(trainer, stop, arguments)
    engine.train()


class Batches:
    """The batches of a stage that are still to come, epoch after epoch, as the data loader of the `Trainer`."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def __iter__(self) -> Iterator[Batch]:
        trainer, state = self.trainer, self.trainer.state
        epoch, step = state.epoch, state.step
        while epoch * trainer.steps_per_epoch + step < state.total_steps:
            images, targets, labels = trainer.make_inputs(epoch, step)
            yield {"pixel_values": images, "targets": targets, "own_labels": labels}
            step += 1
            if step == trainer.steps_of(epoch):
                epoch, step = epoch + 1, 0


class Engine(transformers.Trainer):
    """A `Trainer` on what Patchlight's has made: its model, optimizer, batches and rates."""

    def __init__(self, ours: Trainer, stop: StopSignal, arguments: Any) -> None:
        self.ours = ours
        self.loss_sum = torch.tensor(ours.state.loss_sum, device=ours.device)
        self.correct = torch.tensor(ours.state.correct, device=ours.device)
        super().__init__(
            model=ours.model, args=arguments, optimizers=(ours.optimizers[0], None), callbacks=[AfterStep(self, stop)]
        )
        self.remove_callback(transformers.PrinterCallback)  # standard output is for results

    def get_train_dataloader(self) -> Any:
        return Batches(self.ours)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Patchlight's rates; each group has its own peak."""
        ours, done = self.ours, self.ours.done
        inner = ours.optimizers[0]

        def rate(peak: float) -> Callable[[int], float]:
            return lambda step: ours.lr(min(done + step, ours.state.total_steps - 1), peak) / peak

        for group in inner.param_groups:
            group["lr"] = group["initial_lr"] = group["lr_scale"] * group["peak_lr"]
        self.lr_scheduler = LambdaLR(inner, [rate(group["peak_lr"]) for group in inner.param_groups])
        return self.lr_scheduler

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        """With the loop's random numbers for dropout, which depend on epoch and step alone."""
        state, seed = self.ours.state, self.ours.config.train.seed
        torch.manual_seed(derive_seed(seed, "dropout", state.epochs_before + state.epoch, state.step))
        return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        self.ours.train_mode()  # the Trainer puts frozen parts in training mode, too
        images = inputs["pixel_values"]
        answer = model(images)
        loss, right = self.ours.task.loss(answer, images, inputs["targets"], inputs["own_labels"])
        self.loss_sum += loss.detach() * len(images)
        if right is not None:
            self.correct += right
        return (loss, answer) if return_outputs else loss


class AfterStep(transformers.TrainerCallback):
    """What the loop does between two steps."""

    def __init__(self, engine: Engine, stop: StopSignal) -> None:
        self.engine, self.stop = engine, stop

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.engine.ours.watch.lap(self.engine.ours.state)

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> Any:
        engine, ours = self.engine, self.engine.ours
        ours.state.step += 1
        if ours.ema is not None:
            update_average(ours.ema, ours.model, ours.config.train.ema_decay)
        if ours.state.step == ours.steps_of(ours.state.epoch) or self.stop.requested:
            ours.state.loss_sum, ours.state.correct = engine.loss_sum.item(), engine.correct.item()
            ours.state.epoch_s += ours.watch.lap(ours.state)
            ours.pause(self.stop)
            engine.loss_sum.fill_(ours.state.loss_sum)
            engine.correct.fill_(ours.state.correct)
            ours.model.train()
        control.should_training_stop = ours.is_over
        return control
