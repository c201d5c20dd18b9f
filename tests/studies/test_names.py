"""What a run of a study, or of a sweep, is called in a tracker: the folder's name would be a key."""

from __future__ import annotations

import dataclasses

from mlflow import MlflowClient
from small_study import tiny_file, tiny_plan

from patchlight.cli.main import main
from patchlight.config import load_recipe
from patchlight.runs import Run
from patchlight.studies.ranges import read_ranges
from patchlight.studies.sweep import Plan

TRACKED = {"base": {"train": {"track": ["mlflow"]}}}


def names_of(plan) -> list[str | None]:
    return [run.config.train.track_name for run in plan.runs]


def test_a_run_has_the_names_of_study_variant_and_seed_and_its_key_is_the_same(tmp_path):
    untold, told = tiny_plan(tmp_path), tiny_plan(tmp_path, **TRACKED)
    assert names_of(told) == [f"mine: {name}, seed {seed}" for seed in (0, 1) for name in ("plain", "fast")]
    assert names_of(untold) == [None] * 4
    assert [run.key for run in told.runs] == [run.key for run in untold.runs]
    assert [run.settings["train.track_name"] for run in told.runs] == names_of(told)


def test_a_study_of_one_does_not_say_its_name_twice(tmp_path):
    plan = tiny_plan(tmp_path, "mine", **TRACKED, variants=[{"name": "mine"}])
    assert names_of(plan) == ["mine, seed 0", "mine, seed 1"]


def test_a_name_that_is_given_stays(tmp_path):
    train = {"track": ["mlflow"], "track_name": "my own"}
    assert names_of(tiny_plan(tmp_path, base={"train": train})) == ["my own"] * 4


def test_a_trial_has_the_name_of_its_sweep_and_its_number(tmp_path):
    base = load_recipe("quickstart", {"train.track": ("mlflow",)})
    plan = Plan("rates", base, read_ranges(base, ["optim.lr=1e-4..1e-2:log"]), tmp_path, pruner="none")
    assert plan.of_trial({"optim.lr": 1e-3}, 7).train.track_name == "rates, trial 7"
    plan = dataclasses.replace(plan, base=load_recipe(base, {"train.track_name": "my own"}))
    assert plan.of_trial({"optim.lr": 1e-3}, 7).train.track_name == "my own"


def test_another_study_goes_on_with_the_run_under_its_first_name_in_silence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    parts = {**TRACKED, "budget": {"epochs": 1}, "study": {"seeds": [3]}, "variants": [{"name": "plain"}]}
    for name in ("first", "second"):
        tiny_file(tmp_path, name, **parts)
        assert main(["study", f"{name}.toml"]) == 0
    assert "begun with" not in capsys.readouterr().err
    (folder,) = (path for path in (tmp_path / "studies/runs").iterdir() if Run(path).is_run)
    client = MlflowClient(tracking_uri=str(folder.parent / "mlruns"))
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert [run.info.run_name for run in runs] == ["first: plain, seed 3"]
