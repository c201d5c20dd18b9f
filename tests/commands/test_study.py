"""`patchlight study` and `patchlight train --seeds`: words in, folders, text, JSON and exit codes out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small import SMALL, stopped_at_save
from small_study import TWO, finish, result_in, tiny_file

import patchlight
from patchlight.cli.main import main
from patchlight.config.study_file import study_names
from patchlight.errors import Interrupted, UsageError
from patchlight.runs import Environment, Run
from patchlight.runs.study import FAILED, FINISHED, StudyResult
from patchlight.studies import cost
from patchlight.studies.claims import Claims
from patchlight.training import loop

pytestmark = pytest.mark.usefixtures("no_charts")
BAD = {"name": "bad", "optim": {"name": "sgd", "lr": 1e30}}  # its loss is soon no number
FILES = {"study.json", "report.html", "README.md", "table.md", "table.csv", "table.tex", "figures", "notes"}


def small(folder: Path, **parts) -> Path:
    """A study of one epoch."""
    return tiny_file(folder, budget={"epochs": 1}, **parts)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A folder with mine.toml, of two variants and two seeds, and its finished study. Tests change copies."""
    return finish(tmp_path_factory.mktemp("study"), budget={"epochs": 1})


@pytest.fixture
def again(done, tmp_path, monkeypatch) -> Path:
    """A copy of it, in which we are."""
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_of(result: StudyResult) -> set[tuple[str, int]]:
    """The runs whose folders hold a result of test images."""
    return {(run.variant, run.seed) for run in result.runs if (Path(run.folder) / "eval.json").exists()}


def test_it_leaves_the_answer_and_run_folders(done):
    folder = done / "studies"
    assert {path.name for path in (folder / "mine").iterdir()} == {*FILES, ".lock"}
    result = result_in(folder / "mine")
    assert [(run.variant, run.seed, run.state) for run in result.runs] == [
        *(("plain", 0, FINISHED), ("fast", 0, FINISHED)),
        *(("plain", 1, FINISHED), ("fast", 1, FINISHED)),
    ]
    assert {path.name for path in (folder / "runs").iterdir()} == {run.key for run in result.runs}
    assert result.baseline == "plain"
    assert result.command.split()[:3] == ["patchlight", "study", "mine.toml"]
    assert not list(folder.glob("runs/*/eval.json"))
    assert (result.test, result.chosen) == ("none", max(result.variants, key=lambda v: v.val_mean).name)


def test_what_it_prints(again, capsys):
    before = {path: path.read_bytes() for path in Path("studies/runs").rglob("metrics.jsonl")}
    assert main(["study", "mine.toml"]) == 0
    out, err = capsys.readouterr()
    assert "0 of 4 runs to train" in err
    assert "plain" in out
    assert "fast" in out
    assert "report  studies/mine/report.html" in out
    assert {path: path.read_bytes() for path in before} == before
    assert main(["study", "mine.toml", "--json"]) == 0
    assert StudyResult.from_json(json.loads(capsys.readouterr().out)) == result_in()


def test_the_test_images_are_read_of_those_that_it_says(again):
    for test in ("chosen", "all"):
        files = {path: path.read_bytes() for path in Path("studies/runs").glob("*/eval.json")}
        assert main(["study", "mine.toml", "--test", test]) == 0
        result = result_in()
        assert result.test == test
        wanted = {(run.variant, run.seed) for run in result.runs if test == "all" or run.variant == result.chosen}
        assert (
            read_of(result) == wanted == {(run.variant, run.seed) for run in result.runs if run.test_top1 is not None}
        )
        assert {run.test_n for run in result.runs} == ({60} if test == "all" else {60, None})
        assert {path: path.read_bytes() for path in files} == files, "they are read once"
    for run in result.runs:
        assert [row.epoch for row in Run(Path(run.folder)).epochs()] == [1], "nothing was trained for it"


