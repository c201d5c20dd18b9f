"""One training in a folder at a time; `--overwrite` leaves the old run whole or the new one begun."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty import TRAIN, Nursery, leftovers, result_of
from small import small_config

from patchlight.errors import PatchlightError, UsageError
from patchlight.runs import Run, overwrite
from patchlight.runs.folder import CONTENTS
from patchlight.runs.lock import HOLDER, locked
from patchlight.runs.overwrite import replace_contents, roll_back
from patchlight.runs.writing import sweep

# A training that waits, with its lock, until it is killed.
WAITS = """
import time
import patchlight.commands.train as train
train.fit = lambda *a, **b: (print("it waits", file=__import__("sys").stderr, flush=True), time.sleep(600))
"""


def test_a_second_training_is_refused_and_told_who_holds_the_folder(nursery: Nursery, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = nursery.start(*TRAIN, "--out", folder, before=WAITS)
    first.wait_for("it waits")
    before = (folder / "config.toml").read_bytes()
    for words in ([], ["--resume"], ["--overwrite"]):
        code, last = nursery.run(*TRAIN, "--out", folder, *words)
        assert code == 2
        assert f"{folder} is in use: process {first.pid} on " in last
        assert "trains there since 20" in last
    assert (folder / "config.toml").read_bytes() == before
    first.send(signal.SIGKILL)
    assert first.finish()[0] == -signal.SIGKILL
    child = nursery.start(*TRAIN, "--out", folder, "--resume")
    assert child.finish()[0] == 0
    assert f"process {first.pid} on" in child.said()
    assert "has ended; its lock is taken over" in child.said()
    assert leftovers(folder) == []


def test_a_lock_leaves_nothing_where_nothing_began(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / HOLDER).is_file()
        with pytest.raises(UsageError, match="is in use: process"), locked(tmp_path / "a" / "b"):
            pass
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a"):
        (tmp_path / "a" / "config.toml").write_text("")
    assert not (tmp_path / "a" / HOLDER).exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(PatchlightError, match=r"cannot write in .*file"), locked(tmp_path / "file"):
        pass


def test_a_folder_of_something_else_is_left_alone(nursery: Nursery, tmp_path: Path) -> None:
    (tmp_path / "essay.md").write_text("years of work")
    for words in ([], ["--overwrite"], ["--resume"]):
        code, last = nursery.run(*TRAIN, "--out", tmp_path, *words)
        assert (code, "is not a run folder" in last) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["essay.md"]


class Killed(BaseException):
    """A process is no more."""


def test_overwriting_that_is_cut_off_anywhere_leaves_the_old_run_or_the_new_one(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut off before each of its steps in turn."""
    steps = ["move", "flush", "add_to_manifest", "whole_file"]
    count, ended = {"left": 0}, []

    def counted(step: Callable) -> Callable:
        def stepped(*args: object) -> object:
            if count["left"] == 0:
                raise Killed
            count["left"] -= 1
            return step(*args)

        return stepped

    for name in steps:
        monkeypatch.setattr(overwrite, name, counted(getattr(overwrite, name)))
    recipe = small_config(train={"epochs": 5}).to_toml().encode()
    for number in range(100):
        folder = tmp_path / f"run{number}"
        shutil.copytree(whole, folder)
        (folder / "notes.txt").write_text("mine")
        count["left"] = number
        try:
            replace_contents(folder, CONTENTS, recipe)
            ended.append("all")
        except Killed:
            pass
        count["left"] = 10**6
        assert Run.open(folder).config() is not None  # which brings the old run back
        assert not (folder / overwrite.REPLACED).exists()
        assert not (folder / overwrite.REPLACING).exists()
        assert (folder / "notes.txt").read_text() == "mine"
        if Run(folder).config().train.epochs == 5:
            assert sorted(path.name for path in folder.glob("[!.]*")) == ["config.toml", "manifest.jsonl", "notes.txt"]
            ended.append("new")
        else:
            assert result_of(folder) == result_of(whole)
            assert {path.name for path in folder.glob("[!.]*")} == {
                *(path.name for path in whole.glob("[!.]*")),
                "notes.txt",
            }
            ended.append("old")
        if "all" in ended:
            break
    assert ended.count("old") > 10
    assert ended.count("new") >= 2
    assert roll_back(folder) is False


def test_what_a_killed_process_left_half_written_is_swept(nursery: Nursery, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / ".metrics.jsonl.part").write_text("{")
    (folder / ".samples.npz.part").write_text("PK")
    for name in (".epoch-007.part", ".epoch-001.old"):
        (folder / "checkpoints" / name).mkdir()
        (folder / "checkpoints" / name / "model.safetensors").write_bytes(b"x")
    (folder / HOLDER).write_text(json.dumps({"host": "elsewhere", "process": 1, "since": "2026-01-01"}))
    child = nursery.start(*TRAIN, "--out", folder, "--resume")
    assert child.finish()[0] == 0
    assert "deleted what a process that was killed left half written (" in child.said()
    assert leftovers(folder) == []
    assert result_of(folder) == result_of(whole)


def test_a_folder_that_was_not_yet_in_place_gives_way_to_the_old_one(tmp_path: Path) -> None:
    for name in (".model.old", ".model.part", ".gone.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
    assert sweep(tmp_path, lambda name: name in ("model", "gone")) == [".gone.old", ".model.part"]
    assert (tmp_path / "model" / "x").read_text() == ".model.old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
