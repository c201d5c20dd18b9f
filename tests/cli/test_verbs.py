"""The table of commands: each row's words are its function's arguments, and a row and a file add a command."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys

import pytest

from patchlight.cli.main import load, main
from patchlight.cli.parser import JSON, NOT_OF_CALL, VERBS, Verb, build_parser, option
from patchlight.errors import PatchlightError

OF_PYTHON = {"train": {"data", "on_epoch"}}  # what no word of a command line can be


@pytest.mark.parametrize("name", VERBS)
def test_the_words_of_a_command_are_the_arguments_of_its_function(name):
    verb = VERBS[name]
    needed = [each.names[0] for each in verb.options if each.names[0][0] != "-" and each.keywords.get("nargs") != "?"]
    options = vars(build_parser(name).parse_args([name, *(["x"] * len(needed))]))
    given = {word for word in options if word not in NOT_OF_CALL} | ({"settings"} if verb.settings else set())
    signature = inspect.signature(load(verb.call))
    assert given == set(signature.parameters) - OF_PYTHON.get(name, set())
    for word, parameter in signature.parameters.items():  # Python's defaults are those of the command line
        if parameter.default is not inspect.Parameter.empty and word in given - {"settings"}:
            assert (options[word] or None) == (parameter.default or None), word
    assert callable(load(verb.text))
    assert callable(load(verb.json))


GREET = """
from dataclasses import dataclass

from patchlight.errors import PatchlightError
from patchlight.runs.codec import Record


@dataclass(frozen=True, kw_only=True)
class Greeting(Record):
    words: str


def greet(name: str, *, times: int = 1, settings=None) -> Greeting:
    if times < 1:
        raise PatchlightError("--times must be at least 1")
    return Greeting(words=f"hello {name} " * times + str(settings))


def text(greeting: Greeting) -> str:
    return greeting.words.upper()
"""


def test_a_command_is_a_file_and_a_row(tmp_path, monkeypatch, capsys):
    (tmp_path / "greet.py").write_text(GREET)
    monkeypatch.syspath_prepend(tmp_path)
    row = Verb(
        "greet someone",
        "patchlight greet you --times 2",
        (option("name", help="whom"), option("--times", type=int, default=1, help="how often"), JSON),
        call="greet:greet",
        text="greet:text",
        settings="section.field",
    )
    monkeypatch.setitem(VERBS, "greet", row)
    assert main(["greet", "you", "--times", "2", "--train.epochs", "3"]) == 0
    assert capsys.readouterr().out == "HELLO YOU HELLO YOU {'TRAIN.EPOCHS': '3'}\n"
    assert main(["greet", "you", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"words": "hello you {}"}
    assert main(["gret", "you"]) == 2
    assert "did you mean 'greet'?" in capsys.readouterr().err
    assert main(["greet", "you", "--tims", "2"]) == 2
    assert "did you mean '--times'?" in capsys.readouterr().err
    assert main(["greet", "you", "--times", "0"]) == 1
    assert capsys.readouterr().err == "patchlight: --times must be at least 1\n"
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "greet someone" in capsys.readouterr().out


@pytest.mark.parametrize("name", VERBS)
def test_every_command_takes_debug(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert "--debug" in capsys.readouterr().out


@pytest.mark.parametrize("by", ["option", "first", "variable"])
def test_debug_shows_where_an_error_comes_from(tmp_path, monkeypatch, capsys, by):
    """The error that the user reads, and the one below it that the sentence was made of."""
    (tmp_path / "broken.toml").write_text("this is no TOML")
    words = ["train", str(tmp_path / "broken.toml")]
    assert main(words) == 2
    plain = capsys.readouterr().err
    assert plain.count("\n") == 1
    if by != "variable":
        words.insert(1 if by == "option" else 0, "--debug")
    else:
        monkeypatch.setenv("PATCHLIGHT_DEBUG", "1")
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert "tomllib.TOMLDecodeError" in shown
    assert "UsageError" in shown
    assert shown.endswith(plain)
    monkeypatch.setenv("PATCHLIGHT_DEBUG", "0")
    assert main([word for word in words if word != "--debug"]) == 2
    assert capsys.readouterr().err == plain


def test_a_bug_of_ours_is_not_hidden(monkeypatch):
    def broken(*args, **options):
        raise KeyError("a bug")

    monkeypatch.setattr("patchlight.commands.compare.compare", broken)
    with pytest.raises(KeyError, match="a bug"):
        main(["compare", "runs"])


def test_errors_of_the_system_are_one_sentence(monkeypatch, capsys):
    for error, message in (
        (PermissionError(13, "Permission denied", "runs/a"), "runs/a: Permission denied"),
        (
            OSError(28, "Device full"),
            "Device full; free space on that disk and repeat the command, `train` with --resume",
        ),
        (ConnectionError("the other side hung up"), "the other side hung up"),
        (PatchlightError("wrong"), "wrong"),
    ):

        def failing(*args, error=error, **options):
            raise error

        monkeypatch.setattr("patchlight.commands.compare.compare", failing)
        assert main(["compare", "runs"]) == 1
        assert capsys.readouterr().err == f"patchlight: {message}\n"


def test_help_is_fast_and_the_same_from_anywhere(tmp_path):
    words = [sys.executable, "-X", "importtime", "-m", "patchlight", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ))
    assert done.returncode == 0
    assert not [line for line in done.stderr.splitlines() if line.endswith(("patchlight.runs", " torch", " numpy"))]


@pytest.mark.parametrize("name", VERBS)
def test_results_are_typed(name):
    """No command returns a plain dictionary."""
    returned = inspect.signature(load(VERBS[name].call)).return_annotation
    assert returned not in ("Any", inspect.Signature.empty)
    assert "dict" not in re.split(r"\W+", returned)
