"""What maps are about, where classes are called as our own words are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from vits import ours

from patchlight.analysis.subject import Subject
from patchlight.cli.main import main
from patchlight.commands.evaluate import own_split
from patchlight.commands.explain_target import find_target
from patchlight.errors import UsageError
from patchlight.models.anatomy import dissect
from patchlight.models.card import ModelCard, ModelSpec
from patchlight.runs import Run

NAMES = ("cat", "predicted", "true", "second", "like new")


def subject_of(names: tuple[str, ...] = NAMES, labels: list[int] | None = None) -> Subject:
    card = ModelCard("vit", ModelSpec("patchlight", "vit", {}, 16, 5), names, (0.5,) * 3, (0.25,) * 3)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Subject.of(dissect(ours().float()), card, pixels, None if labels is None else np.array(labels))


def test_a_word_that_is_also_a_class_keeps_its_meaning_and_says_so(capsys):
    subject = subject_of(labels=[0, 4])
    predicted = find_target(subject)
    assert (predicted.kind, predicted.word, predicted.is_predicted, predicted.title) == (
        "predicted",
        *["predicted"],
        True,
        "",
    )
    note = "--target predicted means the class that is predicted for each image; the class 'predicted' is --target 1"
    assert predicted.notes == (note,)
    assert note in capsys.readouterr().err
    true = find_target(subject, "true")
    assert (true.kind, true.each) == ("true", ("cat", "like new"))
    assert true.notes[0].endswith("the class 'true' is --target 2")
    second = find_target(subject, "cat", "second")
    assert (second.kind, second.word) == ("difference", "cat, not the likeliest other class")
    assert second.notes == (
        "--versus second means the likeliest other class of each image; the class 'second' is --versus 3",
    )
    assert not find_target(subject_of(tuple("abcde"), [0, 1]), "true").notes


def test_the_index_takes_a_class_that_is_called_as_a_word():
    subject = subject_of()
    for index, name in enumerate(NAMES):
        asked = find_target(subject, str(index))
        assert (asked.kind, asked.word, asked.is_predicted) == ("class", name, False)
        assert (asked.about, asked.notes) == (f"the class '{name}'", ())
        assert asked.target.indices.tolist() == [index] * 2
    assert find_target(subject, "cat", "3").word == "cat, not second"
    assert find_target(subject, "like new").kind == "class"
    with pytest.raises(UsageError, match=r"give --target predicted or a class; the class 'true' is --target 2"):
        find_target(subject, "true")
    numbers = ("0", "true", "2", "3", "4")
    with pytest.raises(UsageError, match="the class 'true' is target=1 in Python"):
        find_target(subject_of(numbers), "true")
    assert find_target(subject_of(numbers), 1).kind == "class"


def renamed(run: Path, to: Path, **names: str) -> Path:
    """A copy of a run whose model's classes 0, 1, ... have other names."""
    shutil.copytree(run, to)
    path = to / "model" / "config.json"
    config = json.loads(path.read_text())
    config["class_names"][: len(names)] = names.values()
    path.write_text(json.dumps(config))
    (path.parent / "manifest.jsonl").unlink()
    return to


def test_the_record_tells_the_kind_and_not_the_word(run, here, capsys, no_slides):
    of_words = renamed(run, here / "words", a="like new", b="predicted")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save("photo.png")
    call = ["explain", str(of_words), "photo.png", "--method", "occlusion", "--out", "out"]
    for words, kind, word, about in (
        (["--target", "like new"], "class", "like new", "the class 'like new'"),
        ([], "predicted", "predicted", "the predicted class"),
        (["--target", "2", "--versus", "like new"], "difference", "2, not like new", "'2, not like new'"),
        (["--like", "photo.png"], "likeness", "like photo.png", "being like photo.png"),
    ):
        assert main([*call, *words, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert (result["target_kind"], result["target"]) == (kind, word)
        assert result["faithfulness"]["target"] == about
        assert any("--target predicted means" in note for note in result["notes"]) == (kind == "predicted")
        assert main([*call, *words]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert ("explained cosine" in shown) == (kind == "likeness")
        assert ("deletion: mean cosine" in shown) == (kind == "likeness")


def test_faithfulness_says_so_too(run, here, capsys, no_slides):
    of_words = renamed(run, here / "words", a="predicted")
    call = ["explain", str(of_words), "--faithfulness", "--method", "rollout", "--count", "2", "--out", "out", "--json"]
    assert main(call) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["target"] == "the predicted class"
    assert "--target predicted means the class that is predicted for each image; the class 'predicted'" in shown.err


def test_every_class_is_every_one_with_images_and_not_one_called_so(run, here, monkeypatch, capsys, no_slides):
    """As many classes without images as there may be, as in a large model that is explained on a few."""
    split = own_split(Run(run), "test")
    of_three = split.select(np.flatnonzero(split.labels < 3))
    monkeypatch.setattr("patchlight.commands.explain_images.own_split", lambda *_: of_three)
    call = ["explain", str(run), "--method", "rollout", "--out", "out", "--json", "--class", "all"]
    monkeypatch.setattr("patchlight.commands.explain_images.MOST_CLASSES", 3)
    assert main(call) == 0
    assert [found["name"] for found in json.loads(capsys.readouterr().out)["classes"]] == list("012")
    monkeypatch.setattr("patchlight.commands.explain_images.MOST_CLASSES", 2)
    assert main(call) == 2
    assert "3 classes that have images are too many to be shown side by side; name 2 at most" in capsys.readouterr().err
    assert main([*call[:-1], "0", "--class", "1", "--class", "2"]) == 2
    assert "3 classes are too many to be shown side by side" in capsys.readouterr().err
    of_words = renamed(run, here / "words", a="0", b="all")
    assert main(["explain", str(of_words), *call[2:]]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert [found["name"] for found in result["classes"]] == ["all"]
    assert "--class all means the class of that name" in shown.err
    assert any("--class all means the class of that name" in note for note in result["notes"])
