"""Image files are resized as the pretrained weights' own were: the same pixels in training, `eval`, `predict` and
`data`, recorded, and held against Pillow and the image processor of Hugging Face.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from saved import save_hugging_face

from patchlight.cli.main import main
from patchlight.commands.audit import audit
from patchlight.commands.evaluate import other_split, own_split
from patchlight.commands.predict import predict
from patchlight.config import DataConfig, ModelConfig, load_recipe
from patchlight.data.decode import load_image
from patchlight.data.splits import load_splits
from patchlight.errors import PatchlightError
from patchlight.models import load_model, own_input, with_own_input
from patchlight.models.saved import read_card
from patchlight.runs import Environment, Run
from patchlight.training.setup import build

pytestmark = pytest.mark.usefixtures("no_charts")

SIZE = 32  # pixels a side that the model takes
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def photos(root: Path) -> Path:
    """Files of noise, wide, high and square, none of the model's size."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                height, width = [(48, 48), (50, 77), (90, 61)][index % 3]
                pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


def vit(folder: Path, resample: int) -> Path:
    save_hugging_face(folder)
    about = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**about, "resample": resample}))
    return folder


def words_of(model: Path, *more: str) -> list[str]:
    words = [
        "train",
        "vit-base-frozen",
        "--data.source",
        "photos",
        "--data.image_size",
        str(SIZE),
        "--model.name",
        str(model),
    ]
    words += ["--model.img_size", str(SIZE), "--train.debug", "true", "--train.device", "cpu"]
    return [*words, "--train.batch_size", "4", "--out", "run", *more]


