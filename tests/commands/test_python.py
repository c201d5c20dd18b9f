"""What Python users import: the exported names, and each verb called once."""

from __future__ import annotations

import json

import pytest
from pictures import picture
from PIL import Image
from small import small_config

import patchlight
from patchlight.runs import Environment

# What `import patchlight` offers. A name that comes or goes is a change of the public interface.
EXPORTED = [
    *("study", "sweep"),
    *("train", "evaluate", "predict", "explain", "probe", "export", "push", "compare", "audit", "doctor", "report"),
    *("Config", "load_recipe", "recipe_names", "recipes", "Run", "PatchlightError", "UsageError"),
    *("ImageSet", "load_source", "load_splits", "MODELS", "METHODS", "VisionTransformer", "create_model"),
    *("load_model", "save_model", "record_attention", "__version__"),
]


def test_the_exported_names():
    assert sorted(patchlight.__all__) == sorted(EXPORTED)
    assert set(EXPORTED) <= set(dir(patchlight))
    assert all(getattr(patchlight, name) is not None for name in EXPORTED)
    with pytest.raises(AttributeError, match="no attribute 'bogus'"):
        _ = patchlight.bogus


@pytest.mark.slow
def test_each_verb_from_python(tmp_path, monkeypatch, no_charts):
    """One run, and everything that a Python user does with it."""
    monkeypatch.chdir(tmp_path)
    run = patchlight.train(small_config(), {"train.epochs": 1, "explain.faithfulness": 0}, out=tmp_path / "run")
    assert run.config().train.epochs == 1
    result = patchlight.evaluate(run)
    assert result.n == 50
    recorded = json.loads((run.path / "eval.json").read_text())
    assert result.to_json() == {key: own for key, own in recorded.items() if key != "without_copies"}
    picture(tmp_path / "photo.png")
    (prediction,) = patchlight.predict(run, ["photo.png"], top=2)
    assert [type(each.name) for each in prediction.classes] == [str, str]
    assert patchlight.compare([run, str(run.path)]).runs[0].top1 == result.top1
    assert patchlight.export(run).max_difference < 1e-4
    uploads = []
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda self, repository, **options: None)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda self, **options: uploads.append(options))
    assert patchlight.push(run, "me/digits", format="safetensors").url == "https://huggingface.co/me/digits"
    assert uploads[0]["repo_id"] == "me/digits"
    assert patchlight.probe(run.config()).linear.n == 50
    assert patchlight.report(run).name == "report.html"
    assert patchlight.audit("digits", {"data.image_size": 16}, out="previews")
    assert patchlight.doctor(device="cpu")
    model, card = patchlight.load_model(run.path)
    images = card.to_input(patchlight.load_splits(run.config().data).test.images[:2])
    assert patchlight.explain(model, images).maps.shape[0] == 2
    explained = patchlight.explain(run, ["photo.png"], out="maps")
    assert [image.image for image in explained.images] == ["photo.png"]