@pytest.mark.slow
def test_a_run_of_other_resources_is_tested_as_it_was_begun(again, capsys):
    """What does not count for a run's key may differ between studies."""
    words = ["--train.threads", "2", "--eval.gallery", "2", "--seeds", "1", "--test", "all"]
    assert main(["study", "mine.toml", *words]) == 0
    assert read_of(result_in()) == {("plain", 1), ("fast", 1)}
    said = capsys.readouterr().err
    assert "0 of 2 runs to train" in said
    assert "plain, seed 1: it was begun with eval.gallery = 4, train.threads = 1, and so goes on with that" in said


def test_from_python(here):
    result = patchlight.study(small(here, variants=[TWO[0]]), {"train.drop_last": False}, seeds=[3], test="all")
    assert isinstance(result, StudyResult)
    assert result == result_in()
    (run,) = result.runs
    assert (run.seed, run.state, run.test_n) == (3, FINISHED, 60)
    assert Run(Path(run.folder)).config().train.drop_last is False
    assert result.command.endswith("--seeds 3 --test all --train.drop_last false")
    with pytest.raises(UsageError, match=r"--seeds must be whole numbers with commas between them.*not '\[1.5\]'"):
        patchlight.study("mine.toml", seeds=[1.5])
    with pytest.raises(UsageError, match=r"study\.test cannot be 'some'"):
        patchlight.study("mine.toml", test="some")
    with pytest.raises(UsageError, match=r"study\.workers must be at least 1, not 0"):
        patchlight.study("mine.toml", workers=0)


