"""The run folder: which file holds which record, and writing so that a crash never leaves half a file."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from patchlight.config import Config, load_recipe
from patchlight.errors import PatchlightError, UsageError, first_of
from patchlight.paths import user_path
from patchlight.progress import say
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
from patchlight.runs.codec import JSON, RecordError, parse_json
from patchlight.runs.faithfulness import Faithfulness
from patchlight.runs.history import epochs_of
from patchlight.runs.lock import HOLDER, LOCK, locked
from patchlight.runs.manifest import MANIFEST, Manifest, Seal, add_to_manifest
from patchlight.runs.npz import MOST_BYTES, read_arrays
from patchlight.runs.overwrite import RECIPE, is_cut_off, replace_contents, roll_back
from patchlight.runs.records import (
    FORMAT,
    BatchFacts,
    Environment,
    Epoch,
    EvalResult,
    ReconstructionResult,
    RunFile,
    Skipped,
    ValidationResult,
)
from patchlight.runs.settings import check_texts, config_differences, of_version_0_2, only_saves, word
from patchlight.runs.tracking import Tracked
from patchlight.runs.writing import PART, sweep, whole_file

# Which file holds which record. `metrics.jsonl` is a list of Epochs.
FILES: dict[type, str] = {
    Environment: "environment.json",
    Skipped: "skipped.json",
    Tracked: "tracking.json",
    BatchFacts: "first_batch.json",
    FirstBatch: "first_batch.npz",
    EvalResult: "eval.json",
    ValidationResult: "validation.json",
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
COPY = "run-"  # before the name of a file of the run, of which a checkpoint has a copy
Result = EvalResult | ValidationResult | ReconstructionResult
RESULT_TYPES = (EvalResult, ValidationResult, ReconstructionResult)  # a finished run has one, or the first two
FileT = TypeVar("FileT", bound="RunFile | Arrays")
# All that a run is made of; nothing else is deleted with it.
CONTENTS = (
    *(RECIPE, METRICS, *FILES.values(), "report.html", "README.md"),
    *("explain", "export", "figures", "model", "checkpoints", "tracking"),
)


@dataclass(frozen=True)
class Run:
    """A run folder. `Run.create` makes one to train in, `Run.open` takes an existing one to read."""

    path: Path

    @classmethod
    def create(
        cls,
        path: Path,
        config: Config,
        *,
        resume: bool = False,
        overwrite: bool = False,
        begin: Callable[[], None] | None = None,
    ) -> Run:
        """Make the folder and write `config.toml`. `begin` is called before, and may refuse: by what it raises nothing
        is lost of a run that was to be overwritten.

        Raises UsageError where it exists and neither `resume` nor `overwrite` is given, where it is no run folder,
        where a run to resume was started with other settings, and for a path or setting that is no UTF-8.
        """
        run = cls(path)
        run.check_free(config, resume=resume, overwrite=overwrite)
        if resume:
            if begin is not None:
                begin()
            return run
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PatchlightError(f"cannot make {path}: {error.strerror}; choose another place with --out") from None
        replace_contents(path, CONTENTS, config.to_toml().encode(), begin)
        return run

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, no other process trains in the folder, and what a killed one left half done is finished or away.

        Raises UsageError where another one does, PatchlightError where the folder cannot be written.
        """
        with locked(self.path):
            if roll_back(self.path):
                say(f"{self.path}: a run that was to replace this one did not begin; this one is back as it was")
            swept = [*sweep(self.path, lambda name: name in (*CONTENTS, MANIFEST))]
            swept += sweep(self.path / "checkpoints", lambda name: name.startswith(("epoch-", "step-")))
            swept += sweep(self.path / "figures", lambda name: name.endswith(".png"))
            self._check_links()
            if swept:
                say(f"{self.path}: deleted what a process that was killed left half written ({first_of(swept, 4)})")
            yield

    def _check_links(self) -> None:
        """Raises PatchlightError for a link that leads nowhere, as to a disk that is not mounted."""
        for name in CONTENTS:
            link = self.path / name
            if link.is_symlink() and not link.exists():
                raise PatchlightError(f"{link} is a link to {link.readlink()}, which is not there; mount it or make it")

    def check_place(self) -> None:
        """Raises UsageError where something else than a run is in the way. Touches nothing."""
        path = self.path
        empty = not path.exists() or (path.is_dir() and not any(map(_is_content, path.iterdir())))
        if not empty and not self.is_there:
            raise UsageError(f"{path} exists and is not a run folder; choose another place with --out")

    @property
    def is_there(self) -> bool:
        """Whether it is a run's folder, damaged or not."""
        return self.is_run or (
            self.path.is_dir() and (RECIPE in Manifest.read(self.path).seals or is_cut_off(self.path))
        )

    def check_free(self, config: Config, *, resume: bool = False, overwrite: bool = False) -> None:
        """Raises what `create` raises, and touches nothing."""
        path = self.path
        check_texts({"--out": str(path), **config.flat()})
        if path.exists() and (not path.is_dir() or any(map(_is_content, path.iterdir()))):
            self.check_place()
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

    @classmethod
    def open(cls, path: Path | str | Run) -> Run:
        """An existing run, by its folder or as itself. Raises PatchlightError where `path` is not a run folder."""
        if isinstance(path, Run):
            return path
        path = user_path(path)
        if is_cut_off(path):
            with cls(path).held():
                pass
        if not (path / "config.toml").is_file():
            near = [p.parent.name for p in sorted(path.parent.glob("*/config.toml"))] if path.parent.is_dir() else []
            others = f"; runs there: {', '.join(near[:8])}" if near else "; `patchlight train` makes one"
            if RECIPE in Manifest.read(path).seals:
                raise PatchlightError(f"{path / RECIPE} is missing; {cls(path).way_back(RECIPE)}")
            raise PatchlightError(f"{path} is not a run folder (it has no config.toml){others}")
        return cls(path)

    def _check_same(self, config: Config) -> None:
        changed = config_differences(self.config(), config)
        changed.pop("eval.test", None)  # the test images may be read later
        if self.has(Environment):  # which knows the images by their digests, wherever they lie now
            changed.pop("data.source", None)
        for section, name in (("data", "interpolation"), ("model", "img_size")):
            if getattr(getattr(config, section), name) is None:  # the run goes on with what was decided at its start
                changed.pop(f"{section}.{name}", None)
        if not config.explain.snapshots_every:  # the method is that of snapshots alone, and its default has changed
            changed.pop("explain.method", None)
        changed = {key: pair for key, pair in changed.items() if not only_saves(key)}
        if changed:
            differences = ", ".join(f"{key} = {word(old)}, not {word(new)}" for key, (old, new) in changed.items())
            raise UsageError(f"{self.path} was started with {differences}; resume it with the same settings")

    def config(self) -> Config:
        """The recipe of the run. Raises PatchlightError where it cannot be read, or was changed."""
        path = self.path / RECIPE
        if path.is_file() and (wrong := self.damage_of(RECIPE)):
            raise PatchlightError(
                f"{path} is not what the run was started with: {wrong}; {self.way_back(RECIPE)}, or give it another "
                "name to train with it as a recipe of its own"
            )
        config = load_recipe(str(path))
        return config if "restart_warmup" in path.read_text(encoding="utf-8") else of_version_0_2(config)

    @property
    def finished(self) -> bool:
        return any(map(self.has, RESULT_TYPES))

    def has_result_of(self, config: Config) -> bool:
        """Whether the run has ended as a recipe wants it: one that reads the test images has their result."""
        kinds = RESULT_TYPES if not config.eval.test else (EvalResult, ReconstructionResult)
        return any(map(self.has, kinds))

    @property
    def resume_command(self) -> str:
        """What goes on with the run, and writes the result of one whose training is over."""
        recipe, folder = shlex.quote(str(self.path / "config.toml")), shlex.quote(str(self.path))
        return f"patchlight train {recipe} --out {folder} --resume"

    def has(self, kind: type) -> bool:
        """Whether the file of this record is there."""
        return (self.path / FILES[kind]).is_file()

    def was_written(self, kind: type) -> bool:
        """Whether the file of this record was there once, by the manifest."""
        return FILES[kind] in Manifest.read(self.path).seals

    def find(self, kind: type[FileT]) -> FileT | None:
        """The record, or None where it was not written yet. Raises PatchlightError where its file is damaged."""
        return self.read(kind) if self.has(kind) else None

    def read(self, kind: type[FileT]) -> FileT:
        """The record. Raises PatchlightError, naming the file and the way out, where it is missing or damaged."""
        path = self.path / FILES[kind]
        try:
            if path.stat().st_size > MOST_BYTES:
                raise RecordError(f"it has {path.stat().st_size:,} bytes, and the limit is {MOST_BYTES:,}")
            content = path.read_bytes()
            if wrong := self.damage_of(path.name, content):
                raise RecordError(f"it is not what was written ({wrong})")
            if issubclass(kind, Arrays):
                return kind.from_arrays(read_arrays(content))
            data = _load_json(path, content)
            return kind.from_json({"format": 1, **data} if isinstance(data, dict) else data)
        except FileNotFoundError:
            raise PatchlightError(
                f"{path} is missing; if the run is not finished, go on with `{self.resume_command}`"
            ) from None
        except OSError as error:
            raise PatchlightError(f"cannot read {path}: {error.strerror}; check its permissions") from None
        except RecordError as error:
            raise self.damaged(kind, error) from None

    def shown(self, kind: type[FileT]) -> FileT | None:
        """The record for a page to show, or None where it was not written or, as is said then, is damaged."""
        try:
            return self.find(kind)
        except PatchlightError as error:
            say(f"left out: {error}")
            return None

    def damage_of(self, name: str, content: bytes | None = None) -> str | None:
        """What is wrong with a file by the manifest, or None. Raises PatchlightError where it cannot be read.

        A run whose recipe stands in the manifest began with one, so all of its files do. That files of other runs are
        not compared is said once.
        """
        try:
            manifest = Manifest.read(self.path)
            if RECIPE not in manifest.seals and not manifest.unreadable:
                _tell_once(self.path)
            return manifest.damage(name, content, must_be=RECIPE in manifest.seals)
        except OSError as error:
            raise PatchlightError(f"cannot read {error.filename or self.path}: {error.strerror}") from None

    def way_back(self, name: str) -> str:
        """What brings a damaged file of the run back, in words."""
        copies = sorted(
            (self.path / "checkpoints").glob(f"epoch-*/{COPY}{name}"), key=lambda copy: copy.stat().st_mtime
        )
        return f"`{self.resume_command}` restores it from {copies[-1]}" if copies else "restore it from a copy"

    def damaged(self, kind: type, reason: object) -> PatchlightError:
        """The error of a record that is not what it should be: it names the file, the reason and the way out."""
        return PatchlightError(f"{self.path / FILES[kind]} is damaged: {reason}; mend it, or {self._mend(kind)}")

    def _mend(self, kind: type) -> str:
        """What brings a record back. A run with a result is finished, so only without one is it evaluated again."""
        if kind in RESULT_TYPES:
            return f"write it anew with `{self.resume_command}`"
        if kind in (Samples, SubsetSamples):
            return f"write it anew with `{self.resume_command}`, once {self.path / FILES[EvalResult]} is deleted"
        if kind is Tracked:
            return "remove it; --resume begins the run anew in its trackers"
        if kind is Environment:
            return f"{self.way_back(FILES[kind])}, or remove it; the report does without"
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
        content = path.read_bytes() if path.is_file() else b""
        if not content and not path.is_file() and METRICS in Manifest.read(self.path).seals:
            raise PatchlightError(f"{path} is missing; {self.way_back(METRICS)}")
        if content and (wrong := self.damage_of(METRICS, content)):
            raise PatchlightError(f"{path} is not what was written: {wrong}; {self.way_back(METRICS)}")
        return epochs_of(content, path)

    def write_epochs(self, rows: Sequence[Epoch]) -> None:
        self.write_text(METRICS, "".join(json.dumps(row.to_json()) + "\n" for row in rows))

    def result(self) -> Result:
        """What the run ended with: the test metrics, with `eval.test = false` the validation, or for
        `train.task = "reconstruct"` the validation loss.

        Raises PatchlightError as `read` does.
        """
        if self.config().train.task == "reconstruct":
            return self.read(ReconstructionResult)
        if self.has(ValidationResult) and not self.has(EvalResult):
            return self.read(ValidationResult)
        return self.read(EvalResult)

    def _write_json(self, name: str, data: Mapping[str, JSON]) -> None:
        self.write_text(name, json.dumps(data, indent=1, allow_nan=False) + "\n")

    def _write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        self.write_bytes(name, content.getvalue())

    def write_text(self, name: str, text: str) -> None:
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """A file of the run, whole or not at all, and first its line in the manifest."""
        with whole_file(self.path / name) as part:
            part.write_bytes(content)
            add_to_manifest(self.path, [(name, Seal.of_bytes(content))])


