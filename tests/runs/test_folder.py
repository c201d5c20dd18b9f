from __future__ import annotations

import pytest
from small import small_config

from patchlight.config import config_from_dict, load_recipe
from patchlight.errors import PatchlightError, UsageError
from patchlight.runs import Run, config_differences, recipe_of


def test_a_run_is_never_overwritten_silently(tmp_path):
    config = small_config()
    run = Run.create(tmp_path / "run", config)
    run.write_text("eval.json", "{}")
    assert run.config() == config
    with pytest.raises(UsageError, match=r"exists; continue it with --resume, replace it with --overwrite"):
        Run.create(tmp_path / "run", config)
    assert (run.path / "eval.json").exists()
    Run.create(tmp_path / "run", config, overwrite=True)
    assert not (run.path / "eval.json").exists()


def test_what_is_no_run_is_never_deleted(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for path in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(UsageError, match="is not a run folder; choose another place with --out"):
            Run.create(path, small_config(), overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_another_tools_folder_is_no_run(tmp_path):
    (tmp_path / "config.toml").write_text('baseURL = "https://example.org"\n')
    (tmp_path / "essay.md").write_text("years of work")
    with pytest.raises(UsageError, match="is not a run folder"):
        Run.create(tmp_path, small_config(), overwrite=True)
    run = Run.create(tmp_path / "run", small_config())
    (run.path / "notes.txt").write_text("mine")
    run.write_text("metrics.jsonl", "{}\n")
    Run.create(run.path, small_config(), overwrite=True)
    assert sorted(p.name for p in run.path.iterdir()) == ["config.toml", "manifest.jsonl", "notes.txt"]


def test_resuming_needs_the_same_settings(tmp_path):
    run = Run.create(tmp_path / "run", small_config())
    with pytest.raises(UsageError, match=r"was started with train.epochs = 2, not 3; resume it with the same"):
        Run.create(run.path, small_config(train={"epochs": 3}), resume=True)
    assert Run.create(run.path, small_config(about={"title": "other words"}), resume=True) == run
    with pytest.raises(UsageError, match=r"there is no run at .*/none to resume"):
        Run.create(tmp_path / "none", small_config(), resume=True)


def test_the_method_of_snapshots_is_a_setting_where_there_are_snapshots(tmp_path):
    """Its default has changed since older versions, and a run without snapshots goes on all the same."""
    for every, name in ((0, "plain"), (1, "snapshots")):
        settings = {"explain.snapshots_every": every}
        old = load_recipe("quickstart", {**settings, "explain.method": "rollout"})
        Run.create(tmp_path / name, old)
        new = load_recipe("quickstart", {**settings, "explain.method": "chefer"})
        if every:
            with pytest.raises(UsageError, match=r"was started with explain\.method = rollout, not chefer"):
                Run.create(tmp_path / name, new, resume=True)
        else:
            assert Run.create(tmp_path / name, new, resume=True).config() == old


def test_opening_what_is_no_run_names_those_beside_it(tmp_path):
    Run.create(tmp_path / "vit", small_config())
    with pytest.raises(PatchlightError, match=r"vti is not a run folder .*; runs there: vit"):
        Run.open(tmp_path / "vti")


def test_a_missing_result_is_named_with_the_command_that_goes_on(tmp_path):
    run = Run.create(tmp_path / "run", small_config())
    with pytest.raises(PatchlightError, match=r"eval\.json is missing; .* go on with `patchlight train .* --resume`"):
        run.result()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PatchlightError, match=r"cannot make .*; choose another place with --out"):
        Run.create(tmp_path / "file" / "run", small_config())


def test_differences_leave_out_descriptions():
    a = small_config(about={"title": "a"})
    b = small_config(about={"title": "b"}, optim={"lr": 0.5}, data={"mean": [0.5, 0.5, 0.5]})
    assert config_differences(a, b) == {"optim.lr": (3e-3, 0.5), "data.mean": (None, [0.5, 0.5, 0.5])}


def test_restarts_of_an_older_run_are_as_they_were(tmp_path):
    """Before `restart_warmup` the warm-up was in the first cycle alone; going on with another schedule is refused."""
    config = config_from_dict({"schedule": {"name": "cosine_restarts", "cycles": 2, "warmup_epochs": 1.0}})
    run = Run.create(tmp_path / "run", config)
    assert run.config().schedule.restart_warmup
    path = run.path / "config.toml"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if "restart_warmup" not in line))
    (run.path / "manifest.jsonl").unlink()
    assert not run.config().schedule.restart_warmup
    with pytest.raises(UsageError, match=r"was started with schedule\.restart_warmup = False, not True"):
        run.check_free(config, resume=True)
    run.check_free(load_recipe(config, {"schedule.restart_warmup": False}), resume=True)
    assert recipe_of(str(path)).schedule.restart_warmup  # a file that is no run's is read as it stands
    (run.path / "environment.json").write_text("{}")
    run.check_free(recipe_of(str(path)), resume=True)


def test_debugging_of_an_older_run_was_two_epochs(tmp_path):
    """Whatever its recipe said; now the recipe of such a run says so itself."""
    run = Run.create(tmp_path / "run", config_from_dict({"train": {"debug": True, "epochs": 100.0}}))
    assert run.config().train.epochs == 100
    path = run.path / "config.toml"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "restart_warmup" not in line))
    (run.path / "manifest.jsonl").unlink()
    assert (run.config().train.epochs, run.config().train.debug) == (2, True)
