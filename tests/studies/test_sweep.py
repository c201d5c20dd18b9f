"""The trials of a sweep in Optuna's own storages: which count, who has them, and which are ended early."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from patchlight.config import Config, load_recipe
from patchlight.errors import PatchlightError, UsageError
from patchlight.runs import Epoch, Run
from patchlight.runs.sweep import FAILED, FINISHED, PRUNED, RUNNING, WAITING
from patchlight.studies import sweep_ledger
from patchlight.studies.ranges import read_ranges
from patchlight.studies.sweep import Plan, Worker, shuffled_grid
from patchlight.studies.sweep_ledger import Watch, claimed, place_of, slots_of, take_over
from patchlight.studies.sweep_result import best_recipe, make_result
from patchlight.studies.sweep_storage import join_study, make_pruner, make_sampler, open_storage

BASE = load_recipe("quickstart", {"train.epochs": 4, "train.budget": None})
HOST = platform.node()


@pytest.fixture
def study(tmp_path):
    storage, _ = open_storage(None, tmp_path)
    return join_study(storage, "it", {"--seed": 0}, "maximize", str(tmp_path))


def a_plan(folder: Path, *ranges: str, **options) -> Plan:
    axes = read_ranges(BASE, ranges or ["optim.lr=1e-4..1e-2:log"])
    options.setdefault("pruner", "none")
    return Plan("it", BASE, axes, folder, **options)


def a_worker(plan: Plan, train, storage: str | None = None) -> Worker:
    opened, shown = open_storage(storage, plan.folder)
    return Worker(plan, join_study(opened, plan.name, plan.to_storage(), "maximize", shown), train, lambda config: {})


def curve(config: Config, folder: Path, on_epoch, last: float, epochs: int = 4) -> None:
    """A run whose validation accuracy rises evenly to `last`: a train function with a known answer."""
    run = Run.create(folder, config)
    rows: list[Epoch] = []
    for epoch in range(1, epochs + 1):
        value = last * epoch / epochs
        row = Epoch(
            epoch=epoch, step=epoch, lr=1.0, train_loss=1.0, val_top1=value, images_per_s=1, epoch_s=1, best=True
        )
        rows.append(row)
        run.write_epochs(rows)
        on_epoch(row)


def slope(config: Config, folder: Path, on_epoch) -> None:
    """The greater the learning rate, the better."""
    if not folder.exists():
        curve(config, folder, on_epoch, 50 * config.optim.lr)


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_of_later_trials_only_so_many_count(study):
    trials = [study.ask() for _ in range(4)]
    slots = slots_of(study.get_trials(), 3)
    assert [slot.first.number for slot in slots] == [0, 1, 2]
    assert place_of(slots, trials[3].number) is None
    trials[3].set_user_attr("surplus", True)
    study.tell(trials[3], state=TrialState.FAIL)
    # With more trials asked for later, what was given back does not count.
    study.ask()
    assert [slot.first.number for slot in slots_of(study.get_trials(), 5)] == [0, 1, 2, 4]


def test_a_dead_workers_trial_is_taken_over_once(study):
    trial = study.ask()
    value = trial.suggest_float("optim.lr", 0, 1)
    trial.set_user_attr("claim", {"host": HOST, "process": dead_process(), "beat": 4e9})
    seen = slots_of(study.get_trials(), 5)
    # Two workers have seen it at the same time. One ends it, and both may queue it again.
    assert [slot.number for slot in take_over(study, seen, Watch())] == [0]
    assert take_over(study, seen, Watch()) == []
    take_over(study, slots_of(study.get_trials(), 5), Watch())
    study.enqueue_trial({"optim.lr": value}, user_attrs={"of": 0, "attempt": 1})
    (slot,) = slots_of(study.get_trials(), 5)
    assert (slot.state, len(slot.attempts), slot.last.number) == (WAITING, 2, 1)
    again, twice = study.ask(), study.ask()
    assert again.suggest_float("optim.lr", 0, 1) == value
    assert place_of(slots_of(study.get_trials(), 5), twice.number) is None


def test_three_deaths_are_enough(study):
    for attempt in range(3):
        trial = study.ask()
        trial.set_user_attr("claim", {"host": HOST, "process": dead_process(), "beat": 4e9})
        assert [slot.state for slot in slots_of(study.get_trials(), 1)] == [RUNNING], attempt
        take_over(study, slots_of(study.get_trials(), 1), Watch())
    (slot,) = slots_of(study.get_trials(), 1)
    assert slot.state == FAILED
    assert slot.reason.startswith("its process ended 3 times without a word")
    sweep_ledger.queue_again(study, slot, again=True)  # --retry-failed
    assert [slot.state for slot in slots_of(study.get_trials(), 1)] == [WAITING]


def test_workers_of_other_machines_have_time(study, monkeypatch):
    monkeypatch.setattr(sweep_ledger, "LEASE_S", 0.0)
    trial, watch = study.ask(), Watch()
    for beat in (1.0, 2.0):
        trial.set_user_attr("claim", {"host": "elsewhere", "process": 1, "beat": beat})
        assert not watch.is_dead(study.get_trials()[0])  # a new sign of life
    assert watch.is_dead(study.get_trials()[0])
    # One that has not claimed its trial yet gets the same time.
    study.ask()
    assert not watch.is_dead(study.get_trials()[1])
    assert watch.is_dead(study.get_trials()[1])


def test_signs_of_life_and_their_end(study, monkeypatch):
    monkeypatch.setattr(sweep_ledger, "BEAT_S", 0.02)
    trial = study.ask()
    with claimed(trial) as lost:
        claim = study.get_trials()[0].user_attrs["claim"]
        assert (claim["host"], claim["process"]) == (HOST, os.getpid())
        assert not Watch().is_dead(study.get_trials()[0])
        assert not lost.is_set()
        study.tell(trial.number, state=TrialState.FAIL)  # as a worker that takes over does
        assert lost.wait(10)


def test_another_command_for_the_same_folder_is_refused(tmp_path):
    plan = a_plan(tmp_path)
    a_worker(plan, slope)
    a_worker(plan, slope)
    other = a_plan(tmp_path, "optim.lr=1e-4..1e-1:log")
    with pytest.raises(UsageError, match=r"the range of optim.lr 1e-4..1e-2:log, not 1e-4..1e-1:log; repeat its own"):
        a_worker(other, slope)
    with pytest.raises(UsageError, match=r"--pruner none, not median"):
        a_worker(a_plan(tmp_path, pruner="median"), slope)


def test_what_an_older_plan_does_not_say_is_said(tmp_path, capsys):
    plan = a_plan(tmp_path, pruner="none").to_storage()
    old = {key: value for key, value in plan.items() if key not in ("images", "Patchlight")}
    old["recipe"] = {**old["recipe"], "data.source": "digits", "train.device": "auto"}
    storage, shown = open_storage(None, tmp_path)
    join_study(storage, "it", old, "maximize", shown)
    join_study(storage, "it", plan, "maximize", shown)
    assert "did not note its images and version of Patchlight when it began" in capsys.readouterr().err


def test_another_version_is_refused(tmp_path, monkeypatch):
    a_worker(a_plan(tmp_path), slope)
    monkeypatch.setattr("patchlight.__version__", "99.0")
    with pytest.raises(UsageError, match=r"was started with Patchlight .*, not 99.0"):
        a_worker(a_plan(tmp_path), slope)


def test_databases(tmp_path):
    storage, shown = open_storage(f"sqlite:///{tmp_path}/trials.db", tmp_path)
    assert shown.startswith("sqlite:///")
    study = join_study(storage, "it", {}, "maximize", shown)
    study.tell(study.ask(), 0.5)
    assert [slot.state for slot in slots_of(study.get_trials(), 1)] == [FINISHED]
    with pytest.raises(UsageError, match=r"--storage is no URL of a database"):
        open_storage("postgresql://user:secret@host:port/name", tmp_path)
    with pytest.raises(PatchlightError, match=r"cannot open --storage sqlite:////nowhere/at/all.db: "):
        open_storage("sqlite:////nowhere/at/all.db", tmp_path)
    with pytest.raises(PatchlightError, match=r"which is not installed; pip install |cannot open --storage") as error:
        open_storage("postgresql://user:secret@localhost:1/name", tmp_path)
    assert "secret" not in str(error.value)


def test_the_same_seed_gives_the_same_sweep(tmp_path):
    asked = []
    for name in ("one", "two"):
        worker = a_worker(a_plan(tmp_path / name, "optim.lr=1e-4..1e-2:log", "model.depth=2..6", trials=12), slope)
        asked.append([slot.params for slot in worker.work()])
    assert asked[0] == asked[1]
    assert len({repr(params) for params in asked[0]}) == 12
    assert all(isinstance(params["model.depth"], int) for params in asked[0])


@pytest.mark.parametrize("storage", [None, "database"])
def test_many_workers_do_each_trial_once(tmp_path, storage):
    if storage is not None:
        storage = f"sqlite:///{tmp_path}/trials.db"
    done, lock, errors = [], threading.Lock(), []

    def train(config, folder, on_epoch):
        slope(config, folder, on_epoch)
        with lock:
            done.append(folder.name)

    def work() -> None:
        try:
            a_worker(a_plan(tmp_path / "it", trials=9), train, storage).work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(done) == len(set(done)) == 9
    slots = a_worker(a_plan(tmp_path / "it", trials=9), train, storage).slots()
    assert [slot.state for slot in slots] == [FINISHED] * 9


def test_a_grid_is_tried_whole_and_a_part_of_it_at_random(tmp_path):
    ranges = ("model.depth=2..4", "optim.name=adamw,sgd")
    axes = read_ranges(BASE, ranges)
    grid = shuffled_grid(axes, seed=1)
    plan = a_plan(tmp_path, *ranges, sampler="grid", trials=6, grid=grid)
    slots = a_worker(plan, slope).work()
    assert [slot.params for slot in slots] == list(grid)
    assert {(p["model.depth"], p["optim.name"]) for p in grid} == {(d, n) for d in (2, 3, 4) for n in ("adamw", "sgd")}
    assert shuffled_grid(axes, seed=2) != grid


def test_what_is_behind_is_ended_early(tmp_path):
    plan = a_plan(tmp_path, trials=12, pruner="median", sampler="random")
    worker = a_worker(plan, slope)
    slots = worker.work()
    assert [slot.state for slot in slots[:5]] == [FINISHED] * 5  # the median of fewer says little
    pruned = [slot for slot in slots if slot.state == PRUNED]
    assert pruned
    for slot in pruned:
        assert slot.last.last_step == 2  # of four epochs the first is not judged
        earlier = sorted(s.last.value for s in slots[: slot.number] if s.state == FINISHED)
        middle = (earlier[(len(earlier) - 1) // 2] + earlier[len(earlier) // 2]) / 2
        assert 50 * slot.params["optim.lr"] < middle
    result = make_result(plan, worker.study, slots, "here")
    best = max(slot.last.value for slot in slots if slot.state == FINISHED)
    assert result.best_trial.value == best
    assert result.trials[pruned[0].number].epoch == 2
    recipe = best_recipe(plan, result)
    assert recipe.optim.lr == result.best_trial.params["optim.lr"]
    assert recipe.eval.test  # that of the base: the test images are read once, when this recipe is trained
    assert recipe.about.top1 is None
    assert "optimistic" in recipe.about.expect


def test_nothing_is_ended_at_its_last_epoch(tmp_path):
    ends = iter([0.9, 0.9, 0.9, 0.9, 0.9, 0.1])

    def late(config, folder, on_epoch):
        """All alike until the last epoch."""
        last = next(ends)
        curve(config, folder, on_epoch, 0.5, epochs=3)
        rows = Run(folder).epochs()
        row = Epoch(epoch=4, step=4, lr=1.0, train_loss=1.0, val_top1=last, images_per_s=1, epoch_s=1, best=True)
        Run(folder).write_epochs([*rows, row])
        on_epoch(row)

    slots = a_worker(a_plan(tmp_path, trials=6, pruner="median"), late).work()
    assert [slot.state for slot in slots] == [FINISHED] * 6


def test_hyperband_knows_the_length_of_a_training():
    pruner = make_pruner("hyperband", 26.5)
    assert isinstance(pruner, optuna.pruners.HyperbandPruner)
    assert pruner._max_resource == 27
    assert make_pruner("hyperband", None)._max_resource == "auto"


def test_wrong_combinations_fail_with_their_sentence_and_are_counted(tmp_path):
    def picky(config, folder, on_epoch):
        if config.optim.lr < 1e-3:
            raise UsageError("optim.lr is too low for this")
        slope(config, folder, on_epoch)

    plan = a_plan(tmp_path, trials=8)
    worker = a_worker(plan, picky)
    slots = worker.work()
    failed = [slot.number + 1 for slot in slots if slot.state == FAILED]
    assert 0 < len(failed) < 8
    assert all(slot.reason == "optim.lr is too low for this" for slot in slots if slot.state == FAILED)
    notes = make_result(plan, worker.study, slots, "here").notes
    assert f"{len(failed)} trials failed ({', '.join(map(str, failed))}): optim.lr is too low for this" in notes
    assert worker.try_failed_again() == len(failed)
    worker.train = slope
    assert [slot.state for slot in worker.work()] == [FINISHED] * 8


def test_where_all_fail_alike_no_more_are_tried(tmp_path):
    def never(config, folder, on_epoch):
        raise PatchlightError("there is no such data set")

    worker = a_worker(a_plan(tmp_path, trials=20), never)
    with pytest.raises(PatchlightError, match=r"the first 5 trials failed alike, .*: there is no such data set; mend"):
        worker.work()
    assert len(worker.slots()) == 5


def test_an_error_of_the_system_or_a_bug_leaves_the_trial_for_later(tmp_path):
    def full(config, folder, on_epoch):
        raise OSError(28, "No space left on device")

    worker = a_worker(a_plan(tmp_path, trials=2), full)
    for _ in range(4):  # these are no deaths: the trial may be tried as often as one likes
        with pytest.raises(OSError, match=r"No space"):
            worker.work()
    assert [slot.state for slot in worker.slots()] == [WAITING]
    worker.train = slope
    assert [slot.state for slot in worker.work()] == [FINISHED] * 2


def test_a_worker_that_was_taken_for_dead_stops_at_its_next_epoch(tmp_path):
    plan = a_plan(tmp_path, trials=1)

    def taken(config, folder, on_epoch):
        if not folder.exists():  # somebody ends the trial while it trains
            study = worker.study
            study.tell(study.get_trials()[0].number, state=TrialState.FAIL)
        slope(config, folder, on_epoch)

    worker = a_worker(plan, taken)
    (slot,) = worker.work()  # it finds the trial left, and is the one to take it over
    assert (slot.state, len(slot.attempts)) == (FINISHED, 2)


def test_time_is_over(tmp_path):
    plan = a_plan(tmp_path, trials=3)

    def slow(config, folder, on_epoch):
        worker.until = 0.0
        slope(config, folder, on_epoch)

    worker = a_worker(plan, slow)
    (slot,) = worker.work()
    assert slot.state == WAITING  # its training goes on with the next command
    worker = a_worker(plan, slope)
    assert [s.state for s in worker.work()] == [FINISHED] * 3


def test_the_reasons_to_doubt_are_notes(tmp_path):
    plan = a_plan(tmp_path, "train.epochs=2..4", trials=4, pruner="median")
    worker = a_worker(plan, lambda config, folder, on_epoch: curve(config, folder, on_epoch, 0.1 * config.train.epochs))
    result = make_result(plan, worker.study, worker.work(), "here")
    assert any("compared at the same epoch" in note for note in result.notes)
    assert any("fANOVA needs 5 finished trials of different settings" in note for note in result.notes)
    assert any("optimistic" in note for note in result.notes)


def test_importance_is_that_of_the_setting_that_matters(tmp_path):
    plan = a_plan(tmp_path, "optim.lr=1e-4..1e-2", "model.depth=2..6", trials=20, sampler="random", seed=2**40)
    worker = a_worker(plan, slope)  # the depth does nothing
    result = make_result(plan, worker.study, worker.work(), "here")
    shares = {axis.field: axis.importance for axis in result.axes}
    assert shares["optim.lr"] > 0.8
    assert shares["model.depth"] < 0.1
    assert result.importance_by.startswith("fANOVA")


def test_settings_that_are_tried_again_count_once(tmp_path):
    plan = a_plan(tmp_path, "optim.lr=1e-3,1e-2,3e-3", "model.depth=2,3,4", sampler="random", trials=7)
    worker = a_worker(plan, slope)
    slots = worker.work()
    tried = len({repr(slot.params) for slot in slots})
    assert tried < 7
    result = make_result(plan, worker.study, slots, "here")
    assert f"{tried} of 9 combinations were tried; {7 - tried} trials repeated one" in result.notes
    words = f"the best of {tried} combinations of settings (in 7 trials)"
    assert any(note.startswith(f"{words} was chosen") for note in result.notes)
    assert words in best_recipe(plan, result).about.source


@pytest.mark.parametrize("range_", ["optim.lr=1e-3,1e-2", "model.depth=2..3", "augment.mixup_alpha=0..0.4:0.4"])
@pytest.mark.parametrize("trials", [None, 30])
def test_where_all_combinations_are_tried_it_ends(tmp_path, range_, trials):
    plan = a_plan(tmp_path, range_, trials=trials)
    worker = a_worker(plan, slope)
    slots = worker.work()
    assert len({repr(slot.params) for slot in slots}) == 2
    assert repr(slots[-1].params) not in {
        repr(slot.params) for slot in slots[:-1]
    }  # it ends with the first of the last
    assert worker.are_over(slots)
    notes = make_result(plan, worker.study, slots, "here").notes
    of = "" if trials is None else " of 30"
    assert any(f"all 2 combinations were tried, so the sweep ended after {len(slots)}{of} trials" in n for n in notes)
    assert len(a_worker(plan, slope).work()) == len(slots)


def test_samplers_do_not_warn():
    for name in ("tpe", "random", "grid"):
        assert make_sampler(name, 0, {"optim.lr": 0.1} if name == "grid" else None)
