"""The folder of a study: what is known of its runs, and one writer of its answer at a time."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from patchlight.errors import PatchlightError, UsageError
from patchlight.progress import say
from patchlight.runs import Environment, EvalResult, Run
from patchlight.runs.codec import RecordError, read_json
from patchlight.runs.lock import one_writer
from patchlight.runs.records import FORMAT
from patchlight.runs.study import FAILED, FINISHED, PRUNED, REUSED, WAITING, RunNote, StudyResult
from patchlight.runs.writing import whole_file
from patchlight.studies.plan import PlannedRun

RESULT, NOTES, LOCK = "study.json", "notes", ".lock"
CONTENTS = (RESULT, NOTES, "workers", "figures", "report.html", "README.md", "table.md", "table.csv", "table.tex")


@dataclass(frozen=True)
class StudyFolder:
    """A study's own files; its runs are elsewhere and may be shared with other studies."""

    path: Path

    def check_place(self, name: str) -> None:
        """Raises UsageError where something else than this study is in the way. Touches nothing."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; choose another place for the study with --out")
        inside = [path.name for path in self.path.iterdir() if not path.name.startswith(".")]
        if inside and not {*inside} & {RESULT, NOTES, "workers"}:
            raise UsageError(f"{self.path} exists and is not a study's folder; choose another place with --out")
        try:
            there = self.result()
        except PatchlightError as error:  # the study writes it again
            say(str(error))
            there = None
        if there is not None and there.name != name:
            raise UsageError(
                f"{self.path} holds the study '{there.name}'; choose another place for '{name}' with --out"
            )

    def note(self, run: PlannedRun) -> RunNote | None:
        """What the study did with a run; None where nothing is known. A damaged note is taken for none."""
        try:
            return RunNote.from_json(read_json(self._note(run)))
        except (FileNotFoundError, RecordError):
            return None

    def write_note(
        self, run: PlannedRun, state: str, reason: str = "", *, deaths: int = 0, tested: bool = False
    ) -> None:
        worker = f"{platform.node()} {os.getpid()}"
        note = RunNote(state=state, reason=reason, worker=worker, deaths=deaths, tested=tested)
        self._note(run).parent.mkdir(parents=True, exist_ok=True)
        write_json(self._note(run), replace(note, format=FORMAT))

    def restore(self, run: PlannedRun, note: RunNote | None) -> None:
        """Write what `note` has told before; None where nothing was known."""
        if note is None:
            self.forget(run)
        else:
            write_json(self._note(run), note)

    def forget(self, run: PlannedRun) -> None:
        self._note(run).unlink(missing_ok=True)

    def _note(self, run: PlannedRun) -> Path:
        return self.path / NOTES / f"{run.key}.json"

    def state_of(self, run: PlannedRun, *, prunes: bool) -> str:
        """FINISHED, PRUNED, FAILED or WAITING. Where the study no longer `prunes`, what it stopped is to go on."""
        if is_finished(run):
            return FINISHED
        note = self.note(run)
        if note is None or note.state in (FINISHED, REUSED, WAITING) or (note.state == PRUNED and not prunes):
            return WAITING
        return PRUNED if note.state == PRUNED else FAILED

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Inside, no other worker of this machine or of a shared folder writes the answer."""
        self.path.mkdir(parents=True, exist_ok=True)
        with one_writer(self.path / LOCK, "write its answer"):
            yield

    def result(self) -> StudyResult | None:
        """The answer so far, if there is one. Raises PatchlightError where it is damaged."""
        try:
            return StudyResult.from_json(read_json(self.path / RESULT))
        except FileNotFoundError:
            return None
        except RecordError as error:
            raise PatchlightError(
                f"{self.path / RESULT} is damaged: {error}; repeat the study, which writes it"
            ) from None


def is_finished(run: PlannedRun) -> bool:
    """Whether the run's folder holds a training that has ended."""
    return Run(run.folder).finished


def was_tested(run: PlannedRun) -> bool:
    """Whether the run's folder holds a test result that can be read."""
    try:
        return Run(run.folder).find(EvalResult) is not None
    except PatchlightError:
        return False


def environment_of(run: PlannedRun) -> Environment | None:
    return Run(run.folder).find(Environment)


def write_json(path: Path, record: RunNote | StudyResult) -> None:
    with whole_file(path) as part:
        part.write_text(json.dumps(record.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
