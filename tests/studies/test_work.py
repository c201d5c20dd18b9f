"""A worker trains what is left, once, and whatever comes between: errors, signals, other hands, other studies."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from small import stopped_at_save
from small_study import TWO, tiny_plan, worker_of
from undrawn import undrawn

from patchlight.runs import Environment, Run, ValidationResult
from patchlight.runs.study import FAILED, FINISHED, WAITING
from patchlight.studies import work
from patchlight.studies.collect import collect
from patchlight.studies.plan import Plan, PlannedRun, train_flops
from patchlight.studies.work import Worker

pytestmark = pytest.mark.usefixtures("no_charts")
WEIGHTS = "model/model.safetensors"


def trained(plan: Plan, place: Path, wait: bool = True) -> list[str]:
    """The names of the runs that one worker trains of the plan, in their order."""
    worker, names = worker_of(plan, place), list[str]()

    def train(run: PlannedRun, on_epoch: Callable) -> object:
        names.append(run.name)
        return worker.train(run, on_epoch)

    assert Worker(plan, worker.folder, train, worker.claims).work(wait=wait) == []
    return names


def epochs_of(run: PlannedRun) -> list[int]:
    return [row.epoch for row in Run(run.folder).epochs()]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Plan, Path, list[str]]:
    """A study that was worked on to its end."""
    place = tmp_path_factory.mktemp("studies")
    plan = tiny_plan(place)
    with undrawn():
        return plan, place, trained(plan, place)


def test_all_variants_come_before_the_next_seed(done):
    plan, place, names = done
    assert names == ["plain, seed 0", "fast, seed 0", "plain, seed 1", "fast, seed 1"]
    assert sorted(path.name for path in (place / "runs").iterdir()) == sorted(run.key for run in plan.runs)
    assert trained(plan, place) == [], "what is done is not done again"
    for run in plan.runs:
        assert epochs_of(run) == [1, 2]
        assert Run(run.folder).read(Environment).resumed is None


def test_what_is_collected_are_the_numbers_of_the_folders(done):
    plan, place, _ = done
    runs = collect(plan, worker_of(plan, place).folder)
    assert [(run.variant, run.seed, run.key) for run in runs] == [
        (run.variant.name, run.seed, run.key) for run in plan.runs
    ]
    for run, planned in zip(runs, plan.runs, strict=True):
        there = Run(planned.folder)
        environment, rows = there.read(Environment), there.epochs()
        assert (run.state, run.reused, run.reason, run.folder) == (FINISHED, False, None, str(planned.folder))
        assert run.val_top1 == there.read(ValidationResult).top1 == max(row.val_top1 for row in rows)
        assert run.val_n == 40
        assert (run.test_top1, run.test_n) == (None, None)
        assert [(point.epoch, point.step, point.images) for point in run.curve] == [(1, 3, 96), (2, 6, 192)]
        assert run.train_flops == train_flops(environment.model.flops_per_image, 192)
        assert run.train_wall_s == environment.time.train_wall_s > 0
        assert run.memory_gb > 0
        assert run.machine.endswith("fp32, 1 thread")


def test_a_run_without_a_result_has_no_numbers(tmp_path):
    plan = tiny_plan(tmp_path)
    run = collect(plan, worker_of(plan, tmp_path).folder)[0]
    assert (run.state, run.val_top1, run.curve, run.params) == (WAITING, None, (), None)


def test_a_damaged_run_is_a_failed_one(done, tmp_path):
    _, place, _ = done
    shutil.copytree(place / "runs", tmp_path / "runs")
    plan = tiny_plan(tmp_path)
    (plan.runs[1].folder / "metrics.jsonl").write_text("nonsense\n")
    runs = collect(plan, worker_of(plan, tmp_path).folder)
    assert [run.state for run in runs] == [FINISHED, FAILED, FINISHED, FINISHED]
    assert "metrics.jsonl is not what was written" in runs[1].reason


def test_another_study_takes_finished_runs_as_its_own(done, tmp_path):
    _, place, _ = done
    plan = tiny_plan(place, "second", variants=[TWO[0], {"name": "faster", "optim": {"lr": 0.006}}])
    names = trained(plan, place)
    assert names == ["faster, seed 0", "faster, seed 1"], "only what changed is trained"
    runs = collect(plan, worker_of(plan, place).folder)
    assert [(run.variant, run.reused) for run in runs] == [
        *(("plain", True), ("faster", False)),
        *(("plain", True), ("faster", False)),
    ]


def test_an_interrupted_study_goes_on_to_the_same_numbers(done, tmp_path):
    whole, _, _ = done
    plan = tiny_plan(tmp_path)
    with stopped_at_save(3):  # in the second run, after its first epoch
        worker_of(plan, tmp_path).work(wait=True)
    assert [epochs_of(run) for run in plan.runs] == [[1, 2], [1], [], []]
    assert trained(plan, tmp_path) == ["fast, seed 0", "plain, seed 1", "fast, seed 1"]
    assert [run.reused for run in collect(plan, worker_of(plan, tmp_path).folder)] == [False] * 4
    for run, same in zip(plan.runs, whole.runs, strict=True):
        assert run.key == same.key
        assert epochs_of(run) == [1, 2]
        assert (run.folder / WEIGHTS).read_bytes() == (same.folder / WEIGHTS).read_bytes()
    assert [len(Run(run.folder).read(Environment).resumed or ()) for run in plan.runs] == [0, 1, 0, 0]


def test_a_run_that_was_killed_before_it_was_noted_is_the_studys_own(done, tmp_path):
    """Between the end of its training and the note there is time, in which its page is written."""
    plan = tiny_plan(tmp_path, study={"seeds": [0]})
    worker = worker_of(plan, tmp_path)

    def train(run: PlannedRun, on_epoch: Callable) -> object:
        worker.train(run, on_epoch)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Worker(plan, worker.folder, train, worker.claims).work(wait=True)
    (first, second) = collect(plan, worker.folder)
    assert (first.state, first.reused, second.state) == (FINISHED, False, WAITING)


def test_a_variant_that_fails_does_not_end_the_study(tmp_path, capsys):
    """Its loss is no number any more, which no check of the recipe can know."""
    bad = {"name": "bad", "optim": {"name": "sgd", "lr": 1e30}}
    plan = tiny_plan(tmp_path, variants=[bad, TWO[0]], study={"seeds": [0]})
    assert trained(plan, tmp_path) == ["bad, seed 0", "plain, seed 0"]
    worker = worker_of(plan, tmp_path)
    assert [worker.state_of(run) for run in plan.runs] == [FAILED, FINISHED]
    note = worker.folder.note(plan.runs[0])
    assert note is not None
    assert note.reason in collect(plan, worker.folder)[0].reason
    assert f"bad, seed 0 failed: {note.reason}" in capsys.readouterr().err
    assert trained(plan, tmp_path) == []
    worker.folder.forget(plan.runs[0])
    assert trained(plan, tmp_path) == ["bad, seed 0"]


def test_a_run_that_kills_its_processes_fails_and_the_others_go_on(tmp_path, capsys):
    """A word is missing of whoever is killed with -9, as by the system where memory is short; here the words of two."""
    plan = tiny_plan(tmp_path, study={"seeds": [0]}, budget={"epochs": 1})
    bad, _ = plan.runs
    worker, deaths = worker_of(plan, tmp_path), list[int]()

    class Killed(BaseException):
        """What no code has time to see."""

    def train(run: PlannedRun, on_epoch: Callable) -> object:
        if run is not bad:
            return worker.train(run, on_epoch)
        deaths.append(worker.folder.note(run).deaths)
        raise Killed

    dying = Worker(plan, worker.folder, train, worker.claims)
    for _ in range(2):
        with pytest.raises(Killed):
            dying.work(wait=True)
    assert deaths == [1, 2]
    assert dying.work(wait=True) == []
    assert [worker.state_of(run) for run in plan.runs] == [FAILED, FINISHED]
    assert "plain, seed 0 failed: 2 processes have ended in it without a word" in capsys.readouterr().err
    worker.folder.forget(bad)
    assert worker.work(wait=True) == []
    assert worker.state_of(bad) == FINISHED


def test_an_end_with_a_word_is_no_death(tmp_path):
    plan = tiny_plan(tmp_path, study={"seeds": [0]}, variants=[TWO[0]])
    worker = worker_of(plan, tmp_path)
    for _ in range(3):
        with stopped_at_save(1):
            worker.work(wait=True)
        note = worker.folder.note(plan.runs[0])
        assert note is not None
        assert (note.state, note.deaths) == (WAITING, 0)
        shutil.rmtree(plan.runs[0].folder)


HOLD = """
import sys, time
from pathlib import Path
from patchlight.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_training_by_hand_is_passed_over_and_waited_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(work, "POLL_S", 0.05)
    plan = tiny_plan(tmp_path, study={"seeds": [0]}, budget={"epochs": 1})
    first, second = plan.runs
    worker = worker_of(plan, tmp_path)
    words = [sys.executable, "-c", HOLD, str(first.folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            assert worker.work(wait=False) == [first]
            assert worker.state_of(second) == FINISHED
            said = capsys.readouterr().err
            assert f"plain, seed 0: {first.folder} is in use: process {child.pid}" in said
            threading.Timer(0.5, child.kill).start()
            assert worker.work(wait=True) == []
        finally:
            child.kill()
    assert worker.state_of(first) == FINISHED
    said += capsys.readouterr().err
    assert said.count("is in use") == 1, "it is asked for again and again, and said once"
    assert said.count("other workers have plain, seed 0; waiting for them") == 1


def test_who_loses_a_run_stops_and_writes_nothing_more(tmp_path, capsys):
    """As when a machine was asleep for longer than the lease; nobody has the run now, so that it is taken again."""
    plan = tiny_plan(tmp_path, variants=[TWO[0]], study={"seeds": [0]})
    (run,) = plan.runs
    worker, states = worker_of(plan, tmp_path, lease_s=0.3), list[str]()

    def train(run: PlannedRun, on_epoch: Callable) -> object:
        def lose(row) -> None:
            if row.epoch == 1:
                run.folder.with_name(f"{run.key}.lease").unlink()
                _, claim = worker.claims._leases[run.folder]
                assert claim._lost.wait(60)
            on_epoch(row)

        states.append(worker.state_of(run))
        return worker.train(run, lose if len(states) == 1 else on_epoch)

    assert Worker(plan, worker.folder, train, worker.claims).work(wait=True) == []
    assert states == [WAITING, WAITING]
    assert "plain, seed 0: another worker has taken this run over" in capsys.readouterr().err
    assert epochs_of(run) == [1, 2]
    assert len(Run(run.folder).read(Environment).resumed) == 1


def test_what_another_worker_has_is_left_to_it(tmp_path):
    plan = tiny_plan(tmp_path, study={"seeds": [0]}, budget={"epochs": 1})
    with worker_of(plan, tmp_path).claims.take(plan.runs[0].folder) as claim:
        assert claim is not None
        others = worker_of(plan, tmp_path).work(wait=False)
    assert others == [plan.runs[0]]
    assert trained(plan, tmp_path) == ["plain, seed 0"]


def test_a_full_disk_ends_the_worker_and_not_the_run(tmp_path):
    plan = tiny_plan(tmp_path, study={"seeds": [0]})
    worker = worker_of(plan, tmp_path)

    def train(run: PlannedRun, on_epoch: Callable) -> object:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        Worker(plan, worker.folder, train, worker.claims).work(wait=True)
    assert [worker.state_of(run) for run in plan.runs] == [WAITING, WAITING]
    assert trained(plan, tmp_path) == ["plain, seed 0", "fast, seed 0"]
