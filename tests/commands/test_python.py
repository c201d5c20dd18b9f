"""What Python users import: the exported names, and each verb called once."""

from __future__ import annotations

import json

import pytest
from pictures import picture
from small import small_config

import patchlight

# What `import patchlight` offers. A name that comes or goes is a change of the public interface.
EXPORTED = [
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


def test_each_verb_from_python(tmp_path, monkeypatch, no_charts):
    """One run, and everything that a Python user does with it."""
    monkeypatch.chdir(tmp_path)
    run = patchlight.train(small_config(), {"train.epochs": 1, "explain.faithfulness": 0}, out=tmp_path / "run")
    assert run.config().train.epochs == 1
    result = patchlight.evaluate(run)
    assert result.n == 50
    assert result.to_json() == json.loads((run.path / "eval.json").read_text())
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
