"""Trackers: what TensorBoard, W&B and MLflow hold of a run, right after a stop, a lost epoch and a failure."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small import small_config
from tracked import (
    _no_service_is_left,  # noqa: F401 (a fixture)
    held,
    in_tensorboard,
    quick,  # noqa: F401 (a fixture)
    recipe,
    records,
    stop_after,
    wandb_files,
)

import patchlight
from patchlight.config import load_recipe
from patchlight.errors import LibraryMissing, UsageError
from patchlight.runs import Environment, Epoch, EvalResult, ReconstructionResult, Run
from patchlight.runs.tracking import Tracked, TrackedIn
from patchlight.training.trackers import TRACKERS, check_trackers
from patchlight.training.trackers.tensorboard import TensorBoard
from patchlight.training.trackers.tracker import epoch_scalars, result_scalars
from patchlight.training.trackers.trackers import Trackers


def stopped(config, out, epoch: int = 2) -> Run:
    with pytest.raises(RuntimeError, match="on purpose"):
        patchlight.train(config, out=out, on_epoch=stop_after(epoch))
    return Run(out)


def damage_newest_checkpoint(run: Run) -> None:
    newest = max((run.path / "checkpoints").glob("epoch-*"))
    (newest / "model.safetensors").write_bytes(b"not what it was")


def check_whole(name: str, run: Run) -> None:
    """The tracker has every epoch once, the result and all that belongs to it."""
    rows, has = run.epochs(), held(name, run)
    assert [row.epoch for row in rows] == [1, 2, 3]
    for key in epoch_scalars(rows[0]):
        expected = [(row.step, epoch_scalars(row)[key]) for row in rows]
        assert [step for step, _ in has.curves[key]] == [step for step, _ in expected], key
        if key not in ("images_per_s", "epoch_s", "wall_s"):  # of an epoch that was trained twice either is true
            assert has.curves[key] == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected], key
    assert has.result == {key: pytest.approx(value, rel=1e-6) for key, value in result_scalars(run.result()).items()}
    figures = {f"figures/{path.stem}" for path in (run.path / "figures").glob("*.png")}
    assert figures
    assert has.files == {*figures, "report"}
    assert float(has.settings["optim.lr"]) == 3e-3
    assert has.settings["model.name"] == "vit-micro"
    assert not any(key.startswith("about.") or key.startswith("train.track") for key in has.settings)
    assert run.read(Tracked).trackers[name].complete


@pytest.mark.parametrize("name", TRACKERS)
def test_a_run_that_was_stopped_is_one_curve(name, tmp_path):
    run = stopped(recipe(name), tmp_path / "run")  # by on_epoch, after the tracker had its epoch
    assert [step for step, _ in held(name, run).curves["epoch"]] == [row.step for row in run.epochs()]
    assert not run.read(Tracked).trackers[name].complete
    before = run.read(Tracked).trackers[name].id
    patchlight.train(recipe(name), out=run.path, resume=True)
    check_whole(name, run)
    assert run.read(Tracked).trackers[name].id == before
    assert run.read(Environment).current.not_exact is None


@pytest.mark.parametrize("name", TRACKERS)
def test_epochs_that_are_trained_again_are_one_curve(name, tmp_path, capsys):
    run = stopped(recipe(name), tmp_path / "run")
    damage_newest_checkpoint(run)
    capsys.readouterr()
    patchlight.train(recipe(name), out=run.path, resume=True)
    check_whole(name, run)
    said = " ".join(capsys.readouterr().err.split())
    steps = run.epochs()[0].step, run.epochs()[1].step
    kept = f"{name} has epochs up to step {steps[1]}, and training goes on from step {steps[0]}; it keeps"
    assert {
        "tensorboard": f"what it had of later steps than {steps[0]} is taken back" in said,
        "wandb": "it gets all epochs" in said,
        "mlflow": kept in said and any(kept in note for note in run.read(Environment).data.notes),
    }[name]


@pytest.mark.parametrize("name", TRACKERS)
def test_what_a_killed_process_did_not_send_is_sent(name, tmp_path, monkeypatch):
    """It is killed between an epoch's checkpoint and the tracker."""
    with monkeypatch.context() as patch:
        patch.setattr(Trackers, "epoch", lambda self, row: stop_after(1)(row))
        stopped(recipe(name), tmp_path / "run", epoch=1)
    assert held(name, Run(tmp_path / "run")).curves == {}
    run = patchlight.train(recipe(name), out=tmp_path / "run", resume=True)
    check_whole(name, run)


