"""What this machine is, what would make it faster, and what each recipe would do in a given time on it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from patchlight.config import Config, load_recipe, recipe_names
from patchlight.config.fields import Duration, checked
from patchlight.data.batches import steps_per_epoch
from patchlight.data.images import ImageSet
from patchlight.data.sources import TRAIN_IMAGES
from patchlight.data.splits import Splits
from patchlight.machine.device import has_compiler, resolve_device
from patchlight.machine.fastest import probe_precision, resolve_precision
from patchlight.machine.hardware import Hardware, describe_machine
from patchlight.machine.process import allocator, forget_peak_memory, peak_memory_gb, tune_process
from patchlight.models import MODELS
from patchlight.progress import say
from patchlight.runs import Run
from patchlight.runs.codec import JSON, Record
from patchlight.training.budget import plan_steps
from patchlight.training.loop import Trainer
from patchlight.training.rehearsal import rehearse
from patchlight.training.setup import prepare
from patchlight.training.state import TrainState

CLASSES = 10
ENOUGH = 0.9  # of the epochs that a recipe's accuracy was measured with
VAL_IMAGES = 500  # random ones, to time a validation
TRIAL_S = 1.0  # of steps that are timed for a recipe


@dataclass(frozen=True, kw_only=True)
class Forecast(Record):
    """What a recipe would do in a given time on this machine, from a few real steps."""

    recipe: str
    images_per_s: float
    epochs: float  # that the time holds
    share: float  # of the epochs that the recipe's accuracy was measured with
    enough: bool  # whether that is nearly all of them
    own_s: float  # seconds for all of them
    memory_gb: float  # at most
    top1: float | None  # the recipe's accuracy
    source: str  # of its data


@dataclass(frozen=True, kw_only=True)
class Checkup(Record):
    """What `patchlight doctor` finds; with a budget also what each recipe would do in it."""

    hardware: Hardware
    versions: dict[str, str | None]
    device: str
    precision: str  # that "auto" chooses
    bf16_speedup: float | None  # over fp32; None where there is nothing to choose
    threads: int
    allocator: str
    compiler: bool  # of C++, for torch.compile on a CPU
    advice: tuple[str, ...]  # sentences
    budget_s: float | None = field(default=None, metadata={"brief": True})
    recipes: tuple[Forecast, ...] | None = field(default=None, metadata={"brief": True})
    best: Forecast | None = None
    not_tried: tuple[str, ...] | None = field(default=None, metadata={"brief": True})  # recipes

    def to_json(self) -> dict[str, JSON]:
        plain = super().to_json()
        return plain if self.recipes is not None else {key: plain[key] for key in plain if key != "best"}


def examine(device: torch.device) -> Checkup:
    """Hardware, precision and what it was chosen by, threads, memory, compiler, and what would make it faster."""
    machine = describe_machine(device)
    choice = probe_precision(device)
    threads = torch.get_num_threads()
    return Checkup(
        hardware=machine.hardware,
        versions=machine.versions,
        device=device.type,
        precision=resolve_precision("auto", device),
        bf16_speedup=choice.ratio("bf16", "fp32") if choice else None,
        threads=threads,
        allocator=allocator(),
        compiler=has_compiler(),
        advice=tuple(_advice(machine.hardware, threads, choice is not None)),
    )


def _advice(hardware: Hardware, threads: int, has_bf16: bool) -> Iterator[str]:
    if hardware.device != "cpu":
        return
    cores, load = hardware.cores or 1, os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if torch.cuda.device_count() == 0 and Path("/proc/driver/nvidia").exists():
        yield "there is an NVIDIA GPU that this torch cannot use; install a torch build with CUDA"
    if not has_bf16:
        yield "the processor has no bf16 instructions, so training runs in fp32; one with them is 2 to 4 times as fast"
    if threads < cores and "OMP_NUM_THREADS" in os.environ:
        yield f"OMP_NUM_THREADS leaves {cores - threads} of {cores} cores unused; unset it, or set train.threads"
    if load > 0.5 + cores / 8:
        yield (
            f"other processes keep {load:.1f} of {cores} cores busy; training waits for its slowest thread, so stop "
            f"them, or set train.threads to the cores that are free"
        )
    if allocator() == "musl":
        yield "musl's malloc makes training on a CPU slow; use a Python for glibc"


def forecast(seconds: float, device: str = "auto", recipes: Sequence[str] | None = None) -> Iterator[Forecast]:
    """For each recipe whose source's size is known, or of these `recipes` alone: what `seconds` of training would hold.
    One that does not fit into the memory is left out.
    """
    for name in recipe_names() if recipes is None else recipes:
        if can_be_forecast(load_recipe(name)):
            try:
                yield _forecast(load_recipe(name, {"train.device": device, "train.budget": f"{seconds:g}s"}), seconds)
            except (torch.OutOfMemoryError, MemoryError):
                say(f"{name} does not fit into the memory")


def can_be_forecast(config: Config) -> bool:
    """It learns from images whose number is known, with a model that needs no weights of a hub."""
    return config.data.source in TRAIN_IMAGES and config.model.name in MODELS and not config.stages


def recipes_not_tried() -> list[str]:
    """The recipes that `forecast` leaves out: they begin with weights of a hub."""
    return [name for name in recipe_names() if not can_be_forecast(load_recipe(name))]


def _forecast(config: Config, seconds: float) -> Forecast:
    train_images = round(TRAIN_IMAGES[config.data.source] * (1 - config.data.val_fraction))
    val_images = TRAIN_IMAGES[config.data.source] - train_images
    data = _noise(config)
    forget_peak_memory()
    (stage,) = prepare(config, data).stages
    with tempfile.TemporaryDirectory() as folder:  # in which nothing is written
        trainer = Trainer(stage, data, Run(Path(folder)), TrainState(total_steps=stage.total_steps))
        pace = rehearse(trainer, TRIAL_S)
    memory = peak_memory_gb(stage.device)
    pace = replace(pace, val_s=pace.val_s * val_images / VAL_IMAGES)
    per_epoch = max(1, steps_per_epoch(train_images, stage.batch_size, config.train.drop_last))
    epochs = plan_steps(seconds, 0, pace, per_epoch) / per_epoch
    return Forecast(
        recipe=config.about.name,
        images_per_s=stage.batch_size / pace.step_s,
        epochs=epochs,
        share=epochs / config.train.epochs,
        enough=epochs >= ENOUGH * config.train.epochs,
        own_s=config.train.epochs * (per_epoch * pace.step_s + pace.val_s),
        memory_gb=memory,
        top1=config.about.top1,
        source=config.data.source,
    )


def _noise(config: Config) -> Splits:
    """Random images of the recipe's size: enough for two steps of training, and some for validation."""
    size = config.data.image_size or 32
    count = 2 * config.train.batch_size
    images = torch.randint(256, (count + VAL_IMAGES, 3, size, size), dtype=torch.uint8)
    labels = torch.arange(len(images)) % CLASSES
    whole = ImageSet(images, labels, tuple(map(str, range(CLASSES))))
    val = whole.select(range(count, len(whole)))
    return Splits(whole.select(range(count)), val, val)


def best(rows: Sequence[Forecast], source: str = "cifar10") -> Forecast | None:
    """The recipe for `source` with the best accuracy of those that are trained for long enough; if none is, the one
    that comes nearest to it; None where no recipe has a known accuracy.
    """
    known = [row for row in rows if row.source == source and row.top1 is not None]
    return max(known, key=lambda row: (min(row.share, ENOUGH), row.top1), default=None)


def doctor(budget: str | None = None, *, device: str = "auto") -> Checkup:
    """The machine; with a `budget` such as "30m" also what each recipe would do in it, and the `best` for CIFAR-10.

    Raises UsageError for a budget that is no time, or a device that is not here.
    """
    seconds = checked(budget, Duration, "--budget").seconds if budget is not None else None
    checkup = examine(resolve_device(device))
    if seconds is None:
        return checkup
    tune_process(resolve_device(device))
    rows = []
    for row in forecast(seconds, device):
        say(f"tried {row.recipe}: {row.images_per_s:,.0f} images/s")
        rows.append(row)
    return replace(
        checkup, budget_s=seconds, recipes=tuple(rows), best=best(rows), not_tried=tuple(recipes_not_tried())
    )