@functools.cache
def _tell_once(path: Path) -> None:
    """Of a run, that damage would not be noticed."""
    if (path / FILES[Environment]).is_file():
        say(f"{path} has no {MANIFEST} of its beginning, as a run of an earlier version: damage would not be noticed")


def _is_content(path: Path) -> bool:
    """Whether it is more than what a process that was killed before a run began left in its folder."""
    return path.name not in (LOCK, HOLDER, MANIFEST) and not (path.name.startswith(".") and path.suffix == PART)


def _load_json(path: Path, content: bytes) -> object:
    """Raises RecordError where it is no JSON, PatchlightError where a later version wrote it."""
    try:
        data = parse_json(content.decode())
    except UnicodeDecodeError:
        raise RecordError("it is not text in UTF-8") from None
    made = data.get("format", 1) if isinstance(data, dict) else 1
    if isinstance(made, int) and FORMAT < made < 1000:
        raise PatchlightError(f"{path} was written by a newer Patchlight (format {made}); update this one")
    return data


def recipe_of(recipe: str | Config, settings: Mapping[str, Any] | None = None) -> Config:
    """As `load_recipe`, but the config.toml of a run is read as `Run.config` reads it."""
    path = None if isinstance(recipe, Config) or not recipe else user_path(recipe)
    if path is not None and path.name == "config.toml" and Run(path.parent).has(Environment):
        recipe = Run(path.parent).config()
    return load_recipe(recipe, settings)
