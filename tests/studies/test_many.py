"""Many processes on one study: each run is done once, whoever is killed, and the table is that of one worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import Nursery
from small_study import tiny_file

from patchlight.runs import Environment, Run
from patchlight.runs.study import FINISHED, StudyResult

pytestmark = pytest.mark.slow
SEEDS, EPOCHS = [0, 1, 2, 3], 6
SCRIPT = Path(__file__).parents[2] / "examples" / "slurm" / "study.sbatch"

# Ends the process with signal 9 when it is about to save its third checkpoint: in the middle of a run.
KILLED = """
import os, signal
from patchlight.training import loop
saved = []
def save(*given, save=loop.save):
    saved.append(1)
    if len(saved) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    save(*given)
loop.save = save
"""


@pytest.fixture(scope="module")
def nursery(tmp_path_factory) -> Iterator[Nursery]:
    made = Nursery(tmp_path_factory.mktemp("nursery"))
    yield made
    made.close()


def study_in(folder: Path) -> Path:
    """Eight runs."""
    return tiny_file(folder, study={"seeds": SEEDS}, budget={"epochs": EPOCHS})


def answer_of(folder: Path) -> StudyResult:
    return StudyResult.from_json(json.loads((folder / "studies" / "mine" / "study.json").read_text()))


def table_of(result: StudyResult) -> list[tuple]:
    """All numbers of the study's runs and variants that are not of time, memory or place."""
    runs = [(r.variant, r.seed, r.key, r.state, r.val_top1, r.epoch, r.train_flops) for r in result.runs]
    curves = [[(point.epoch, point.step, point.val_top1) for point in r.curve] for r in result.runs]
    variants = [(v.name, v.n, v.val_mean, v.val_std, v.difference and v.difference.each) for v in result.variants]
    return [runs, curves, variants, result.chosen, result.answer]


def runs_in(folder: Path) -> list[Run]:
    return [Run(path) for path in (folder / "studies" / "runs").iterdir() if path.is_dir()]


def check_once(folder: Path, resumed: int = 0) -> None:
    """Every run is there, was trained from its first epoch to its last, and so many processes went on with one."""
    result = answer_of(folder)
    runs = runs_in(folder)
    assert {run.path.name for run in runs} == {run.key for run in result.runs}
    assert len(runs) == len(result.runs) == 8
    assert {(run.state, run.reused) for run in result.runs} == {(FINISHED, False)}
    for run in runs:
        assert [row.epoch for row in run.epochs()] == [*range(1, EPOCHS + 1)]
        assert (run.path / "report.html").is_file()
    assert sum(len(run.read(Environment).resumed or ()) for run in runs) == resumed


@pytest.fixture(scope="module")
def alone(nursery, tmp_path_factory) -> StudyResult:
    """The answer of one worker."""
    folder = tmp_path_factory.mktemp("alone")
    assert nursery.run("study", study_in(folder), cwd=folder)[0] == 0
    check_once(folder)
    return answer_of(folder)


def test_four_workers_one_of_which_is_killed(nursery, alone, tmp_path):
    file = study_in(tmp_path)
    doomed = nursery.start("study", file, "--no-wait", cwd=tmp_path, before=KILLED)
    doomed.wait_for("epoch 1/6")
    others = [nursery.start("study", file, "--no-wait", cwd=tmp_path) for _ in range(3)]
    assert doomed.finish()[0] == -9
    assert [child.finish()[0] for child in others] == [0, 0, 0]
    assert nursery.run("study", file, cwd=tmp_path)[0] == 0
    check_once(tmp_path, resumed=1)
    assert table_of(answer_of(tmp_path)) == table_of(alone)
    workers = [json.loads(path.read_text())["worker"] for path in (tmp_path / "studies/mine/notes").iterdir()]
    assert len(set(workers)) >= 2, "they have shared the work"
    assert [path for path in (tmp_path / "studies" / "runs").iterdir() if path.suffix == ".lease"] == []


