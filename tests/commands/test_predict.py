"""`patchlight predict`: image files of all kinds, treated as the training images were."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pictures import picture
from PIL import Image
from small import SMALL

from patchlight.cli.main import main
from patchlight.commands.evaluate import own_split
from patchlight.commands.predict import predict
from patchlight.models import load_model
from patchlight.runs import Run


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "P", "RGBA", "CMYK", "1"])
def test_predict_takes_any_mode(run, here, capsys, mode):
    path = picture(here / f"a.{'tif' if mode == 'CMYK' else 'png'}", mode=mode)
    assert main(["predict", str(run), str(path), "--json", "--top", "3"]) == 0
    answer = json.loads(capsys.readouterr().out)["predictions"][0]
    assert answer["image"] == str(path)
    shares = [c["probability"] for c in answer["classes"]]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)


def test_predict_agrees_with_eval(run, here):
    """The digits written as files get the classes that the evaluation gave them."""
    images = own_split(Run.open(run), "test")
    pixels, _ = images.gather(range(8))
    paths = []
    for i, image in enumerate(pixels):
        paths.append(here / f"{i}.png")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(paths[-1])
    answers = predict(run, paths, top=99, precision="fp32")
    model, card = load_model(run)
    probs = model(card.to_input(pixels)).softmax(1)
    for answer, row in zip(answers, probs, strict=True):
        assert len(answer.classes) == 10
        assert answer.classes[0].name == card.class_names[int(row.argmax())]
        assert answer.classes[0].probability == pytest.approx(row.max().item(), abs=1e-5)


def test_predict_in_words(run, here, capsys):
    assert main(["predict", str(run), str(picture(here / "a.png")), str(picture(here / "b.png"))]) == 0
    out = capsys.readouterr().out
    assert out.count("%") == 10
    assert str(here / "b.png") in out


def test_new_images_come_the_way_that_the_training_images_came(here, capsys):
    """Fitted to the data's size first, then enlarged to the model's."""
    words = [*SMALL, "--model.img_size", "32", "--train.debug", "--out", "run"]
    assert main(["train", "quickstart", *words]) == 0
    images = own_split(Run.open(here / "run"), "test")
    path = picture(here / "large.png", size=(64, 64))
    small = Image.open(path).resize((16, 16), Image.Resampling.BICUBIC)
    model, card = load_model(here / "run")
    assert (images.image_size, card.img_size, card.fit_size) == ((16, 16), 32, 16)
    pixels = torch.from_numpy(np.asarray(small).transpose(2, 0, 1).copy())[None]
    expected = model(card.to_input(pixels)).softmax(1).max().item()
    answer = predict(here / "run", [path], precision="fp32")[0].classes[0]
    assert answer.probability == pytest.approx(expected, abs=1e-5)


def test_bad_images_are_named(run, here, capsys):
    (here / "broken.png").write_bytes(b"not a picture")
    for name in ("broken.png", "missing.png"):
        assert main(["predict", str(run), name]) == 1
        err = capsys.readouterr().err
        assert name in err
        assert err.count("\n") == 1
    assert main(["predict", str(run), "broken.png", "--top", "0"]) == 2
