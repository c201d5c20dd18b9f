"""The room that a training needs: on the disk, where it is looked at before, and in memory, where it was too little."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor, nn

from patchlight.config import Config
from patchlight.errors import PatchlightError
from patchlight.machine.memory import asked_bytes, is_out_of_memory, memory_limit
from patchlight.machine.process import peak_memory_gb
from patchlight.models import VisionTransformer, structure_of
from patchlight.models.mae import MaskedAutoencoder
from patchlight.runs import Run
from patchlight.runs.checkpoints import FOLDER
from patchlight.runs.folder import CONTENTS
from patchlight.training.checkpoint import list_checkpoints, read_state
from patchlight.training.setup import Setup
from patchlight.training.stage import Stage

STATES = 2  # tensors of the size of a parameter that an optimizer keeps, at most (AdamW)
AT_A_TIME = 5  # checkpoints: the newest, the one before, the best of each, and one that is being written
STAYING = ("explain", "export")  # what a run that goes on neither writes nor deletes
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
OTHERS = 32 * 2**20  # bytes of pages, pictures and records, by far


def check_disk(run: Run, setup: Setup, *, overwrite: bool = False) -> None:
    """Raises PatchlightError where a disk has too little room for all that training will write there: that of the
    run's folder or, where `checkpoints` is a link, that of the folder that it leads to.

    Of what is there now only that counts as room which training replaces or deletes: with `overwrite` the whole run
    that it takes the place of, else the model, the pages, the pictures and the checkpoints that can be read.
    """
    checkpoints = run.path / FOLDER
    if overwrite:  # a link goes with the old run, and what it leads to stays
        needs = {run.path: disk_needed(setup)}
        goes = [run.path / name for name in CONTENTS if not (run.path / name).is_symlink()]
    else:
        if checkpoints.is_symlink() and not checkpoints.is_dir():
            raise PatchlightError(
                f"{checkpoints} is a link to {checkpoints.readlink()}, and no folder is there; make that folder, or "
                "delete the link"
            )
        place = checkpoints if checkpoints.is_dir() else run.path
        goes = [*(run.path / name for name in CONTENTS if name not in (FOLDER, *STAYING)), *_readable(checkpoints)]
        needs = _by_disk({place: _checkpoints_needed(setup), run.path: _others_needed(setup)})
    for path, needed in needs.items():
        there = sum(file.stat().st_size for each in goes for file in _files(each) if _disk(file) == _disk(path))
        free = shutil.disk_usage(path).free + there
        if needed > free:
            raise PatchlightError(
                f"{path}: training writes up to {_mb(needed)} there, and its disk has room for {_mb(free)}; free some "
                "space, choose another place with --out, or keep fewer checkpoints (train.checkpoint_every)"
            )


def _by_disk(needs: dict[Path, int]) -> dict[Path, int]:
    """Bytes that each folder needs, those on one disk together, by the last of them."""
    disks = {_disk(path): path for path in needs}
    return {
        path: sum(needed for other, needed in needs.items() if _disk(other) == disk) for disk, path in disks.items()
    }


def _disk(path: Path) -> int:
    return path.stat().st_dev


def _readable(checkpoints: Path) -> list[Path]:
    """Those that pruning knows, and may delete: damaged ones and copies of somebody's stay."""
    found = []
    for path in list_checkpoints(checkpoints):
        with contextlib.suppress(PatchlightError):
            read_state(path)
            found.append(path)
    return found


def disk_needed(setup: Setup) -> int:
    """Bytes of all that training writes, at most."""
    return _checkpoints_needed(setup) + _others_needed(setup)


