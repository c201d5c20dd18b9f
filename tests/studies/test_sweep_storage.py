"""The file of a sweep's journal: others' files, and what a full disk or a loss of power leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchlight.errors import PatchlightError, UsageError
from patchlight.studies.sweep_storage import STUDY, join_study, open_storage, study_name


def joined(folder: Path, place: str | None = None):
    storage, shown = open_storage(place, folder)
    return join_study(storage, "it", {"--seed": 0}, "maximize", shown)


def with_trials(folder: Path, count: int) -> Path:
    """The journal of a sweep of so many trials, which are all worth 0.5."""
    study = joined(folder)
    for _ in range(count):
        study.tell(study.ask(), 0.5)
    return folder / "sweep.journal"


@pytest.mark.parametrize(
    "content",
    [b"not a journal\nnor this\n", b"not a journal", b'{"op": 1}\n', b"PK\x03\x04\x00\n\xff", b"[train]\nepochs = 1\n"],
)
@pytest.mark.parametrize("place", [None, "mine"])
def test_a_file_of_another_kind_is_named_and_kept(here, content, place):
    path = here / (place or "sweep.journal")
    path.write_bytes(content)
    with pytest.raises(
        UsageError, match=rf"{path.name} is no journal of a sweep, or is damaged, and nothing was written"
    ):
        open_storage(place, here)
    assert path.read_bytes() == content
    assert list(here.iterdir()) == [path]


def test_a_folder_is_no_storage(tmp_path):
    with pytest.raises(UsageError, match=r"--storage is .*, a folder"):
        open_storage(str(tmp_path), tmp_path)


def test_half_a_last_line_is_set_aside(tmp_path, capsys):
    path = with_trials(tmp_path, 3)
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"op_code":8,"trial_id":2,"user_a')
    study = joined(tmp_path)
    assert len(study.trials) == 3
    said = capsys.readouterr().err
    assert "sweep.journal had 1 line that a worker could not write to the end" in said
    assert path.read_bytes().startswith(whole)
    assert b"user_a\n" not in path.read_bytes()
    assert (tmp_path / "sweep.journal.damaged").read_bytes() == b'{"op_code":8,"trial_id":2,"user_a\n'
    study.tell(study.ask(), 0.5)
    assert len(joined(tmp_path).trials) == 4
    assert "had 1 line" not in capsys.readouterr().err


@pytest.mark.parametrize("half", [b'{"op_code":8,"trial_id":1,"us', b"\0" * 40])
def test_half_a_line_to_which_another_worker_has_added_its_own(tmp_path, half):
    path = with_trials(tmp_path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[-2] = half + lines[-2]
    path.write_bytes(b"".join(lines))
    assert [trial.value for trial in joined(tmp_path).trials] == [0.5] * 3
    after = path.read_bytes().splitlines(keepends=True)
    assert list(map(len, after[: len(lines)])) == list(map(len, lines))  # other workers know the rest by its place
    assert (tmp_path / "sweep.journal.damaged").read_bytes() == half + b"\n"


def test_half_a_first_line_is_a_new_journal(tmp_path):
    (tmp_path / "sweep.journal").write_bytes(b'{"op_code":0,"work')
    assert joined(tmp_path).trials == []


def test_what_cannot_be_mended_is_a_sentence(tmp_path):
    path = with_trials(tmp_path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:3], b"what is this?\n", *lines[3:]])
    path.write_bytes(damaged)
    with pytest.raises(PatchlightError, match=r"sweep.journal is no journal of a sweep, or is damaged \("):
        joined(tmp_path)
    assert path.read_bytes() == damaged


def test_a_journal_that_cannot_be_written_is_a_sentence(tmp_path):
    with pytest.raises(PatchlightError, match=r"cannot write /proc/nowhere/sweep.journal: .*; choose another --out"):
        open_storage(None, Path("/proc/nowhere"))


def test_the_journal_of_a_folder_has_one_name(tmp_path):
    storage, shown = open_storage(None, tmp_path)
    assert study_name(storage, None, "it", shown) == STUDY
    assert study_name(storage, "shared.journal", "it", shown) == "it"
    join_study(storage, "before", {}, "maximize", shown)  # as it was called by the folder's name
    assert study_name(storage, None, "renamed", shown) == "before"
    join_study(storage, "again", {}, "maximize", shown)
    assert study_name(storage, None, "again", shown) == "again"
    with pytest.raises(UsageError, match=r"holds 2 sweeps, and none of them is 'renamed'; give .* \(again, before\)"):
        study_name(storage, None, "renamed", shown)
