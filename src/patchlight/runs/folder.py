"""The run folder: which file holds which record, and writing so that a crash never leaves half a file."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from patchlight.config import Config, load_recipe
from patchlight.errors import PatchlightError, UsageError
from patchlight.paths import printable, user_path
from patchlight.runs.arrays import (
    Arrays,
    FirstBatch,
    Insight,
    NearCopies,
    Reconstructions,
    Samples,
    Snapshots,
    SubsetSamples,
)
from patchlight.runs.codec import JSON, RecordError
from patchlight.runs.faithfulness import Faithfulness
from patchlight.runs.records import (
    FORMAT,
    BatchFacts,
    Environment,
    Epoch,
    EvalResult,
    ReconstructionResult,
    RunFile,
    Skipped,
)

# Which file holds which record. `metrics.jsonl` is a list of Epochs.
FILES: dict[type, str] = {
    Environment: "environment.json",
    Skipped: "skipped.json",
    BatchFacts: "first_batch.json",
    FirstBatch: "first_batch.npz",
    EvalResult: "eval.json",
    ReconstructionResult: "reconstruction.json",
    Faithfulness: "faithfulness.json",
    Samples: "samples.npz",
    SubsetSamples: "subset_samples.npz",
    Insight: "insight.npz",
    Snapshots: "snapshots.npz",
    Reconstructions: "reconstructions.npz",
    NearCopies: "near_copies.npz",
}
METRICS = "metrics.jsonl"
# What a finished run has, by its `train.task`.
RESULT_TYPES: dict[str, type[EvalResult] | type[ReconstructionResult]] = {
    "classify": EvalResult,
    "reconstruct": ReconstructionResult,
}
FileT = TypeVar("FileT", bound="RunFile | Arrays")
# All that a run is made of; nothing else is deleted with it.
CONTENTS = (
    *("config.toml", METRICS, *FILES.values(), "report.html", "README.md"),
    *("explain", "export", "figures", "model", "checkpoints"),
)


@dataclass(frozen=True)
class Run:
    """A run folder. `Run.create` makes one to train in, `Run.open` takes an existing one to read."""

    path: Path

    @classmethod
    def create(cls, path: Path, config: Config, *, resume: bool = False, overwrite: bool = False) -> Run:
        """Make the folder and write `config.toml`.

        Raises UsageError where it exists and neither `resume` nor `overwrite` is given, where it is no run folder,
        where a run to resume was started with other settings, and for a path or setting that is no UTF-8.
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
        for field, text in {"--out": str(path), **config.flat()}.items():
            if isinstance(text, str) and printable(text) != text:
                raise UsageError(
                    f"{field} is {printable(text)}, of bytes that are no UTF-8, which no recipe and no file of weights "
                    "can name; rename that file or folder"
                )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            if not self.is_run:
                raise UsageError(f"{path} exists and is not a run folder; choose another place with --out")
            if resume:
                self._check_same(config)
            elif not overwrite:
                raise UsageError(f"{path} exists; continue it with --resume, replace it with --overwrite, or use --out")
        elif resume:
            raise UsageError(f"there is no run at {path} to resume; leave out --resume to start it")

    @property
    def is_run(self) -> bool:
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
    def open(cls, path: Path | str | Run) -> Run:
        """An existing run, by its folder or as itself. Raises PatchlightError where `path` is not a run folder."""
        if isinstance(path, Run):
            return path
        path = user_path(path)
        if not (path / "config.toml").is_file():
            near = [p.parent.name for p in sorted(path.parent.glob("*/config.toml"))] if path.parent.is_dir() else []
            others = f"; runs there: {', '.join(near[:8])}" if near else "; `patchlight train` makes one"
            raise PatchlightError(f"{path} is not a run folder (it has no config.toml){others}")
        return cls(path)

    def _check_same(self, config: Config) -> None:
        changed = config_differences(self.config(), config)
        for section, name in (("data", "interpolation"), ("model", "img_size")):
            if getattr(getattr(config, section), name) is None:  # the run goes on with what was decided at its start
                changed.pop(f"{section}.{name}", None)
        if not config.explain.snapshots_every:  # the method is that of snapshots alone, and its default has changed
            changed.pop("explain.method", None)
        if changed:
            key, (old, new) = next(iter(changed.items()))
            was, asked = (f"{value:g}" if isinstance(value, float) else str(value) for value in (old, new))
            raise UsageError(
                f"{self.path} was started with {key} = {was}, not {asked}; resume it with the same settings"
            )

    def config(self) -> Config:
        """The recipe of the run. Raises PatchlightError where it cannot be read."""
        path = self.path / "config.toml"
        config = load_recipe(str(path))
        return config if "restart_warmup" in path.read_text(encoding="utf-8") else _of_version_0_2(config)

    @property
    def finished(self) -> bool:
        return any(self.has(kind) for kind in RESULT_TYPES.values())

    @property
    def resume_command(self) -> str:
        """What goes on with the run, and writes the result of one whose training is over."""
        recipe, folder = shlex.quote(str(self.path / "config.toml")), shlex.quote(str(self.path))
        return f"patchlight train {recipe} --out {folder} --resume"

    def has(self, kind: type) -> bool:
        """Whether the file of this record is there."""
        return (self.path / FILES[kind]).is_file()

    def find(self, kind: type[FileT]) -> FileT | None:
        """The record, or None where it was not written yet. Raises PatchlightError where its file is damaged."""
        return self.read(kind) if self.has(kind) else None

    def read(self, kind: type[FileT]) -> FileT:
        """The record. Raises PatchlightError, naming the file and the way out, where it is missing or damaged."""
        path = self.path / FILES[kind]
        try:
            if issubclass(kind, Arrays):
                return kind.from_arrays(_load_arrays(path))
            data = _load_json(path)
            return kind.from_json({"format": 1, **data} if isinstance(data, dict) else data)
        except FileNotFoundError:
            raise PatchlightError(
                f"{path} is missing; if the run is not finished, go on with `{self.resume_command}`"
            ) from None
        except OSError as error:
            raise PatchlightError(f"cannot read {path}: {error.strerror}; check its permissions") from None
        except RecordError as error:
            raise self.damaged(kind, error) from None

    def damaged(self, kind: type, reason: object) -> PatchlightError:
        """The error of a record that is not what it should be: it names the file, the reason and the way out."""
        return PatchlightError(f"{self.path / FILES[kind]} is damaged: {reason}; mend it, or {self._mend(kind)}")

    def _mend(self, kind: type) -> str:
        """What brings a record back. A run with a result is finished, so only without one is it evaluated again."""
        if kind in (EvalResult, Samples, SubsetSamples):
            return f"write it anew with `{self.resume_command}`, once {self.path / FILES[EvalResult]} is deleted"
        if kind is ReconstructionResult:
            return f"`{self.resume_command}`"
        return "remove it; the report does without"

    def write(self, record: RunFile | Arrays) -> None:
        """Write the record's file, whole or not at all, with the number of today's format."""
        name = FILES[type(record)]
        if isinstance(record, Arrays):
            self._write_arrays(name, record.to_arrays())
        else:
            self._write_json(name, replace(record, format=FORMAT).to_json())

    def epochs(self) -> list[Epoch]:
        """The lines of `metrics.jsonl`; an empty list before the first. Raises PatchlightError, naming the line."""
        path = self.path / METRICS
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        except UnicodeDecodeError:
            raise PatchlightError(f"{path} is not text in UTF-8; restore it or remove it") from None
        rows = []
        for number, line in enumerate(lines, start=1):
            try:
                rows.append(Epoch.from_json(json.loads(line)))
            except (json.JSONDecodeError, RecordError) as error:
                reason = "it is not JSON" if isinstance(error, json.JSONDecodeError) else error
                raise PatchlightError(
                    f"{path}, line {number}, is not the record of an epoch ({reason}); remove the line"
                ) from None
        return rows

    def write_epochs(self, rows: Sequence[Epoch]) -> None:
        self.write_text(METRICS, "".join(json.dumps(row.to_json()) + "\n" for row in rows))

    def result(self) -> EvalResult | ReconstructionResult:
        """What the run ended with: the test metrics, or for `train.task = "reconstruct"` the validation loss.

        Raises PatchlightError as `read` does.
        """
        return self.read(RESULT_TYPES[self.config().train.task])

    def _write_json(self, name: str, data: Mapping[str, JSON]) -> None:
        self.write_text(name, json.dumps(data, indent=1, allow_nan=False) + "\n")

    def _write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
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


