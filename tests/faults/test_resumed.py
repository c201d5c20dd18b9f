"""What `--resume` makes of folders as they come back from disks, networks, sync programs and people."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
from pathlib import Path

import pytest
from faulty import TRAIN, Nursery, flip, leftovers, result_of
from filelock import FileLock

from patchlight.errors import PatchlightError, UsageError
from patchlight.models import load_model
from patchlight.runs import EvalResult, Run, manifest
from patchlight.runs.lock import HOLDER, locked
from patchlight.runs.manifest import Manifest, Seal, add_to_manifest
from patchlight.runs.writing import STALE_S, sweep
from patchlight.training.checkpoint import damage_of, list_checkpoints
from patchlight.training.resume import bring_back, newest_sound


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", HOLDER)
    }


def test_a_run_without_its_checkpoints_does_not_start_over(nursery: Nursery, unfinished: Path) -> None:
    """They were deleted, or are on a disk that is not mounted."""
    shutil.rmtree(unfinished / "checkpoints")
    for link in (None, unfinished.parent / "not-mounted"):
        if link is not None:
            (unfinished / "checkpoints").symlink_to(link)
        before = files_of(unfinished)
        code, last = nursery.run(*TRAIN, "--out", unfinished, "--resume")
        assert code == 1
        assert ("holds no checkpoint, and" in last) if link is None else ("which is not there; mount it" in last)
        assert files_of(unfinished) == before


def test_what_cannot_be_read_is_not_taken_for_damaged(unfinished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of a network that is away for a moment."""
    before = files_of(unfinished)

    def away(path: Path) -> Seal:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(manifest.Seal, "of", away)
        with pytest.raises(PatchlightError, match=r"cannot read .* \(Stale file handle\); nothing was changed: repeat"):
            bring_back(Run(unfinished))
    assert files_of(unfinished) == before
    assert newest_sound(Run(unfinished)) == unfinished / "checkpoints" / "epoch-006"


def test_files_of_somebody_else_in_a_checkpoint_do_not_matter(unfinished: Path) -> None:
    for path in list_checkpoints(unfinished / "checkpoints"):
        for name in ("desktop.ini", "notes.txt", ".DS_Store"):
            (path / name).write_text("")
        assert damage_of(path) is None


def test_kept_weights_are_those_of_the_checkpoint_that_is_resumed(
    nursery: Nursery, whole: Path, unfinished: Path
) -> None:
    """Others lie in the run's `model/`, as after a kill between keeping weights and saving their checkpoint."""
    checkpoints = list_checkpoints(unfinished / "checkpoints")
    own = (whole / "model" / "model.safetensors").read_bytes()
    other = next(path for path in checkpoints if (path / "model.safetensors").read_bytes() != own)
    shutil.rmtree(unfinished / "model")
    (unfinished / "model").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(other / name, unfinished / "model" / name)
        add_to_manifest(unfinished / "model", [(name, Seal.of(unfinished / "model" / name))])
    child = nursery.start(*TRAIN, "--out", unfinished, "--resume")
    assert child.finish()[0] == 0
    assert result_of(unfinished) == result_of(whole)


def test_weights_that_are_lost_for_good_are_said_to_be(nursery: Nursery, whole: Path, unfinished: Path) -> None:
    own = (whole / "model" / "model.safetensors").read_bytes()
    for path in list_checkpoints(unfinished / "checkpoints"):
        if (path / "model.safetensors").read_bytes() == own and path.name != "epoch-006":
            shutil.rmtree(path)
    flip(unfinished / "model" / "model.safetensors")
    child = nursery.start(*TRAIN, "--out", unfinished, "--resume")
    code, last = child.finish()
    if "are lost" in child.said():  # the best epoch was not the last
        assert "the weights of the best epoch so far are lost, with it and with their checkpoint" in child.said()
        assert code == 1  # all was trained, so there is nothing to test
        assert "model.safetensors is damaged" in last
    else:
        assert result_of(unfinished) == result_of(whole)


def test_the_last_weights_come_back_too(nursery: Nursery, tmp_path: Path) -> None:
    """With train.select = last the newest checkpoint has them."""
    words = [*TRAIN, "--train.select", "last", "--train.epochs", "2", "--out", tmp_path / "run"]
    assert nursery.run(*words)[0] == 0
    before = result_of(tmp_path / "run")
    for spoil in (lambda: flip(tmp_path / "run/model/config.json"), lambda: shutil.rmtree(tmp_path / "run" / "model")):
        (tmp_path / "run" / "eval.json").unlink()
        spoil()
        assert nursery.run(*words, "--resume")[0] == 0
        assert result_of(tmp_path / "run") == before


