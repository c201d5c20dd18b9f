"""The training loop: how a Vision Transformer is trained, from top to bottom.

`setup.py` builds what a stage needs, `fit.py` gives it to a `Trainer`, stage after stage.

Shapes: B batch, C channels, H W pixels, D features, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from patchlight.analysis.snapshots import SnapshotWriter, are_wanted
from patchlight.data.splits import Splits
from patchlight.errors import PatchlightError, diverged, first_of
from patchlight.machine.device import autocast
from patchlight.machine.seeds import derive_seed
from patchlight.progress import Progress, say
from patchlight.runs import EarlyStop, Epoch, Run, measure_of
from patchlight.training.budget import Budget, Pace
from patchlight.training.checkpoint import save
from patchlight.training.frozen import FrozenFeatures
from patchlight.training.inputs import make_batches, mixes, model_input
from patchlight.training.lines import epoch_label, epoch_line, step_line
from patchlight.training.optim import clip_gradients, set_momentum, update_average
from patchlight.training.schedule import learning_rate, momentum, warmup_steps
from patchlight.training.stage import Stage
from patchlight.training.state import SKIPPED_AT_MOST, StopSignal, Stopwatch, TrainState
from patchlight.training.tasks import Classification, Validation

OnEpoch = Callable[[Epoch], None]  # what a user's program does with the record of each epoch


class Trainer:
    """Trains one stage: step after step and, at the end of an epoch, validation, selection and a checkpoint.

    `run` is the whole loop. Another engine makes the steps itself: it calls `begin_step` before and `end_step` after
    each, and `pause` when an epoch is over. `train_step` alone changes nothing but the stage's tensors.
    """

    def __init__(
        self,
        stage: Stage,
        data: Splits,
        folder: Run,
        state: TrainState,
        *,
        pace: Pace | None = None,
        features: FrozenFeatures | None = None,
        watch: Stopwatch | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        """Begin at `state`, in which the stage's number of steps is known.

        `pace` is what a rehearsal found; without it a budget is not kept. `features` take the place of images. `watch`
        has run since the stage began. `on_epoch` is called with each epoch's record, after its checkpoint.
        """
        assert state.total_steps
        config = stage.config
        self.stage, self.data, self.state = stage, data, state
        self.batches = make_batches(data.train, stage.config, stage.card, stage.device)
        self._features = features
        self._forward = stage.forward if features is None else stage.model.get_submodule(features.head)
        self._warmup = warmup_steps(config.schedule, stage.steps_per_epoch, state.total_steps)
        self._measure = measure_of(config.train.select)
        self._lr = 0.0  # of the newest step
        self._loss_sum = torch.tensor(state.loss_sum, device=stage.device)  # of the epoch under way, as `state` has
        self._correct = torch.tensor(state.correct, device=stage.device)  # them when they were last read
        self._folder, self._rows = folder, folder.epochs()[: state.epochs_done]
        self._snapshots: SnapshotWriter | None = None
        if data.val is not None and are_wanted(stage.model, stage.card, config.explain):
            self._snapshots = SnapshotWriter(folder, stage.card, data.val, config.explain, config.train.seed)
        self._budget = Budget(stage.budget_s, pace, stage.steps_per_epoch) if pace else None
        self._on_epoch = on_epoch
        self._watch = watch or Stopwatch()
        self._watch.lap(state)
        self._step_began_s = state.stage_s  # for the budget

    def run(self, stop: StopSignal) -> None:
        """Epoch after epoch until the stage is over. Raises Interrupted, a checkpoint being saved, at a `stop`."""
        while not self.state.is_over:
            self._train_epoch(stop)
            self.pause(stop)

    def _train_epoch(self, stop: StopSignal) -> None:
        """The steps of the epoch that are still to do, or those until `stop` is requested."""
        state = self.state
        self.stage.train_mode()
        with Progress(self._expected_steps(), self._epoch_label(state.epochs_done + 1), state.done) as progress:
            while not self.epoch_is_over and not stop.requested:
                loss, correct = self.train_step(state.epoch, state.step)
                self.end_step(loss, correct)
                progress.advance()
                if progress.due():  # reading the sums waits for the device, so not at every step
                    self._read_sums()
                    progress.extend(self._expected_steps())
                    progress.show(self._describe_step(progress), self._budget_left_s())

    def train_step(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Forward, loss, backward, clip, step, average. The batch's mean loss and right answers, on the device."""
        stage, train = self.stage, self.stage.config.train
        images, targets = self.begin_step(epoch, step)

        mean_loss, correct = torch.zeros((), device=stage.device), torch.zeros((), device=stage.device)
        size = train.micro_batch_size or len(images)
        for part, target in zip(images.split(size), targets.split(size), strict=True):
            if train.cuda_graphs:
                torch.compiler.cudagraph_mark_step_begin()  # the outputs of the step before may be overwritten
            with autocast(stage.precision, stage.device):
                output = self._forward(part)
            loss, right = stage.task.loss(output, part, target, targets)
            stage.scaler.scale(loss).backward()
            mean_loss += loss.detach()
            if right is not None:
                correct += right

        for optimizer in stage.optimizers:
            stage.scaler.unscale_(optimizer)
        norm = clip_gradients(stage.model, stage.config.optim.grad_clip)
        sound = self.check_step(epoch, step, mean_loss, norm)
        for optimizer in stage.optimizers:
            if sound:  # the scaler looks at each optimizer apart, and would make half a step
                stage.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        stage.scaler.update()
        if stage.average is not None:
            update_average(stage.average, stage.model, train.ema_decay)
        return mean_loss, correct

    def begin_step(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Set the learning rates and dropout's random numbers of a step, and make its batch.

        Images (B, C, H, W) or features (B, D), float; and targets (B,) or, where images are mixed, (B, K).
        """
        config, card, position = self.stage.config, self.stage.card, self._position(epoch, step)
        self._set_rates(position)
        epoch += self.state.epochs_before
        torch.manual_seed(derive_seed(config.train.seed, "dropout", epoch, step))
        if self._features is not None:
            return self._features.batch(self.batches.indices(epoch, step))
        batch = self.batches.batch(epoch, step, strong=self._is_strong(position))
        return model_input(batch, card, config.augment, self._is_mixed(position))

    def check_step(self, epoch: int, step: int, loss: Tensor, norm: Tensor) -> bool:
        """Whether a step may change weights. Raises PatchlightError, naming the step and its images, where the loss or
        the `norm` of the gradients is not finite. In fp16 gradients overflow now and then, most of all at the
        beginning: such a step is skipped and counted, and only SKIPPED_AT_MOST in a row are an error.
        """
        loss_value, norm_value = torch.stack((loss, norm.to(loss.device))).tolist()  # one wait for the device
        wrong = "" if math.isfinite(loss_value) else f"the loss is {loss_value}"
        if not wrong and math.isfinite(norm_value):
            self.state.skipped_in_a_row = 0
            return True
        if not wrong and self.stage.scaler.is_enabled():
            if self.state.skip_step() < SKIPPED_AT_MOST:
                return False
            wrong = f"the gradients overflowed in fp16 {SKIPPED_AT_MOST} times in a row, the last time"
        wrong = wrong or f"the loss is {loss_value:.4g} and the norm of the gradients {norm_value}"
        indices = self.batches.indices(epoch + self.state.epochs_before, step).tolist()
        raise PatchlightError(
            diverged(
                f"{wrong} in step {step + 1} of epoch {epoch + self.state.epochs_before + 1}, of the training images "
                f"{first_of(map(str, indices), 16)}, counted from 0; it changed no weight, and what was saved stays"
            )
        )

    def end_step(self, loss: Tensor, correct: Tensor) -> None:
        """Count a step that was made, with its batch's mean loss and right answers, and move progress on."""
        state = self.state
        self._loss_sum += loss * (self.stage.images_in(state.step + 1) - self.stage.images_in(state.step))
        self._correct += correct
        if self._budget is None:
            state.progress = (state.done + 1) / state.total_steps
        else:
            now_s = self._stage_s()
            step_s, self._step_began_s = now_s - self._step_began_s, now_s
            state.progress = self._budget.after_step(state.progress, state.done, now_s - step_s, step_s)
        state.step += 1
        state.done += 1

    def _position(self, epoch: int, step: int) -> float:
        """Where a step stands in the schedule, in 0 .. total_steps: at its own number or, under a budget, at as much of
        `total_steps` as progress is.
        """
        if self._budget is None:
            return epoch * self.stage.steps_per_epoch + step
        return self.state.progress * self.state.total_steps

    def _set_rates(self, position: float) -> None:
        """Give every group of parameters its learning rate, and the momentum that the schedule may set."""
        total, schedule = self.state.total_steps, self.stage.config.schedule
        cycled = momentum(position, total, schedule)
        self._lr = learning_rate(position, total, self.stage.config.optim.lr, schedule, self._warmup)
        for optimizer in self.stage.optimizers:
            for group in optimizer.param_groups:
                lr = learning_rate(position, total, group["peak_lr"], schedule, self._warmup)
                group["lr"] = group["lr_scale"] * lr
                if cycled is not None:
                    set_momentum(group, cycled)

    def _is_strong(self, position: float) -> bool:
        """Policies, erasing and mixing are on."""
        return position < self.stage.config.augment.strong_until * self.state.total_steps

    def _is_mixed(self, position: float) -> bool:
        return self._is_strong(position) and mixes(self.stage.config.augment)

    @property
    def _epoch_is_mixed(self) -> bool:
        """Whether images of the epoch under way are mixed: mixing may stop within it, and never begins again."""
        return self._is_mixed(self.state.epoch_start)

    @property
    def epoch_is_over(self) -> bool:
        """All epochs are of one length, but the last may be shorter."""
        return self.state.step == self.stage.steps_per_epoch or self.state.progress >= 1

    def pause(self, stop: StopSignal) -> None:
        """At the end of an epoch finish it; then save a checkpoint. Raises Interrupted where `stop` is requested."""
        state = self.state
        self._check_any_step()
        self._read_sums()
        state.epoch_s += self._watch.lap(state)
        began_s = state.wall_s
        if ended := self.epoch_is_over:
            self._rows.append(self._finish_epoch())
            self._check_any_step()  # it may have stopped early
            self._folder.write_epochs(self._rows)
        save(self._folder, self.stage, state)
        if ended:  # after the checkpoint, which counts for more than what is said of it
            self._say_epoch(self._rows[-1])
        self._watch.lap(state)
        self._step_began_s = state.stage_s
        if self._budget is not None:
            self._budget.after_epoch(state.wall_s - began_s)
        if ended and self._on_epoch is not None:  # after the checkpoint: what it raises loses nothing
            self._on_epoch(self._rows[-1])
        if stop.requested:
            raise stop.interrupted(f"after {state.done_so_far}")

    def _say_epoch(self, row: Epoch) -> None:
        say(epoch_line(self._epoch_label(row.epoch), row, self._left_s(row)))
        if row.early_stop is not None:
            say(row.early_stop.in_words)

    def _check_any_step(self) -> None:
        """Raises PatchlightError where the stage is over and none of its steps changed a weight. Debugging has so few
        steps that fp16 may still look for its scale.
        """
        if self.state.is_over and self.state.all_were_skipped and not self.stage.config.train.debug:
            what = f"the gradients overflowed in fp16 in all steps, {self.state.done}, so none changed a weight"
            raise PatchlightError(diverged(what))

    def _finish_epoch(self) -> Epoch:
        """Validate, keep the weights if they are to be kept, and go on to the next epoch; the line for the metrics."""
        stage, state, train = self.stage, self.state, self.stage.config.train
        val = self._validate()
        images, epoch_s, train_loss, train_top1 = self._images_seen, state.epoch_s, *self._means()
        mixed, skipped = self._epoch_is_mixed, state.skipped
        self._begin_epoch()

        # Without a score, in masked autoencoding, the loss decides.
        best = val is not None and state.improve(val.by(self._measure) or 0.0, val.loss)
        if train.checkpoint_every and state.epochs_done % train.checkpoint_every == 0:
            state.kept_steps = (*state.kept_steps, state.steps_done)
        if best or train.select == "last":
            images_shown = self.data.test if self.data.val is None else self.data.val
            stage.task.keep(stage.selected_model, self._folder, images_shown)
        if self._snapshots is not None and self._snapshots.is_due(state.epochs_done):
            self._snapshots.add(stage.selected_model, state.epochs_done)
        early_stop = None if val is None else self._stop_early(val)
        self._watch.lap(state)
        return Epoch(
            epoch=state.epochs_done,
            step=state.steps_done,
            lr=self._lr,
            train_loss=train_loss,
            train_top1=train_top1,
            train_mixed=mixed,
            skipped_steps=skipped or None,
            val_loss=val.loss if val else None,
            val_loss_smoothed=val.loss_smoothed if val else None,
            val_top1=val.top1 if val else None,
            val_balanced_accuracy=val.balanced_accuracy if val else None,
            val_macro_f1=val.macro_f1 if val else None,
            images_per_s=images / epoch_s,
            epoch_s=epoch_s,
            best=best,
            best_by=self._best_by(val),
            wall_s=state.wall_s,
            stage=self._stage_number,
            early_stop=early_stop,
        )

    def _stop_early(self, val: Validation) -> EarlyStop | None:
        """End the stage where the epoch that has just ended was one too many without a better validation."""
        state, train = self.state, self.stage.config.train
        state.count_for_early_stop(val.better(self._measure))
        too_many = 0 < train.early_stop_epochs <= state.epochs_since_better
        state.stopped_early = too_many and state.progress < 1  # the last epoch that was planned ends no earlier
        if not state.stopped_early:
            return None
        return EarlyStop(
            stage=self._stage_number,
            epoch=state.epoch,
            epochs=None if self._budget else train.epochs,
            patience=train.early_stop_epochs,
            measure="loss" if val.by(self._measure) is None else self._measure.words,
        )

    def _best_by(self, val: Validation | None) -> str | None:
        """What makes an epoch the best, by its name in `metrics.jsonl`."""
        if val is None:
            return None
        return "val/loss" if val.by(self._measure) is None else self._measure.key

    @property
    def _stage_number(self) -> int | None:
        """From 1, of a recipe with stages."""
        return self.stage.number if self.stage.count > 1 else None

    def _begin_epoch(self) -> None:
        """Set what is counted for an epoch back to zero."""
        state = self.state
        state.epoch, state.step, state.skipped = state.epoch + 1, 0, 0
        state.loss_sum, state.correct, state.epoch_s = 0.0, 0.0, 0.0
        state.epoch_start = self._position(state.epoch, 0)
        self._loss_sum.zero_()
        self._correct.zero_()

    def _validate(self) -> Validation | None:
        """Loss and top-1 of the selected weights on the validation images, if any, in the precision of training."""
        stage, images = self.stage, self.data.val
        if images is None:
            return None
        if self._features is None:
            return stage.task.score(stage.selected_model, images)
        assert isinstance(stage.task, Classification)
        logits = self._features.val_logits(stage.selected_model, stage.precision)
        return stage.task.score_logits(logits, images)

    def _read_sums(self) -> None:
        """Take the sums from the device, which is waited for."""
        self.state.loss_sum, self.state.correct = self._loss_sum.item(), self._correct.item()

    @property
    def _images_seen(self) -> int:
        """In the epoch under way."""
        return self.stage.images_in(self.state.step)

    def _means(self) -> tuple[float, float | None]:
        """Loss and, where there are labels, accuracy on the images of the epoch under way, as last read."""
        state, images = self.state, self._images_seen
        has_labels = self.stage.config.train.task == "classify"
        return state.loss_sum / images, state.correct / images if has_labels else None

    def _expected_steps(self) -> int:
        """How many steps the stage has, as far as is known now."""
        state = self.state
        if self._budget is None:
            return state.total_steps
        if state.is_over:
            return state.done
        return self._budget.expected_steps(state.done, self._stage_s())

    def _stage_s(self) -> float:
        """Seconds of the stage until now."""
        return self.state.stage_s + self._watch.passed()

    def _budget_left_s(self) -> float | None:
        """Seconds of the budget, if there is one."""
        return None if self._budget is None else max(0.0, self._budget.seconds - self._stage_s())

    def _epoch_label(self, epoch: int) -> str:
        epochs = self.state.epochs_before + self._expected_steps() / self.stage.steps_per_epoch
        return epoch_label(epoch, epochs, estimated=self._budget is not None)

    def _left_s(self, row: Epoch) -> float:
        """Seconds until the stage is over: of the budget, else of steps as fast as in the epoch of `row`."""
        if self.state.is_over:
            return 0.0
        if (left_s := self._budget_left_s()) is not None:
            return left_s
        images_in = self.stage.images_in
        return (images_in(self.state.total_steps) - images_in(self.state.done)) / row.images_per_s

    def _describe_step(self, progress: Progress) -> str:
        images = self._images_seen - self.stage.images_in(self.state.step - progress.done + progress.first)
        pace = images / (time.monotonic() - progress.started)
        return step_line(*self._means(), self._epoch_is_mixed, self._lr, pace)
