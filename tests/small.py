"""Small things that train in a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from patchlight.config import Config, config_from_dict
from patchlight.data.images import ImageSet
from patchlight.data.splits import Splits
from patchlight.errors import Interrupted
from patchlight.runs import Run
from patchlight.training import loop
from patchlight.training.fit import fit
from patchlight.training.loop import Trainer
from patchlight.training.setup import prepare
from patchlight.training.stage import Stage
from patchlight.training.state import TrainState

# Words of a command line that make `train quickstart` take two seconds.
SMALL = [
    *("--data.image_size", "16", "--data.train_per_class", "12", "--data.val_per_class", "4"),
    *("--data.test_per_class", "6", "--model.embed_dim", "24", "--model.depth", "2", "--model.num_heads", "2"),
    *("--train.batch_size", "32", "--train.epochs", "2", "--train.device", "cpu", "--train.precision", "fp32"),
    *("--eval.gallery", "4", "--explain.faithfulness", "0"),
]


def make_images(n: int = 60, classes: int = 3, size: int = 16, seed: int = 0) -> ImageSet:
    """Images that a small model learns: the class decides which band of rows is bright."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    images = torch.randint(0, 90, (n, 3, size, size), generator=draw, dtype=torch.uint8)
    band = size // classes
    for i, label in enumerate(labels.tolist()):
        images[i, :, label * band : (label + 1) * band] += 120
    return ImageSet(images, labels, tuple(f"class{c}" for c in range(classes)))


def small_config(**sections: dict) -> Config:
    """A recipe that trains in a second."""
    data = {
        "data": {"source": "digits", "image_size": 16, "train_per_class": 12, "val_per_class": 4, "test_per_class": 5},
        "model": {"name": "vit-micro", "embed_dim": 24, "depth": 2, "num_heads": 2, "fused_attn": True},
        "optim": {"lr": 3e-3},
        "train": {"epochs": 2, "batch_size": 32, "device": "cpu", "precision": "fp32"},
        "eval": {"gallery": 4},
    }
    for name, values in sections.items():
        data[name] = values if name == "stages" else {**data.get(name, {}), **values}
    return config_from_dict(data)


def small_splits() -> Splits:
    images = make_images(n=72)
    return Splits(images.select(range(48)), images.select(range(48, 60)), images.select(range(60, 72)))


@contextmanager
def stopped_at_save(count: int) -> Iterator[None]:
    """Training inside is interrupted when it has saved so many checkpoints."""
    save, saved = loop.save, []

    def stopped(run: Run, stage: Stage, state: TrainState) -> None:
        save(run, stage, state)
        saved.append(1)
        if len(saved) == count:
            raise Interrupted("on purpose")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save", stopped)
        with pytest.raises(Interrupted):
            yield


def run_fit(tmp_path, name="run", resume=False, data_set: Splits | None = None, **sections) -> tuple[TrainState, Run]:
    sections.setdefault("train", {}).setdefault("batch_size", 16)
    config = small_config(**sections)
    run = Run.create(tmp_path / name, config, resume=resume)
    return fit(prepare(config, data_set or small_splits()), run, resume=resume), run


def rows_of(run: Run) -> list[dict]:
    """The lines of `metrics.jsonl` as they are in the file."""
    return [row.to_json() for row in run.epochs()]


def make_trainer(config: Config, folder: Path, data_set: Splits | None = None) -> Trainer:
    """The loop of the recipe's first stage, before its first step."""
    data = data_set or small_splits()
    (stage, *_) = prepare(config, data).stages
    return Trainer(stage, data, Run(folder), TrainState(total_steps=stage.total_steps))
