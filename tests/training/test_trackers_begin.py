"""How a run begins and ends in its trackers: what a refusal costs, which result they have, and what is no failure."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tracked import _no_service_is_left, held, quick, recipe  # noqa: F401 (fixtures)

import patchlight
from patchlight.config import load_recipe
from patchlight.errors import PatchlightError, UsageError
from patchlight.runs import EvalResult, Run, ValidationResult
from patchlight.runs.overwrite import replace_contents, roll_back
from patchlight.runs.tracking import Tracked
from patchlight.training.trackers.mlflow import MLflow
from patchlight.training.trackers.tracker import Subject, result_scalars


@pytest.fixture
def away(monkeypatch):
    """An MLflow server that nobody runs."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("before", [(), ("tensorboard",)])
def test_a_tracker_that_cannot_begin_costs_no_run_that_was_to_be_overwritten(before, tmp_path, away):
    run = patchlight.train(recipe(*before, epochs=1), out=tmp_path / "run")
    whole = contents(run.path)
    with pytest.raises(UsageError, match=r"mlflow cannot begin: .*; nothing is lost: mend that"):
        patchlight.train(recipe("tensorboard", "mlflow", epochs=2), out=run.path, overwrite=True)
    assert contents(run.path) == whole
    assert run.read(EvalResult).n == 50
    assert not list(run.path.glob(".repl*"))


def test_a_tracker_that_cannot_begin_leaves_no_run(tmp_path, away):
    with pytest.raises(UsageError, match="mlflow cannot begin"):
        patchlight.train(recipe("tensorboard", "mlflow", epochs=1), out=tmp_path / "run")
    assert not Run(tmp_path / "run").is_there
    assert not (tmp_path / "run" / "tracking").exists()
    run = patchlight.train(recipe("tensorboard", epochs=1), out=tmp_path / "run")
    assert run.finished


def test_a_process_that_is_killed_while_trackers_begin_costs_no_run(tmp_path):
    folder = tmp_path / "run"
    (folder / "tracking").mkdir(parents=True)
    (folder / "config.toml").write_text("old")
    (folder / "tracking" / "events").write_text("old")

    def begin() -> None:
        (folder / "tracking").mkdir()
        (folder / "tracking" / "events-new").write_text("new")
        shutil.copytree(folder, tmp_path / "killed")

    replace_contents(folder, ["config.toml", "tracking"], b"new", begin)
    assert contents(folder)["config.toml"] == b"new"
    assert "tracking/events-new" in contents(folder)
    assert roll_back(tmp_path / "killed")
    assert contents(tmp_path / "killed") == {"config.toml": b"old", "tracking/events": b"old"}


@pytest.mark.parametrize(
    ("project", "said"),
    [
        ("a/b", "train.track_project is 'a/b', and no name of a project in W&B may have /"),
        ("x" * 129, "129 characters"),
    ],
)
def test_a_project_that_wandb_refuses_is_said_before_anything(project, said, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=said):
        patchlight.train(recipe("wandb", track_project=project), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("WANDB_PROJECT", "a:b")
    with pytest.raises(UsageError, match="WANDB_PROJECT is 'a:b'"):
        patchlight.train(recipe("wandb"), out=tmp_path / "run")


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_the_test_result_reaches_a_tracker_that_has_the_validation(name, tmp_path, capsys):
    config = load_recipe(recipe(name, epochs=1), {"eval.test": False})
    run = patchlight.train(config, out=tmp_path / "run")
    validation = result_scalars(run.read(ValidationResult))
    assert held(name, run).result == {key: pytest.approx(value, rel=1e-6) for key, value in validation.items()}
    patchlight.train(load_recipe(config, {"eval.test": True}), out=run.path, resume=True)
    expected = {key: pytest.approx(value, rel=1e-6) for key, value in result_scalars(run.read(EvalResult)).items()}
    found = held(name, run)
    assert {key: found.result[key] for key in expected} == expected
    assert {f"figures/{path.stem}" for path in (run.path / "figures").glob("*.png")} <= found.files
    assert run.read(Tracked).trackers[name].result == "eval.json"
    capsys.readouterr()
    patchlight.train(load_recipe(config, {"eval.test": True}), out=run.path, resume=True)
    assert f"{name} has all of this run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("project", "said"),
    [
        ("", r"^train\.track_project is empty; name a project, or leave it out$"),
        ("a\nb", r"^train\.track_project is a\\nb, with a line break or another sign .* write it without$"),
        ("a\udce9", r"^train\.track_project is a\\udce9, of bytes that are no UTF-8"),
    ],
)
def test_a_project_that_is_no_name_is_refused(project, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        patchlight.train(recipe("tensorboard", track_project=project), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_processes_make_one_experiment(tmp_path, monkeypatch):
    """Each finds that there is none long before it makes it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "store"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    asked = MlflowClient.get_experiment_by_name

    def ask(self, name):
        found = asked(self, name)
        time.sleep(0.5)
        return found

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", ask)
    begun: list[str] = []

    def begin(number: int) -> None:
        subject = Subject(
            run=Run(tmp_path / f"run-{number}"), project=None, named=None, settings={}, recipe="", id=None
        )
        begun.append(MLflow(subject).id)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(begun) == 2
    client = MlflowClient(tracking_uri=str(tmp_path / "store"))
    assert len({client.get_run(each).info.experiment_id for each in begun}) == 1


def test_an_experiment_that_another_process_makes_first_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "store"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    make, made = MlflowClient.create_experiment, []

    def make_second(self, name):
        made.append(make(self, name))  # by the other one
        return make(self, name)

    monkeypatch.setattr(MlflowClient, "create_experiment", make_second)
    run = MLflow(Subject(run=Run(tmp_path / "run"), project=None, named=None, settings={}, recipe="", id=None)).id
    client = MlflowClient(tracking_uri=str(tmp_path / "store"))
    assert [client.get_run(run).info.experiment_id] == made


class Enough(Exception):
    pass


@pytest.mark.parametrize(("error", "status"), [(Enough, "KILLED"), (PatchlightError, "KILLED")])
def test_what_on_epoch_raises_stops_a_run_and_is_no_failure(error, status, tmp_path):
    def enough(row):
        raise error("enough")

    with pytest.raises(error, match="enough"):
        patchlight.train(recipe("mlflow"), out=tmp_path / "run", on_epoch=enough)
    entry = Run(tmp_path / "run").read(Tracked).trackers["mlflow"]
    assert MlflowClient(tracking_uri=entry.place).get_run(entry.id).info.status == status


def test_what_fails_elsewhere_is_a_failure(tmp_path, monkeypatch):
    def broken(*args, **options):
        raise PatchlightError("broken")

    monkeypatch.setattr("patchlight.commands.train.conclude", broken)
    with pytest.raises(PatchlightError, match="broken"):
        patchlight.train(recipe("mlflow", epochs=1), out=tmp_path / "run", on_epoch=lambda row: None)
    entry = Run(tmp_path / "run").read(Tracked).trackers["mlflow"]
    assert MlflowClient(tracking_uri=entry.place).get_run(entry.id).info.status == "FAILED"
