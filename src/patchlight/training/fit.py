"""Training: the stages of a recipe one after the other, from the beginning or from the newest checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from patchlight.data.splits import Splits
from patchlight.errors import Interrupted
from patchlight.progress import say
from patchlight.runs import Run
from patchlight.training.budget import plan_steps, rehearsal_s
from patchlight.training.checkpoint import read_state, restore, save
from patchlight.training.classes import class_lines
from patchlight.training.frozen import FrozenFeatures, can_keep_features, frozen_features
from patchlight.training.lines import left_out_line, plan_lines
from patchlight.training.loop import OnEpoch, Trainer
from patchlight.training.record import note
from patchlight.training.rehearsal import rehearse
from patchlight.training.resume import newest_sound
from patchlight.training.room import in_memory
from patchlight.training.setup import Setup
from patchlight.training.stage import Stage
from patchlight.training.state import StopSignal, Stopwatch, TrainState, stop_on_signal

Engine = Callable[[Trainer, StopSignal], None]


def _hugging_face() -> Engine:
    from patchlight.training.hf_trainer import run

    return run


# `train.engine`: what makes the steps of a stage. Hugging Face's is imported when it is asked for.
ENGINES: dict[str, Callable[[], Engine]] = {"loop": lambda: Trainer.run, "hf": _hugging_face}


def fit(setup: Setup, run: Run, *, resume: bool = False, on_epoch: OnEpoch | None = None) -> TrainState:
    """Train what `prepare` has made; leave metrics, checkpoints and the selected weights in `run`.

    After each epoch the validation images are scored, a line is added to `metrics.jsonl`, the weights are kept in
    `model/` if they are the best so far, a checkpoint is saved, and `on_epoch` gets the epoch's record. Raises
    Interrupted after SIGINT or SIGTERM, when a checkpoint has been saved, and PatchlightError where the loss is no
    longer finite, or where there is too little memory.
    """
    newest = newest_sound(run) if resume else None
    if resume and newest is None:
        say("no checkpoint was saved yet; training starts over")
    state = TrainState() if newest is None else read_state(newest)
    model, size = setup.model, setup.card.img_size
    with torch.random.fork_rng(), stop_on_signal() as stop:
        for stage in setup.stages[state.stage :]:
            if stage.card.img_size != size:
                say(f"the model takes {_square(stage.card.img_size)} pixels from here on, not {_square(size)}")
            with in_memory(stage):
                stage.begin(model)
                last = fit_stage(stage, setup.data, run, state, newest, stop, on_epoch)
            state, newest, model, size = last.next_stage(), None, stage.model, stage.card.img_size
            if stop.requested:
                break
    if stop.requested:  # after the last step; from here on a signal ends the command at once
        raise stop.interrupted(f"after {last.done_so_far}")
    return last


def fit_stage(
    stage: Stage,
    data: Splits,
    run: Run,
    state: TrainState,
    checkpoint: Path | None,
    stop: StopSignal,
    on_epoch: OnEpoch | None,
) -> TrainState:
    """Train a stage from `state`, which is that of the `checkpoint` if there is one, and return where it ended."""
    watch = Stopwatch()
    shuffled = stage.config.data.sampler == "uniform"  # others do not leave out what is left over, and say so
    if shuffled and stage.config.train.drop_last and (line := left_out_line(len(data.train), stage.batch_size)):
        note(run, [line])
    engine = ENGINES[stage.config.train.engine]()
    pace = None
    if stage.budget_s and not state.is_over:
        trial = TrainState(total_steps=stage.total_steps)
        pace = rehearse(Trainer(stage, data, run, trial), rehearsal_s(stage.budget_s))
    if checkpoint is not None:
        state = restore(checkpoint, stage, run)
        say(f"resuming from {checkpoint}: {state.done_so_far} are done")
    expected = stage.total_steps
    if pace is not None:
        left_s = stage.budget_s - state.stage_s - watch.passed()
        expected = plan_steps(left_s, state.done, pace, stage.steps_per_epoch)
    if stop.requested:
        is_saved = checkpoint is not None or stage.number > 1
        raise stop.interrupted(
            f"before training {'went on' if is_saved else 'began'}",
            f"what was saved before stays ({state.done_so_far})" if is_saved else "no step was made yet",
        )
    state.total_steps = state.total_steps or expected
    note(run, class_lines(stage, data.train))
    for line in plan_lines(stage, state, expected, pace):
        say(line)
    features = None if state.is_over else make_features(stage, data, run, state, watch, stop)
    trainer = Trainer(stage, data, run, state, pace=pace, features=features, watch=watch, on_epoch=on_epoch)
    engine(trainer, stop)
    return trainer.state


def make_features(
    stage: Stage, data: Splits, run: Run, state: TrainState, watch: Stopwatch, stop: StopSignal
) -> FrozenFeatures | None:
    """Where a frozen backbone would give an image the same features each time: those features, made once."""
    if not can_keep_features(stage, data.train):
        return None
    say("the backbone is frozen, so each image goes through it once")
    try:
        features = frozen_features(stage, data, stop)
    except Interrupted:
        save(run, stage, state)
        raise
    state.epoch_s += watch.lap(state)
    return features


def _square(side: int) -> str:
    return f"{side} x {side}"
