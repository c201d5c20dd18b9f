"""The command line itself: mistakes, help, settings and streams. What the commands do is tested in tests/commands."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from patchlight.cli.main import main
from patchlight.cli.parser import VERBS, split_settings


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["trian"], 2, "no command 'trian'; did you mean 'train'?"),
        (["train"], 2, "the following arguments are required: recipe; see `patchlight train --help`"),
        (["train", "quikstart"], 2, "no recipe 'quikstart'; did you mean 'quickstart'?"),
        (["train", "quickstart", "--epochs", "3"], 2, "unknown argument '--epochs'; did you mean '--train.epochs'?"),
        (["train", "quickstart", "--train.epoch", "3"], 2, "unknown field 'train.epoch'; did you mean 'train.epochs'?"),
        (["train", "quickstart", "--resume", "--overwrite"], 2, "give one of them"),
        (["train", "quickstart", "--seeds", "-1,2"], 2, "(one that begins with '-' is written --seeds=VALUE)"),
        (["train", "quickstart", "--seeds=-1,2"], 2, "-1"),
        (["train", "quickstart", "--overwrit"], 2, "unknown argument '--overwrit'; did you mean '--overwrite'?"),
        (["train", "quickstart", "--model.name", "vit-tinny"], 2, "no model 'vit-tinny'; did you mean 'vit-tiny'?"),
        (["train", "quickstart", "--model.patch_size", "5"], 2, "patch_size 5 does not divide the image size 32"),
        (["train", "quickstart", "--data.source", "digit"], 2, "did you mean 'digits'?"),
        (["train", "quickstart", "--data.mean", "0.5"], 2, "data.mean and data.std belong together"),
        (["train", "none.toml"], 2, "no file 'none.toml'"),
        (["eval", "nowhere"], 1, "nowhere is not a run folder"),
        (["eval", "nowhere", "--split", "best"], 2, "invalid choice: 'best'"),
        (["eval", "nowhere", "--train.epochs", "3"], 2, "`patchlight eval` does not take --train.epochs"),
        (["eval", "nowhere", "--data.label_column", "x"], 2, "name one with --data"),
        (["report", "nowhere"], 1, "nowhere is not a run folder"),
        (["compare", "nowhere"], 1, "nowhere is not a run folder"),
        (["models", "vit-tin"], 2, "no model 'vit-tin'; did you mean 'vit-tiny'?"),
        (["models", "--img-size", "0"], 2, "--img-size must be at least 1, not 0"),
        (["models", "vit-tiny", "--model.img_size", "64"], 2, "does not take --model.img_size; give it as --img-size"),
        (["models", "vit-tiny", "--train.epochs", "3"], 2, "does not take --train.epochs; name a model"),
        (["models", "--model.depth", "3"], 2, "does not take --model.depth; name a model"),
        (["export", "nowhere", "--format", "onxn"], 2, "no format 'onxn'; did you mean 'onnx'?"),
        (["push", "nowhere", "digits"], 2, "a repository is OWNER/NAME, not 'digits'"),
        (["predict", "nowhere", "a.png", "--top", "0"], 2, "--top must be at least 1, not 0"),
        (["recipes", "quick"], 2, "no recipe 'quick'; did you mean 'quickstart'?"),
        (["data", "nowhere/at/all"], 2, "nowhere/at/all"),
    ],
)
def test_mistakes_get_one_sentence_and_a_code(here, capsys, words, code, message):
    assert main(words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.startswith("patchlight: ")
    assert captured.err.count("\n") == 1
    assert not list(here.iterdir())


def test_settings_stand_anywhere():
    words, settings = split_settings(
        ["--train.epochs", "5", "quickstart", "--optim.lr=-1", "--train.compile", "--json"]
    )
    assert words == ["quickstart", "--json"]
    assert settings == {"train.epochs": "5", "optim.lr": "-1", "train.compile": "true"}


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_has_an_example_and_loads_nothing_heavy(verb):
    code = (
        "import sys\nfrom patchlight.cli.main import main\n"
        f"try:\n    main({[verb, '--help'] if verb else ['--help']!r})\n"
        "finally:\n    heavy = {'torch', 'numpy', 'matplotlib'} & set(sys.modules)\n    assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "example" in done.stdout
    assert f"patchlight {verb}".strip() in done.stdout


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "patchlight", "--version"], capture_output=True, text=True)
    assert done.returncode == 0
    assert re.fullmatch(r"patchlight \d+\.\d+\.\d+\n", done.stdout)


def test_a_reader_that_leaves_early_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m patchlight recipes --fields | head -n 1", shell=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout.startswith("setting")


def test_a_current_folder_that_was_deleted(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["recipes"]) == 2
    assert "the current folder does not exist any more" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