def test_without_a_name_it_lists_those_that_come_along(capsys):
    assert main(["study"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line and not line.startswith(" ")] == study_names()
    assert "7 variants of vit-tiny, 3 seeds" in out
    assert main(["study", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["studies"]] == study_names()
    assert main(["study", "--dry-run"]) == 2
    assert "--dry-run is for a study; name one before it: engines, ladder" in capsys.readouterr().err


def test_a_dry_run_leaves_nothing_behind(here, capsys, monkeypatch):
    monkeypatch.setattr(cost, "TRIAL_S", 0.05)
    small(here)
    assert main(["study", "mine.toml", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert [path.name for path in here.iterdir()] == ["mine.toml"]
    assert "mine: each run trains for 1 epoch." in out
    assert "4 of 4 runs left: " in out
    assert "Nothing was trained." in out
    assert main(["study", "mine.toml", "--dry-run", "--json", "--seeds", "5"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["runs"], told["left"], told["seeds"]) == (2, 2, [5])
    assert [path.name for path in here.iterdir()] == ["mine.toml"]


def test_a_failed_run_is_an_exit_code_and_tried_again_by_the_next_call(here, capsys):
    small(here, variants=[TWO[0], BAD], study={"seeds": [0]})
    assert main(["study", "mine.toml"]) == 1
    result = result_in()
    assert [run.state for run in result.runs] == [FINISHED, FAILED]
    assert result.runs[1].reason
    assert "bad" in capsys.readouterr().out
    assert main(["study", "mine.toml", "--no-wait"]) == 1
    assert "bad, seed 0 failed" not in capsys.readouterr().err, "one of many workers does not try it again"
    assert main(["study", "mine.toml"]) == 1
    assert "bad, seed 0 failed" in capsys.readouterr().err


def test_a_signal_has_its_exit_code_and_the_study_goes_on(here, capsys):
    small(here, variants=[TWO[0]])
    with pytest.MonkeyPatch.context() as patch:

        def stopped(*given) -> None:
            raise Interrupted("on purpose")

        patch.setattr(loop, "save", stopped)
        assert main(["study", "mine.toml"]) == 130
    assert not Path("studies/mine/study.json").exists()
    assert main(["study", "mine.toml"]) == 0
    assert len(result_in().runs) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.toml"], "no file 'none.toml'"),
        (["laddr"], "no study 'laddr'; did you mean 'ladder'?"),
        (
            ["mine.toml", "--seeds", "0,a"],
            "--seeds must be whole numbers with commas between them, as in 0,1,2, not '0,a'",
        ),
        (["mine.toml", "--seeds", "1,1"], "mine.toml: study.seeds must be different numbers"),
        (["mine.toml", "--size", "gpu"], "mine.toml has no size 'gpu'; it has one size"),
        (
            ["mine.toml", "--train.epoch", "3"],
            "variant 'plain': unknown field 'train.epoch'; did you mean 'train.epochs'?",
        ),
        (["mine.toml", "--workers", "0"], "mine.toml: study.workers must be at least 1, not 0"),
        (["mine.toml", "--out", "taken"], "taken exists and is not a study's folder; choose another place with --out"),
        (["mine.toml", "--out", "mine.toml"], "mine.toml is a file; choose another place for the study with --out"),
        (["mine.toml", "--out", "x", "--runs", "x"], "x is where the runs are kept; choose another place"),
    ],
)
def test_what_is_wrong_is_a_sentence_and_leaves_nothing(words, message, here, capsys):
    small(here)
    (here / "taken").mkdir()
    (here / "taken" / "letter.txt").write_text("mine")
    assert main(["study", *words]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"patchlight: {message}")
    assert sorted(path.name for path in here.iterdir()) == ["mine.toml", "taken"]
    assert [path.name for path in (here / "taken").iterdir()] == ["letter.txt"]


def test_a_folder_of_another_study_is_not_overwritten(again, capsys):
    tiny_file(again, "other", variants=[TWO[0]])
    assert main(["study", "other.toml", "--out", "studies/mine"]) == 2
    assert "studies/mine holds the study 'mine'" in capsys.readouterr().err
    (again / "studies/mine/study.json").write_text("{")
    assert main(["study", "mine.toml"]) == 0
    assert "study.json is damaged" in capsys.readouterr().err
    assert len(result_in().runs) == 4


def test_a_run_in_other_hands_is_left_with_no_wait(again, capsys):
    result = result_in()
    shutil.rmtree(result.runs[0].folder)
    with Claims(120).take(Path(result.runs[0].folder)) as claim:
        assert claim is not None
        assert main(["study", "mine.toml", "--no-wait"]) == 0
    said = capsys.readouterr()
    assert "1 run in other hands; the same command without --no-wait writes the answer" in said.err
    assert not Path(result.runs[0].folder).exists()
    assert main(["study", "mine.toml", "--no-wait"]) == 0
    assert Path(result.runs[0].folder).is_dir()
    assert result_in().runs[0].val_top1 == result.runs[0].val_top1


def test_train_with_seeds_is_a_study_of_one(here, capsys):
    words = ["train", "quickstart", *SMALL, "--train.epochs", "1", "--seeds", "0,1"]
    assert main(words) == 0
    out = capsys.readouterr().out
    result = result_in(Path("studies/quickstart"))
    assert [(run.variant, run.seed, run.state, run.test_n) for run in result.runs] == [
        ("quickstart", 0, FINISHED, 60),
        ("quickstart", 1, FINISHED, 60),
    ]
    assert "quickstart" in out
    assert [Run(Path(run.folder)).config().train.seed for run in result.runs] == [0, 1]
    assert main([*words, "--overwrite"]) == 2
    assert "--overwrite is not for --seeds" in capsys.readouterr().err
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seeds"] == [0, 1]


def test_a_study_takes_a_run_that_another_study_began(here, capsys):
    """It was interrupted there, and in this one shows fewer images."""
    small(here)
    with stopped_at_save(1):
        patchlight.study("mine.toml")
    tiny_file(here, "second", study={"seeds": [0]}, base={"eval": {"gallery": 3}}, budget={"epochs": 1})
    assert main(["study", "second.toml"]) == 0
    first, second = result_in(Path("studies/second")).runs
    assert (first.state, second.state) == (FINISHED, FINISHED)
    assert len(Run(Path(first.folder)).read(Environment).resumed) == 1
    assert "it was begun with eval.gallery = 4, and so goes on with that" in capsys.readouterr().err
