"""`patchlight explain` on a small run: figures, arrays, the table, and what is said of wrong words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small import SMALL

import patchlight
from patchlight.cli.main import main
from patchlight.explanation.methods import CONTROLS, METHODS
from patchlight.runs import Faithfulness, Run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "small"
    words = ["--model.global_pool", "seq"]  # whose pooling has weights of its own
    assert main(["train", "quickstart", *SMALL, *words, "--out", str(path)]) == 0
    return path


def said(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


def test_the_runs_own_samples_with_every_method(run, tmp_path, capsys):
    out = tmp_path / "all"
    assert main(["explain", str(run), "--method", "all", "--target", "true", "--out", str(out), "--json"]) == 0
    result = said(capsys)
    assert {"maps", "patches", "lens", "layer_likeness", "heads-layer2", "layers", "rollout", "versus"} == set(
        result["figures"]
    )
    for path in result["figures"].values():
        with Image.open(path) as figure:
            assert figure.width > 400
    with np.load(result["arrays"]) as arrays:
        count = len(result["images"])
        assert arrays["images"].shape == (count, 16, 16, 3)
        for name in METHODS:
            assert arrays[name.replace("-", "_")].shape == (count, 4, 4)
    assert all(image["target"] == image["true"] for image in result["images"])
    assert any(image["predicted"] != image["true"] for image in result["images"])
    assert [row["method"] for row in result["faithfulness"]["rows"]] == list(METHODS)


def test_image_files_and_layers_by_number(run, tmp_path, capsys):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(path)
    words = ["explain", str(run), str(path), "--layers", "1,2", "--target", "7", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert str(path) in text
    for name in ("grad-rollout", *(f"{name} (blind)" for name in CONTROLS), "heads-layer1", "heads-layer2", "deletion"):
        assert name in text
    assert main([*words, "--json"]) == 0
    assert said(capsys)["images"][0] | {"predicted": "", "probability": 0} == {
        "image": str(path),
        "predicted": "",
        "probability": 0,
        "true": None,
        "target": "7",
    }


def test_the_table_on_test_images(run, tmp_path, capsys):
    assert main(["explain", str(run), "--faithfulness", "--count", "8", "--out", str(tmp_path), "--json"]) == 0
    result = said(capsys)
    assert result["n"] == 8
    assert json.loads((tmp_path / "faithfulness.json").read_text()) == result
    assert Run(tmp_path).read(Faithfulness).to_json() == result
    words = ["explain", str(run), "--faithfulness", "--method", "rollout", "--count", "4", "--out", str(tmp_path)]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "4 images, for the predicted class" in text
    assert "rollout (blind)" in text
    assert "pointing" not in text


def test_planted_evidence_is_pointed_at(tmp_path, capsys):
    path = tmp_path / "planted"
    settings = ["--data.train_per_class", "20", "--data.test_per_class", "4", "--train.epochs", "1"]
    settings += ["--model.depth", "2", "--eval.gallery", "2"]
    settings += ["--explain.faithfulness", "0"]
    assert main(["train", "planted", *settings, "--out", str(path)]) == 0
    capsys.readouterr()
    assert main(["explain", str(path), "--faithfulness", "--method", "rollout", "--count", "12", "--json"]) == 0
    result = said(capsys)
    assert "pointing" in result["rows"][0]["scores"]
    assert (path / "faithfulness.json").is_file()


def test_a_mark_on_several_patches_is_not_pointed_at(tmp_path, capsys):
    """Where images are enlarged for the model, no one patch holds it."""
    settings = ["--data.train_per_class", "20", "--data.test_per_class", "4", "--train.debug", "--model.depth", "1"]
    settings += ["--eval.gallery", "2"]
    settings += ["--explain.faithfulness", "0"]
    words = ["train", "planted", *settings, "--model.img_size", "48", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    capsys.readouterr()
    words = ["explain", str(tmp_path / "run"), "--faithfulness", "--method", "attention", "--count", "4", "--json"]
    assert main(words) == 0
    assert "pointing" not in said(capsys)["rows"][0]["scores"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "chefr"], "no method 'chefr'; did you mean 'chefer'"),
        (["--target", "cat"], "no class 'cat'"),
        (["--layers", "3"], "the model has the layers 1 to 2, not 3"),
        (["--layers", "one"], "--layers are numbers from 1, as in 1,6, not 'one'"),
        (["--count", "0"], "--count must be at least 1"),
        (["--count", "9"], "--count is the number of test images of --faithfulness"),
        (["--faithfulness", "--target", "cat"], "leave out --target"),
        (["--faithfulness", "--layers", "1"], "leave out --layers"),
        (["x.png", "--faithfulness"], "leave out the image files"),
    ],
)
def test_wrong_words_are_told(run, words, message, capsys):
    assert main(["explain", str(run), *words]) == 2
    assert message in capsys.readouterr().err


def test_files_and_runs_that_cannot_be_explained(run, tmp_path, capsys):
    assert main(["explain", str(run), str(tmp_path / "none.png")]) == 1
    assert "none.png" in capsys.readouterr().err
    picture = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(picture)
    assert main(["explain", str(run), str(picture), "--target", "true"]) == 2
    assert "the true classes of image files are not known" in capsys.readouterr().err
    path = tmp_path / "resnet"
    words = ["--data.source", "digits", *SMALL[:8], "--train.debug", "--train.batch_size", "8", "--eval.gallery", "2"]
    assert main(["train", "resnet18-cifar10", *words, "--out", str(path)]) == 0
    assert main(["explain", str(path)]) == 1
    assert "ResNet is no Vision Transformer that can be explained" in capsys.readouterr().err


def test_the_library_call_of_a_run(run, tmp_path):
    """The same call takes a bare model or a run, by its path or as an object."""
    found = patchlight.explain(Run(run), method="rollout", target="true", layers=[0], out=tmp_path)
    assert found.figures.keys() >= {"maps", "heads-layer1", "rollout"}
    assert found.arrays == str(tmp_path / "maps.npz")
    assert found.faithfulness.rows[0].method == "rollout"
    assert {image.target for image in found.images} == {image.true for image in found.images}
    assert found.to_json()["images"][0].keys() == {"image", "predicted", "probability", "true", "target"}
    again = patchlight.explain(str(run), method="rollout", target="true", layers=[0], out=tmp_path)
    assert again.images == found.images


def test_the_library_call_of_a_bare_model_plots(run):
    import torch

    model, _ = patchlight.load_model(run)
    found = patchlight.explain(model, torch.randn(3, 3, 16, 16), method="rollout", target=2)
    assert found.targets.tolist() == [2, 2, 2]
    figure = found.plot()
    assert len(figure.axes[0].images) >= 6