def small_digits(count: int = 120):
    """Arrays (N, 8, 8) of 0..1 and labels (N,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images[:count] / 16).astype("float32"), digits.target[:count]


SMALL = {
    **{"data.image_size": 16, "model.depth": 1, "model.embed_dim": 24, "model.num_heads": 2, "train.device": "cpu"},
    **{"train.epochs": 2, "train.batch_size": 16, "explain.faithfulness": 0, "explain.snapshots_every": 0},
}


def test_images_that_are_given_are_trained_and_measured_on(tmp_path, no_charts):
    images, labels = small_digits()
    seen = []
    run = patchlight.train("quickstart", SMALL, out=tmp_path / "run", data=(images, labels), on_epoch=seen.append)
    assert [row.epoch for row in seen] == [1, 2]
    assert seen[-1].val_top1 is not None
    recorded = run.result()
    assert (recorded.data, recorded.n) == ("python", 25)
    assert any(note.startswith("data has no test split: 25") for note in run.read(Environment).data.notes)
    again = patchlight.evaluate(run, data=(images, labels), device="cpu")
    assert (again.top1, again.n, again.split) == (recorded.top1, 25, "test")  # its own test images, and no others
    with pytest.raises(patchlight.PatchlightError, match="are not stored"):
        patchlight.evaluate(run)
    others = patchlight.evaluate(run, data=(images[:30], labels[:30]), device="cpu")
    assert (others.n, others.split) == (30, "all")
    command = patchlight.Run(run.path).path / "environment.json"
    assert "--data.source python" in command.read_text()


def test_a_run_on_given_images_goes_on_with_the_same_alone(tmp_path, no_charts):
    images, labels = small_digits()

    def stop(row):
        if row.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        patchlight.train("quickstart", SMALL, out=tmp_path / "cut", data=(images, labels), on_epoch=stop)
    with pytest.raises(patchlight.PatchlightError, match="changed"):
        patchlight.train("quickstart", SMALL, out=tmp_path / "cut", data=(1 - images, labels), resume=True)
    cut = patchlight.train("quickstart", SMALL, out=tmp_path / "cut", data=(images, labels), resume=True)
    whole = patchlight.train("quickstart", SMALL, out=tmp_path / "whole", data=(images, labels))
    assert cut.result().loss == whole.result().loss


@pytest.mark.slow
def test_data_of_torchvision_and_datasets_train_alike(tmp_path, no_charts):
    import datasets
    import torchvision

    images, labels = small_digits(60)
    root = tmp_path / "digits"
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255).round().astype("uint8")).save(root / str(label) / f"{index:03}.png")
    theirs = torchvision.datasets.ImageFolder(str(root))
    hub = datasets.Dataset.from_dict(
        {"image": [theirs[i][0] for i in range(len(theirs))], "label": [theirs[i][1] for i in range(len(theirs))]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=theirs.classes)}),
    )
    runs = [
        patchlight.train("quickstart", {**SMALL, "data.source": str(root)}, out=tmp_path / "folder"),
        patchlight.train("quickstart", SMALL, out=tmp_path / "torch", data=theirs),
        patchlight.train("quickstart", SMALL, out=tmp_path / "hub", data=hub),
    ]
    assert len({run.result().loss for run in runs}) == 1


def test_words_that_mean_nothing_are_one_sentence(tmp_path, no_charts):
    images, labels = small_digits()
    run = patchlight.train("quickstart", SMALL, out=tmp_path / "run", data=(images, labels))
    for words, message in (
        ({"split": "validation"}, "there is no split 'validation'; known: subset_test, test, train, val"),
        ({"device": "gpu"}, "the device 'gpu' is none; "),
    ):
        with pytest.raises(patchlight.UsageError, match=message):
            patchlight.evaluate(run, data=(images, labels), **words)
    others = (1 - images[:30], labels[:30])
    with pytest.raises(patchlight.PatchlightError, match="has no 'val' split, but train; choose another with --split"):
        patchlight.evaluate(run, data=others, split="val", device="cpu")
    alone = patchlight.evaluate(run, data={"test": others}, device="cpu")
    assert (alone.n, alone.split, alone.copies_of_training) == (30, "test", None)
    for keywords, message in (
        ({"data": (images, labels), "on_epoch": 5}, "on_epoch must be a function"),
        ({"data": (images, labels), "settings": {"data.source": "digits"}}, "both say what to train on"),
    ):
        with pytest.raises(patchlight.UsageError, match=message):
            patchlight.train("quickstart", out=tmp_path / "other", **keywords)
    assert not (tmp_path / "other").exists()
    readme = (run.path / "README.md").read_text(encoding="utf-8")
    assert "patchlight.train(" in readme
    assert "--data.source python" not in readme
    path = picture(tmp_path / "a.png")
    assert len(patchlight.predict(run, str(path), device="cpu")) == 1
    with pytest.raises(patchlight.UsageError, match="compare takes a list of runs"):
        patchlight.compare(str(run.path))
