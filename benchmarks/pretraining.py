"""What images without labels, or a teacher, are worth in the same total time, with all labels and with few.

Each plan is a row of trainings that share the time; the last is tested. What several plans begin with is trained once.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import markdown
from benchmarks.accuracy import budget, train_into
from benchmarks.options import Options
from benchmarks.timing import spread

ALONE = "labels alone"
STUDENT = "cifar10-patchify-30min"


@dataclass(frozen=True)
class Training:
    """A recipe for a share of the time. "FIRST" among the settings is the folder of the plan's first run."""

    share: float
    recipe: str = STUDENT
    settings: dict[str, str] = field(default_factory=dict)
    labels: bool = True  # whether it looks at labels, so that few of them limit it


PAINTER = Training(0.5, "mae-cifar10", labels=False)
TEACHER = Training(0.2, "cifar10-vit-30min", {"model.depth": "0", "model.patch_drop_rate": "0"})

PLANS: dict[str, tuple[Training, ...]] = {
    ALONE: (Training(1.0),),
    "masked autoencoding, then labels": (PAINTER, Training(0.5, settings={"model.name": "FIRST"})),
    "a convolutional teacher, then its answers and labels": (
        TEACHER,
        Training(0.8, settings={"train.teacher": "FIRST", "train.distill": "hard"}),
    ),
    "the same, its probabilities": (
        TEACHER,
        Training(0.8, settings={"train.teacher": "FIRST", "train.distill": "soft"}),
    ),
    "the same, with a distillation token": (
        TEACHER,
        Training(
            0.8,
            settings={
                "train.teacher": "FIRST",
                "train.distill": "soft",
                "model.distill_token": "true",
                "model.global_pool": "token",
            },
        ),
    ),
}
LABELS: dict[str, dict[str, str]] = {
    "all": {},
    "450 of each class": {"data.train_per_class": "450", "data.val_per_class": "50"},
}
QUICK: dict[str, dict[str, str]] = {"20 of each class": {"data.train_per_class": "20"}}


def run(options: Options) -> dict[str, Any]:
    seconds = options.pick(60 * options.minutes, 4.0)
    base = {"data.image_size": "32"} if options.source == "digits" else {}
    if options.quick:
        base |= {"train.batch_size": "16"}
    labels = options.pick(LABELS, QUICK)
    plans = options.pick(PLANS, dict(list(PLANS.items())[:2]))
    found: dict[str, dict[str, list[dict[str, Any]]]] = {few: {plan: [] for plan in plans} for few in labels}
    for seed in range(options.rounds_or(3, 1)):
        done: dict[tuple[object, ...], Path] = {}
        with folder_of(options, seed) as folder:
            for few, limit in labels.items():
                for plan, trainings in plans.items():
                    path = carry_out(trainings, base, limit, options, seconds, seed, folder, done)
                    found[few][plan].append(result_of(path))
    return {
        "source": options.source,
        "budget_s": seconds,
        "runs": found,
        "summary": {
            few: {
                plan: {key: spread([run[key] for run in runs]) for key in ("test", "val", "wall_s")}
                for plan, runs in plans.items()
            }
            for few, plans in found.items()
        },
    }


@contextlib.contextmanager
def folder_of(options: Options, seed: int) -> Iterator[Path]:
    """Where a seed's runs are made. Of a folder that is kept, finished runs are taken and a cut one is gone on with."""
    if options.keep:
        yield options.keep / f"seed{seed}"
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def carry_out(
    trainings: tuple[Training, ...],
    base: dict[str, str],
    limit: dict[str, str],
    options: Options,
    seconds: float,
    seed: int,
    folder: Path,
    done: dict[tuple[object, ...], Path],
) -> Path:
    """Train what is not `done` yet; the run folder of the last."""
    first = last = folder
    for training in trainings:
        settings = {**base, **training.settings, **(limit if training.labels else {})}
        settings = {key: value.replace("FIRST", str(first)) for key, value in settings.items()}
        key = (training.recipe, training.share, *settings.items())
        if key not in done:
            done[key] = folder / f"run{len(done)}"
            train_into(done[key], options, training.recipe, seed, settings | budget(training.share * seconds))
        last = done[key]
        first = last if first is folder else first
    return last


def result_of(path: Path) -> dict[str, float]:
    """Of a plan's last run: test accuracy, the best validation accuracy, and its own time."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return {
        "test": json.loads((path / "eval.json").read_text())["top1"],
        "val": max(line["val/top1"] for line in lines),
        "wall_s": lines[-1]["wall_s"],
    }


def table(result: dict[str, Any]) -> str:
    rows = []
    for few, plans in result["summary"].items():
        alone = result["runs"][few][ALONE]
        for plan, found in plans.items():
            gains = [run["test"] - other["test"] for run, other in zip(result["runs"][few][plan], alone, strict=True)]
            rows.append(
                [
                    few,
                    plan,
                    markdown.percent(found["test"]),
                    markdown.percent(found["val"]),
                    "" if plan == ALONE else markdown.points(spread(gains)),
                ]
            )
    seeds = len(next(iter(next(iter(result["runs"].values())).values())))
    header = ["labels", "plan", "test accuracy", "validation accuracy", "points over labels alone, seed by seed"]
    intro = (
        f"`{STUDENT}`'s network on `{result['source']}`, {result['budget_s']:,.0f} s in all for each row, "
        f"{seeds} seed{'s' if seeds > 1 else ''}; median (least to greatest)."
    )
    return f"{intro}\n\n{markdown.table(header, rows)}"