def fitted(path: Path, interpolation: str, size: int = SIZE) -> torch.Tensor:
    """By Pillow alone: the shorter side is `size`, the middle is kept."""
    with Image.open(path) as image:
        short = min(image.size)
        width, height = (max(size, side * size // short) for side in image.size)
        image = image.resize((width, height), FILTERS[interpolation])
        left, top = round((width - size) / 2), round((height - size) / 2)
        return torch.from_numpy(np.array(image.crop((left, top, left + size, top + size)))).permute(2, 0, 1)


def all_fitted(root: Path, interpolation: str, size: int = SIZE) -> torch.Tensor:
    return torch.stack([fitted(path, interpolation, size) for path in sorted(root.glob("*/*.png"))])


def pixels_of(run: Run, split: str = "test") -> torch.Tensor:
    images = own_split(run, split)
    return images.gather(range(len(images)))[0]


@pytest.mark.parametrize(("resample", "interpolation"), [(2, "bilinear"), (3, "bicubic")])
def test_files_are_resized_as_the_processor_says(resample, interpolation, here, capsys):
    root, folder = photos(here / "photos"), vit(here / "vit", resample)
    assert main(words_of(folder)) == 0
    said, run = capsys.readouterr().err, Run.open(here / "run")
    line = f"images are resized to {SIZE} x {SIZE} by bilinear interpolation"
    notes = run.read(Environment).data.notes
    assert (line in said, any(line in note for note in notes)) == (interpolation == "bilinear",) * 2
    assert run.config().data.interpolation == interpolation

    ours = pixels_of(run)
    assert torch.equal(ours, all_fitted(root / "test", interpolation))
    square = root / "test" / "cat" / "0.png"
    processor = transformers.ViTImageProcessorPil.from_pretrained(folder, do_rescale=False, do_normalize=False)
    theirs = processor(Image.open(square), size={"height": SIZE, "width": SIZE}, return_tensors="pt")["pixel_values"]
    assert torch.equal(ours[0], theirs[0].to(torch.uint8))

    model, card = load_model(run.path)
    assert (card.interpolation, card.fit_interpolation) == (interpolation, interpolation)
    files = sorted((root / "test").glob("*/*.png"))
    with torch.no_grad():
        probs = model(card.to_input(ours)).softmax(1)
    for answer, row in zip(predict(run, files, precision="fp32", device="cpu"), probs, strict=True):
        assert answer.classes[0].probability == pytest.approx(row.max().item(), abs=1e-6)
    assert own_input(ModelConfig(name="run")).interpolation == interpolation  # for training on from it
    again, _ = other_split(str(root), "test", card, DataConfig())
    assert torch.equal(again.gather(range(len(again)))[0], ours)


@pytest.mark.parametrize("asked", [None, "bicubic", "bilinear"])
def test_both_steps_are_the_same_and_the_setting_overrules(asked, here, capsys):
    """Files are fitted to 16 pixels and enlarged to 32 on the device."""
    root, folder = photos(here / "photos"), vit(here / "vit", 2)
    settings = {"data.source": "photos", "data.image_size": 16, "model.name": str(folder), "model.img_size": SIZE}
    config = load_recipe("vit-base-frozen", {**settings, **({"data.interpolation": asked} if asked else {})})
    config = with_own_input(config, own_input(config.model))
    data = load_splits(config.data)
    _, card = build(config, data)
    expected = asked or "bilinear"
    assert torch.equal(data.test.gather(range(6))[0], all_fitted(root / "test", expected, 16))
    assert (card.interpolation, card.fit_interpolation, card.fit_size) == (expected, expected, 16)
    said, like = capsys.readouterr().err, ", as the weights' own images were"
    size = "32 pixels a side (the weights' own size; a smaller model.img_size costs less)"
    overruled = "resized by bicubic interpolation, as data.interpolation says; the weights' own were by bilinear"
    assert (overruled in said) == (expected == "bicubic")
    assert f"from 16 to {size} by {expected} interpolation{'' if expected == 'bicubic' else like}\n" in said


@pytest.mark.slow
def test_images_have_the_size_that_the_weights_were_made_for(here, capsys):
    """Files too, where nothing else says their size; it is recorded, and another run takes it over."""
    root, folder = photos(here / "photos"), vit(here / "vit", 2)
    words = ["train", "finetune", "--data.source", "photos", "--train.device", "cpu", "--train.batch_size", "4"]
    words += ["--train.debug", "true"]
    assert main([*words, "--model.name", str(folder), "--out", "run"]) == 0
    run = Run.open(here / "run")
    assert run.config().model.img_size == run.read(Environment).model.img_size == SIZE
    assert torch.equal(pixels_of(run), all_fitted(root / "test", "bilinear"))
    capsys.readouterr()
    assert main([*words, "--model.name", "run", "--data.image_size", "24", "--out", "next"]) == 0
    said = capsys.readouterr().err
    assert "24 to 32 pixels a side (the weights' own size; a smaller model.img_size costs less) by bilinear" in said
    assert Run.open(here / "next").config().model.img_size == SIZE
    (folder / "preprocessor_config.json").write_text("{}")  # whose defaults are 224 pixels and a mean of 0.5
    before = read_card(run.path / "model" / "config.json")
    (run.path / "eval.json").unlink()
    shutil.rmtree(run.path / "model")
    assert main([*words, "--model.name", str(folder), "--out", "run", "--resume"]) == 0
    assert read_card(run.path / "model" / "config.json") == before
    assert before.mean == pytest.approx((0.1, 0.2, 0.3))


def test_a_run_goes_on_with_what_was_decided(here, capsys):
    """Whatever the weights' files say by then."""
    root, folder = photos(here / "photos"), vit(here / "vit", 2)
    assert main(words_of(folder)) == 0
    about = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**about, "resample": 3}))
    (here / "run" / "eval.json").unlink()
    assert main(words_of(folder, "--resume", "--data.interpolation", "bicubic")) == 2
    assert "was started with data.interpolation = bilinear, not bicubic" in capsys.readouterr().err
    assert main(words_of(folder, "--resume")) == 0, capsys.readouterr().err
    run = Run.open(here / "run")
    assert torch.equal(pixels_of(run), all_fitted(root / "test", "bilinear"))
    config = run.config()
    assert with_own_input(config, own_input(config.model)) == config  # so that its recipe gives the same again


