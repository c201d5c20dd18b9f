"""Studies of trainings that take a second. No test of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from undrawn import undrawn

from patchlight.cli.main import main
from patchlight.commands.study import _train
from patchlight.config.study import Study
from patchlight.config.study_file import study_of
from patchlight.runs.study import StudyResult
from patchlight.studies.claims import Claims
from patchlight.studies.folder import StudyFolder
from patchlight.studies.plan import Plan, make_plan
from patchlight.studies.work import Worker

# Settings that make a training of `quickstart` take half a second.
TINY: dict[str, dict[str, Any]] = {
    "data": {"image_size": 16, "train_per_class": 12, "val_per_class": 4, "test_per_class": 6},
    "model": {"embed_dim": 24, "depth": 2, "num_heads": 2, "fused_attn": True},
    "train": {"batch_size": 32, "device": "cpu", "precision": "fp32", "threads": 1},
    "eval": {"gallery": 4},
    "explain": {"faithfulness": 0},
}
TWO = ({"name": "plain"}, {"name": "fast", "optim": {"lr": 0.004}})


def tiny_data(**parts: Any) -> dict[str, Any]:
    """A study of `quickstart` as its file has it: two variants, two seeds, two epochs, but for the `parts`. None in
    its base takes a setting of TINY away.
    """
    base = parts.pop("base", {})
    whole = {name: {**TINY.get(name, {}), **base.get(name, {})} for name in {**TINY, **base}}
    whole = {name: {key: value for key, value in own.items() if value is not None} for name, own in whole.items()}
    study = {"recipe": "quickstart", "seeds": [0, 1], "test": "none", **parts.pop("study", {})}
    return {"study": study, "base": whole, "budget": {"epochs": 2}, "variants": [*TWO], **parts}


def tiny_study(name: str = "mine", **parts: Any) -> Study:
    return study_of(tiny_data(**parts), name, f"{name}.toml")


def tiny_file(folder: Path, name: str = "mine", **parts: Any) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps(tiny_data(**parts)), encoding="utf-8")
    return path


def tiny_plan(place: Path, name: str = "mine", **parts: Any) -> Plan:
    """Its runs are in `place`/runs."""
    return make_plan(tiny_study(name, **parts), place / "runs")


def worker_of(plan: Plan, place: Path, lease_s: float = 60) -> Worker:
    """A worker that trains as `patchlight study` does; the study's folder is `place`/NAME."""
    return Worker(plan, StudyFolder(place / plan.study.name), _train, Claims(lease_s))


def finish(folder: Path, **parts: Any) -> Path:
    """Write mine.toml into a folder, and train its study there with no figures drawn."""
    tiny_file(folder, **parts)
    with undrawn(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["study", "mine.toml"]) == 0
    return folder


def result_in(folder: Path = Path("studies/mine")) -> StudyResult:
    return StudyResult.from_json(json.loads((folder / "study.json").read_text()))