@pytest.mark.slow
def test_a_finished_run_is_sent_to_trackers_that_are_named_later(tmp_path, capsys):
    run = patchlight.train(recipe(), out=tmp_path / "run")
    assert not (run.path / "tracking").exists()
    assert not (run.path / "tracking.json").exists()
    patchlight.train(recipe(*TRACKERS), out=run.path, resume=True)
    for name in TRACKERS:
        check_whole(name, run)
    places = [run.read(Tracked).trackers[name].place for name in TRACKERS]
    capsys.readouterr()
    patchlight.train(recipe(*TRACKERS), out=run.path, resume=True)
    said = " ".join(capsys.readouterr().err.split())
    for name, place in zip(TRACKERS, places, strict=True):
        check_whole(name, run)
        assert f"{name} has all of this run: {place}" in said


class FullDisk(TensorBoard):
    """TensorBoard, whose disk is full from some step on."""

    full_from = 0

    def log(self, step, scalars):
        if step >= self.full_from > 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().log(step, scalars)


def test_a_tracker_that_fails_never_ends_a_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TRACKERS, "tensorboard", f"{__name__}:FullDisk")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[FullDisk.__module__])
    monkeypatch.setattr(FullDisk, "full_from", 4)
    run = patchlight.train(recipe("tensorboard"), out=tmp_path / "run")
    assert run.read(EvalResult).n == 50
    said = "tensorboard failed: [Errno 28] No space left on device; the run goes on without it, and --resume sends"
    assert " ".join(capsys.readouterr().err.split()).count(said) == 1
    assert sum(said in note for note in run.read(Environment).data.notes) == 1
    assert [step for step, _ in in_tensorboard(run).curves["epoch"]] == [3]
    assert not run.read(Tracked).trackers["tensorboard"].complete
    monkeypatch.setattr(FullDisk, "full_from", 0)
    patchlight.train(recipe("tensorboard"), out=run.path, resume=True)
    check_whole("tensorboard", run)


@pytest.mark.slow
def test_mlflow_whose_store_is_away_is_gone_on_with_later(tmp_path, capsys):
    store, away = tmp_path / "mlruns", tmp_path / "away"
    run = stopped(recipe("mlflow"), tmp_path / "run", epoch=1)
    store.rename(away)
    patchlight.train(recipe("mlflow"), out=run.path, resume=True)
    assert (
        f"train.track: mlflow cannot go on: Exception: '{store}' does not exist; training goes on without"
        in " ".join(capsys.readouterr().err.split())
    )
    assert run.read(EvalResult).n == 50
    assert not store.exists()
    away.rename(store)
    patchlight.train(recipe("mlflow"), out=run.path, resume=True)
    check_whole("mlflow", run)


