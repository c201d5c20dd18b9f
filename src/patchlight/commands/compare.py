"""`patchlight compare`: runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchlight.errors import PatchlightError
from patchlight.progress import say
from patchlight.runs import Run, config_differences


def compare(runs: Sequence[str | Path]) -> dict[str, Any]:
    """`{"runs": [...], "differences": {setting: [value of each run]}}`."""
    opened = [Run.open(run) for run in runs]
    unfinished = [run for run in opened if not (run.path / "eval.json").is_file()]
    opened = [run for run in opened if run not in unfinished]
    for run in unfinished:
        say(f"{run.path} has no test result and is left out")
    if not opened:
        raise PatchlightError("none of these runs has a test result; finish one with `patchlight train ... --resume`")
    rows = [_summary(run) for run in opened]
    configs = [run.config() for run in opened]
    keys = {key for other in configs[1:] for key in config_differences(configs[0], other)}
    values = [config.flat() for config in configs]
    differences = {key: [value.get(key) for value in values] for key in sorted(keys)}
    return {"runs": rows, "differences": differences}


def _summary(run: Run) -> dict[str, Any]:
    metrics, environment = run.read_json("eval.json"), run.read_json("environment.json")
    model, time = environment["model"], environment["time"]
    return {
        "run": str(run.path),
        "model": model["name"],
        "data": metrics["data"],
        "n": metrics["n"],
        "top1": metrics["top1"],
        "top1_ci95": metrics["top1_ci95"],
        "params": model["params"],
        "flops_per_image": model["flops_per_image"],
        "images_per_s": time["images_per_s"],
        "train_wall_s": time["train_wall_s"],
    }