def test_workers_are_started_and_followed(alone, tmp_path):
    words = [sys.executable, "-m", "patchlight", "study", str(study_in(tmp_path)), "--workers", "3", "--json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check_once(tmp_path)
    assert table_of(answer_of(tmp_path)) == table_of(alone)
    assert StudyResult.from_json(json.loads(done.stdout)) == answer_of(tmp_path)
    assert sorted(path.name for path in (tmp_path / "studies/mine/workers").iterdir()) == ["1.log", "2.log", "3.log"]
    said = done.stderr.splitlines()
    assert sum(" finished, " in line and " validation" in line for line in said) == 8
    assert "ended early" not in done.stderr


def test_a_signal_ends_workers_with_their_checkpoints(nursery, alone, tmp_path):
    file = study_in(tmp_path)
    child = nursery.start("study", file, "--workers", "2", cwd=tmp_path)
    logs = [tmp_path / f"studies/mine/workers/{number}.log" for number in (1, 2)]
    end = time.monotonic() + 120
    while not any(log.exists() and "epoch 2/6" in log.read_text() for log in logs):
        assert time.monotonic() < end, child.said()
        time.sleep(0.02)
    child.send(signal.SIGTERM)
    code, said = child.finish()
    assert code == 128 + signal.SIGTERM, said
    assert all("Traceback" not in log.read_text() for log in logs)
    assert list((tmp_path / "studies/runs").glob("*.lease")) == [], "each has given its run back"
    assert not (tmp_path / "studies/mine/study.json").exists()
    assert nursery.run("study", file, cwd=tmp_path)[0] == 0
    result = answer_of(tmp_path)
    assert table_of(result) == table_of(alone)
    assert all([row.epoch for row in run.epochs()] == [1, 2, 3, 4, 5, 6] for run in runs_in(tmp_path))


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGHUP, and a process keeps the number of a parent that ended")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_workers_do_not_outlive_who_started_them(number, nursery, tmp_path):
    file = tiny_file(tmp_path, study={"seeds": SEEDS}, budget={"epochs": 400})
    child = nursery.start("study", file, "--workers", "2", cwd=tmp_path)
    logs = [tmp_path / f"studies/mine/workers/{worker}.log" for worker in (1, 2)]
    end = time.monotonic() + 120
    while not all(log.exists() and "epoch 2/400" in log.read_text() for log in logs):
        assert time.monotonic() < end, child.said()
        time.sleep(0.02)
    child.send(number)
    code, said = child.finish()
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 128 + signal.SIGTERM), said
    end = time.monotonic() + 60
    while list((tmp_path / "studies/runs").glob("*.lease")):
        assert time.monotonic() < end, "a worker goes on"
        time.sleep(0.1)
    reason = "the process that started this worker has ended" if number == signal.SIGKILL else "SIGTERM"
    assert all(reason in log.read_text() for log in logs), [log.read_text()[-300:] for log in logs]


def test_the_script_for_slurm(alone, tmp_path):
    """As Slurm runs it: bash, the number of the task in the environment, all at the same time; then the last job."""
    command = tmp_path / "bin" / "patchlight"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m patchlight "$@"\n')
    command.chmod(0o755)
    file = study_in(tmp_path)
    path = os.pathsep.join([str(command.parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "SLURM_ARRAY_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "1"}
    tasks = []
    for number in range(3):
        with (tmp_path / f"study-7-{number}.log").open("wb") as log:
            own = {**env, "SLURM_ARRAY_TASK_ID": str(number)}
            tasks.append(subprocess.Popen(["bash", SCRIPT, file], cwd=tmp_path, env=own, stdout=log, stderr=log))
    logs = [tmp_path / f"study-7-{number}.log" for number in range(3)]
    assert [task.wait() for task in tasks] == [0, 0, 0], [log.read_text() for log in logs]
    assert [log.read_text().startswith(f"worker {number} on ") for number, log in enumerate(logs)] == [True] * 3
    last = subprocess.run(
        ["patchlight", "study", file], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert last.returncode == 0, last.stderr
    check_once(tmp_path)
    assert table_of(answer_of(tmp_path)) == table_of(alone)
    assert "0 of 8 runs to train" in last.stderr
