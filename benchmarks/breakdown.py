"""Where the time of a recipe's training step goes, by torch's profiler, and how near it comes to the machine's rate.

The step is `patchlight train`'s own: batch, augmentation, forward and backward pass, optimizer.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks import markdown
from benchmarks.options import Options
from benchmarks.roofline import matmul
from benchmarks.timing import sampler
from patchlight.config import load_recipe
from patchlight.data.splits import load_splits
from patchlight.machine.device import DTYPES, synchronize
from patchlight.machine.process import reuse_memory
from patchlight.models.summary import count_flops
from patchlight.runs import Run
from patchlight.training.loop import Trainer
from patchlight.training.rehearsal import time_step
from patchlight.training.setup import prepare
from patchlight.training.stage import Stage
from patchlight.training.state import TrainState

RECIPES = ("cifar10-cpu-10min", "cifar10-vit-30min", "cifar10-patchify-30min")
BATCH, OPTIMIZER, REST = "batch and augmentation", "optimizer", "the rest"
# group: what the names of its operations contain; the first that fits
GROUPS: dict[str, tuple[str, ...]] = {
    "convolutions": ("convolution", "conv2d"),
    "attention kernel": ("scaled_dot_product", "flash_attention"),
    "matrix products": ("aten::mm", "addmm", "bmm", "linear", "matmul"),
    "softmax": ("softmax",),
    "norms": ("layer_norm", "batch_norm"),
    "GELU": ("gelu",),
    "pooling": ("pool",),
    "copies and casts": ("copy", "aten::to", "clone", "contiguous", "aten::cat"),
    "sums and products of elements": ("aten::add", "aten::mul", "aten::sum", "aten::sub", "aten::div", "aten::mean"),
}


def run(options: Options) -> dict[str, Any]:
    reuse_memory()
    recipes = options.recipes or options.pick(RECIPES, ("quickstart",))
    return {recipe: of_recipe(options, recipe) for recipe in recipes}


def of_recipe(options: Options, recipe: str) -> dict[str, Any]:
    steps, side = options.pick(8, 2), options.pick(2048, 64)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(options, recipe, Path(folder) / "run")
        trainer.stage.train_mode()
        step_s = time_step(trainer, options.pick(4.0, 0.0))
        with profile(activities=activities(options.device)) as seen:
            for step in range(steps):
                trainer.train_step(1, step % trainer.stage.steps_per_epoch)
            synchronize(options.device)
    flops = flops_of_step(trainer.stage)
    dtype = DTYPES[trainer.stage.precision]
    product = sampler(matmul(options.device, side, side, side, dtype), options.device, calls=5)
    peak = 2 * side**3 / statistics.median(product() for _ in range(7))
    return {
        "precision": trainer.stage.precision,
        "batch": trainer.stage.batch_size,
        "step_s": step_s,
        "flops": flops,
        "flops_per_s": flops / step_s,
        "matmul_flops_per_s": peak,
        "shares": shares(seen.events() or [], options.device),
    }


class WatchedTrainer(Trainer):
    """The loop, with what begins a step named in the profile."""

    def begin_step(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        with record_function(BATCH):
            return super().begin_step(epoch, step)


def trainer_of(options: Options, recipe: str, path: Path, settings: dict[str, str] | None = None) -> Trainer:
    """The recipe's own loop on images of the right size; what they show does not matter."""
    images = {"data.source": "digits", "data.image_size": "32", "train.device": options.device.type}
    config = load_recipe(recipe, {**(settings or {}), **images})
    data = load_splits(config.data)
    (stage, *_) = prepare(config, data).stages
    return WatchedTrainer(stage, data, Run.create(path, config), TrainState(total_steps=stage.total_steps))


def flops_of_step(stage: Stage) -> int:
    """Three times those of a batch's forward pass as it is in training, where patches may be left out."""
    model, size = copy.deepcopy(stage.model).requires_grad_(False), stage.card.img_size
    with count_flops() as counter:
        model(torch.zeros(stage.batch_size, 3, size, size, device=stage.device))
    return 3 * counter.get_total_flops()


def activities(device: torch.device) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]


def shares(events: Iterable[Any], device: torch.device) -> dict[str, float]:
    """Of the profiled time, each group's; a kernel's on a GPU is that of the operation that launched it."""
    spent: Counter[str] = Counter()
    for event in events:
        if event.device_type == DeviceType.CPU:
            spent[group_of(event)] += (
                event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
            )
    return {group: spent[group] / spent.total() for group in (*GROUPS, BATCH, OPTIMIZER, REST)}


def group_of(event: Any) -> str:
    """By what an operation was called from, else by its name."""
    caller = event
    while caller is not None:
        if caller.name == BATCH:
            return BATCH
        if caller.name.startswith("Optimizer."):
            return OPTIMIZER
        caller = caller.cpu_parent
    return next((group for group, words in GROUPS.items() if any(word in event.name for word in words)), REST)


def table(result: dict[str, Any]) -> str:
    names = [
        group for group in (*GROUPS, BATCH, OPTIMIZER, REST) if any(r["shares"][group] > 0.005 for r in result.values())
    ]
    rows = [
        [
            f"`{recipe}`",
            f"{r['batch']}, {r['precision']}",
            markdown.milliseconds(r["step_s"]),
            markdown.number(r["batch"] / r["step_s"]),
            markdown.number(r["flops_per_s"] / 1e9),
            f"{r['flops_per_s'] / r['matmul_flops_per_s']:.0%} of {r['matmul_flops_per_s'] / 1e9:,.0f}",
            *(f"{r['shares'][name]:.0%}" for name in names),
        ]
        for recipe, r in result.items()
    ]
    header = ["recipe", "batch", "ms/step", "images/s", "GFLOP/s", "of a matrix product's GFLOP/s", *names]
    return markdown.table(header, rows)
