"""Run folders with chosen accuracies, written by the code that writes them in training. Nothing is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from made_run import ENVIRONMENT

from patchlight.config import config_from_dict
from patchlight.evaluation.metrics import classification_metrics
from patchlight.runs import Environment, Epoch, EvalResult, Run

DIGESTS = {"train": "a1", "val": "b2", "test": "c3"}


def made(
    path: Path,
    val: float | None,
    test: float | None = 0.8,
    *,
    seed: int = 0,
    finished: bool = True,
    epoch_s: tuple[float, ...] = (2.0, 4.0),
    digests: dict[str, str] | None = None,
    val_n: int = 200,
    about: str = "made",
    stages: tuple[dict, ...] = (),
    **sections: dict,
) -> Run:
    """A run whose kept weights have `val` of 200 validation images right, and `test` of 100 test images; None for none.

    The kept epoch is the last but one, and the last one is worse.
    """
    sections = {"about": {"name": about}, **sections, "train": {"seed": seed, **sections.get("train", {})}}
    run = Run.create(path, config_from_dict(sections | ({"stages": list(stages)} if stages else {})))
    data = {**ENVIRONMENT["data"], "val": val_n, "test": 100, "digests": DIGESTS if digests is None else digests}
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "time" or finished}
    run.write(Environment.from_json({**environment, "data": data}))
    rows = [
        Epoch(
            epoch=number,
            step=10 * number,
            lr=1e-3,
            train_loss=1.0,
            val_top1=None if val is None else val if number < len(epoch_s) else val / 2,
            images_per_s=100.0,
            epoch_s=seconds,
            best=number < len(epoch_s),
        )
        for number, seconds in enumerate(epoch_s, 1)
    ]
    run.write_epochs(rows)
    if test is not None:
        right = np.arange(100) < round(100 * test)
        labels = np.arange(100) % 2
        logits = np.eye(2)[np.where(right, labels, 1 - labels)]
        result = classification_metrics(logits, labels, ("cat", "dog"))
        run.write(EvalResult.from_json({"data": "digits", "split": "test", **result.to_json()}))
    return run
