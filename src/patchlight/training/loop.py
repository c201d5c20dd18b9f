"""The training loop: how a Vision Transformer is trained, from top to bottom. `fit.py` runs one for each stage.

Shapes: B batch, C channels, H W pixels, K classes.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from patchlight.config import Config
from patchlight.data.batches import TrainBatches
from patchlight.data.mix import mix
from patchlight.data.splits import Splits
from patchlight.errors import Interrupted, PatchlightError
from patchlight.machine.device import autocast, resolve_device
from patchlight.machine.fastest import resolve_precision
from patchlight.machine.process import peak_memory_gb
from patchlight.machine.seeds import derive_seed
from patchlight.models import ModelCard
from patchlight.models.fused import resolve_fused, set_fused_attn
from patchlight.progress import Progress, say
from patchlight.runs import Run
from patchlight.training.budget import Budget, Pace, finish_s, plan_steps
from patchlight.training.checkpoint import list_checkpoints, load_checkpoint, prune_checkpoints, save_checkpoint
from patchlight.training.frozen import FrozenFeatures, can_keep_features, frozen_features
from patchlight.training.lines import budget_line, epoch_line, step_line, trainable_line
from patchlight.training.optim import build_optimizers, clip_gradients, update_average
from patchlight.training.schedule import learning_rate, warmup_steps
from patchlight.training.snapshots import Snapshots, can_be_taken
from patchlight.training.state import StopSignal, Stopwatch, TrainState
from patchlight.training.tasks import TASKS, Classification, Task, diverged
from patchlight.training.trainable import frozen_modules, train_mode


class Trainer:
    """What the loop holds in its hands: model, batches, optimizers, average of the weights, clock, and the state."""

    def __init__(
        self,
        model: nn.Module,
        card: ModelCard,
        data: Splits,
        config: Config,
        run: Run,
        start: TrainState | None = None,
    ) -> None:
        train = config.train
        self.config, self.run, self.card, self.data = config, run, card, data
        self.device = resolve_device(train.device)
        self.precision = resolve_precision(train.precision, self.device)
        self.model = model.to(self.device)
        self.frozen = frozen_modules(self.model)
        fused = resolve_fused(config.model.fused_attn, model, train.batch_size, self.precision, self.device)
        if fused is not None:
            set_fused_attn(model, fused)
        mode = "reduce-overhead" if train.cuda_graphs else None
        self.forward = torch.compile(self.model, mode=mode) if train.compile else self.model
        self.optimizers = build_optimizers(self.model, config.optim)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.task: Task = TASKS[train.task](config, card, model, self.device, self.precision)
        self.ema: AveragedModel | None = None
        if train.ema_decay:
            self.ema = AveragedModel(self.model)
        fill = torch.tensor([round(255 * m) for m in card.mean], dtype=torch.uint8)
        self.batches = TrainBatches(
            data.train, train.batch_size, config.augment, seed=train.seed, fill=fill, device=self.device
        )
        self.steps_per_epoch, epochs, self.budget_s = self.batches.steps_per_epoch, train.epochs, 0.0
        if train.debug:
            self.steps_per_epoch, epochs = min(2, self.steps_per_epoch), 2
        elif train.budget:
            self.budget_s = train.budget.seconds
        total = max(1, round(epochs * self.steps_per_epoch))
        self.state = replace(start or TrainState(), total_steps=total)
        self.budget: Budget | None = None
        left_out = len(data.train) - self.batches.steps_per_epoch * self.batches.batch_size
        if left_out > 0.1 * len(data.train):
            say(
                f"{len(data.train):,} training images in steps of {self.batches.batch_size} leave {left_out:,} out "
                "of each epoch (others each time); a smaller train.batch_size leaves out fewer"
            )
        self.features: FrozenFeatures | None = None
        self.snapshots: Snapshots | None = None
        if data.val is not None and can_be_taken(model, config.explain):
            self.snapshots = Snapshots(run, card, data.val, config.explain, train.seed)
        self.stages, self.rows = 1, list[dict[str, Any]]()
        self.watch = Stopwatch()
        self.steps_s = 0.0  # of training in this process, without validation

    def begin(self, stages: int, resume: bool, pace: Pace | None = None) -> None:
        """Fix the length of the stage, one of `stages`, or take up the newest checkpoint; say what is to come.

        A budget holds as many steps as `pace` allows, which `rehearse` finds out.
        """
        if pace is not None:
            self.plan(pace)
        if resume:
            self.resume()
        trained = self.config.train.trainable
        if stages > 1 or trained != "all":
            which = f"stage {self.state.stage + 1} of {stages}: " if stages > 1 else ""
            say(which + trainable_line(self.model, trained, self.epochs, self.config.optim.lr))
        self.stages, self.rows = stages, self.run.metrics()[: self.state.epochs_done]
        self.announce(pace)

    @property
    def is_over(self) -> bool:
        return self.done >= self.state.total_steps or self.state.stopped_early

    def train(self, stop: StopSignal) -> None:
        """Epoch after epoch until the stage is over."""
        self.look_once(stop)
        while not self.is_over:
            self.train_epoch(stop)
            self.pause(stop)

    def pause(self, stop: StopSignal) -> None:
        """At the end of an epoch its line; then a checkpoint. Raises Interrupted where a stop was asked for."""
        if self.state.step == self.steps_of(self.state.epoch):
            row = self.finish_epoch()
            self.rows.append({**row, "stage": self.state.stage + 1} if self.stages > 1 else row)
            self.run.write_metrics(self.rows)
            left = (self.state.total_steps - self.done) * self.batches.batch_size / row["images_per_s"]
            say(epoch_line(row, self.state.epochs_before + self.epochs, left))
        self.save()
        save_s = self.watch.lap(self.state)
        if self.budget is not None:
            self.budget.val_s += save_s
        if stop.requested:
            done = f"{self.state.epochs_done} epochs and {self.state.step} steps"
            raise Interrupted(f"stopped by {stop.requested} after {done}")

    def train_mode(self) -> None:
        train_mode(self.model, self.frozen)

    def look_once(self, stop: StopSignal) -> None:
        """Where a frozen backbone would make the same of an image each time, train the head on what it makes of it."""
        if self.is_over or not can_keep_features(self.model, self.card, self.data.train, self.config, self.precision):
            return
        say("the backbone is frozen, so each image goes through it once")
        try:
            self.features = frozen_features(self.model, self.card, self.data, self.config, self.precision, stop)
        except Interrupted:
            self.save()
            raise
        self.forward = self.model.get_submodule(self.features.head)
        self.state.epoch_s += self.watch.lap(self.state)

    def plan(self, pace: Pace) -> None:
        """As many steps as the budget holds, if this run is not resumed."""
        self.state.total_steps = plan_steps(self.budget_s - self.watch.passed(), 0, pace, self.steps_per_epoch)

    def announce(self, pace: Pace | None) -> None:
        """Say what to expect of the budget; from here on it is kept."""
        total, done, per_epoch = self.state.total_steps, self.done, self.steps_per_epoch
        if pace is not None:
            self.budget = Budget(self.budget_s, pace, per_epoch, done)
            memory, left = peak_memory_gb(self.device), finish_s(total, done, pace, per_epoch)
            images_per_s = self.batches.batch_size / pace.step_s
            say(budget_line(self.config.train.budget, self.epochs, per_epoch, images_per_s, pace.val_s, memory, left))
        if self.warmup >= total and self.config.schedule.name != "onecycle":
            say(f"the warm-up of {self.warmup} steps is not over after all {total}: the peak is not reached")

    def keep_budget(self, budget: Budget, progress: Progress) -> None:
        """Move the end where the machine has turned out to be slower or faster than it was."""
        state, passed = self.state, self.watch.passed()
        total = budget.revise(state.total_steps, self.done, self.steps_s + passed, state.wall_s + passed)
        if total != state.total_steps:
            state.total_steps = total
            progress.extend(total)
            say(
                f"at {self.batches.batch_size / budget.pace.step_s:,.0f} images/s the budget now holds "
                f"{self.epochs:.3g} epochs"
            )

    @property
    def epochs(self) -> float:
        return self.state.total_steps / self.steps_per_epoch

    @property
    def warmup(self) -> int:
        return warmup_steps(self.config.schedule, self.steps_per_epoch, self.state.total_steps)

    def steps_of(self, epoch: int) -> int:
        """All epochs are of one length, but the last may be shorter."""
        return min(self.steps_per_epoch, self.state.total_steps - epoch * self.steps_per_epoch)

    @property
    def done(self) -> int:
        """Steps finished since the start."""
        return min(self.state.epoch * self.steps_per_epoch + self.state.step, self.state.total_steps)

    def train_epoch(self, stop: StopSignal) -> None:
        """The steps of the epoch that are still to do, or those until `stop` is requested."""
        state = self.state
        self.train_mode()
        self.watch.lap(state)
        loss_sum = torch.tensor(state.loss_sum, device=self.device)
        correct = torch.tensor(state.correct, device=self.device)
        with Progress(
            state.total_steps, f"epoch {state.epochs_done + 1}/{state.epochs_before + self.epochs:.3g}", self.done
        ) as progress:
            while state.step < self.steps_of(state.epoch) and not stop.requested:
                loss, right = self.train_step(state.epoch, state.step)
                loss_sum += loss * self.batches.batch_size
                correct += right
                state.step += 1
                progress.advance()
                if self.budget is not None:
                    self.keep_budget(self.budget, progress)
                if progress.due():  # reading the sums waits for the device, so not at every step
                    state.loss_sum, state.correct = loss_sum.item(), correct.item()
                    progress.show(self.describe_step(progress))
        state.loss_sum, state.correct = loss_sum.item(), correct.item()
        passed = self.watch.lap(state)
        state.epoch_s += passed
        self.steps_s += passed

    def train_step(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Forward, loss, backward, clip, step, average. The batch's mean loss and right answers, on the device."""
        train = self.config.train
        torch.manual_seed(derive_seed(train.seed, "dropout", self.state.epochs_before + epoch, step))
        images, targets, labels = self.make_inputs(epoch, step)

        mean_loss, correct = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        size = train.micro_batch_size or len(images)
        for part, target, label in zip(images.split(size), targets.split(size), labels.split(size), strict=True):
            if train.cuda_graphs:
                torch.compiler.cudagraph_mark_step_begin()  # the outputs of the step before may be overwritten
            with autocast(self.precision, self.device):
                answer = self.forward(part)
            loss, right = self.task.loss(answer, part, target, label)
            loss = loss * (len(part) / len(images))
            self.scaler.scale(loss).backward()
            mean_loss += loss.detach()
            if right is not None:
                correct += right

        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        if self.config.optim.grad_clip:
            clip_gradients(self.model, self.config.optim.grad_clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                rate = self.lr(epoch * self.steps_per_epoch + step, group["peak_lr"])
                group["lr"] = group["lr_scale"] * rate
            self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        if self.ema is not None:
            update_average(self.ema, self.model, self.config.train.ema_decay)
        return mean_loss, correct

    def lr(self, step: int, peak: float) -> float:
        return learning_rate(step, self.state.total_steps, peak, self.config.schedule, self.warmup)

    def is_strong(self, epoch: int, step: int) -> bool:
        """Policies, erasing and mixing are on."""
        return epoch * self.steps_per_epoch + step < self.config.augment.strong_until * self.state.total_steps

    def is_mixed(self, epoch: int, step: int) -> bool:
        augment = self.config.augment
        return self.is_strong(epoch, step) and bool(augment.mixup_alpha or augment.cutmix_alpha)

    def counts_right(self, epoch: int, step: int) -> bool:
        """Of mixed images, and of painted ones, there is no one right answer to count."""
        return self.config.train.task == "classify" and not self.is_mixed(epoch, step)

    def make_inputs(self, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, C, H, W) or their features (B, D), float; targets (B,) or, where mixed, (B, K); and the images'
        own labels (B,).
        """
        if self.features is not None:
            features, targets = self.features.batch(self.batches.indices(self.state.epochs_before + epoch, step))
            return features, targets, targets
        batch = self.batches.batch(self.state.epochs_before + epoch, step, strong=self.is_strong(epoch, step))
        images = self.card.to_input(batch.images)
        if not self.is_mixed(epoch, step):
            return images, batch.targets, batch.targets
        mixed, targets = mix(images, batch.targets, len(self.card.class_names), self.config.augment, batch.generator)
        return mixed, targets, batch.targets

    def finish_epoch(self) -> dict[str, Any]:
        """Validate, keep the weights if they are to be kept, go on to the next epoch; the line for `metrics.jsonl`."""
        state = self.state
        if not math.isfinite(state.loss_sum):
            raise PatchlightError(diverged(f"the loss became {state.loss_sum} in epoch {state.epoch + 1}"))
        train, steps = self.config.train, state.step
        images, done = steps * self.batches.batch_size, self.done
        val_loss, val_top1 = self.validate()
        row: dict[str, Any] = {
            "epoch": state.epochs_done + 1,
            "step": state.steps_before + done,
            "lr": self.lr(done - 1, self.config.optim.lr),
            "train/loss": state.loss_sum / images,
            "train/top1": state.correct / images if self.counts_right(state.epoch, 0) else None,
            "val/loss": val_loss,
            "val/top1": val_top1,
            "images_per_s": images / state.epoch_s,
            "epoch_s": state.epoch_s,
        }
        state.epoch, state.step, state.loss_sum, state.correct, state.epoch_s = state.epoch + 1, 0, 0.0, 0.0, 0.0
        # What paints has no accuracy: its loss decides.
        row["best"] = val_loss is not None and state.improve(val_top1 or 0.0, val_loss)
        if row["best"]:
            state.best_step = row["step"]
        if train.checkpoint_every and state.epochs_done % train.checkpoint_every == 0:
            state.kept_steps.append(row["step"])
        if row["best"] or train.select == "last":
            self.task.keep(self.selected_model, self.run, self.data.test if self.data.val is None else self.data.val)
        if self.snapshots is not None and self.snapshots.due(state.epochs_done):
            self.snapshots.take(self.selected_model, state.epochs_done)
        patience = train.early_stop_epochs
        since = state.epochs_done - max(state.best_epoch, state.epochs_before)
        state.stopped_early = bool(patience) and val_loss is not None and since >= patience
        val_s = self.watch.lap(state)
        if self.budget is not None:
            self.budget.val_s = val_s
        return {**row, "wall_s": state.wall_s}

    @property
    def selected_model(self) -> nn.Module:
        """The weights that are validated and kept: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def validate(self) -> tuple[float | None, float | None]:
        """Loss and top-1 of the selected weights on the validation images, if any, in the precision of training."""
        if self.data.val is None:
            return None, None
        if self.features is None:
            return self.task.score(self.selected_model, self.data.val)
        assert isinstance(self.task, Classification)
        logits = self.features.val_logits(self.selected_model, self.precision)
        return self.task.score_of(logits, self.data.val)

    def save(self) -> None:
        """The checkpoint from which training can go on; of the older ones the best and every n-th stay."""
        state = self.state
        state.scaler = self.scaler.state_dict()
        folder = self.run.path / "checkpoints"
        step = state.steps_before + self.done
        path = save_checkpoint(folder, step, self.model, self.ema, self.optimizers, asdict(state))
        prune_checkpoints(folder, path, {*state.kept_steps, state.best_step})

    def resume(self) -> None:
        """Put everything back as it was at the newest checkpoint, if there is one."""
        found = list_checkpoints(self.run.path / "checkpoints")
        if not found:
            return
        state = TrainState.from_dict(load_checkpoint(found[-1], self.model, self.ema, self.optimizers), str(found[-1]))
        if state.scaler:
            self.scaler.load_state_dict(state.scaler)
        self.state = state
        say(f"resuming from {found[-1]}: {state.epochs_done} epochs and {state.step} steps are done")

    def describe_step(self, progress: Progress) -> str:
        state, size = self.state, self.batches.batch_size
        seen = state.step * size
        pace = size * (progress.done - progress.first) / (time.monotonic() - progress.started)
        accuracy = state.correct / seen if self.counts_right(state.epoch, state.step) else None
        return step_line(state.loss_sum / seen, accuracy, self.lr(self.done - 1, self.config.optim.lr), pace)
