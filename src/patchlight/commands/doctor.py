"""What this machine is, what would make it faster, and what each recipe would do in a given time on it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from patchlight.config import Config, load_recipe, recipe_names
from patchlight.config.fields import Duration, checked
from patchlight.data.images import ImageSet
from patchlight.data.sources import TRAIN_IMAGES
from patchlight.data.splits import Splits
from patchlight.machine.device import has_compiler, resolve_device
from patchlight.machine.fastest import probe_precision, resolve_precision
from patchlight.machine.hardware import describe_machine
from patchlight.machine.process import allocator, forget_peak_memory, peak_memory_gb, tune_process
from patchlight.models import MODELS, ModelCard, build_model, new_spec
from patchlight.progress import say
from patchlight.runs import Run
from patchlight.training.budget import plan_steps
from patchlight.training.loop import Trainer
from patchlight.training.rehearsal import rehearse
from patchlight.training.setup import autoencoder

CLASSES = 10
ENOUGH = 0.9  # of the epochs that a recipe's accuracy was measured with
VAL_IMAGES = 500  # made up, to time a validation
GLANCE_S = 1.0  # of steps that are timed for a recipe


def examine(device: torch.device) -> dict[str, Any]:
    """Hardware, precision and what it was chosen by, threads, memory, compiler; `advice` is a list of sentences."""
    machine = describe_machine(device)
    choice = probe_precision(device)
    threads = torch.get_num_threads()
    return {
        "hardware": asdict(machine.hardware),
        "versions": machine.versions,
        "device": device.type,
        "precision": resolve_precision("auto", device),
        "bf16_speedup": choice.ratio("bf16", "fp32") if choice else None,
        "threads": threads,
        "allocator": allocator(),
        "compiler": has_compiler(),
        "advice": list(_advice(asdict(machine.hardware), threads, choice is not None)),
    }


def _advice(hardware: dict[str, Any], threads: int, has_bf16: bool) -> Iterator[str]:
    if hardware["device"] != "cpu":
        return
    cores, load = hardware["cores"], os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
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


def forecast(seconds: float, device: str = "auto") -> Iterator[dict[str, Any]]:
    """For each recipe whose source's size is known: what `seconds` of training would hold, from a few real steps.

    Yields `{"recipe", "images_per_s", "epochs", "share", "enough", "own_s", "memory_gb", "top1"}`: `epochs` in that
    time, `share` of those that the recipe's accuracy `top1` was measured with, `enough` whether that is nearly all of
    them, and `own_s` seconds for all of them.
    """
    for name in recipe_names():
        if can_be_forecast(load_recipe(name)):
            try:
                yield _forecast(load_recipe(name, {"train.device": device, "train.budget": f"{seconds:g}s"}), seconds)
            except (torch.OutOfMemoryError, MemoryError):
                say(f"{name} does not fit into the memory")


def can_be_forecast(config: Config) -> bool:
    """It learns from images whose number is known, with a model that needs no weights of a hub."""
    return config.data.source in TRAIN_IMAGES and config.model.name in MODELS and not config.stages


def not_tried() -> list[str]:
    """The recipes that `forecast` leaves out: they begin with weights of a hub."""
    return [name for name in recipe_names() if not can_be_forecast(load_recipe(name))]


def _forecast(config: Config, seconds: float) -> dict[str, Any]:
    train_images = round(TRAIN_IMAGES[config.data.source] * (1 - config.data.val_fraction))
    val_images = TRAIN_IMAGES[config.data.source] - train_images
    data = _noise(config)
    spec = new_spec(config.model, img_size=config.model.img_size or data.train.image_size[0], num_classes=CLASSES)
    card = ModelCard(config.model.name, spec, data.train.class_names, (0.5,) * 3, (0.25,) * 3)
    model = build_model(spec)
    forget_peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        learner = autoencoder(model, config) if config.train.task == "reconstruct" else model
        trainer = Trainer(learner, card, data, config, Run(Path(folder)))
        pace = rehearse(trainer, GLANCE_S)
    batch = trainer.batches.batch_size
    memory = peak_memory_gb(trainer.device)
    pace = replace(pace, val_s=pace.val_s * val_images / VAL_IMAGES)
    per_epoch = max(1, train_images // batch)
    epochs = plan_steps(seconds, 0, pace, per_epoch) / per_epoch
    return {
        "recipe": config.about.name,
        "images_per_s": batch / pace.step_s,
        "epochs": epochs,
        "share": epochs / config.train.epochs,
        "enough": epochs >= ENOUGH * config.train.epochs,
        "own_s": config.train.epochs * (per_epoch * pace.step_s + pace.val_s),
        "memory_gb": memory,
        "top1": config.about.top1,
        "source": config.data.source,
    }


def _noise(config: Config) -> Splits:
    """Made-up images of the recipe's size: two steps' worth to train on."""
    size = config.data.image_size or 32
    count = 2 * config.train.batch_size
    images = torch.randint(256, (count + VAL_IMAGES, 3, size, size), dtype=torch.uint8)
    labels = torch.arange(len(images)) % CLASSES
    whole = ImageSet(images, labels, tuple(map(str, range(CLASSES))))
    val = whole.select(range(count, len(whole)))
    return Splits(whole.select(range(count)), val, val)


def best(rows: list[dict[str, Any]], source: str = "cifar10") -> dict[str, Any] | None:
    """The recipe for `source` with the best accuracy of those that are trained for long enough; if none is, the one
    that comes nearest to it; None where no recipe has a known accuracy.
    """
    known = [row for row in rows if row["source"] == source and row["top1"] is not None]
    return max(known, key=lambda row: (min(row["share"], ENOUGH), row["top1"]), default=None)


def doctor(budget: str | None = None, *, device: str = "auto") -> dict[str, Any]:
    """The machine; with a `budget` such as "30m" also what each recipe would do in it, and the `best` for CIFAR-10."""
    seconds = checked(budget, Duration, "--budget").seconds if budget is not None else None
    found = examine(resolve_device(device))
    if seconds is None:
        return found
    tune_process(resolve_device(device))
    rows = []
    for row in forecast(seconds, device):
        say(f"tried {row['recipe']}: {row['images_per_s']:,.0f} images/s")
        rows.append(row)
    return {**found, "budget_s": seconds, "recipes": rows, "best": best(rows), "not_tried": not_tried()}
