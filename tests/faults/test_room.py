"""Too little room, on the disk or in memory: a sentence, nothing half written, and training goes on in more room."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from faulty import TRAIN, Nursery, leftovers, result_of
from small import run_fit, small_splits

from patchlight.errors import PatchlightError
from patchlight.machine.memory import asked_bytes, is_out_of_memory, memory_limit
from patchlight.models.saved import save_tensors
from patchlight.runs.writing import move, whole_file, whole_folder
from patchlight.training.checkpoint import damage_of, list_checkpoints
from patchlight.training.room import check_disk, disk_needed
from patchlight.training.setup import prepare

MIB = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"this process may not mount a file system: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """A file that leaves so many bytes free."""
    path = disk / "others"
    path.write_bytes(b"")
    path.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - leave)))
    return path


# The disk is looked at before training; here it fills up meanwhile.
UNSEEN = "import patchlight.commands.train as train\ntrain.check_disk = lambda *a, **k: None\n"
FULL = UNSEEN + (
    "import patchlight.training.loop as loop\nwas = loop.epoch_line\n"
    "def line(label, row, left):\n"
    "    if row.epoch == 3:\n"
    "        import shutil\n"
    "        free = shutil.disk_usage({disk!r}).free\n"
    "        open({disk!r} + '/others', 'wb').write(bytes(free - {leave}))\n"
    "    return was(label, row, left)\n"
    "loop.epoch_line = line\n"
)


@pytest.mark.parametrize("leave", [8192, *(pytest.param(size, marks=pytest.mark.faults) for size in (0, 100_000))])
def test_a_disk_that_fills_up_stops_training_and_costs_nothing(
    nursery: Nursery, whole: Path, small_disk: Path, leave: int
) -> None:
    """A checkpoint of this model has about 150,000 bytes."""
    folder = small_disk / "run"
    code, last = nursery.run(*TRAIN, "--out", folder, before=FULL.format(disk=str(small_disk), leave=leave))
    assert code == 1
    assert "No space left on device; free space on that disk and repeat the command, `train` with --resume" in last
    assert [name for name in leftovers(folder) if name.endswith((".part", ".old"))] == []
    assert [damage_of(path) for path in list_checkpoints(folder / "checkpoints")] == [None, None]
    (small_disk / "others").unlink()
    code, last = nursery.run(*TRAIN, "--out", folder, "--resume", before=UNSEEN)
    if "No space left" in last:  # the page is larger than what this disk has left
        shutil.rmtree(folder / "figures", ignore_errors=True)
    assert (folder / "eval.json").is_file()
    assert result_of(folder) == result_of(whole)


def test_too_small_a_disk_is_seen_before_training(nursery: Nursery, small_disk: Path) -> None:
    code, last = nursery.run(*TRAIN, "--out", small_disk / "run")
    assert code == 1
    assert "training writes up to" in last
    assert "and its disk has room for 3 MB; free some space, choose another place with --out" in last
    assert list(small_disk.iterdir()) == []


def test_what_is_needed_is_no_less_than_what_is_written(tmp_path: Path) -> None:
    for number, sections in enumerate(({}, {"ema_decay": 0.9}, {"checkpoint_every": 1})):
        train = {"epochs": 4, "batch_size": 16, **sections}
        _, run = run_fit(tmp_path, name=f"run{number}", train=train)
        written = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
        needed = disk_needed(prepare(run.config(), small_splits()))
        assert written < needed < written + 40e6
        check_disk(run, prepare(run.config(), small_splits()))


def test_a_disk_that_became_read_only_or_closed_is_told(nursery: Nursery, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, last = nursery.run(*TRAIN, "--out", small_disk / "run")
    assert code == 1
    assert last.startswith(f"patchlight: cannot write in {small_disk / 'run'}: Read-only file system; ")
    code, last = nursery.run(*TRAIN, "--out", "/proc/run")
    assert code == 1
    assert "cannot write in /proc/run: " in last


def test_a_limit_on_the_size_of_files_is_told(nursery: Nursery, tmp_path: Path) -> None:
    """As a quota is met: in the midst of a file of weights."""
    before = "import resource, signal\nresource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
    code, last = nursery.run(*TRAIN, "--out", tmp_path / "run", before=before)
    assert code == 1
    assert "File too large" in last
    assert leftovers(tmp_path / "run") == []
    assert nursery.run(*TRAIN, "--out", tmp_path / "run", "--resume")[0] == 0


def test_every_error_of_the_library_of_weights_is_one_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"director") as error:
        save_tensors({"a": torch.zeros(2)}, tmp_path)
    assert error.value.filename == str(tmp_path)


def test_folders_move_where_the_file_system_cannot_rename_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As between two file systems, or of a folder in the lower layer of a container's."""
    own = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.is_dir() and not self.name.endswith(".part"):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(self))
        return own(self, target)

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x").write_text("old")
    monkeypatch.setattr(Path, "replace", replace)
    with whole_folder(tmp_path / "model") as part:
        (part / "x").write_text("new")
    assert (tmp_path / "model" / "x").read_text() == "new"
    move(tmp_path / "model", tmp_path / "there")
    assert (tmp_path / "there" / "x").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_what_is_in_place_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and folders are flushed before they are put into place, and afterwards the folder that they are in."""
    told: list[tuple[str, str]] = []
    sync, own = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        told.append(("flushed", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        if self.is_file():
            assert ("flushed", str(self)) in told, self
        else:
            for inside in self.iterdir() if self.name.endswith(".part") else []:
                assert ("flushed", str(inside)) in told, inside
        told.extend([("moved", str(target)), ("flushed", str(target))])
        return own(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    _, run = run_fit(tmp_path, explain={"snapshots_every": 1})
    moved = [number for number, (what, _) in enumerate(told) if what == "moved"]
    names = {Path(told[number][1]).name for number in moved}
    assert {"config.toml", "metrics.jsonl", "snapshots.npz", "model", "epoch-001", "epoch-002"} <= names
    for number in moved:
        if not Path(told[number][1]).name.startswith("."):
            assert ("flushed", str(Path(told[number][1]).parent)) in told[number:], told[number]
    assert run.path.is_dir()


def test_a_file_that_could_not_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    for kind in (FileExistsError, KeyboardInterrupt):

        def write(error: type[BaseException] = kind) -> None:
            with whole_file(tmp_path / "a") as part:
                part.write_text("ne")
                raise error

        with pytest.raises(kind):
            write()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


LARGE = [*TRAIN, "--model.embed_dim", "240", "--model.depth", "8", "--model.num_heads", "4", "--model.patch_size", "2"]
LARGE += ["--train.batch_size", "120", "--data.image_size", "32"]
LIMIT = """
import re, resource
now = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (now + 900 * 2**20, now + 900 * 2**20))
"""


def test_too_little_memory_is_told_with_what_to_change(nursery: Nursery, tmp_path: Path) -> None:
    """Under a real limit of this process, 900 MiB above what the libraries take."""
    code, last = nursery.run(*LARGE, "--out", tmp_path / "run", before=LIMIT)
    assert code == 1
    assert "out of memory with 120 images at a time (" in last
    assert " MB more were asked for, there are " in last
    assert "train.micro_batch_size = 16 takes the images of a step in parts" in last
    assert "model.grad_checkpointing = true keeps less of each image" in last
    assert leftovers(tmp_path / "run") == []
    assert list_checkpoints(tmp_path / "run" / "checkpoints") == []


@pytest.mark.faults
def test_what_is_advised_is_enough(nursery: Nursery, tmp_path: Path) -> None:
    """Pictures of all attention, which may take more memory than training does, are left out then."""
    advice = ["--train.micro_batch_size", "4", "--model.grad_checkpointing", "--eval.batch_size", "16"]
    less = ["--train.epochs", "0.5", "--explain.snapshots_every", "0"]
    child = nursery.start(*LARGE, "--out", tmp_path / "run", *advice, *less, before=LIMIT)
    code, last = child.finish()
    assert code == 0, last
    result = json.loads((tmp_path / "run" / "eval.json").read_text())
    for line in result.get("unexplained", []):  # where they did not fit beside the rest
        assert line == "the report lacks the insight into layers: they take more memory than there is"
        assert line in child.said()


def test_what_libraries_say_of_memory_is_understood() -> None:
    said = {
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79 GiB": int(2.5 * 2**30),
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 1048576 bytes. Error code 12 (Cannot allocate memory)": MIB,
        "std::bad_alloc": None,
        "could not create a memory": None,
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`": None,
    }
    for text, asked in said.items():
        assert is_out_of_memory(RuntimeError(text))
        assert asked_bytes(RuntimeError(text)) == asked
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(PatchlightError("out of memory"))
    assert (memory_limit(torch.device("cpu")) or 0) > 100 * MIB
