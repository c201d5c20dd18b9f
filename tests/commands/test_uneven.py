"""A folder of uneven classes from end to end: what training, `eval` and `compare` say of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, classification_report

from patchlight.cli.main import main
from patchlight.runs import Run

pytestmark = pytest.mark.usefixtures("no_charts")
COUNTS = {"cat": 40, "dog": 20, "emu": 10}
WORDS = [
    *("--data.source", "pets", "--data.image_size", "16", "--model.embed_dim", "24", "--model.depth", "2"),
    *("--model.num_heads", "2", "--train.batch_size", "16", "--train.epochs", "3", "--train.device", "cpu"),
    *("--train.precision", "fp32", "--eval.gallery", "4", "--explain.faithfulness", "0", "--train.budget", "none"),
]


@pytest.fixture
def pets(here) -> Path:
    """Images of 16 pixels, in which the class is a bright band."""
    draw = np.random.default_rng(0)
    for place, (name, count) in enumerate(COUNTS.items()):
        (here / "pets" / name).mkdir(parents=True)
        for i in range(count):
            pixels = draw.integers(0, 120, (16, 16, 3), dtype=np.uint8)
            pixels[5 * place : 5 * place + 5] += 100
            Image.fromarray(pixels).save(here / "pets" / name / f"{i}.png")
    return here


def test_weights_are_said_and_used_and_scores_are_told(pets, capsys):
    asked = ["--train.class_weights", "1,2,4", "--train.select", "best_balanced"]
    assert main(["train", "quickstart", *WORDS, *asked, "--out", "run"]) == 0
    said = capsys.readouterr()
    assert "class weights (given): cat 1, dog 2, emu 4" in said.err
    assert "balanced accuracy" in said.err.split("epoch 3/3")[1]
    run = Run.open("run")
    assert run.config().train.class_weights == (1.0, 2.0, 4.0)
    assert json.loads(Path("run/environment.json").read_text())["class_weights"] == [[1.0, 2.0, 4.0]]
    result = json.loads(Path("run/eval.json").read_text())
    labels = [i for i, row in enumerate(result["confusion"]) for n in row for _ in range(n)]
    preds = [j for row in result["confusion"] for j, n in enumerate(row) for _ in range(n)]
    assert len(labels) == 14
    theirs = classification_report(labels, preds, target_names=list(COUNTS), output_dict=True, zero_division=0)
    for name, scores in [*result["scores"].items(), ("macro avg", result["macro"])]:
        expected = {key: theirs[name][f"{key}-score" if key == "f1" else key] for key in scores}
        assert scores == pytest.approx(expected)
    balanced = balanced_accuracy_score(labels, preds)
    assert result["balanced_accuracy"] == pytest.approx(balanced)
    assert f"balanced accuracy {100 * balanced:.2f} %" in said.out

    assert main(["eval", "run", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = next(i for i, line in enumerate(lines) if line.split() == ["class", "precision", "recall", "F1", "images"])
    for line, name in zip(lines[heads + 1 :], COUNTS, strict=False):
        shown = [f"{100 * theirs[name][key]:.2f}" for key in ("precision", "recall", "f1-score")]
        assert line.split() == [name, *(word for value in shown for word in (value, "%")), str(COUNTS[name] // 5)]
    assert lines[heads + 4].startswith("mean (macro)")


def test_runs_are_compared_by_balanced_accuracy_where_it_is_another_number(pets, capsys):
    assert main(["train", "quickstart", *WORDS, "--out", "plain"]) == 0
    assert "the classes are uneven: 29 of 50 training images are of cat and 7 of emu" in capsys.readouterr().err
    again = [*WORDS, "--data.sampler", "balanced", "--train.class_weights", "balanced"]
    assert main(["train", "quickstart", *again, "--out", "drawn"]) == 0
    said = capsys.readouterr().err
    assert "data.sampler balanced: an epoch draws 48 images, 16 of each class" in said
    assert "one of the two is enough" in said
    assert main(["compare", "plain", "drawn", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    scores = [json.loads(Path(name, "eval.json").read_text())["balanced_accuracy"] for name in ("plain", "drawn")]
    assert [row["balanced_accuracy"] for row in result["runs"]] == pytest.approx(scores)
    assert result["differences"] == {
        "data.sampler": ["uniform", "balanced"],
        "train.class_weights": ["none", "balanced"],
    }
    assert main(["compare", "plain", "drawn"]) == 0
    uneven = any(abs(row["top1"] - row["balanced_accuracy"]) > 0.005 for row in result["runs"])
    assert ("balanced %" in capsys.readouterr().out) == uneven


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train.class_weights", "1,2"], "train.class_weights has 2 numbers and the data 3 classes: cat, dog, emu"),
        (["--train.class_weights", "balansed"], "cannot be 'balansed'; did you mean 'balanced'?"),
        (["--train.class_weights", "-1,2,3"], "must be a list of numbers that are at least 0, and one is -1"),
        (["--data.sampler", "weighted"], "data.sampler cannot be 'weighted'; known: balanced, uniform"),
    ],
)
def test_a_mistake_is_one_sentence(pets, capsys, words, message):
    assert main(["train", "quickstart", *WORDS, *words, "--out", "run"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not Path("run").exists()


def test_the_data_are_said_to_be_uneven_before_training(pets, capsys):
    assert main(["data", "pets", "--data.image_size", "16", "--train.batch_size", "16", "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any(
        note.startswith("the classes are uneven: 29 of 50 training images are of cat and 7 of emu") for note in notes
    )
