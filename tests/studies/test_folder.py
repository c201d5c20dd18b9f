"""A study's own folder: notes, one writer of the answer, and what may stand in its place."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from filelock import UnixFileLock
from made_study import STUDIES
from small_study import tiny_plan

from patchlight.errors import PatchlightError, UsageError
from patchlight.runs.study import FAILED, FINISHED, PRUNED, WAITING
from patchlight.studies.folder import RESULT, StudyFolder, write_json

HOLD = """
import sys, time
from pathlib import Path
from patchlight.studies.folder import StudyFolder
with StudyFolder(Path(sys.argv[1])).answering():
    print("held", flush=True)
    time.sleep(60)
"""


def test_states_by_their_notes(tmp_path):
    run = tiny_plan(tmp_path).runs[0]
    folder = StudyFolder(tmp_path / "mine")
    assert folder.note(run) is None
    assert folder.state_of(run, prunes=True) == WAITING
    for state, prunes, expected in (
        (FINISHED, True, WAITING),  # its folder was deleted since
        (WAITING, True, WAITING),
        (PRUNED, True, PRUNED),
        (PRUNED, False, WAITING),
        (FAILED, False, FAILED),
    ):
        folder.write_note(run, state, "why")
        assert folder.state_of(run, prunes=prunes) == expected
    note = folder.note(run)
    assert note is not None
    folder.forget(run)
    assert folder.note(run) is None
    folder.restore(run, note)
    assert folder.note(run) == note
    folder.restore(run, None)
    assert folder.note(run) is None
    folder.forget(run)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": 3}', '{"state": "failed", "deaths": -1}', "\udcff"])
def test_a_damaged_note_is_taken_for_none(content, tmp_path):
    run = tiny_plan(tmp_path).runs[0]
    folder = StudyFolder(tmp_path / "mine")
    folder.write_note(run, FAILED)
    (tmp_path / "mine" / "notes" / f"{run.key}.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert folder.note(run) is None
    assert folder.state_of(run, prunes=False) == WAITING


def test_the_answer_is_written_by_one_at_a_time(tmp_path):
    folder = StudyFolder(tmp_path / "mine")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        threading.Timer(0.3, child.kill).start()
        with folder.answering():
            assert child.wait(0) < 0, "only when the other has ended"


def test_without_locks_it_is_said(tmp_path, monkeypatch, capsys):
    def refuse(self) -> None:
        raise NotImplementedError("flock is not there")

    monkeypatch.setattr(UnixFileLock, "_acquire", refuse)
    with StudyFolder(tmp_path / "mine").answering():
        assert "has no locks (flock is not there): do not write its answer twice" in capsys.readouterr().err


def test_the_answer_is_read_back_or_its_damage_is_said(tmp_path):
    folder = StudyFolder(tmp_path)
    assert folder.result() is None
    made = next(iter(STUDIES.values()))()
    write_json(tmp_path / RESULT, made)
    assert folder.result() is not None
    assert folder.result().name == made.name
    with pytest.raises(UsageError, match=f"holds the study '{made.name}'; choose another place for 'mine' with --out"):
        folder.check_place("mine")
    (tmp_path / RESULT).write_text("{")
    with pytest.raises(PatchlightError, match=r"study\.json is damaged: .*; repeat the study, which writes it"):
        folder.result()
    folder.check_place("mine")