def test_a_run_of_an_earlier_version_keeps_its_pixels(here, capsys):
    """Its files were fitted by bicubic interpolation, though its weights' own were not, and nothing recorded it."""
    root, folder = photos(here / "photos"), vit(here / "vit", 2)
    assert main([*words_of(folder), "--data.interpolation", "bicubic"]) == 0
    run = Run.open(here / "run")
    text = run.path / "config.toml"
    text.write_text(text.read_text().replace('interpolation = "bicubic"\n', ""))
    for path in run.path.glob("**/manifest.jsonl"):
        path.unlink()
    for path in run.path.glob("**/state.json"):
        path.write_text(path.read_text().replace('"sealed": true', '"sealed": false'))
    for path in run.path.glob("**/config.json"):
        about = json.loads(path.read_text())
        del about["fit_interpolation"]
        path.write_text(json.dumps({**about, "interpolation": "bilinear"}))
    assert run.config().data.interpolation is None

    assert torch.equal(pixels_of(run), all_fitted(root / "test", "bicubic"))
    (run.path / "eval.json").unlink()
    assert main(["train", "run/config.toml", "--out", "run", "--resume"]) == 0, capsys.readouterr().err
    card = read_card(run.path / "model" / "config.json")
    assert card.fit_interpolation == "bicubic"
    path = root / "test" / "dog" / "1.png"
    assert torch.equal(load_image(path, card.fit_size, card.fit_interpolation), fitted(path, "bicubic"))


def test_data_shows_what_training_would_see(here):
    root, folder = photos(here / "photos"), vit(here / "vit", 2)
    settings = {"model.name": str(folder), "data.image_size": SIZE, "train.batch_size": 4}
    found = audit(str(root), settings, recipe="vit-base-frozen", out=here / "a")
    theirs = all_fitted(root / "train", "bilinear").double().div(255)
    assert found.trained_on.mean == pytest.approx(theirs.mean((0, 2, 3)).tolist(), abs=1e-9)
    assert found.trained_on.std == pytest.approx(theirs.std((0, 2, 3), correction=0).tolist(), abs=1e-9)
    assert sum("bilinear interpolation (data.interpolation)" in note for note in found.notes) == 1

    (folder / "preprocessor_config.json").write_text("{")
    unknown = audit(str(root), settings, recipe="vit-base-frozen", out=here / "b")
    assert any("are not known here" in note and "bicubic" in note for note in unknown.notes)
    theirs = all_fitted(root / "train", "bicubic").double().div(255)
    assert unknown.trained_on.std == pytest.approx(theirs.std((0, 2, 3), correction=0).tolist(), abs=1e-9)
    assert main(words_of(folder)) != 0


def test_images_of_the_wanted_size_are_left_alone(here, capsys):
    """Nothing is resized and nothing is said, whatever the weights want."""
    folder = vit(here / "vit", 2)
    for index, split in enumerate(("train", "val", "test")):
        for label, name in enumerate(("cat", "dog")):
            (here / "photos" / split / name).mkdir(parents=True)
            for number in range(4):
                draw = np.random.default_rng(100 * index + 10 * label + number)
                Image.fromarray(draw.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(
                    here / "photos" / split / name / f"{number}.png"
                )
    assert main(words_of(folder)) == 0
    assert "resized" not in capsys.readouterr().err
    files = sorted((here / "photos" / "test").glob("*/*.png"))
    theirs = torch.stack([torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path in files])
    assert torch.equal(pixels_of(Run.open(here / "run")), theirs)
    Image.fromarray(np.zeros((SIZE, SIZE, 3), np.uint8)).save(files[0])
    with pytest.raises(PatchlightError, match="has changed"):
        own_split(Run.open(here / "run"), "test")
