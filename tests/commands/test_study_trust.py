"""What a study's numbers rest on: damaged, moved, older and missing files change neither the choice nor whose test
images are read, and what the study decides for all is not quietly taken from a variant.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_study import finish, result_in, tiny_file

from patchlight.cli.main import main
from patchlight.runs import Run
from patchlight.runs.study import FAILED, FINISHED, StudyResult
from patchlight.studies import cost

pytestmark = [pytest.mark.usefixtures("no_charts"), pytest.mark.slow]
WORDS = ["study", "mine.toml"]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A folder with mine.toml and its finished study, whose chosen variant is tested. Tests change copies."""
    return finish(tmp_path_factory.mktemp("study"), budget={"epochs": 1}, study={"test": "chosen"})


@pytest.fixture
def again(done, tmp_path, monkeypatch) -> Path:
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_of(result: StudyResult) -> set[str]:
    """The variants of which a run's folder holds a test result."""
    return {run.variant for run in result.runs if (Path(run.folder) / "eval.json").exists()}


def test_a_damaged_test_result_is_made_again_and_changes_no_choice(again, capsys):
    before = result_in()
    run = next(run for run in before.runs if run.variant == before.chosen)
    (Path(run.folder) / "eval.json").write_text("{")
    assert main(WORDS) == 0
    after = result_in()
    assert after.chosen == before.chosen
    assert [each.state for each in after.runs] == [FINISHED] * 4
    assert read_of(after) == {before.chosen}
    assert [each.test_top1 for each in after.runs] == [each.test_top1 for each in before.runs]
    assert "made again" in capsys.readouterr().err


def test_a_finished_run_without_epochs_is_a_failed_one_and_its_file_is_named(again, capsys):
    chosen = result_in().chosen
    run = next(run for run in result_in().runs if run.variant == chosen)
    (Path(run.folder) / "manifest.jsonl").unlink()
    (Path(run.folder) / "metrics.jsonl").write_bytes(b"")
    assert main([*WORDS, "--test", "none"]) == 1
    after = result_in()
    (found,) = [each for each in after.runs if each.key == run.key]
    assert (found.state, "metrics.jsonl" in (found.reason or "")) == (FAILED, True)
    assert {v.name: v.n for v in after.variants}[chosen] == 1
    assert after.chosen != chosen


def test_without_checkpoints_nothing_is_trained_once_more_for_its_test(again, capsys):
    other = next(run for run in result_in().runs if run.variant != result_in().chosen)
    shutil.rmtree(Path(other.folder) / "checkpoints")
    lines = len(Run(Path(other.folder)).epochs())
    assert main([*WORDS, "--test", "all"]) == 1
    result = result_in()
    assert len(result.unread) == 1
    assert "no checkpoint any more" in result.unread[0]
    assert result.unread[0] in result.notes
    assert len(Run(Path(other.folder)).epochs()) == lines
    assert sum(run.test_top1 is not None for run in result.runs) == 3
    assert "could not be read" in capsys.readouterr().err


def test_test_results_of_before_are_told_as_such(again, capsys):
    assert main([*WORDS, "--test", "none", "--out", "studies/other"]) == 0
    out = capsys.readouterr().out
    result = result_in(Path("studies/other"))
    assert {run.test_before for run in result.runs if run.test_top1 is not None} == {True}
    assert "had been read before this study chose" in out
    assert "read once, after the choice" not in out
    assert not any(run.test_before for run in result_in().runs)
    assert "read once, after the choice" in " ".join(result_in().answer)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--train.epochs", "3"], "train.epochs is not for a variant to set: budget.epochs"),
        (["--train.budget", "5s"], "train.budget is not for a variant to set: budget.epochs"),
        (["--eval.test", "true"], "eval.test is not for a variant to set: study.test"),
        (["--train.seed", "3"], "train.seed is not for a variant to set: study.seeds"),
    ],
)
def test_what_the_study_decides_is_not_quietly_replaced(words, named, again, capsys):
    assert main([*WORDS, *words]) == 2
    assert named in capsys.readouterr().err


def test_the_answer_of_another_command_is_not_replaced_in_silence(again, capsys):
    assert main([*WORDS, "--seeds", "0", "--test", "none"]) == 0
    said = capsys.readouterr().err
    assert "has the answer of `patchlight study mine.toml`, which this one replaces" in said
    assert main([*WORDS, "--seeds", "0", "--test", "none"]) == 0
    assert "which this one replaces" not in capsys.readouterr().err


def test_what_weights_were_kept_by_is_told(here, capsys):
    tiny_file(here, budget={"epochs": 1}, base={"train": {"select": "last"}}, variants=[{"name": "one"}])
    assert main(WORDS) == 0
    assert result_in().measure == "last"
    assert any("its last epoch" in note for note in result_in().notes)


def test_variants_with_other_validation_images_are_told(here):
    variants = [{"name": "one"}, {"name": "other", "data": {"split_seed": 1}}]
    tiny_file(here, budget={"epochs": 1}, variants=variants)
    assert main(WORDS) == 0
    notes = " ".join(result_in().notes)
    assert "not all validated on the same images" in notes
    assert "on the same images it is smaller" not in notes


def test_a_dry_run_counts_what_failed_as_left(here, capsys, monkeypatch):
    monkeypatch.setattr(cost, "TRIAL_S", 0.01)
    bad = {"name": "bad", "optim": {"name": "sgd", "lr": 1e30}}
    tiny_file(here, budget={"epochs": 2}, variants=[{"name": "good"}, bad], study={"seeds": [0]})
    assert main(WORDS) == 1
    capsys.readouterr()
    assert main([*WORDS, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["left"] == 1
    assert [(each["done"], each["left"]) for each in found["variants"]] == [(1, 0), (0, 1)]


def write_images(folder: Path) -> None:
    """Two classes, a dark one and a bright one, of 20 images."""
    draw = np.random.default_rng(0)
    for name, least in (("dark", 0), ("bright", 150)):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(draw.integers(least, least + 100, (16, 16, 3), dtype=np.uint8)).save(
                folder / name / f"{i}.png"
            )


def test_images_that_have_moved_are_the_same_images(here, capsys):
    write_images(here / "imgs")
    parts = {"budget": {"epochs": 1}, "study": {"seeds": [0]}}
    data = {"source": "imgs", "train_per_class": None, "val_per_class": 4, "test_per_class": None}
    tiny_file(here, base={"data": data, "train": {"batch_size": 8}}, **parts)
    assert main(WORDS) == 0
    assert not read_of(result_in())
    (here / "imgs").rename(here / "pics")
    tiny_file(here, base={"data": {**data, "source": "pics"}, "train": {"batch_size": 8}}, **parts)
    assert main([*WORDS, "--test", "chosen"]) == 0
    assert read_of(result_in()) == {result_in().chosen}
    write_images(here / "others")
    for path in (here / "others" / "dark").glob("1*.png"):
        path.unlink()
    tiny_file(here, base={"data": {**data, "source": "others"}, "train": {"batch_size": 8}}, **parts)
    capsys.readouterr()
    assert main([*WORDS, "--dry-run"]) == 0
    assert "2 of 2 runs left" in capsys.readouterr().out


def test_a_run_of_another_study_stays_one_when_its_test_images_are_read(again):
    tiny_file(again, "second", budget={"epochs": 1}, study={"test": "all"})
    assert main(["study", "second.toml"]) == 0
    result = result_in(Path("studies/second"))
    assert [run.reused for run in result.runs] == [True] * 4
    assert {run.variant for run in result.runs if run.test_before} == {result.chosen}
