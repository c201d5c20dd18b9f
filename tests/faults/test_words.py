"""Recipes, settings and command lines of random words: success or one sentence, in time and within memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fuzz import TIMES
from made_run import make_run
from pictures import picture
from small import SMALL
from undrawn import undrawn
from words import comes_back, command_words, each, in_time, one_sentence, recipe_data, recipe_text, setting_words

from patchlight.cli.main import main
from patchlight.cli.parser import split_settings
from patchlight.config import apply_overrides, config_from_dict, load_recipe
from patchlight.errors import UsageError

FEW_AND_MANY = pytest.mark.parametrize(
    "times", [pytest.param(1, id="few"), pytest.param(4 * TIMES, id="many", marks=pytest.mark.fuzz)]
)


@FEW_AND_MANY
def test_recipes_of_random_lines(times, here):
    def check(text: str) -> str:
        Path("random.toml").write_text(text, encoding="utf-8", errors="surrogateescape")
        try:
            comes_back(load_recipe("random.toml"))
        except UsageError as error:
            one_sentence(str(error), "random.toml")
            return "refused"
        return "read"

    found = each(recipe_text(), 150 * times, check)
    assert min(found["read"], found["refused"]) >= 5


@FEW_AND_MANY
def test_recipes_of_random_data(times):
    def check(data: dict) -> str:
        try:
            comes_back(config_from_dict(data, "odd.toml"))
        except UsageError as error:
            one_sentence(str(error), "odd.toml")
            return "refused"
        return "read"

    found = each(recipe_data(), 150 * times, check)
    assert min(found["read"], found["refused"]) >= 5


def test_recipes_that_would_take_hours_or_all_memory(here):
    deep = "a." * 2500 + "a = 1"
    texts = [deep, f"[train]\nepochs.{deep}", f"[about]\nname.{deep}", f"[[stages]]\ntrain.epochs.{deep}", "#" * 40_000]
    for text in texts:
        Path("large.toml").write_text(text)
        with in_time(), pytest.raises(UsageError) as refused:
            load_recipe("large.toml")
        one_sentence(str(refused.value), "large.toml")
    os.mkfifo("pipe.toml")
    Path("device.toml").symlink_to("/dev/zero")
    for name in ("pipe.toml", "device.toml"):
        with in_time(), pytest.raises(UsageError, match=f"{name} is a device or a pipe; give a recipe's name or"):
            load_recipe(name)


@FEW_AND_MANY
@pytest.mark.parametrize("recipe", ["quickstart", "vit-small8-two-stage"])
def test_settings_of_random_words(times, recipe):
    config = load_recipe(recipe)

    def check(words: list[str]) -> str:
        rest, given = split_settings(words)
        assert len(rest) + len(given) <= len(words)
        try:
            comes_back(apply_overrides(config, given))
        except UsageError as error:
            one_sentence(str(error))
            return "refused"
        return "read"

    found = each(setting_words(), 75 * times, check)
    assert min(found["read"], found["refused"]) >= 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, a run of another kind, images, and files that are none."""
    made = tmp_path_factory.mktemp("words")
    with undrawn():
        assert main(["train", "quickstart", *SMALL, "--out", str(made / "run")]) == 0
    make_run(made / "made")
    picture(made / "a.png")
    (made / "b.png").write_bytes((made / "a.png").read_bytes()[:200])
    (made / "odd.toml").write_text("[train]\nepochs = 'x'\n[optim]\nlr = -1\n[about]\nnothing = 1\n")
    (made / "empty").mkdir()
    return made


@FEW_AND_MANY
@pytest.mark.parametrize(
    "verbs", [["recipes", "compare", "models"], ["predict"], ["report", "eval", "explain", "data"], ["probe", "train"]]
)
def test_command_lines_of_random_words(times, verbs, folder, no_slides, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))  # a folder of images may be ~
    there = ["run", "made", "a.png", "b.png", "odd.toml", "empty", "run/checkpoints/last", "run/model", "new"]

    def check(words: list[str]) -> str:
        code = main(words)
        said = capsys.readouterr()
        assert code in (0, 1, 2), words
        assert "Traceback" not in said.err
        if code == 2:
            last = said.err.removesuffix("\n").splitlines()[-1]
            assert last.startswith("patchlight: ")
            assert said.out == ""
            one_sentence(last.removeprefix("patchlight: "))
        return str(code)

    found = each(command_words(there, verbs), (30 if times == 1 else 60 * times), check)
    assert found["2"] >= 3
