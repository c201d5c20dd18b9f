"""The run folder: what its files are called, and writing them so that a crash never leaves half a file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchlight.config import Config, load_recipe
from patchlight.errors import PatchlightError, UsageError

# What a finished run has, by its `train.task`.
RESULTS = {"classify": "eval.json", "reconstruct": "reconstruction.json"}
CONTENTS = (
    "config.toml",
    "environment.json",
    "metrics.jsonl",
    *RESULTS.values(),
    "samples.npz",
    "reconstructions.npz",
    "insight.npz",
    "snapshots.npz",
    "faithfulness.json",
    "report.html",
    "README.md",
    "explain",
    "export",
    "figures",
    "model",
    "checkpoints",
)


@dataclass(frozen=True)
class Run:
    """A run folder. `Run.create` makes one to train in, `Run.open` takes an existing one to read."""

    path: Path

    @classmethod
    def create(cls, path: Path, config: Config, *, resume: bool = False, overwrite: bool = False) -> Run:
        """Make the folder and write `config.toml`.

        Raises UsageError where it exists and neither `resume` nor `overwrite` is given, where it is no run folder, and
        where a run to resume was started with other settings.
        """
        run = cls(path)
        run.check_free(config, resume=resume, overwrite=overwrite)
        if resume:
            return run
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PatchlightError(f"cannot make {path}: {error.strerror}; choose another place with --out") from None
        run._clear()
        run.write_text("config.toml", config.to_toml())
        return run

    def check_free(self, config: Config, *, resume: bool = False, overwrite: bool = False) -> None:
        """Raises what `create` raises, and touches nothing."""
        path = self.path
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            if not self._is_run():
                raise UsageError(f"{path} exists and is not a run folder; choose another place with --out")
            if resume:
                self._check_same(config)
            elif not overwrite:
                raise UsageError(f"{path} exists; continue it with --resume, replace it with --overwrite, or use --out")
        elif resume:
            raise UsageError(f"there is no run at {path} to resume; leave out --resume to start it")

    def _is_run(self) -> bool:
        """Its config.toml is one of ours, not any other tool's."""
        try:
            self.config()
        except PatchlightError:
            return False
        return True

    def _clear(self) -> None:
        """Delete what runs are made of, and nothing that somebody else put beside it."""
        for name in CONTENTS:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """Raises PatchlightError where `path` is not a run folder."""
        path = Path(path)
        if not (path / "config.toml").is_file():
            near = [p.parent.name for p in sorted(path.parent.glob("*/config.toml"))] if path.parent.is_dir() else []
            others = f"; runs there: {', '.join(near[:8])}" if near else "; `patchlight train` makes one"
            raise PatchlightError(f"{path} is not a run folder (it has no config.toml){others}")
        return cls(path)

    def _check_same(self, config: Config) -> None:
        changed = config_differences(self.config(), config)
        if changed:
            key, (old, new) = next(iter(changed.items()))
            raise UsageError(f"{self.path} was started with {key} = {old}, not {new}; resume it with the same settings")

    def config(self) -> Config:
        return load_recipe(str(self.path / "config.toml"))

    @property
    def finished(self) -> bool:
        return any((self.path / name).is_file() for name in RESULTS.values())

    def result(self) -> dict[str, Any]:
        """What the run ended with: the test metrics or, without labels, the loss of what was painted."""
        return self.read_json(RESULTS[self.config().train.task])

    def metrics(self) -> list[dict[str, Any]]:
        """The epochs so far; an empty list before the first."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        rows = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                raise PatchlightError(f"{path}, line {number}, is not JSON; remove the line") from None
        return rows

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        self.write_text("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def read_json(self, name: str) -> dict[str, Any]:
        """`environment.json` or `eval.json`. Raises PatchlightError where it is missing or no JSON."""
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise PatchlightError(f"{path} is missing; is the run finished? `patchlight train ... --resume`") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise PatchlightError(f"{path} is not valid JSON: {error}") from None

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        self.write_text(name, json.dumps(data, indent=1, allow_nan=False) + "\n")

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """`samples.npz` or `insight.npz`: what the report shows."""
        part = self.path / f".{name}.part.npz"
        np.savez_compressed(part, **arrays)  # type: ignore[arg-type]
        part.replace(self.path / name)

    def write_text(self, name: str, text: str) -> None:
        part = self.path / f".{name}.part"
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path / name)


def kept_row(rows: Sequence[dict[str, Any]], config: Config) -> dict[str, Any] | None:
    """Of the lines of `metrics.jsonl` that of the epoch whose weights were kept; None before the first."""
    best = [row for row in rows if row.get("best")] if config.train.select == "best" else []
    return next(reversed(best or rows), None)


def config_differences(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, `{"train.epochs": (10, 20)}`; the `about` section describes and does not count."""
    left, right = a.flat(), b.flat()
    return {
        key: (left.get(key), right.get(key))
        for key in sorted({*left, *right})
        if not key.startswith("about.") and left.get(key) != right.get(key)
    }
