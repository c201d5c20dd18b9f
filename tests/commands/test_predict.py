"""`patchlight predict`: image files of all kinds, treated as the training images were."""

from __future__ import annotations

import csv
import json
import os

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

pytestmark = pytest.mark.usefixtures("no_charts")


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


def test_good_files_are_answered_and_bad_ones_named(run, here, capsys):
    picture(here / "a.png")
    (here / "b.png").write_bytes(b"nothing")
    picture(here / "c.png")
    assert main(["predict", str(run), "c.png", "b.png", "none.png", "a.png", "--top", "1"]) == 1
    captured = capsys.readouterr()
    assert [line for line in captured.out.splitlines() if not line.startswith(" ")] == ["c.png", "a.png"]
    assert captured.err.splitlines() == [
        "b.png: it is not an image file that Pillow can read but a text file",
        "none.png: there is no such file",
        "2 of 4 images cannot be read",
    ]
    assert main(["predict", str(run), "c.png", "b.png", "a.png", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [each["image"] for each in report["predictions"]] == ["c.png", "a.png"]
    assert report["bad"] == [
        {"image": "b.png", "error": "it is not an image file that Pillow can read but a text file"}
    ]
    assert report["notes"] == []
    answers = predict(run, ["c.png", "b.png", "a.png"])
    assert [each.image for each in answers] == ["c.png", "b.png", "a.png"]
    assert [each.error is None for each in answers] == [True, False, True]
    assert answers[1].classes == ()


def test_many_bad_files_are_counted(run, here, capsys):
    for number in range(30):
        (here / f"{number:02}.png").write_bytes(b"nothing")
    assert main(["predict", str(run), "*.png", "--json"]) == 1
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["bad"]) == 30
    lines = captured.err.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "30 of 30 images cannot be read, the first 20 of which are named here and all by --json"


def test_folders_patterns_and_odd_names(run, here, capsys):
    for name in ("photos/b.png", "photos/sub/a.png", "~tmp.png", os.fsdecode(b"caf\xe9.png")):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        picture(here / name)
    (here / "photos" / "notes.txt").write_text("words")
    assert main(["predict", str(run), "~tmp.png", "photos", "photos/*/*.png", "caf*", "--json"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    names = [each["image"] for each in report["predictions"]]
    assert names == ["~tmp.png", "photos/b.png", "photos/sub/a.png", "photos/sub/a.png", "caf\\udce9.png"]
    assert report["notes"] == ["left out of photos: files that are no images: 1, such as photos/notes.txt"]
    assert report["notes"][0] in captured.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["empty"], 1, "empty is an empty folder"),
        (["none*.png"], 1, "nothing matches none*.png"),
        ([""], 2, "a path is empty"),
        (["https://x.org/a.jpg"], 2, "https://x.org/a.jpg is an address, which is not read; download it first"),
        (["C:\\photos\\a.png"], 1, "C:\\photos\\a.png: there is no such file"),
        (["~nobody-at-all/a.png"], 1, "~nobody-at-all/a.png: there is no such file"),
        (["x" * 300 + ".png"], 1, "File name too long"),
        (["a.png", "--csv", "empty"], 2, "--csv empty is a folder"),
        (["a.png", "--csv", "nowhere/a.csv"], 2, "there is no folder nowhere"),
        (["--csv", "a.png", "b.png"], 2, "--csv a.png is there and not called .csv"),
    ],
)
def test_what_cannot_be_predicted_is_one_sentence(run, here, capsys, words, code, message):
    picture(here / "a.png")
    (here / "empty").mkdir()
    before = (here / "a.png").read_bytes()
    assert main(["predict", str(run), *words]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert (here / "a.png").read_bytes() == before


def test_a_table_of_many_images(run, here, capsys):
    for number in range(300):  # more than a batch
        Image.fromarray(np.full((4, 4, 3), number % 256, dtype=np.uint8)).save(here / f"{number:03}, x.png")
    (here / "bad.png").write_bytes(b"nothing")
    assert main(["predict", str(run), ".", "--csv", "out.csv", "--top", "2"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "out.csv: 300 images\n"
    assert captured.err == "bad.png: it is not an image file that Pillow can read but a text file\n"
    with (here / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "class", "probability", "class_2", "probability_2", "error"]
    assert [row["image"] for row in rows] == [*(f"{number:03}, x.png" for number in range(300)), "bad.png"]
    assert {row["error"] for row in rows[:300]} == {""}
    reason = "it is not an image file that Pillow can read but a text file"
    assert list(rows[300].values()) == ["bad.png", "", "", "", "", reason]
    direct = predict(run, ["007, x.png"], top=2)[0].classes
    assert [rows[7]["class"], rows[7]["class_2"]] == [each.name for each in direct]
    assert float(rows[7]["probability"]) == pytest.approx(direct[0].probability, abs=1e-3)
    assert main(["predict", str(run), "bad.png", "000, x.png", "--csv", "out.csv", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report == {
        "csv": "out.csv",
        "count": 1,
        "bad": [{"image": "bad.png", "error": "it is not an image file that Pillow can read but a text file"}],
        "notes": [],
    }
    with (here / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["bad.png", "000, x.png"]
    assert [bool(row["error"]) for row in rows] == [True, False]
    assert [len(row) for row in rows] == [2 + 2 * 5] * 2
    assert main(["predict", str(run), "bad.png", "--csv", "out.csv", "--top", "1"]) == 1  # none can be read
    assert (here / "out.csv").read_text().splitlines() == ["image,class,probability,error", f"bad.png,,,{reason}"]


def test_a_table_is_whole_or_not_there(run, here, monkeypatch):
    picture(here / "a.png")
    (here / "out.csv").write_text("before")

    def fail(self, pixels):
        raise RuntimeError("no memory")

    monkeypatch.setattr("patchlight.commands.predict.Answers._classify", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        main(["predict", str(run), "a.png", "--csv", "out.csv"])
    assert (here / "out.csv").read_text() == "before"
    assert sorted(path.name for path in here.iterdir()) == ["a.png", "out.csv"]


def test_pillows_warnings_are_notes(run, here, capsys, recwarn):
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (8, 8)).save(here / name, dpi=(72, 72), exif=b"Exif\x00\x00II*\x00broken")
    assert main(["predict", str(run), "a.jpg", "b.jpg", "--json"]) == 0
    captured = capsys.readouterr()
    (note,) = json.loads(captured.out)["notes"]
    assert note.startswith("Pillow warned of 2 images: '")
    assert captured.err == f"{note}\n"
    assert len(recwarn) == 0


def test_animations_are_notes(run, here, capsys):
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 99)]
    frames[0].save(here / "a.gif", save_all=True, append_images=frames[1:])
    assert main(["predict", str(run), "a.gif", "--json"]) == 0
    captured = capsys.readouterr()
    note = "1 image is an animation, such as a.gif: its first picture is used and no other"
    assert json.loads(captured.out)["notes"] == [note]
    assert captured.err == f"{note}\n"


def test_training_and_predict_see_the_same_of_sixteen_bits(here, capsys, no_charts):
    """data.pixel_max goes with the model, and is said where it matters."""
    for label in (0, 1):
        (here / "cells" / str(label)).mkdir(parents=True)
        for index in range(12):
            values = np.random.default_rng([label, index]).integers(0, 4096, (16, 16), dtype=np.uint16)
            values[8 * label : 8 * label + 8] //= 4
            Image.fromarray(values).save(here / "cells" / str(label) / f"{index}.png")
    own = {"--data.train_per_class": "5", "--data.val_per_class": "2", "--data.test_per_class": "2"}
    small = dict(zip(SMALL[::2], SMALL[1::2], strict=True)) | own
    words = ["quickstart", "--data.source", "cells", *(word for pair in small.items() for word in pair)]
    assert main(["train", *words, "--out", "dark"]) == 0
    said = "look like 12-bit values"
    assert said in capsys.readouterr().err
    assert said in (here / "dark" / "report.html").read_text(encoding="utf-8")
    assert any(said in note for note in json.loads((here / "dark" / "environment.json").read_text())["data"]["notes"])
    assert main(["train", *words, "--data.pixel_max", "4095", "--out", "bright"]) == 0
    assert said not in capsys.readouterr().err
    model, card = load_model(here / "bright")
    assert card.pixel_max == 4095
    assert load_model(here / "dark")[1].pixel_max == 65535
    capsys.readouterr()
    assert main(["predict", str(here / "dark"), "cells/0/0.png", "--json"]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert "the model was trained with data.pixel_max = 65535, which is set when training" in note
    assert "; set data.pixel_max" not in note
    assert main(["explain", str(here / "dark"), "cells/0/0.png", "--out", "maps"]) == 0
    assert "the model was trained with data.pixel_max = 65535" in capsys.readouterr().err
    (here / "cells").rename(here / "others")
    (here / "others" / "0" / "0.png").unlink()  # so that these are not the run's own
    assert main(["eval", str(here / "dark"), "--data", "others"]) == 0
    said = capsys.readouterr().err
    assert "the model was trained with data.pixel_max = 65535, which is set when training" in said
    assert "; set data.pixel_max" not in said
    for setting in (["--data.pixel_max", "4095"], ["--data.image_size", "8"]):
        assert main(["eval", str(here / "dark"), "--data", "others", *setting]) == 2
        assert f"{setting[0][2:]} is the model's own, as it was trained, and cannot be" in capsys.readouterr().err
    values = np.asarray(Image.open(here / "others" / "0" / "1.png"))
    pixels = torch.from_numpy(np.rint(values / (4095 / 255)).astype(np.uint8)).expand(1, 3, 16, 16)
    expected = model(card.to_input(pixels)).softmax(1).max().item()
    answer = predict(here / "bright", ["others/0/1.png"], precision="fp32")[0].classes[0]
    assert answer.probability == pytest.approx(expected, abs=1e-5)
    config = json.loads((here / "bright" / "model" / "config.json").read_text())
    del config["pixel_max"]
    (here / "bright" / "model" / "config.json").write_text(json.dumps(config))
    (here / "bright" / "model" / "manifest.jsonl").unlink()
    assert load_model(here / "bright")[1].pixel_max == 65535  # of a card of an earlier version