def test_a_finished_run_gets_its_weights_back(nursery: Nursery, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    flip(folder / "model" / "model.safetensors")
    (folder / "model" / "config.json").unlink()
    assert nursery.run(*TRAIN, "--out", folder, "--resume")[0] == 0
    load_model(folder)
    assert result_of(folder) == result_of(whole)


def test_emptied_and_cut_manifests_do_not_switch_checks_off(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    lines = (folder / "model" / "manifest.jsonl").read_text().splitlines(keepends=True)
    flip(folder / "model" / "model.safetensors")
    for text in ("", lines[0]):
        (folder / "model" / "manifest.jsonl").write_text(text)
        with pytest.raises(PatchlightError, match=r"does not stand in the manifest\.jsonl beside it"):
            load_model(folder)
    own = (folder / "manifest.jsonl").read_text().splitlines(keepends=True)
    (folder / "manifest.jsonl").write_text(own[0])  # its beginning, the recipe
    with pytest.raises(PatchlightError, match=r"eval\.json is damaged: .*does not stand in the manifest\.jsonl"):
        Run(folder).read(EvalResult)
    for text in ("", None):
        copy = tmp_path / f"copy{text}"
        shutil.copytree(folder, copy)
        (copy / "manifest.jsonl").unlink()
        if text is not None:
            (copy / "manifest.jsonl").write_text(text)
        capsys.readouterr()
        Run(copy).read(EvalResult)
        Run(copy).read(EvalResult)
        assert capsys.readouterr().err.count("damage would not be noticed") == 1


def test_half_a_line_is_never_left_in_a_manifest(tmp_path: Path) -> None:
    add_to_manifest(tmp_path, [("a", Seal(1, "x"))])
    before = (tmp_path / "manifest.jsonl").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 60, limits[1]))
    try:
        with pytest.raises(OSError, match="No space left on device") as error:
            add_to_manifest(tmp_path, [("b", Seal(1, "x"))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename == str(tmp_path / "manifest.jsonl")
    assert (tmp_path / "manifest.jsonl").read_bytes() == before
    assert set(Manifest.read(tmp_path).seals) == {"a"}


def test_what_cannot_be_deleted_does_not_end_a_training(nursery: Nursery, whole: Path, tmp_path: Path) -> None:
    """As an old checkpoint that another process has open on a network's disk."""
    before = """
import shutil
was = shutil.rmtree
def rmtree(path, ignore_errors=False):
    if str(path).endswith("epoch-001.old") and not ignore_errors:
        raise OSError(39, "Directory not empty", str(path))
    return was(path, ignore_errors)
shutil.rmtree = rmtree
"""
    for words in ([], ["--resume"]):
        child = nursery.start(*TRAIN, "--out", tmp_path / "run", *words, before=before)
        assert child.finish()[0] == 0, child.said()
        assert "epoch-001.old (Directory not empty); the next training here tries it again" in child.said()
    assert result_of(tmp_path / "run") == result_of(whole)
    assert nursery.run(*TRAIN, "--out", tmp_path / "run", "--resume")[0] == 0
    assert leftovers(tmp_path / "run") == []


def test_without_locks_a_holder_who_may_live_is_not_declared_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(*a: object, **b: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", no_locks)
    (tmp_path / HOLDER).write_text(json.dumps({"host": "node17", "process": 42, "since": "2026-11-30T10:00:00"}))
    with (
        pytest.raises(UsageError, match=r"may be in use: process 42 on node17 .* if it has ended, delete .*lock\.json"),
        locked(tmp_path),
    ):
        pass
    assert (tmp_path / HOLDER).exists()
    (tmp_path / HOLDER).unlink()
    with locked(tmp_path):
        assert "has no locks (" in capsys.readouterr().err


def test_links_to_other_disks_stay_and_are_emptied(nursery: Nursery, whole: Path, tmp_path: Path) -> None:
    folder, scratch = tmp_path / "run", tmp_path / "scratch"
    shutil.copytree(whole, folder)
    shutil.move(folder / "checkpoints", scratch)
    (folder / "checkpoints").symlink_to(scratch)
    (folder / "eval.json.damaged").write_text("{")
    assert nursery.run(*TRAIN, "--out", folder, "--overwrite", "--train.epochs", "1")[0] == 0
    assert (folder / "checkpoints").is_symlink()
    assert [path.name for path in scratch.iterdir()] == ["epoch-001"]
    assert not (folder / "eval.json.damaged").exists()
    assert leftovers(folder) == []


def test_a_run_that_was_killed_before_its_first_record_is_exact(nursery: Nursery, whole: Path, tmp_path: Path) -> None:
    kill = """
import os, signal
from patchlight.runs import Run
Run.write = lambda self, record: os.kill(os.getpid(), signal.SIGKILL)
"""
    nursery.run(*TRAIN, "--out", tmp_path / "run", before=kill)
    assert (tmp_path / "run" / "config.toml").is_file()
    assert nursery.run(*TRAIN, "--out", tmp_path / "run", "--resume")[0] == 0
    assert "not_exact" not in json.loads((tmp_path / "run" / "environment.json").read_text())
    assert result_of(tmp_path / "run") == result_of(whole)


def test_files_of_other_people_and_of_living_processes_are_not_swept(tmp_path: Path) -> None:
    for name in (".notes.old", ".mine.part", ".report.html.abc123.part", ".report.html.old123.part", ".eval.json.part"):
        (tmp_path / name).write_text("")
    os.utime(tmp_path / ".report.html.old123.part", (0, tmp_path.stat().st_mtime - STALE_S - 10))
    swept = sweep(tmp_path, lambda name: name in ("report.html", "eval.json"))
    assert swept == [".eval.json.part", ".report.html.old123.part"]


def test_an_environment_that_comes_back_has_its_time(nursery: Nursery, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    flip(folder / "environment.json")
    assert nursery.run(*TRAIN, "--out", folder, "--resume")[0] == 0
    old, new = (json.loads((place / "environment.json").read_text())["time"] for place in (whole, folder))
    assert new["images_per_s"] == old["images_per_s"]
    assert new["train_wall_s"] <= old["train_wall_s"]


def test_deleted_files_of_a_finished_run_are_told(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_charts: None
) -> None:
    from patchlight.cli.main import main

    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "samples.npz").unlink()
    assert main(["report", str(folder)]) == 0
    assert "samples.npz is missing" in capsys.readouterr().err
    (folder / "metrics.jsonl").unlink()
    assert main(["report", str(folder)]) == 1
    assert "metrics.jsonl is missing; `patchlight train" in capsys.readouterr().err
    (folder / "config.toml").unlink()
    assert main(["report", str(folder)]) == 1
    assert "config.toml is missing; `patchlight train" in capsys.readouterr().err
