"""What training says, in one line each."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from patchlight.machine.process import peak_memory_gb
from patchlight.runs import MEASURES, BatchFacts, Epoch
from patchlight.training.budget import Pace, finish_s
from patchlight.training.inputs import mixes
from patchlight.training.schedule import warmup_steps
from patchlight.training.stage import Stage
from patchlight.training.state import TrainState
from patchlight.units import clock, counted


def batch_line(facts: BatchFacts) -> str:
    """The first batch as the model is given it."""
    low, high = ("-" if value is None else f"{value:.2f}" for value in (facts.min, facts.max))
    shape = f"{' x '.join(map(str, facts.shape))} {facts.dtype}"
    return f"first batch: {shape}, {low} to {high}; {facts.classes} of {len(facts.per_class)} classes; {facts.mixing}"


def left_out_line(images: int, batch_size: int) -> str | None:
    """That an epoch leaves images out, where it is more than a tenth of them."""
    left_out = images % batch_size
    if left_out <= 0.1 * images:
        return None
    return (
        f"{images:,} training images in steps of {batch_size} leave {left_out:,} out of each epoch (others each time); "
        "a smaller train.batch_size leaves out fewer, train.drop_last = false none"
    )


def plan_lines(stage: Stage, state: TrainState, expected_steps: int, pace: Pace | None) -> Iterator[str]:
    """What a stage trains and for how long; with `pace` what the budget holds; mixing; a warm-up that is too long."""
    train, schedule, per_epoch = stage.config.train, stage.config.schedule, stage.steps_per_epoch
    epochs = expected_steps / per_epoch
    if stage.count > 1 or train.trainable != "all":
        which = f"stage {stage.number} of {stage.count}: " if stage.count > 1 else ""
        params = {name: p.numel() for name, p in stage.model.named_parameters()}
        trained = sum(params[name] for name in stage.trainable)
        yield (
            f"{which}training {train.trainable}, {trained:,} of {sum(params.values()):,} parameters, "
            f"for {epochs:.3g} epochs at a rate of {stage.config.optim.lr:g}"
        )
    if pace is not None:
        memory_gb = peak_memory_gb(stage.device)
        memory = f"{memory_gb:.1f} GB of memory; " if memory_gb else ""
        left_s = finish_s(expected_steps, state.done, pace, per_epoch)
        end = datetime.datetime.now() + datetime.timedelta(seconds=left_s)
        yield (
            f"the budget of {train.budget} holds {epochs:.3g} epochs of {counted(per_epoch, 'step')} at "
            f"{stage.batch_size / pace.step_s:,.0f} images/s and {1000 * pace.val_s:,.0f} ms a validation; {memory}"
            f"done in {clock(left_s)}, at {end:%H:%M:%S}"
        )
    augment = stage.config.augment
    if mixes(augment) and augment.strong_until:
        yield (
            "training images are mixed, and acc counts of each the share that the predicted class has in its label; it "
            "may well be below val acc"
        )
    warmup, total = warmup_steps(schedule, per_epoch, state.total_steps), state.total_steps
    cycles = schedule.cycles if schedule.name == "cosine_restarts" and schedule.restart_warmup else 1
    if warmup * cycles >= total and schedule.name != "onecycle":
        length = f"all {total}" if cycles == 1 else f"a cycle of {total / cycles:,.0f}"
        yield f"the warm-up of {counted(warmup, 'step')} is not over after {length}: the peak is not reached"


def step_line(loss: float, accuracy: float | None, mixed: bool, lr: float, images_per_s: float) -> str:
    """Where an epoch stands: mean loss and accuracy so far, of `mixed` images or not, the rate, and images/s."""
    parts = [f"loss {loss:.3f}", *accuracy_words(accuracy, mixed), f"lr {lr:.1e}", f"{images_per_s:,.0f} images/s"]
    return "  ".join(parts)


def accuracy_words(accuracy: float | None, mixed: bool) -> list[str]:
    """The accuracy on training images; nothing where there are no labels."""
    return [] if accuracy is None else [f"acc {accuracy:.1%}{' (mixed)' if mixed else ''}"]


def epoch_label(epoch: int, epochs: float, estimated: bool) -> str:
    """Which epoch it is, of all or, under a budget, of as many as are expected."""
    return f"epoch {epoch} of about {epochs:.3g}" if estimated else f"epoch {epoch}/{epochs:.3g}"


def scores_words(row: Epoch) -> str:
    """The validation accuracy and, where another measure selects, that one at the end: "acc 91.0%  macro F1 84.2%"."""
    measure = next((each for each in MEASURES.values() if each.key == row.best_by), MEASURES["best"])
    words, score = f"acc {row.val_top1:.1%}", measure.of(row)
    return words if measure.name == "top1" or score is None else f"{words}  val {measure.words} {score:.1%}"


def epoch_line(label: str, row: Epoch, left_s: float) -> str:
    """A line of `metrics.jsonl` for people; `left_s` seconds of training are to come."""
    parts = [label, f"loss {row.train_loss:.3f}", *accuracy_words(row.train_top1, row.train_mixed)]
    if row.val_top1 is not None:
        smoothed = "" if row.val_loss_smoothed is None else f" ({row.val_loss_smoothed:.3f} smoothed)"
        parts += [f"val loss {row.val_loss:.3f}{smoothed}", f"val {scores_words(row)}{' *' if row.best else '  '}"]
    parts += [f"lr {row.lr:.1e}", f"{row.images_per_s:,.0f} images/s", f"{row.epoch_s:,.1f} s/epoch"]
    parts += [f"{counted(row.skipped_steps, 'step')} skipped (fp16 overflowed)"] if row.skipped_steps else []
    parts.append(f"{clock(left_s)} left")
    return "  ".join(parts)
