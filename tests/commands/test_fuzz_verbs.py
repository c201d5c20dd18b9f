"""`predict`, `explain`, `export` and `data` with random files and words: success, or one sentence and a code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fuzz import ROUNDS, mutated
from pictures import picture

from patchlight.cli.main import main

ODD = [
    "",
    ".",
    "..",
    "~",
    "~x",
    "*",
    "[",
    "**",
    "?",
    "none.png",
    "C:\\a.png",
    "x" * 4000,
    "\udce9",
    "é\n",
    "-",
    "--",
    "a\0",
]
NUMBERS = ["0", "-1", "1", "3", "9" * 400, "1e9", "nan", "", "x"]


@pytest.fixture
def files(here: Path) -> list[str]:
    """Good images, damaged ones, and what is none."""
    good = [picture(here / name) for name in ("a.png", "b.jpg", "c.tif", "d.gif", "e.pgm")]
    for number, data in enumerate(mutated([path.read_bytes() for path in good], 40, 5)):
        (here / f"{number}.png").write_bytes(data)
    (here / "sub").mkdir()
    picture(here / "sub" / "f.png")
    (here / "words.txt").write_text("words")
    (here / "weights.json").write_text("{}")
    return sorted(path.name for path in here.iterdir())


def runs_of(run: Path) -> list[str]:
    """What can stand where a run does, most of the time one that is a run."""
    return [*[str(run)] * 12, str(run / "checkpoints" / "last"), str(run / "model"), str(run / "eval.json"), *ODD]


def ends_well(words: list[str], capsys: pytest.CaptureFixture[str]) -> int:
    code = main(words)
    captured = capsys.readouterr()
    assert code in (0, 1, 2), words
    assert "Traceback" not in captured.err
    if code == 2:
        assert captured.err.startswith("patchlight: "), words
        assert captured.out == "", words
    if captured.out and "--json" in words:
        json.loads(captured.out)
    return code


@ROUNDS
def test_predict(run, files, capsys, seed, times):
    draw = np.random.default_rng(seed)
    codes = []
    for _ in range(60 * times):
        images = [str(draw.choice(files if draw.random() < 0.9 else ODD)) for _ in range(draw.integers(0, 6))]
        words = ["predict", str(draw.choice(runs_of(run))), *images]
        for option, values in (
            ("--top", NUMBERS),
            ("--csv", ["out.csv", "a.png", "sub", *ODD]),
            ("--device", ["cpu", "x"]),
        ):
            if draw.random() < 0.2:
                words += [option, str(draw.choice(values))]
        words += ["--json"] if draw.random() < 0.3 else []
        codes.append(ends_well(words, capsys))
    assert set(codes) == {0, 1, 2}


@ROUNDS
def test_explain(run, files, capsys, no_slides, seed, times):
    draw = np.random.default_rng(seed)
    for _ in range(10 * times):
        images = [str(draw.choice(files if draw.random() < 0.9 else ODD)) for _ in range(draw.integers(0, 3))]
        words = ["explain", str(draw.choice(runs_of(run))), *images, "--out", "seen"]
        for option, values in (
            ("--method", ["attention", "x", ""]),
            ("--target", ["predicted", "true", "3", "-1", "x", "9" * 400]),
            ("--layers", ["1", "1,2", "0", "x", "9" * 400, ""]),
            ("--class", ["3", "x", "all", "9" * 400]),
            ("--index", NUMBERS),
            ("--count", NUMBERS),
            ("--split", ["val", "test", "x"]),
        ):
            if draw.random() < 0.2:
                words += [option, str(draw.choice(values))]
        ends_well(words, capsys)


@ROUNDS
def test_export(run, files, capsys, seed, times):
    draw = np.random.default_rng(seed)
    for _ in range(15 * times):
        words = ["export", str(draw.choice(runs_of(run))), "--out", str(draw.choice(["out", *files[:5], *ODD]))]
        words += ["--format", str(draw.choice(["safetensors", "x", "", "\udce9"]))] if draw.random() < 0.7 else []
        ends_well(words, capsys)


@ROUNDS
def test_damaged_cards(run, files, here, capsys, seed, times):
    """A model's config.json with a few bytes changed."""
    import shutil

    shutil.copytree(run / "model", here / "model")
    card = (run / "model" / "config.json").read_bytes()
    for data in mutated([card], 40 * times, seed):
        (here / "model" / "config.json").write_bytes(data)
        ends_well(["predict", "model", "a.png"], capsys)