def _checkpoints_needed(setup: Setup) -> int:
    """Bytes of checkpoints, each as large as that of the largest stage. How many epochs a budget has is not known, so
    those of every n-th are not counted there.
    """
    every = setup.config.train.checkpoint_every
    counted = [stage for stage in setup.stages if every and not stage.budget_s]
    kept = sum(stage.total_steps // stage.steps_per_epoch // every for stage in counted)
    return (AT_A_TIME + kept) * max(_checkpoint_bytes(stage) for stage in setup.stages)


def _others_needed(setup: Setup) -> int:
    """Bytes of the kept weights while they are replaced, and of all else but checkpoints."""
    return 2 * max(_bytes(stage.kept_model.state_dict().values()) for stage in setup.stages) + OTHERS


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
        raise PatchlightError(out_of_memory(error, stage)) from error


def out_of_memory(error: BaseException, stage: Stage) -> str:
    """What to say where a stage got too little memory: how much there is, and what to change, in numbers."""
    config, device = stage.config, stage.device
    micro = _at_a_time(stage)
    limit, asked, used_gb = memory_limit(device), asked_bytes(error), peak_memory_gb(device)
    where = "GPU memory" if device.type == "cuda" else "memory"
    facts = [f"{_mb(int(1e9 * used_gb))} were in use at most"] if used_gb else []
    facts += [f"{_mb(asked)} more were asked for"] if asked else []
    facts += [f"there are {_mb(limit)}"] if limit else []
    told = f"out of {where} with {micro:,} images at a time ({', '.join(facts)}); "

    refused_by = _refuses_parts(config)
    parts = _smaller_parts(stage)
    ways = [f"{_micro_setting(stage)} = {parts} takes the images of a step in parts"] if parts else []
    same = [] if refused_by else ways
    recomputed = config.model.grad_checkpointing or not _can_recompute(stage)
    same += [] if recomputed else ["model.grad_checkpointing = true keeps less of each image"]
    same += (
        ["a smaller eval.batch_size helps where images are only looked at"] if config.eval.batch_size > micro else []
    )
    if same:
        told += (
            f"{'; '.join(same)}. These change no more than the last digits, and may be given with --resume where a "
            "checkpoint was saved, else with --overwrite"
        )
    other = [f"with {refused_by}, {way}" for way in ways] if refused_by else []
    other += [] if same or other else ["take a smaller model or smaller images"]
    if other:
        told += f"{'. ' if same else ''}{'; '.join(other)}, in a new run (--overwrite)"
    return told


def _at_a_time(stage: Stage) -> int:
    """Images that go through the model together, at most."""
    return min(stage.config.train.micro_batch_size or stage.batch_size, stage.batch_size)


def _smaller_parts(stage: Stage) -> int | None:
    """A quarter of the images at a time or less, as a power of two; None where one at a time is too much, or a part
    would be a single image, which is too few for the batch norm of a model.
    """
    parts = max(1, 2 ** (_at_a_time(stage).bit_length() - 1) // 4)
    last = stage.images_per_epoch - (stage.steps_per_epoch - 1) * stage.batch_size
    if any(isinstance(module, BATCH_NORMS) for module in stage.model.modules()):
        while parts > 1 and 1 in (last % parts, stage.batch_size % parts):
            parts //= 2
        return parts if parts > 1 else None
    return parts if _at_a_time(stage) > 1 else None


def _can_recompute(stage: Stage) -> bool:
    """Whether the network takes model.grad_checkpointing."""
    network = structure_of(stage.model).network
    if isinstance(network, VisionTransformer | MaskedAutoencoder):
        return True
    return hasattr(network, "set_grad_checkpointing") or bool(
        getattr(network, "supports_gradient_checkpointing", False)
    )


def _refuses_parts(config: Config) -> str | None:
    """What has to be given up for train.micro_batch_size, as a setting; `checks.py` refuses both together."""
    if config.train.engine != "loop":
        return "train.engine = 'loop'"
    return "train.cuda_graphs = false" if config.train.cuda_graphs else None


def _micro_setting(stage: Stage) -> str:
    """Its name: where there are stages, each may have its own, which the one for all does not change."""
    return f"stages.{stage.number}.train.micro_batch_size" if stage.count > 1 else "train.micro_batch_size"


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
