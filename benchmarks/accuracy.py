"""Validation accuracy within a wall-clock budget: a plain timm and torchvision loop against `patchlight train`.

Both see the images of `load_splits`, one after the other on the whole machine, seed by seed. Neither sees test images
while it trains. Imports and the loading of data are outside the budget on both sides; `total_s` has them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import markdown
from benchmarks.options import ROOT, Options
from benchmarks.timing import spread

PEER = "timm + torchvision, deit-tiny"
SHARES = (0.25, 0.5, 0.75)  # of the budget


def run(options: Options) -> dict[str, Any]:
    seconds = options.pick(60 * options.minutes, 4.0)
    recipes = options.recipes or (("quickstart",) if options.source == "digits" else ("cifar10-cpu",))
    runs: dict[str, list[dict[str, Any]]] = {PEER: [], **{f"patchlight train {recipe}": [] for recipe in recipes}}
    for seed in range(options.rounds_or(1, 1)):
        runs[PEER].append(train_peer(options, seconds, seed))
        for recipe in recipes:
            found = train_ours(options, recipe, seed, budget(seconds))
            assert found["digest_val"] == runs[PEER][-1]["digest_val"], "both validate on the same images"
            runs[f"patchlight train {recipe}"].append(found)
    return {
        "source": options.source,
        "budget_s": seconds,
        "runs": runs,
        "summary": {
            name: {
                **summary(found, seconds),
                "head_start": _spread([head_start(*pair) for pair in zip(found, runs[PEER], strict=True)]),
            }
            for name, found in runs.items()
        },
    }


def train_peer(options: Options, seconds: float, seed: int) -> dict[str, Any]:
    job = {
        "source": options.source,
        "seconds": seconds,
        "device": str(options.device),
        "seed": seed,
        "workers": min(os.cpu_count() or 2, 8),
        "batch": options.pick(128, 16),
    }
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.timm_loop", json.dumps(job)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "total_s": time.monotonic() - started}


def budget(seconds: float) -> dict[str, str]:
    """The settings for so much time."""
    return {"train.budget": f"{seconds:g}s"}


def train_ours(options: Options, recipe: str, seed: int, settings: dict[str, str]) -> dict[str, Any]:
    """`settings` go over the recipe's. `total_s` holds the test images and the report too."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        total = train_into(path, options, recipe, seed, settings)
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        environment = json.loads((path / "environment.json").read_text())
    rows = [{"wall_s": line["wall_s"], "epoch": line["epoch"], "val_top1": line["val/top1"]} for line in lines]
    images = sum(line["images_per_s"] * line["epoch_s"] for line in lines)
    data = environment["data"]
    return {
        "rows": rows,
        "images": round(images),
        "digest_val": data["digests"]["val"],
        "train": data["train"],
        "total_s": total,
    }


def train_into(path: Path, options: Options, recipe: str, seed: int, settings: dict[str, str]) -> float:
    """`patchlight train` into a run folder; how long the whole command took.

    It goes on with a run that is there, and leaves a finished one.
    """
    settings = {
        **settings,
        "data.source": options.source,
        "train.seed": str(seed),
        "train.device": options.device.type,
    }
    words = [word for key, value in settings.items() for word in (f"--{key}", value)]
    words += ["--resume"] if (path / "config.toml").is_file() else []
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "patchlight", "train", recipe, *words, "--out", str(path)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.monotonic() - started


def summary(runs: list[dict[str, Any]], budget: float) -> dict[str, Any]:
    """Over the seeds: validation accuracy at shares of the budget (None before the first), at the end, and at best."""
    rows = [run["rows"] for run in runs]
    return {
        "at": {str(share): _spread([accuracy_at(r, share * budget) for r in rows]) for share in SHARES},
        "last": spread([r[-1]["val_top1"] for r in rows]),
        "best": spread([max(row["val_top1"] for row in r) for r in rows]),
        "wall_s": spread([r[-1]["wall_s"] for r in rows]),
        "total_s": spread([run["total_s"] for run in runs]),
        "images": spread([run["images"] for run in runs]),
    }


def head_start(run: dict[str, Any], peer: dict[str, Any]) -> float | None:
    """The peer's time over the run's, to the accuracy that the peer ends with; None where the run never has it.

    A run is only looked at when an epoch ends, so it may have been there earlier.
    """
    goal = peer["rows"][-1]
    reached = [row["wall_s"] for row in run["rows"] if row["val_top1"] >= goal["val_top1"]]
    return goal["wall_s"] / reached[0] if reached else None


def accuracy_at(rows: list[dict[str, Any]], wall_s: float) -> float | None:
    """The newest validation by then."""
    known = [row["val_top1"] for row in rows if row["wall_s"] <= wall_s]
    return known[-1] if known else None


def _spread(values: list[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    return spread(known) if len(known) == len(values) else None


def table(result: dict[str, Any]) -> str:
    rows = [
        [
            name,
            "never" if found["head_start"] is None else markdown.times(found["head_start"]),
            markdown.percent(found["last"]),
            markdown.percent(found["best"]),
            *(markdown.percent(found["at"][str(share)]) for share in SHARES),
            markdown.number(found["images"]["median"]),
            markdown.number(found["wall_s"]["median"]),
            markdown.number(found["total_s"]["median"]),
        ]
        for name, found in result["summary"].items()
    ]
    seeds = len(next(iter(result["runs"].values())))
    header = [
        "",
        "the peer's time over its own, to the peer's last accuracy",
        "validation accuracy at the end",
        "best",
        *(f"at {share:.0%}" for share in SHARES),
        "images seen",
        "s, training and validation",
        "s in all",
    ]
    intro = f"`{result['source']}`, a budget of {result['budget_s']:,.0f} s, {seeds} seed{'s' if seeds > 1 else ''}."
    return f"{intro}\n\n{markdown.table(header, rows)}"