KILLS_WANDB = """
import os, signal, sys
from pathlib import Path
from test_trackers import recipe
import patchlight

def kill(row):
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"wandb-core" in (folder / "cmdline").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)
        except OSError:
            pass

patchlight.train(recipe("wandb"), out=sys.argv[1], on_epoch=kill)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="it looks for W&B's service in /proc")
def test_wandb_whose_service_is_killed_is_gone_on_with_later(tmp_path):
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", KILLS_WANDB, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env={**{key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}, "PYTHONPATH": paths},
    )
    assert "wandb failed: Connection lost; the run goes on without it" in " ".join(done.stderr.split())
    run = Run(tmp_path / "run")
    assert run.read(EvalResult).n == 50
    patchlight.train(recipe("wandb"), out=run.path, resume=True)
    check_whole("wandb", run)


def test_a_tracker_that_cannot_begin_is_an_error_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UsageError, match=r"train\.track: mlflow cannot begin: .*127\.0\.0\.1.*repeat the command"):
        patchlight.train(recipe("mlflow"), out=tmp_path / "run")
    assert not Run(tmp_path / "run").is_there
    patchlight.train(recipe(), out=tmp_path / "run", resume=True)
    assert len(Run(tmp_path / "run").epochs()) == 3


@pytest.mark.parametrize("name", TRACKERS)
def test_a_client_that_is_missing_is_said_before_there_is_a_run(name, tmp_path, monkeypatch):
    library = "torch.utils.tensorboard" if name == "tensorboard" else name
    monkeypatch.setitem(sys.modules, library.partition(".")[0] if name != "tensorboard" else name, None)
    monkeypatch.delitem(sys.modules, TRACKERS[name].partition(":")[0], raising=False)
    for loaded in [each for each in sys.modules if each.startswith(f"{library}.") or each.startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    with pytest.raises(
        LibraryMissing, match=rf"^train\.track: {name} is not installed; pip install 'patchlight\[{name}\]'"
    ):
        patchlight.train(recipe(name), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nothing_is_loaded_that_nobody_asked_for(tmp_path):
    asked = (
        "import sys; import patchlight.commands.train as t; from patchlight.training.trackers.trackers import Trackers;"
        "print([name for name in ('tensorboard', 'wandb', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_wandb_gets_no_more_than_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/somebody/their-own-program.py"])
    run = patchlight.train(recipe("wandb", epochs=1, track_project="mine"), out=tmp_path / "run")
    (file,) = wandb_files(run)
    found = [(record.WhichOneof("record_type"), record) for record in records(file)]
    # Of its messages those are not here that hold the computer, the console, the load of the machine and files.
    assert {kind for kind, _ in found} == {"header", "run", "telemetry", "summary", "history", "artifact", "exit"}
    ((_, began),) = [each for each in found if each[0] == "run"]
    assert (began.run.project, began.run.host, began.run.git.commit) == ("mine", "", "")
    assert b"their-own-program" not in file.read_bytes()
    assert not list((file.parent / "files").glob("*"))


def test_the_clients_own_variables_name_experiment_and_run(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    monkeypatch.setenv("MLFLOW_RUN_NAME", "first")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "store"))
    run = patchlight.train(recipe("mlflow", epochs=1), out=tmp_path / "run")
    client = MlflowClient(tracking_uri=str(tmp_path / "store"))
    found = client.get_run(run.read(Tracked).trackers["mlflow"].id)
    assert client.get_experiment(found.info.experiment_id).name == "theirs"
    assert (found.info.run_name, found.info.status) == ("first", "FINISHED")
    assert set(found.data.tags) == {"mlflow.runName"}  # neither user nor commit nor command
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.slow
def test_stages_and_the_second_engine_and_masked_autoencoding(tmp_path):
    stages = [{"train": {"epochs": 1, "trainable": "head"}}, {"train": {"epochs": 1}}]
    config = small_config(train={"track": ["tensorboard"], "engine": "hf"}, stages=stages)
    run = patchlight.train(config, out=tmp_path / "staged")
    curves = in_tensorboard(run).curves
    assert [value for _, value in curves["stage"]] == [1, 2]
    assert [step for step, _ in curves["train/loss"]] == [row.step for row in run.epochs()]
    mae = small_config(train={"task": "reconstruct", "epochs": 1, "track": ["tensorboard"]})
    run = patchlight.train(mae, out=tmp_path / "mae")
    has = in_tensorboard(run)
    assert has.result == {
        "kept/epoch": 1,
        "kept/val_loss": pytest.approx(run.read(ReconstructionResult).val_loss, rel=1e-6),
    }
    assert "train/top1" not in has.curves


def test_a_run_that_is_replaced_begins_anew_in_its_trackers(tmp_path):
    run = stopped(recipe("tensorboard"), tmp_path / "run")
    with pytest.raises(RuntimeError, match="on purpose"):
        patchlight.train(recipe("tensorboard"), out=run.path, overwrite=True, on_epoch=stop_after(1))
    assert [value for _, value in in_tensorboard(run).curves["epoch"]] == [1]
    with pytest.raises(RuntimeError, match="on purpose"):
        patchlight.train(recipe(), out=run.path, overwrite=True, on_epoch=stop_after(1))
    assert not (run.path / "tracking").exists()
    assert not (run.path / "tracking.json").exists()


def test_two_runs_do_not_differ_by_whom_they_tell(tmp_path):
    config = load_recipe("quickstart")
    told = load_recipe(config, {"train.track": "mlflow", "train.track_project": "mine"})
    assert patchlight.runs.config_differences(config, told) == {}
    assert patchlight.runs.resources_changed(config, told) == []


def test_numbers_have_the_names_of_the_files():
    row = Epoch(
        epoch=2, step=10, lr=1e-3, train_loss=0.5, train_top1=0.75, train_mixed=True, images_per_s=100.0, epoch_s=2.0
    )
    assert epoch_scalars(row) == {
        "lr": 1e-3,
        "train/loss": 0.5,
        "train/top1": 0.75,
        "images_per_s": 100,
        "epoch_s": 2,
        "epoch": 2,
    }
    assert list(epoch_scalars(row))[-1] == "epoch"
    assert result_scalars(ReconstructionResult(val_loss=0.25, epoch=3)) == {"kept/val_loss": 0.25, "kept/epoch": 3}


def test_the_record_is_read_back():
    tracked = Tracked(trackers={"mlflow": TrackedIn(id="abc", place="http://there", complete=True)})
    assert Tracked.from_json(tracked.to_json()) == tracked


def test_every_row_is_checked():
    check_trackers(list(TRACKERS))
