"""Images that cannot be read, and paths that cannot be used: left out and told of, or one sentence before any work."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from pictures import picture
from PIL import Image
from small import SMALL

from patchlight.cli.main import main
from patchlight.runs import Environment, Run, Skipped


def write_noise(root: Path, count: int = 14) -> Path:
    """Two class folders of images that all differ, one of them with a name that is no UTF-8."""
    for label in (b"caf\xe9", b"the"):
        folder = root / os.fsdecode(label)
        folder.mkdir(parents=True)
        for index in range(count):
            pixels = np.random.default_rng([index, len(label)]).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / os.fsdecode(b"\xff%d.png" % index))
    return root


OWN = [*("--data.train_per_class", "6", "--data.val_per_class", "2"), *("--data.test_per_class", "2")]


def test_bad_images_are_skipped_recorded_and_shown(here, capsys, no_charts):
    """And `eval`, `--resume` and `patchlight data` see the same images."""
    write_noise(here / "drinks")
    for name in (b"caf\xe9/bad\xe9.png", b"the/bad.png"):
        (here / "drinks" / os.fsdecode(name)).write_bytes(b"nothing")
    words = ["quickstart", *SMALL, *OWN, "--data.source", "drinks", "--out", "run"]
    assert main(["train", *words]) == 1
    assert "2 of 30 images are bad" in capsys.readouterr().err
    assert not (here / "run").exists()
    words += ["--data.on_bad", "skip"]
    assert main(["train", *words]) == 0
    said = "left out, as data.on_bad is 'skip': 2 images that cannot be read"
    assert said in capsys.readouterr().err
    run = Run.open(here / "run")
    assert [(each.split, each.index, each.name) for each in run.read(Skipped).images] == [
        ("train", 0, "drinks/caf\\udce9/bad\\udce9.png"),
        ("train", 15, "drinks/the/bad.png"),
    ]
    assert any(said in note for note in run.read(Environment).data.notes)
    page = (here / "run" / "report.html").read_text(encoding="utf-8")
    assert "2 images that cannot be read" in page
    assert "drinks/the/bad.png" in page
    assert "- `skipped.json`: " in (here / "run" / "README.md").read_text(encoding="utf-8")
    assert main(["eval", "run"]) == 0
    (here / "run" / "eval.json").unlink()
    assert main(["train", *words, "--data.memory_limit_mb", "64", "--resume"]) == 0
    assert run.finished
    capsys.readouterr()
    assert main(["data", "drinks", "--data.on_bad", "skip", *OWN, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["bad_files"]) == 2
    assert report["trained_on"]["train"]["images"] == run.read(Environment).data.train
    (here / "drinks" / "the" / "bad.png").unlink()  # which changes no image
    assert main(["eval", "run"]) == 0
    picture(here / "drinks" / "the" / "bad.png", size=(16, 16))  # which does
    capsys.readouterr()
    assert main(["eval", "run"]) == 1
    assert "has changed since the run" in capsys.readouterr().err


def test_paths_that_are_no_utf_8(here, capsys, monkeypatch, no_charts):
    """They are refused before anything is decoded; below such a folder all works."""
    place = here / os.fsdecode(b"caf\xe9")
    write_noise(place / "drinks")
    words = ["train", "quickstart", *SMALL, *OWN]
    odd = os.fsdecode(b"caf\xe9/")
    for more in (["--data.source", f"{odd}drinks"], ["--out", f"{odd}run"]):
        assert main([*words, *more]) == 2
        captured = capsys.readouterr()
        assert "of bytes that are no UTF-8" in captured.err
        assert captured.err.count("\n") == 1
    assert [path.name for path in here.iterdir()] == [place.name]
    assert main(["data", f"{odd}drinks", *OWN]) == 0
    monkeypatch.chdir(place)
    assert main([*words, "--data.source", "drinks", "--out", "run"]) == 0
    assert main(["eval", "run"]) == 0
    assert main(["report", "run"]) == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["train", ""], 2),
        (["train", "."], 2),
        (["train", "C:\\recipe.toml"], 2),
        (["train", "quickstart", "--out", ""], 2),
        (["train", "quickstart", "--data.source", ""], 2),
        (["train", "quickstart", "--data.source", "~nobody-at-all"], 2),
        (["train", "quickstart", "--data.source", "C:\\pets"], 2),
        (["train", "quickstart", "--data.source", "a.txt"], 2),
        (["eval", ""], 2),
        (["eval", "a.txt"], 1),
        (["eval", "~nobody-at-all/run"], 1),
        (["predict", "a.txt", "a.txt"], 1),
        (["explain", "a.txt"], 1),
        (["export", ""], 2),
        (["compare", "~nobody-at-all"], 1),
    ],
)
def test_paths_that_are_none_are_one_sentence(here, capsys, words, code):
    (here / "a.txt").write_text("words")
    assert main(words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert [path.name for path in here.iterdir()] == ["a.txt"]
