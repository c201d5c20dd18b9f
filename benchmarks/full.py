"""Recipes at full length: as many as fit into the time, the shortest first.

A recipe is trained by `patchlight train` from its first epoch to its test images. What the time cuts off is stopped
with a checkpoint, and the same command goes on with it later. A forecast from a few real steps says which is short;
recipes that begin with weights of a hub have none and come last. One that fails has a row that says so.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import markdown
from benchmarks.options import ROOT, Options
from patchlight.commands.doctor import can_be_forecast, forecast
from patchlight.config import load_recipe
from patchlight.runs import EvalResult, Run, images_per_s

# The five systems' recipes, and Patchlight's own for a GPU, which have budgets.
RECIPES = (
    "cifar10-gpu-fast",
    "cifar10-gpu-best",
    "vit-tiny",
    "vit-small",
    "vit-base",
    "resnet18-cifar10",
    "vit-tiny-cpu",
    "deit-tiny-300",
    "vit-base-frozen",
    "vit-small8-two-stage",
)
MARKS = (1, 2, 5, 10, 20, 50, 100, 200, 300)  # epochs whose validation accuracy is given
LEAST_S = 20.0  # a training that has less than this is not begun
STOP_S = 120.0  # for the step under way and its checkpoint


def run(options: Options) -> dict[str, Any]:
    """The forecasts, and what each recipe's run folder holds when the time is over."""
    began = time.monotonic()
    folder = options.keep or ROOT / "runs" / "full"
    recipes = options.recipes or options.pick(RECIPES, ("quickstart",))
    settings = {"data.source": options.source, "train.device": options.device.type}
    if options.quick:
        settings |= {"train.debug": "true", "data.image_size": "32"}
    own_s = expected_seconds(recipes, options)
    seconds = 60 * options.minutes
    rows = {}
    for recipe in sorted(recipes, key=lambda name: own_s.get(name, float("inf"))):
        path = folder / recipe
        left = seconds - (time.monotonic() - began)
        problem = (
            "does not fit into the memory" if recipe not in own_s and can_be_forecast(load_recipe(recipe)) else None
        )
        if problem is None and not is_finished(path) and left >= LEAST_S:
            problem = train_for(left, path, recipe, settings)
        rows[recipe] = {"expected_s": own_s.get(recipe), "problem": problem, **outcome(path, recipe)}
    return {"source": options.source, "minutes": options.minutes, "rows": rows}


def expected_seconds(recipes: tuple[str, ...], options: Options) -> dict[str, float]:
    """How long a recipe takes on this machine, of those that can be forecast and fit into the memory."""
    expected = {row.recipe: row.own_s for row in forecast(60.0, options.device.type, recipes)}
    for name in expected:
        if budget := load_recipe(name).train.budget:
            expected[name] = budget.seconds
    return expected


def is_finished(path: Path) -> bool:
    return (path / "config.toml").is_file() and Run.open(path).finished


def train_for(seconds: float, path: Path, recipe: str, settings: dict[str, str]) -> str | None:
    """`patchlight train` into a run folder, from its newest checkpoint if it has one, stopped when the time is over.

    Returns the last line that it said where it failed by itself.
    """
    words = [word for key, value in settings.items() for word in (f"--{key}", value)]
    words += ["--resume"] if (path / "config.toml").is_file() else []
    command = [sys.executable, "-m", "patchlight", "train", recipe, *words, "--out", str(path)]
    print(f"{recipe}: at most {seconds:,.0f} s", file=sys.stderr)
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.parent / f"{recipe}.log"
    with log.open("w", encoding="utf-8") as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said)
        try:
            failed = process.wait(seconds) != 0
        except subprocess.TimeoutExpired:
            failed = False
            stop(process)
    lines = log.read_text(encoding="utf-8").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it failed") if failed else None


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a training with a checkpoint or, where that takes too long, with the last whole one."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def outcome(path: Path, recipe: str) -> dict[str, Any]:
    """What a run folder says; of a recipe that was not begun, the epochs that it has."""
    planned = sum(stage.train.epochs for stage in load_recipe(recipe).of_stages())
    if not (path / "config.toml").is_file():
        return {"epochs": 0, "planned": planned, "begun": False}
    run = Run.open(path)
    epochs, result = run.epochs(), run.find(EvalResult)
    return {
        "begun": True,
        "epochs": len(epochs),
        "planned": planned if result is None else len(epochs),
        "top1": result and result.top1,
        "ci95": result and list(result.top1_ci95),
        "n": result and result.n,
        "best_val": max((row.val_top1 for row in epochs if row.val_top1 is not None), default=None),
        "curve": {str(row.epoch): row.val_top1 for row in epochs if row.epoch in MARKS},
        "wall_s": epochs[-1].wall_s if epochs else 0.0,
        "images_per_s": images_per_s(epochs),
    }


def table(result: dict[str, Any]) -> str:
    rows = []
    for recipe, row in result["rows"].items():
        expected = "" if row["expected_s"] is None else markdown.number(row["expected_s"])
        epochs = f"{row['epochs']} of {row['planned']:g}"
        if not row["epochs"]:
            state = row["problem"] or ("not finished" if row["begun"] else "not begun")
            rows.append([f"`{recipe}`", epochs, state, "", "", "", "", expected])
            continue
        low, high = row["ci95"] or (0.0, 0.0)
        test = f"{row['top1']:.2%} ({low:.1%} to {high:.1%})" if row["ci95"] else row["problem"] or "not finished"
        best = "" if row["best_val"] is None else f"{row['best_val']:.1%}"
        curve = ", ".join(f"{value:.1%} at {epoch}" for epoch, value in row["curve"].items() if value is not None)
        speed, seconds = markdown.number(row["images_per_s"]), markdown.number(row["wall_s"])
        rows.append([f"`{recipe}`", epochs, test, best, curve, speed, seconds, expected])
    header = [
        "recipe",
        "epochs",
        "test accuracy (95 % interval)",
        "best validation",
        "validation at epoch",
        "images/s",
        "s of training",
        "s expected",
    ]
    return (
        f"`{result['source']}`, one seed, {result['minutes']:g} minutes in this call.\n\n{markdown.table(header, rows)}"
    )
