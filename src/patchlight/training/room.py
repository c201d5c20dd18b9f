"""The room that a training needs: on the disk, where it is looked at before, and in memory, where it was too little."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from patchlight.config import Config
from patchlight.errors import PatchlightError
from patchlight.machine.memory import asked_bytes, is_out_of_memory, memory_limit
from patchlight.machine.process import peak_memory_gb
from patchlight.runs import Run
from patchlight.runs.folder import CONTENTS
from patchlight.training.setup import Setup
from patchlight.training.stage import Stage

STATES = 2  # tensors of the size of a parameter that an optimizer keeps, at most (AdamW)
AT_A_TIME = 5  # checkpoints: the newest, the one before, the best of each, and one that is being written
OTHERS = 32 * 2**20  # bytes of pages, pictures and records, by far


def check_disk(run: Run, setup: Setup) -> None:
    """Raises PatchlightError where the disk of the run's folder has too little room for all that training will write
    there. What the folder holds now counts as room: it is what will be written, or it goes.
    """
    needed = disk_needed(setup)
    there = sum(path.stat().st_size for name in CONTENTS for path in _files(run.path / name))
    free = shutil.disk_usage(run.path).free + there
    if needed > free:
        raise PatchlightError(
            f"{run.path}: training writes up to {_mb(needed)} there, and its disk has room for {_mb(free)}; free some "
            "space, choose another place with --out, or keep fewer checkpoints (train.checkpoint_every)"
        )


def disk_needed(setup: Setup) -> int:
    """Bytes of checkpoints, each as large as that of the largest stage, of the kept weights while they are replaced,
    and of all else. How many epochs a budget has is not known, so those of every n-th are not counted there.
    """
    every = setup.config.train.checkpoint_every
    counted = [stage for stage in setup.stages if every and not stage.budget_s]
    kept = sum(stage.total_steps // stage.steps_per_epoch // every for stage in counted)
    each = max(_checkpoint_bytes(stage) for stage in setup.stages)
    model = max(_bytes(stage.kept_model.state_dict().values()) for stage in setup.stages)
    return (AT_A_TIME + kept) * each + 2 * model + OTHERS


def _checkpoint_bytes(stage: Stage) -> int:
    """Of one checkpoint: what it means as a model, the weights in training, their average, the optimizer's tensors."""
    trained = [p for name, p in stage.model.named_parameters() if name in stage.trainable]
    states = _bytes(stage.kept_model.state_dict().values()) + STATES * _bytes(trained)
    if stage.kept_model is not stage.model:
        states += _bytes(stage.model.state_dict().values())
    if stage.average is not None:
        states += _bytes(stage.average.state_dict().values())
    return states


@contextlib.contextmanager
def in_memory(stage: Stage) -> Iterator[None]:
    """Raises PatchlightError, which says what to change, where what is done inside gets too little memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise PatchlightError(out_of_memory(error, stage.config, stage.device)) from error


def out_of_memory(error: BaseException, config: Config, device: torch.device) -> str:
    """What to say where training got too little memory: how much there is, and what to change, in numbers."""
    train = config.train
    micro = min(train.micro_batch_size or train.batch_size, train.batch_size)
    limit, asked, used_gb = memory_limit(device), asked_bytes(error), peak_memory_gb(device)
    where = "GPU memory" if device.type == "cuda" else "memory"
    facts = [f"{_mb(int(1e9 * used_gb))} were in use at most"] if used_gb else []
    facts += [f"{_mb(asked)} more were asked for"] if asked else []
    facts += [f"there are {_mb(limit)}"] if limit else []
    smaller = (
        f"train.micro_batch_size = {max(1, 2 ** (micro.bit_length() - 1) // 4)} takes the images of a step in parts"
    )
    ways = [smaller] if micro > 1 else []
    ways += [] if config.model.grad_checkpointing else ["model.grad_checkpointing = true keeps less of each image"]
    ways += (
        ["a smaller eval.batch_size helps where images are only looked at"] if config.eval.batch_size > micro else []
    )
    ways += [] if ways else ["take a smaller model or smaller images"]
    return (
        f"out of {where} with {micro:,} images at a time ({', '.join(facts)}); {'; '.join(ways)}. These change no more "
        "than the last digits, and may be given with --resume where a checkpoint was saved, else with --overwrite"
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _files(path: Path) -> list[Path]:
    return (
        [inside for inside in path.rglob("*") if inside.is_file()]
        if path.is_dir()
        else [path]
        if path.is_file()
        else []
    )


def _mb(count: int) -> str:
    return f"{count / 1e6:,.0f} MB" if count < 10**10 else f"{count / 1e9:,.1f} GB"