def _load_json(path: Path) -> object:
    """Raises RecordError where it is no JSON, PatchlightError where a later version wrote it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RecordError(f"it is not valid JSON (line {error.lineno})") from None
    except UnicodeDecodeError:
        raise RecordError("it is not text in UTF-8") from None
    made = data.get("format", 1) if isinstance(data, dict) else 1
    if isinstance(made, int) and made > FORMAT:
        raise PatchlightError(f"{path} was written by a newer Patchlight (format {made}); update this one")
    return data


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Raises RecordError where it is no .npz of plain arrays."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile):
        raise RecordError("it is no .npz of plain arrays") from None


def images_seen(rows: Sequence[Epoch]) -> float:
    """Training images of all epochs."""
    return sum(row.images_per_s * row.epoch_s for row in rows)


def images_per_s(rows: Sequence[Epoch]) -> float | None:
    """Training images per second over all epochs, without validation; None where there are no epochs."""
    seconds = sum(row.epoch_s for row in rows)
    return images_seen(rows) / seconds if seconds else None


def kept_epoch(rows: Sequence[Epoch], config: Config) -> Epoch | None:
    """Of the lines of `metrics.jsonl` that of the epoch whose weights were kept; None before the first."""
    best = [row for row in rows if row.best] if config.train.select != "last" else []
    return next(reversed(best or rows), None)


def recipe_of(recipe: str | Config, settings: Mapping[str, Any] | None = None) -> Config:
    """As `load_recipe`, but the config.toml of a run is read as `Run.config` reads it."""
    path = None if isinstance(recipe, Config) or not recipe else user_path(recipe)
    if path is not None and path.name == "config.toml" and Run(path.parent).has(Environment):
        recipe = Run(path.parent).config()
    return load_recipe(recipe, settings)


def _of_version_0_2(config: Config) -> Config:
    """What the recipe of a run of version 0.2.0 or before meant: with restarts a warm-up in the first cycle alone,
    with train.debug two epochs, whatever their number, and by grad-rollout the method that is scaled-rollout now.
    """
    if config.explain.method == "grad-rollout":
        config = load_recipe(config, {"explain.method": "scaled-rollout"})
    if any(stage.schedule.name == "cosine_restarts" for stage in config.of_stages()):
        config = load_recipe(config, {"schedule.restart_warmup": False})
    if config.train.debug:
        config = load_recipe(load_recipe(config, {"train.debug": False}), {"train.debug": True})
    return config


def config_differences(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, `{"train.epochs": (10, 20)}`; the `about` section describes and does not count."""
    left, right = a.flat(), b.flat()
    return {
        key: (left.get(key), right.get(key))
        for key in sorted({*left, *right})
        if not key.startswith("about.") and left.get(key) != right.get(key)
    }
