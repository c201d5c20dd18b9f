"""`patchlight explain` on a small run: figures, arrays, the table, and what is said of wrong words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from small import SMALL

import patchlight
from patchlight.cli.main import main
from patchlight.commands import explain_figures
from patchlight.commands.evaluate import own_split
from patchlight.commands.explain import choose_methods
from patchlight.config import DEFAULT_METHOD
from patchlight.data.decode import load_image
from patchlight.errors import UsageError
from patchlight.explanation.methods import CONTROLS, METHODS
from patchlight.models.anatomy import dissect
from patchlight.models.resnet import ResNet
from patchlight.runs import Faithfulness, Run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "small"
    words = ["--model.global_pool", "seq"]  # whose pooling has weights of its own
    assert main(["train", "quickstart", *SMALL, *words, "--out", str(path)]) == 0
    return path


def said(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_a_spread_of_test_images_with_every_method(run, tmp_path, capsys):
    out = tmp_path / "all"
    assert main(["explain", str(run), "--method", "all", "--target", "true", "--out", str(out), "--json"]) == 0
    result = said(capsys)
    layers = {"lens", "layer_likeness", "layers", "heads-layer2", "head_masks-layer2", "rollout", "path"}
    assert {"maps", "patches", "versus", "patch_embeddings", "patch_likeness"} | layers == set(result["figures"])
    for path in result["figures"].values():
        with Image.open(path) as figure:
            assert figure.width > 400
    with np.load(result["arrays"]) as arrays:
        count = len(result["images"])
        assert arrays["images"].shape == (count, 16, 16, 3)
        for name, method in METHODS.items():
            assert arrays[name.replace("-", "_")].shape == (count, *((16, 16) if method.on_pixels else (4, 4)))
    assert all(image["target"] == image["true"] for image in result["images"])
    right = [image["predicted"] == image["true"] for image in result["images"]]
    assert (right.count(True), right.count(False)) == (result["right"], result["wrong"])
    assert 2 <= result["right"] < 12
    assert {image["true"] for image in result["images"]} == set("0123456789")
    assert result["positions"] == "a position embedding is added to each patch"
    assert (result["split"], result["classes"], result["class_method"]) == ("test", [], None)
    assert json.loads((out / "explanation.json").read_text()) == result
    assert [row["method"] for row in result["faithfulness"]["rows"]] == list(METHODS)


def test_image_files_and_layers_by_number(run, tmp_path, capsys):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(path)
    words = ["explain", str(run), str(path), "--layers", "1,2", "--target", "7", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert str(path) in text
    for name in (
        DEFAULT_METHOD,
        "controls, which do not look at the model:",
        *(f"\n{name} " for name in CONTROLS),
        "heads-layer1",
        "heads-layer2",
        "deletion",
    ):
        assert name in text
    assert main([*words, "--json"]) == 0
    result = said(capsys)
    assert result["chosen"] == "the image files that were given"
    assert (result["right"], result["wrong"], result["split"]) == (None, None, None)
    assert result["images"][0] | {"predicted": "", "probability": 0, "strength": 0} == {
        "image": str(path),
        "index": None,
        "predicted": "",
        "probability": 0,
        "true": None,
        "target": "7",
        "strength": 0,
    }


@pytest.mark.slow
def test_images_by_class_with_a_mean_map_of_each(run, tmp_path, capsys):
    words = ["explain", str(run), "--class", "3", "--class", "8", "--split", "train", "--out", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    result = said(capsys)
    images = own_split(Run(run), "train")
    assert len(result["images"]) == 12
    assert [images.labels[image["index"]] for image in result["images"]] == [int(i["true"]) for i in result["images"]]
    assert sorted(image["true"] for image in result["images"]) == ["3"] * 6 + ["8"] * 6
    assert all(image["image"] == f"train {image['index']}" for image in result["images"])
    assert "a spread over '3', '8' and over right and wrong answers" in result["chosen"]
    assert {"class_gallery", "class_means"} <= set(result["figures"])
    with np.load(result["arrays"]) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    assert found["indices"].tolist() == [image["index"] for image in result["images"]]
    np.testing.assert_array_equal(found["images"][0], images.gather(found["indices"][:1])[0][0].permute(1, 2, 0))
    assert found["class_labels"].tolist() == [3, 8]
    assert found["class_counts"].tolist() == [12, 12]
    assert found["class_means"].shape == found["class_spreads"].shape == (2, 4, 4)
    model, card = patchlight.load_model(run)
    of_threes = images.gather(np.flatnonzero(images.labels == 3))[0]
    maps = patchlight.explain(model, card.to_input(of_threes), target=3).maps.numpy()
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    by_hand = ((maps - low) / (high - low)).mean(axis=0)
    np.testing.assert_allclose(found["class_means"][0], by_hand, rtol=1e-3, atol=1e-4)
    three = result["classes"][0]
    assert (three["name"], three["n"]) == ("3", 12)
    centre = np.exp(-2 * (np.linspace(-1, 1, 6)[1:-1, None] ** 2 + np.linspace(-1, 1, 6)[1:-1] ** 2))
    assert three["centre"] == pytest.approx(spearmanr(by_hand.ravel(), centre.astype("f4").ravel())[0], abs=1e-4)
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "12 images (" in text
    assert "like centre" in text
    assert f"mean maps by {DEFAULT_METHOD}" in text
    assert main(["explain", str(run), "--out", str(tmp_path)]) == 0  # without classes their figures go
    assert not list(tmp_path.glob("class_*.png"))


@pytest.mark.slow
def test_all_classes_are_those_that_have_images(run, tmp_path, monkeypatch, capsys, no_slides):
    without = own_split(Run(run), "test")
    without = without.select(np.flatnonzero((without.labels != 4) & (without.labels != 6)))
    monkeypatch.setattr("patchlight.commands.explain_images.own_split", lambda *_: without)
    words = ["explain", str(run), "--method", "rollout", "--out", str(tmp_path), "--json"]
    assert main([*words, "--class", "all"]) == 0
    result = said(capsys)
    assert [found["name"] for found in result["classes"]] == list("01235789")
    assert result["chosen"].endswith("; no 'test' image is of '4', '6'")
    assert main([*words, "--class", "4"]) == 1
    assert "no 'test' image is of the class '4'" in capsys.readouterr().err


@pytest.mark.slow
def test_images_by_index_and_by_count(run, tmp_path, monkeypatch, capsys, no_slides):
    monkeypatch.setattr(explain_figures, "ABREAST", 2)
    words = ["explain", str(run), "--out", str(tmp_path), "--json"]
    assert main([*words, "--index", "17", "5", "--index", "0"]) == 0
    result = said(capsys)
    assert [image["index"] for image in result["images"]] == [17, 5, 0]
    assert result["chosen"] == "the 'test' images with the indices that were given"
    labels = own_split(Run(run), "test").labels[[17, 5, 0]].tolist()
    assert [image["true"] for image in result["images"]] == [str(label) for label in labels]
    assert main([*words, "--count", "5", "--method", "rollout", "--split", "val"]) == 0
    result = said(capsys)
    assert len(result["images"]) == 5
    assert {"maps", "maps-2", "maps-3", "patches-3"} <= set(result["figures"])
    again = patchlight.explain(run, count=5, method="rollout", split="val", out=tmp_path)
    assert [image.index for image in again.images] == [image["index"] for image in result["images"]]


def test_without_its_data_a_run_shows_its_samples_and_says_so(run, tmp_path, capsys, no_slides):
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    config = (moved / "config.toml").read_text().replace("split_seed = 0", "split_seed = 1")
    (moved / "config.toml").write_text(config)  # so that the images are others
    (moved / "manifest.jsonl").unlink()
    words = ["explain", str(moved), "--method", "rollout"]
    assert main([*words, "--json"]) == 0
    out = capsys.readouterr()
    result = json.loads(out.out)
    assert "the run's test images cannot be used, so samples of its report are: digits has changed" in out.err
    assert result["split"] is None
    assert "samples of the run's report, as the test images cannot be used (digits has changed" in result["chosen"]
    assert result["images"][0]["image"].startswith("sample ")
    assert result["right"] == result["wrong"] == 4
    for asked in (["--class", "3"], ["--index", "3"], ["--split", "train"]):
        assert main([*words, *asked]) == 1
        assert "digits has changed since the run" in capsys.readouterr().err
    (moved / "samples.npz").unlink()
    assert main(words) == 1
    assert "digits has changed since the run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "about"),
    [
        ([], "the predicted class"),
        (["--target", "3"], "the class '3'"),
        (["--target", "true"], "the true class"),
        (["--target", "3", "--versus", "8"], "'3, not 8'"),
    ],
)
def test_the_table_is_about_what_the_maps_are_about(run, words, about, tmp_path, capsys, no_slides):
    call = ["explain", str(run), "--index", "1", "--method", "chefer", "--out", str(tmp_path), *words]
    assert main(call) == 0
    assert f"1 image, for {about}, chosen to be looked at" in capsys.readouterr().out
    assert main([*call, "--json"]) == 0
    assert said(capsys)["faithfulness"]["target"] == about


@pytest.mark.slow
def test_the_table_on_test_images(run, tmp_path, capsys, no_slides):
    assert main(["explain", str(run), "--faithfulness", "--count", "8", "--out", str(tmp_path), "--json"]) == 0
    result = said(capsys)
    assert result["n"] == 8
    assert json.loads((tmp_path / "faithfulness.json").read_text()) == result
    assert Run(tmp_path).read(Faithfulness).to_json() == result
    words = ["explain", str(run), "--faithfulness", "--method", "rollout", "--count", "4", "--out", str(tmp_path)]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "4 images, for the predicted class" in text
    assert main([*words, "--target", "3"]) == 0
    assert "4 images, for the class '3'" in capsys.readouterr().out
    assert main([*words, "--target", "tree"]) == 2
    assert "no class 'tree'" in capsys.readouterr().err
    assert "rollout (blind)" in text
    assert "pointing" not in text
    assert main([*words, "--ways", "tokens,road", "--json"]) == 0
    measures = said(capsys)["rows"][0]["scores"]
    curves = [name for name in measures if name.startswith(("deletion", "insertion"))]
    assert sorted(curves) == ["deletion road", "deletion tokens", "insertion road", "insertion tokens"]
    assert main([*words, "--ways", "tokens,road", "--json"]) == 0
    measures = said(capsys)["rows"][0]["scores"]
    assert [name for name in measures if "tion " in name] == [
        f"{curve} {way}" for way in ("road", "tokens") for curve in ("deletion", "insertion")
    ]


def test_one_class_and_not_another(run, tmp_path, capsys, no_slides):
    call = ["explain", str(run), "--count", "4", "--method", "occlusion", "--out", str(tmp_path)]
    assert main([*call, "--target", "3", "--versus", "8", "--json"]) == 0
    result = said(capsys)
    assert result["target"] == "3, not 8"
    assert {image["target"] for image in result["images"]} == {"3, not 8"}
    with np.load(result["arrays"]) as arrays:
        assert arrays["targets"].tolist() == [3] * 4
        assert arrays["versus"].tolist() == [8] * 4
        difference = arrays["occlusion"]
    maps = {}
    for target in ("3", "8"):
        assert main([*call, "--target", target, "--json"]) == 0
        with np.load(said(capsys)["arrays"]) as arrays:
            maps[target] = arrays["occlusion"]
    np.testing.assert_allclose(difference, maps["3"] - maps["8"], atol=1e-5)
    assert main([*call, "--versus", "second", "--json"]) == 0
    result = said(capsys)
    assert result["target"] == "predicted, not the likeliest other class"
    assert all(image["target"].startswith(f"{image['predicted']}, not ") for image in result["images"])
    assert all(image["strength"] >= 0.5 for image in result["images"])
    assert main([*call, "--target", "3", "--versus", "3"]) == 2
    assert "--versus 3 is the target itself for 4 of 4 images" in capsys.readouterr().err


def test_the_likeness_to_an_image(run, tmp_path, capsys, no_slides):
    picture = tmp_path / "seven.png"
    pixels, _ = own_split(Run(run), "test").gather(np.array([5]))
    Image.fromarray(pixels[0].permute(1, 2, 0).numpy()).save(picture)
    call = ["explain", str(run), "--index", "5", "6", "--method", "occlusion", "--out", str(tmp_path / "out")]
    assert main([*call, "--like", str(picture), "--json"]) == 0
    result = said(capsys)
    assert result["target"] == f"like {picture}"
    assert result["images"][0]["strength"] == pytest.approx(1, abs=1e-5)  # it is that image
    assert result["images"][1]["strength"] < 0.99999
    assert main([*call, "--like", str(picture)]) == 0
    assert "cosine" in capsys.readouterr().out
    assert main(["explain", str(run), "--index", "5", "6", "--like", str(picture)]) == 2  # by the default method
    assert "image 0 is what it is compared with: no change makes it more alike" in capsys.readouterr().err
    assert main([*call, "--like", str(picture), "--target", "3"]) == 2
    assert "--like is a target of its own; leave out --target" in capsys.readouterr().err
    assert main([*call, "--like", str(tmp_path / "none.png")]) == 1
    assert "none.png" in capsys.readouterr().err


def test_maps_against_peoples_masks(run, tmp_path, capsys, no_slides):
    """Two photographs of three have a mask; the controls stand beside the method, and chance beside each number."""
    draw, photos, masks = np.random.default_rng(0), tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    masks.mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(draw.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(photos / f"{name}.png")
    for name in ("a", "b_mask"):
        inside = np.zeros((20, 20), dtype=np.uint8)
        inside[5:15, 5:15] = 255
        Image.fromarray(inside).save(masks / f"{name}.png")
    call = ["explain", str(run), str(photos), "--method", "occlusion", "--out", str(tmp_path / "out")]
    assert main([*call, "--masks", str(masks), "--json"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)["masks"]
    assert (result["images"], [row["method"] for row in result["rows"]]) == (2, ["occlusion", "random", "centre"])
    assert any("c.png" in note for note in result["notes"])
    assert "c.png" in shown.err
    for row in result["rows"]:
        assert set(row["scores"]) == {"pointing", "energy", "iou", "best_iou"}
        assert row["scores"]["energy"]["chance"] == pytest.approx(0.25)
    centre = result["rows"][2]["scores"]
    assert centre["pointing"]["mean"] == 1  # the masks are in the middle
    assert centre["energy"]["mean"] > 0.25
    model, card = patchlight.load_model(run)
    images = torch.stack([load_image(photos / f"{name}.png", card.fit_size, card.fit_interpolation) for name in "ab"])
    maps = patchlight.explain(model, card.to_input(images), method="occlusion").pixel_maps.clamp(min=0)
    by_hand = (maps[:, 4:12, 4:12].sum((1, 2)) / maps.sum((1, 2))).mean().item()
    assert result["rows"][0]["scores"]["energy"]["mean"] == pytest.approx(by_hand, rel=1e-4)
    assert main([*call, "--masks", str(masks), "--tolerance", "2"]) == 0
    text = capsys.readouterr().out
    assert "2 images with a mask in" in text
    assert "(0.25)" in text
    assert "a hit of the pointing game may lie 2 pixels outside" in text
    for words, message, code in (
        ([*call, "--tolerance", "2"], "--tolerance is for --masks", 2),
        (["explain", str(run), "--masks", str(masks)], "--masks are found by the names of image files", 2),
        ([*call, "--masks", str(tmp_path / "none")], "is not there; name the folder that the masks are in", 1),
    ):
        assert main(words) == code
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_masks_of_heads_paths_and_pairs(run, tmp_path, capsys):
    call = ["explain", str(run), "--index", "5", "6", "--method", "rollout", "--out", str(tmp_path)]
    assert main([*call, "--layers", "1", "--mass", "0.9", "--token", "1,2", "--pair", "1,2:0,3", "--json"]) == 0
    result = said(capsys)
    assert {"heads-layer1", "head_masks-layer1", "path", "pair", "pair-2"} <= set(result["figures"])
    assert main([*call, "--percentile", "90"]) == 0  # and the pairs go
    assert not list(tmp_path.glob("pair*.png"))
    for words, message in (
        (["--mass", "0"], "--mass is a share of a head's attention"),
        (["--token", "9,9"], "there is no token '9,9'; name pooled"),
        (["--token", "cls"], "there is no token 'cls'"),  # the model pools its patches
        (["--pair", "1,2"], "a pair of tokens is QUERY:KEY"),
        (["--token", ""], "there is no token ''"),
        (["--pair", ""], "a pair of tokens is QUERY:KEY, as 3,4:5,6 or cls:3,4, not ''"),
        (["--pair", "1,2:9,9"], "there is no token '9,9'"),
        (["--target", ""], "no class ''"),
        (["--percentile", "20"], "percentile is 20; give one from 50 to 100"),
    ):
        assert main([*call, *words]) == 2
        assert message in capsys.readouterr().err


def test_options_of_methods_in_words(run, tmp_path, capsys, no_slides):
    call = ["explain", str(run), "--index", "5", "--out", str(tmp_path)]
    words = ["--method", "rollout", "--method", "rollout:heads=max,discard=0.9", "--method", "gradcam:layer=0"]
    assert main([*call, *words, "--json"]) == 0
    result = said(capsys)
    assert result["methods"] == ["rollout", "rollout:heads=max,discard=0.9", "gradcam:layer=0"]
    model, card = patchlight.load_model(run)
    pixels, _ = own_split(Run(run), "test").gather(np.array([5]))
    by_hand = patchlight.explain(model, card.to_input(pixels), method="rollout", heads="max", discard=0.9)
    with np.load(result["arrays"]) as arrays:
        np.testing.assert_allclose(arrays["rollout_heads_max_discard_0_9"], by_hand.maps.numpy(), rtol=1e-5)
        assert not np.allclose(arrays["rollout"], by_hand.maps.numpy(), rtol=1e-3)
    for word, message in (
        ("rollout:head=max", "rollout has no option 'head'; did you mean 'heads'"),
        ("chefer:layer=1", "chefer has no option 'layer'; it has none"),
        ("rollout:discard", "an option of a method is NAME=VALUE"),
        ("rollout:discard=much", "rollout:discard is a number, as 0.0, not 'much'"),
        ("gradcam:layer=0.5", "gradcam:layer is a whole number, as -1, not '0.5'"),
        ("rollout:heads=max,heads=min", "gives heads twice"),
        ("rollout:discard=2", "discard is a share of the weights"),
        ("gradcam:layer=7", "there is no layer 7"),
    ):
        assert main([*call, "--method", word]) == 2, word
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_planted_evidence_is_pointed_at(tmp_path, capsys, no_charts):
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


@pytest.mark.slow
def test_a_mark_on_several_patches_is_not_pointed_at(tmp_path, capsys, no_charts):
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
        (["--class", "cat"], "no class 'cat'"),
        (["--class", "3", "--index", "1"], "--index says which images; leave out --class"),
        (["--index", "1", "--count", "1"], "--index says which images; leave out --count"),
        ([f"{i}.png" for i in range(201)], "the call names 201 images; take 200 at most"),
        (["--index", "60"], "the 'test' images have the indices 0 to 59, so there is no 60"),
        (["--class", "3", "--class", "4", "--count", "1"], "--count 1 is less than the 2 classes"),
        (["x.png", "--class", "3"], "--class is for images of the run's own; leave it out, or the image files"),
        (["x.png", "--split", "val"], "--split is for images of the run's own"),
        (["--faithfulness", "--class", "3"], "leave out --class"),
        (["--faithfulness", "--ways", "mean,colour"], "patches are not taken away by 'colour'"),
        (["--faithfulness", "--ways", ""], "patches are not taken away by ''"),
        (["--ways", "mean"], "--ways is for --faithfulness"),
        (["--faithfulness", "--versus", "3"], "leave out --versus"),
        (["--faithfulness", "--layers", "1"], "leave out --layers"),
        (["--faithfulness", "--pair", ""], "leave out --pair"),
        (["--faithfulness", "--mass", "0"], "leave out --mass"),
        (["--faithfulness", "--percentile", "0"], "leave out --percentile"),
        (["--faithfulness", "--target", ""], "no class ''"),
        (["x.png", "--faithfulness"], "leave out the image files"),
    ],
)
def test_wrong_words_are_told(run, words, message, capsys):
    assert main(["explain", str(run), *words]) == 2
    assert message in capsys.readouterr().err


def test_files_and_runs_that_cannot_be_explained(run, tmp_path, capsys, no_slides):
    assert main(["explain", str(run), str(tmp_path / "none.png")]) == 1
    assert "none.png" in capsys.readouterr().err
    picture = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(picture)
    assert main(["explain", str(run), str(picture), "--target", "true"]) == 2
    assert "the true classes of image files are not known" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_of_a_convolutional_network(tmp_path, capsys, no_slides):
    """It has no attention: gradcam is shown, what reads attention is left out or refused, and all of that is said."""
    path, out = tmp_path / "resnet", tmp_path / "out"
    words = ["--data.source", "digits", *SMALL[:8], "--train.debug", "--train.batch_size", "8", "--eval.gallery", "2"]
    words += ["--data.image_size", "8"]
    assert main(["train", "resnet18-cifar10", *words, "--out", str(path)]) == 0
    capsys.readouterr()
    call = ["explain", str(path), "--count", "2", "--out", str(out)]
    assert main([*call, "--json"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert (result["methods"], result["positions"]) == (["gradcam"], None)
    assert "ResNet is no Vision Transformer whose attention can be seen" in result["notes"][0]
    assert result["features"] == {"gradcam": "layer3, 2 x 2 cells"}
    assert "gradcam is shown" in shown.err
    assert set(result["figures"]) == {"maps", "versus"}
    assert main([*call, "--pair", "1,2:3,4"]) == 2
    assert "--pair is of attention" in capsys.readouterr().err
    assert main([*call, "--method", "rollout"]) == 1
    assert "rollout reads attention, and ResNet is no Vision Transformer" in capsys.readouterr().err
    assert main([*call, "--layers", "1"]) == 2
    assert "--layers is of attention" in capsys.readouterr().err


def test_methods_that_a_network_without_attention_lacks_are_told():
    """Where some of those that were asked for read attention, and not where none does."""
    anatomy = dissect(ResNet(layers=(1, 1, 1, 1)))
    calls, (note,) = choose_methods(["all"], anatomy)
    assert calls == [name for name, method in METHODS.items() if not method.attention]
    assert note.startswith("left out, as they read attention: attention, rollout, scaled-rollout, grad-rollout")
    assert "ResNet is no Vision Transformer" in note
    calls, (note,) = choose_methods(["hirescam", "rollout:heads=max"], anatomy)
    assert calls == ["hirescam"]
    assert note.startswith("left out, as they read attention: rollout:heads=max; ")
    assert choose_methods(["hirescam", "occlusion"], anatomy) == (["hirescam", "occlusion"], [])


def test_the_library_call_of_a_run(run, tmp_path, no_slides):
    """The same call takes a bare model or a run, by its path or as an object."""
    found = patchlight.explain(Run(run), method="rollout", target="true", layers=[0], out=tmp_path)
    assert found.figures.keys() >= {"maps", "heads-layer1", "rollout"}
    assert found.arrays == str(tmp_path / "maps.npz")
    assert found.faithfulness.rows[0].method == "rollout"
    assert {image.target for image in found.images} == {image.true for image in found.images}
    keys = {"image", "index", "predicted", "probability", "true", "target", "strength"}
    assert found.to_json()["images"][0].keys() == keys
    again = patchlight.explain(str(run), method="rollout", target="true", layers=[0], out=tmp_path)
    assert again.images == found.images
    by_class = patchlight.explain(run, classes=[np.int64(3), "8"], count=4, method="rollout", out=tmp_path)
    assert sorted(image.true for image in by_class.images) == ["3", "3", "8", "8"]
    assert by_class.class_method == DEFAULT_METHOD  # as rollout is blind to classes
    one = patchlight.explain(run, classes=3, count=1, target=8, method="rollout", out=tmp_path)
    assert [(image.true, image.target) for image in one.images] == [("3", "8")]
    with pytest.raises(UsageError, match="no split 'tset'; did you mean 'test'"):
        patchlight.explain(run, split="tset")
    with pytest.raises(UsageError, match="--count must be at least 1"):
        patchlight.explain(run, count=0)


def test_the_library_call_of_a_bare_model_plots(run):
    model, _ = patchlight.load_model(run)
    found = patchlight.explain(model, torch.randn(3, 3, 16, 16), method="rollout", target=2)
    assert found.targets.tolist() == [2, 2, 2]
    figure = found.plot()
    assert len(figure.axes[0].images) >= 6
