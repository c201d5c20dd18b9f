"""`patchlight eval`: the run's own images from anywhere, other sources, and precisions."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from pictures import picture
from PIL import Image

from patchlight.cli.main import main
from patchlight.machine import device

pytestmark = pytest.mark.usefixtures("no_charts")


def test_eval_prints_one_json_object_that_agrees_with_training(run, capsys):
    assert main(["eval", str(run), "--json"]) == 0
    out = capsys.readouterr().out
    result = json.loads(out)
    assert out.count("\n") == 1
    needed = ["split", "n", "loss", "top1", "top1_ci95", "top5", "per_class", "confusion", "ece"]
    assert set(needed) <= set(result)
    recorded = json.loads((run / "eval.json").read_text())
    recorded.pop("without_copies", None)  # training alone looks for copies
    assert result == recorded
    low, high = result["top1_ci95"]
    assert 0 <= low <= result["top1"] <= result["top5"] <= 1
    assert result["top1"] <= high <= 1
    assert sum(map(sum, result["confusion"])) == result["n"] == 60


def test_eval_on_other_splits_and_sources(run, here, capsys):
    assert main(["eval", str(run), "--split", "val", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 40
    for name in ("7", "3"):  # a folder with some of the classes, in its own order
        (here / "mine" / name).mkdir(parents=True)
        for i in range(3):
            picture(here / "mine" / name / f"{i}.png")
    assert main(["eval", str(run), "--data", "mine", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["n"] == 6
    assert [sum(row) for row in result["confusion"]] == [0, 0, 0, 3, 0, 0, 0, 3, 0, 0]
    assert result["per_class"]["0"] is None
    assert result["split"] == "all"
    assert main(["eval", str(run)]) == 0
    assert "test accuracy" in capsys.readouterr().out


def test_a_folder_that_changed_after_training_is_not_evaluated_as_if_it_had_not(here, capsys):
    """Its splits are cut anew, so a "test" image may be one that was trained on."""
    draw = np.random.default_rng(1)
    for name in ("cat", "dog"):
        (here / "pets" / name).mkdir(parents=True)
        for i in range(20):
            pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(here / "pets" / name / f"{i}.png")
    words = [
        "train",
        "quickstart",
        "--data.source",
        "pets",
        "--out",
        "runs/pets",
        "--train.debug",
        "--eval.gallery",
        "2",
    ]
    assert main(words) == 0
    assert main(["eval", "runs/pets", "--data", str(here / "pets"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["n"], result["split"]) == (8, "test")  # not all 40: those were trained on
    picture(here / "pets" / "cat" / "00.png", size=(16, 16))  # all others move up a row
    assert main(["eval", "runs/pets"]) == 1
    assert "pets has changed since the run" in capsys.readouterr().err
    (here / "runs" / "pets" / "eval.json").unlink()
    assert main([*words, "--resume"]) == 1
    assert "have changed since the run was started; restore them" in capsys.readouterr().err


def test_images_of_another_source_that_were_trained_on_are_counted(here, capsys):
    for index, name in enumerate(("cat", "dog")):
        pictures_of(here / "pets" / name, 20, seed=index)
        pictures_of(here / "new" / name, 5, seed=10 + index)
    words = ["--data.source", "pets", "--out", "run", "--train.debug", "--eval.gallery", "2"]
    assert main(["train", "quickstart", *words]) == 0
    shutil.copytree(here / "pets", here / "copy")
    capsys.readouterr()
    assert main(["eval", "run", "--data", "copy", "--json"]) == 0
    captured = capsys.readouterr()
    assert "copies of those that the run was trained or selected with: 32 of 40; the score flatters" in captured.err
    result = json.loads(captured.out)
    assert (result["copies_of_training"], result["n"]) == (32, 40)
    assert main(["eval", "run", "--data", "new", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["copies_of_training"] == 0
    assert "copies" not in captured.err
    (here / "pets").rename(here / "elsewhere")
    assert main(["eval", "run"]) == 1
    assert f"run was trained on {here / 'pets'}, which is not there any more; put it back" in capsys.readouterr().err
    assert main(["eval", "run", "--data", "new", "--json"]) == 0
    captured = capsys.readouterr()
    assert "copies_of_training" not in json.loads(captured.out)  # not known, which is said
    assert "not compared with the images that the run was trained on: run was trained on" in captured.err
    assert main(["eval", "run", "--data", "elsewhere", "--json"]) == 0  # the same images: its test split alone
    assert (json.loads(capsys.readouterr().out)["n"], captured.err.count("copies")) == (8, 0)


def pictures_of(folder, count, seed):
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["pets", "~/pets"])
def test_a_run_knows_its_own_images_from_anywhere(here, monkeypatch, capsys, source):
    """However and from wherever they are named: what was trained on is not tested on."""
    monkeypatch.setenv("HOME", str(here))
    draw = np.random.default_rng(2)
    for name in ("cat", "dog"):
        (here / "pets" / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(here / "pets" / name / f"{i}.png")
    run = here / "runs" / "small"
    words = ["--data.source", source, "--out", str(run), "--train.debug", "--eval.gallery", "2"]
    assert main(["train", "quickstart", *words]) == 0
    expected = json.loads((run / "eval.json").read_text())["loss"]
    monkeypatch.chdir(here / "runs")
    for words in ([], ["--data", "../pets"], ["--data", "~/pets"], ["--data", str(here / "pets")]):
        capsys.readouterr()
        assert main(["eval", "small", *words, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert (result["n"], result["split"], result["loss"]) == (8, "test", expected)


def test_eval_refuses_classes_that_the_model_does_not_know(run, here, capsys):
    (here / "mine" / "cat").mkdir(parents=True)
    picture(here / "mine" / "cat" / "a.png")
    assert main(["eval", str(run), "--data", "mine"]) == 1
    assert "the model does not know the classes cat; it was trained for the classes 0, 1" in capsys.readouterr().err


@pytest.mark.parametrize("has_them", [True, False])
def test_a_precision_without_instructions_is_said(run, here, capsys, monkeypatch, has_them):
    monkeypatch.setattr(device, "processor_multiplies", lambda precision: has_them)
    path = picture(here / "a.png")
    for words in (["eval", str(run)], ["predict", str(run), str(path)]):
        assert main([*words, "--device", "cpu", "--precision", "bf16"]) == 0
        assert capsys.readouterr().err.count("no bf16 instructions") == (not has_them)


def test_eval_and_predict_in_another_precision(run, here, capsys):
    path = picture(here / "a.png")
    exact = json.loads((run / "eval.json").read_text())
    assert main(["eval", str(run), "--precision", "bf16", "--json"]) == 0
    low = json.loads(capsys.readouterr().out)
    assert (exact["precision"], low["precision"]) == ("fp32", "bf16")
    assert low["loss"] != exact["loss"]
    assert low["loss"] == pytest.approx(exact["loss"], rel=0.05)
    shares = []
    for words in (["--precision", "fp32"], ["--precision", "bf16"], []):
        assert main(["predict", str(run), str(path), "--json", *words]) == 0
        shares.append(json.loads(capsys.readouterr().out)["predictions"][0]["classes"][0]["probability"])
    assert shares[0] != shares[1]
    assert shares[1:] == pytest.approx([shares[0]] * 2, abs=0.05)  # without the option it is the faster one
