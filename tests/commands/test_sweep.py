"""`patchlight sweep` with real trainings: its folder, its words, its workers and their ends."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from faulty import Nursery
from small import SMALL, make_images, small_config

import patchlight
from patchlight.cli.main import main
from patchlight.commands.sweep import _train as train_trial
from patchlight.commands.sweep import in_full, make_plan
from patchlight.config import load_recipe
from patchlight.errors import Interrupted, UsageError
from patchlight.runs import Run
from patchlight.studies.sweep_result import read_record

QUICK = [*SMALL, "--model.fused_attn", "true", "--train.budget", "none", "--train.threads", "1"]
LR = "optim.lr=1e-3..1e-2:log"
AT = QUICK.index("--model.num_heads")
GRID = ["optim.lr=1e-3,1e-2", "model.num_heads=2,5", "--sampler", "grid", *QUICK[:AT], *QUICK[AT + 2 :]]


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """The folder of a sweep of four trials, two of which cannot be trained."""
    out = tmp_path_factory.mktemp("sweep") / "it"
    assert main(["sweep", "quickstart", *GRID, "--out", str(out)]) == 0
    return out


def test_it_ends_in_a_recipe_and_a_record(swept):
    result = read_record(swept)
    states = [trial.state for trial in result.trials]
    assert sorted(states) == ["failed", "failed", "finished", "finished"]  # 24 is no multiple of 5
    for trial in result.trials:
        assert (trial.params["model.num_heads"] == 5) == (trial.state == "failed")
        if trial.state == "finished":
            run = Run.open(swept / trial.folder)
            assert trial.value == max(row.val_top1 for row in run.epochs())
            assert run.config().optim.lr == trial.params["optim.lr"]
            assert not (run.path / "eval.json").exists()  # the test images were not read
    failed = next(trial for trial in result.trials if trial.state == "failed")
    assert "5" in failed.reason
    best = load_recipe(str(swept / "best.toml"))
    assert best.optim.lr == result.best_trial.params["optim.lr"]
    assert best.about.name == "quickstart-best"
    assert best.eval.test
    assert json.loads((swept / "sweep.json").read_text())["format"] == result.format


def test_it_ends_in_pictures_and_a_page(swept):
    for name in ("history", "slices"):
        assert (swept / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (swept / "figures" / f"{name}.svg").read_text()
    page = (swept / "README.md").read_text()
    assert "figures/history.png" in page
    assert "optimistic" in page
    for trial in read_record(swept).trials:
        assert trial.state == "failed" or trial.folder in page


def test_the_same_command_trains_no_more(swept, capsys):
    before = {path: path.stat().st_mtime_ns for path in (swept / "runs").rglob("*.safetensors")}
    assert main(["sweep", "quickstart", *GRID, "--out", str(swept), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["best"] == read_record(swept).best
    assert "the sweep goes on (" in said.err
    assert {path: path.stat().st_mtime_ns for path in (swept / "runs").rglob("*.safetensors")} == before


def test_in_python(tmp_path, no_charts):
    base = small_config(train={"epochs": 1})
    result = patchlight.sweep(
        base, {"optim.name": ["adamw", "sgd"], "model.depth": [1, 2]}, sampler="grid", trials=2, out=tmp_path / "it"
    )
    assert [trial.state for trial in result.trials] == ["finished"] * 2
    assert any("of the 4 points of the grid 2 are tried" in note for note in result.notes)
    more = patchlight.sweep(
        base, {"optim.name": ["adamw", "sgd"], "model.depth": [1, 2]}, sampler="grid", out=tmp_path / "it"
    )
    assert [trial.state for trial in more.trials] == ["finished"] * 4
    assert [trial.params for trial in more.trials[:2]] == [trial.params for trial in result.trials]


def test_masked_autoencoding_takes_the_lower_loss(tmp_path, no_charts):
    base = small_config(train={"epochs": 1, "task": "reconstruct"})
    result = patchlight.sweep(base, {"optim.lr": "1e-4..1e-2:log"}, trials=2, out=tmp_path / "it")
    assert result.lower_is_better
    assert result.best_trial.value == min(trial.value for trial in result.trials)
    assert result.measure == "val/loss"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["optim.lr=0..1"], "patchlight: optim.lr=0..1: optim.lr must be above 0, not 0.0"),
        ([LR, "--sampler", "tpa"], "no sampler 'tpa'; did you mean 'tpe'?"),
        ([LR, "--pruner", "medan"], "no pruner 'medan'; did you mean 'median'?"),
        ([LR, "--trials", "0"], "--trials must be at least 1, not 0"),
        ([LR, "--time", "soon"], "--time must be such as 90s, 10m or 1h30m, not 'soon'"),
        ([LR, "--workers", "0"], "--workers must be at least 1, not 0"),
        ([LR, "--seed", "-1"], "--seed must be at least 0, not -1"),
        ([LR, "--optim.lr", "1e-3"], "optim.lr has a range and a value; leave out --optim.lr"),
        ([LR, "--data.val_fraction", "0", "--data.val_per_class", "none"], "a sweep needs validation images"),
        ([LR, "--sampler", "grid"], "has no end of values, and a grid tries all"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(words, sentence, here, capsys):
    assert main(["sweep", "quickstart", *words, "--out", "it"]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(here.iterdir())


def write_images(path: Path, seed: int = 0) -> None:
    images = make_images(n=72, seed=seed)
    np.savez(path, images=images.images.permute(0, 2, 3, 1).numpy(), labels=images.labels.numpy())


OWN = {"data": {"source": "mine.npz", "train_per_class": None, "val_per_class": 4, "test_per_class": None}}


def test_a_sweep_goes_on_with_its_own_images_alone(here, no_charts, monkeypatch):
    base = small_config(**OWN, train={"epochs": 1})
    write_images(here / "mine.npz")
    out = here / "it"
    patchlight.sweep(base, {"optim.lr": [1e-3, 1e-2]}, trials=1, out=out)
    assert load_recipe(str(out / "best.toml")).data.source == str(here / "mine.npz")
    # The same words from another folder, where they mean other images.
    (here / "other").mkdir()
    write_images(here / "other" / "mine.npz", seed=1)
    monkeypatch.chdir(here / "other")
    with pytest.raises(UsageError, match=r"its images have changed \(train, val\)"):
        patchlight.sweep(base, {"optim.lr": [1e-3, 1e-2]}, trials=2, out=out)
    # The same images by another name are the same, and others in the same place are not.
    shutil.copy(here / "mine.npz", here / "other" / "moved.npz")
    moved = load_recipe(base, {"data.source": "moved.npz"})
    assert len(patchlight.sweep(moved, {"optim.lr": [1e-3, 1e-2]}, trials=2, out=out).trials) == 2
    write_images(here / "mine.npz", seed=2)
    monkeypatch.chdir(here)
    with pytest.raises(UsageError, match=r"its images have changed"):
        patchlight.sweep(base, {"optim.lr": [1e-3, 1e-2]}, trials=3, out=out)


def test_paths_are_in_full(here):
    (here / "weights").mkdir()
    (here / "teacher").mkdir()
    write_images(here / "mine.npz")
    config = load_recipe(small_config(**OWN), {"model.name": "local-dir:weights", "train.teacher": "teacher"})
    full = in_full(config)
    assert full.data.source == str(here / "mine.npz")
    assert (full.model.name, full.train.teacher) == (f"local-dir:{here / 'weights'}", str(here / "teacher"))
    assert in_full(small_config()) == small_config()


def test_settings_that_change_nothing_measured_may_be_others(tmp_path, no_charts, capsys):
    base = small_config(train={"epochs": 2})
    out = tmp_path / "it"
    ranges = {"optim.lr": [1e-3, 1e-2]}
    first = patchlight.sweep(base, ranges, trials=1, out=out)
    other = {"train.threads": 1, "eval.gallery": 2, "train.checkpoint_every": 2}
    again = patchlight.sweep(base, ranges, other, trials=2, out=out)
    assert [trial.state for trial in again.trials] == ["finished"] * 2
    assert again.trials[0] == first.trials[0]
    with pytest.raises(UsageError, match=r"was started with train.epochs 2.0, not 3"):
        patchlight.sweep(base, ranges, {"train.epochs": 3}, trials=2, out=out)


def test_a_trial_that_was_stopped_goes_on_as_it_was_begun(tmp_path, no_charts, capsys):
    base = small_config(train={"epochs": 2})

    def stop(row):
        raise Interrupted("stopped", signal.SIGTERM)

    with pytest.raises(Interrupted):
        train_trial(base, tmp_path / "run", stop)
    train_trial(load_recipe(base, {"train.threads": 1, "eval.gallery": 2}), tmp_path / "run", lambda row: None)
    assert "goes on as it was begun, with eval.gallery 4, train.threads " in capsys.readouterr().err
    assert len(Run.open(tmp_path / "run").epochs()) == 2


@pytest.mark.parametrize("name", ["config.toml", "README.md", "best.toml", "recipe.toml", "figures", "sweep.journal"])
def test_a_folder_with_other_files_is_no_place_for_a_sweep(tmp_path, name):
    path = tmp_path / name
    if name == "figures":
        path.mkdir()
    else:
        path.write_text("[train]\nepochs = 1\n")
    before = sorted(tmp_path.rglob("*"))
    recipe = str(path) if name == "recipe.toml" else "quickstart"
    with pytest.raises(UsageError, match=rf"has files that are no sweep's \({name}\), .*; choose a new or an empty"):
        patchlight.sweep(recipe, [LR], out=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file is a file; choose a folder"):
        patchlight.sweep("quickstart", [LR], out=tmp_path / "file")


def test_a_storage_that_is_refused_leaves_no_folder(here):
    (here / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match=r"notes.txt is no journal of a sweep"):
        patchlight.sweep(small_config(), [LR], out=here / "it", storage="notes.txt")
    assert [path.name for path in here.iterdir()] == ["notes.txt"]


def test_a_sweep_with_a_storage_elsewhere_knows_its_folder(tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    words = {"ranges": [LR], "out": tmp_path / "it", "storage": f"sqlite:///{tmp_path}/trials.db", "trials": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("patchlight.commands.sweep._train", stop)
        with pytest.raises(KeyboardInterrupt):
            patchlight.sweep(small_config(), **words)
    (tmp_path / "it" / "runs").mkdir()  # of the trial that was stopped
    make_plan(small_config(), [LR], {}, 1, None, "tpe", "median", 0, tmp_path / "it")


def test_trials_that_are_done_are_not_forgotten(tmp_path, no_charts):
    base, out = small_config(train={"epochs": 1}), tmp_path / "it"
    patchlight.sweep(base, {"optim.lr": [1e-3, 1e-2, 1e-1]}, trials=2, out=out, sampler="random")
    before = {path: path.read_bytes() for path in (out / "sweep.json", out / "best.toml")}
    with pytest.raises(UsageError, match=r"2 trials are done; --trials must be at least 2"):
        patchlight.sweep(base, {"optim.lr": [1e-3, 1e-2, 1e-1]}, trials=1, out=out, sampler="random")
    # Nor where another storage is named, or the sweep's own is lost.
    (out / "sweep.journal").rename(tmp_path / "elsewhere")
    words = r"sweep.json tells of 2 trials and .*sweep.journal of 0; give the --storage"
    with pytest.raises(UsageError, match=words):
        patchlight.sweep(base, {"optim.lr": [1e-3, 1e-2, 1e-1]}, trials=2, out=out, sampler="random")
    assert before == {path: path.read_bytes() for path in before}


def test_a_folder_that_was_renamed_goes_on(tmp_path, no_charts):
    base, ranges = small_config(train={"epochs": 1}), {"optim.lr": [1e-3, 1e-2, 1e-1]}
    patchlight.sweep(base, ranges, trials=2, out=tmp_path / "it")
    (tmp_path / "it").rename(tmp_path / "moved")
    again = patchlight.sweep(base, ranges, trials=2, out=tmp_path / "moved")
    assert [trial.attempts for trial in again.trials] == [1, 1]
    assert not (tmp_path / "it").exists()
    assert str(tmp_path / "moved") in load_recipe(str(tmp_path / "moved" / "best.toml")).about.command


def test_the_best_recipe_reads_the_test_images(tmp_path, no_charts):
    base = small_config(train={"epochs": 1}, eval={"gallery": 4, "test": False})
    patchlight.sweep(base, {"optim.lr": [1e-3, 1e-2]}, trials=1, out=tmp_path / "it")
    assert load_recipe(str(tmp_path / "it" / "best.toml")).eval.test


def test_a_missing_package_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["sweep", "quickstart", LR]) == 2
    assert capsys.readouterr().err == "patchlight: optuna is not installed; pip install 'patchlight[sweep]'\n"


@pytest.mark.slow
def test_optuna_is_loaded_by_a_sweep_alone():
    code = "import sys, patchlight.commands.sweep, patchlight.commands.train; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.close()


def sweep_words(out: Path, trials: int, *more: str) -> list[str]:
    epochs = ["--train.epochs", "6", "--pruner", "none"]
    return ["sweep", "quickstart", LR, "--trials", str(trials), "--out", str(out), *QUICK, *epochs, *more]


@pytest.mark.slow
def test_four_workers_and_one_is_killed(nursery, tmp_path):
    out = tmp_path / "it"
    workers = [nursery.start(*sweep_words(out, 8)) for _ in range(4)]
    killed = workers[2]
    killed.wait_for("epoch 2/6")
    killed.send(signal.SIGKILL)
    assert killed.finish()[0] == -signal.SIGKILL
    ends = [worker.finish() for worker in workers if worker is not killed]
    assert [code for code, _ in ends] == [0] * 3
    result = read_record(out)
    assert [trial.state for trial in result.trials] == ["finished"] * 8
    taken = [trial for trial in result.trials if trial.attempts > 1]
    assert len(taken) == 1
    said = "".join(worker.said() for worker in workers)
    # Each trial was finished once, and the killed worker's went on from its checkpoint.
    assert sorted(said.count(f"trial {trial.number}: validation accuracy") for trial in result.trials) == [1] * 8
    assert f"resuming from {out}/runs/" in said
    assert len(list((out / "runs").iterdir())) == 8
    epochs = [row.epoch for row in Run.open(out / taken[0].folder).epochs()]
    assert epochs == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_the_same_command_goes_on(nursery, tmp_path, number):
    out = tmp_path / "it"
    first = nursery.start(*sweep_words(out, 2))
    first.wait_for("epoch 2/6")
    first.send(number)
    code, last = first.finish()
    assert code == 128 + number
    assert f"the sweep was stopped by {number.name} (1 waiting); repeat the command to go on" in last
    assert nursery.run(*sweep_words(out, 2))[0] == 0
    result = read_record(out)
    assert [trial.state for trial in result.trials] == ["finished"] * 2
    assert [trial.attempts for trial in result.trials] == [2, 1]


@pytest.mark.slow
def test_workers_of_one_command(tmp_path):
    out = tmp_path / "it"
    command = [sys.executable, "-m", "patchlight", *sweep_words(out, 3, "--workers", "2")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [trial.state for trial in read_record(out).trials] == ["finished"] * 3
    for number in (1, 2, 3):
        assert done.stderr.count(f"trial {number} finished, validation accuracy") == 1
    assert sorted(path.name for path in (out / "workers").iterdir()) == ["1.log", "2.log"]


@pytest.mark.slow
def test_a_signal_ends_the_workers_of_one_command(tmp_path):
    out = tmp_path / "it"
    command = [sys.executable, "-m", "patchlight", *sweep_words(out, 30, "--workers", "2")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    end = time.monotonic() + 60
    log = out / "workers" / "1.log"
    while not (log.exists() and "epoch 1/6" in log.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the sweep was stopped by SIGINT (" in said
    assert "the sweep was stopped by SIGTERM" in log.read_text()
