"""Exports are read by the libraries that they are for and answer as the run does; pushing up to the wire."""

from __future__ import annotations

import dataclasses
import json
import shutil

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import transformers
from saved import SAVED
from small import SMALL
from undrawn import undrawn

from patchlight.cli.main import main
from patchlight.commands.export import FORMATS, export, model_card
from patchlight.commands.push import push
from patchlight.models import load_model
from patchlight.runs import Run, Weights


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of ours, of a timm model and of a Hugging Face model."""
    root = tmp_path_factory.mktemp("export")
    with undrawn():
        assert main(["train", "quickstart", *SMALL, "--model.global_pool", "token", "--out", str(root / "ours")]) == 0
        data = [
            *SMALL[:8],
            "--train.debug",
            "--data.source",
            "digits",
            "--train.device",
            "cpu",
            "--model.img_size",
            "16",
        ]
        for kind, save in SAVED.items():
            words = ["train", "finetune", *data, "--model.name", str(save(root / f"weights-{kind}"))]
            assert main([*words, "--out", str(root / kind)]) == 0
    return root


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["ours", "timm", "huggingface"])
def test_every_format_of_every_kind(runs, tmp_path, kind, format):
    found = export(runs / kind, format, out=tmp_path)
    assert found.max_difference < 1e-4
    assert "README.md" in found.files
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("---\n")
    assert "model-index" in text
    assert "95 % interval" in text
    if format == "timm":  # whose registry has a tag and a licence for weights of its own
        assert not {"tag", "license"} & set(json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"])


def test_what_was_written_is_theirs(runs, tmp_path, capsys):
    model, card = load_model(runs / "ours")
    images = torch.randn(2, 3, 16, 16)
    expected = model(images)
    for format in ("timm", "hf", "onnx"):
        assert main(["export", str(runs / "ours"), "--format", format, "--out", str(tmp_path / format)]) == 0
        assert "logits differ from the run's by" in capsys.readouterr().out
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    torch.testing.assert_close(theirs(images), expected, atol=1e-5, rtol=1e-5)
    assert theirs.pretrained_cfg["mean"] == pytest.approx(card.mean)
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "hf").eval()
    torch.testing.assert_close(theirs(images).logits, expected, atol=1e-5, rtol=1e-5)
    assert list(theirs.config.id2label.values()) == list(card.class_names)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf")
    assert processor.image_mean == pytest.approx(card.mean)
    import onnx
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)
    for batch in (1, 5):
        logits = session.run(["logits"], {"pixels": pixels[:batch]})[0]
        ours = model(card.to_input(torch.from_numpy(pixels[:batch]))).detach().numpy()
        np.testing.assert_allclose(logits, ours, atol=1e-4)
    props = {p.key: p.value for p in onnx.load(tmp_path / "onnx" / "model.onnx").metadata_props}
    assert json.loads(props["labels"]) == list(card.class_names)


def test_a_model_that_a_format_does_not_have(runs, tmp_path, capsys, no_charts):
    path = tmp_path / "conv"
    assert main(["train", "quickstart", *SMALL, "--model.stem", "conv", "--out", str(path)]) == 0
    assert main(["export", str(path), "--format", "timm"]) == 1
    assert "timm's ViT has no convolutional stem; export to safetensors or onnx" in capsys.readouterr().err
    assert main(["export", str(path), "--format", "onnx"]) == 0


def test_a_push_is_a_repository_and_a_folder(runs, monkeypatch):
    from huggingface_hub import HfApi

    calls = []
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo, **options: calls.append((repo, options)))

    def upload(self, *, repo_id, folder_path, commit_message):
        calls.append((repo_id, sorted(p.name for p in __import__("pathlib").Path(folder_path).iterdir())))

    monkeypatch.setattr(HfApi, "upload_folder", upload)
    found = push(runs / "ours", "me/digits", format="timm", private=True)
    assert found.url == "https://huggingface.co/me/digits"
    assert calls == [
        ("me/digits", {"private": True, "exist_ok": True}),
        ("me/digits", ["README.md", "config.json", "model.safetensors"]),
    ]


def test_a_push_without_a_network(runs, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    assert main(["push", str(runs / "ours"), "me/digits", "--format", "safetensors"]) == 1
    assert "the hub cannot be reached" in capsys.readouterr().err


def test_files_of_others_stay(runs, tmp_path, capsys):
    (tmp_path / "README.md").write_text("mine")
    words = ["export", str(runs / "ours"), "--out", str(tmp_path)]
    assert main(words) == 2
    assert "holds other files; choose an empty folder with --out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    (tmp_path / "README.md").unlink()
    assert main(words) == main(words) == 0  # an export may be made again


def test_a_refused_push(runs, monkeypatch, capsys):
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError

    def refused(self, *args, **options):
        raise LocalTokenNotFoundError("Token is required")

    monkeypatch.setattr(HfApi, "create_repo", refused)
    assert main(["push", str(runs / "ours"), "me/digits"]) == 1
    assert "the hub refused me/digits: Token is required; `hf auth login` logs in" in capsys.readouterr().err
    assert main(["push", str(runs / "ours"), "digits"]) == 2
    assert "a repository is OWNER/NAME, not 'digits'" in capsys.readouterr().err


def test_an_unfinished_run(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs / "ours", copy)
    (copy / "eval.json").unlink()
    (copy / "samples.npz").unlink()
    export(copy, "safetensors")
    assert "It was not measured on test images" in (copy / "export" / "safetensors" / "README.md").read_text()


def test_a_card_names_the_data_and_the_weights_that_it_began_with(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs / "ours", copy)
    environment = json.loads((copy / "environment.json").read_text())
    environment["data"]["path"] = "/home/me/pets"
    (copy / "environment.json").write_text(json.dumps(environment))
    (copy / "manifest.jsonl").unlink()
    _, card = load_model(copy)
    first = Weights(library="timm", id="vit_tiny.augreg", commit="abc")
    for source, base in (
        (Weights(library="timm", id="hf-hub:owner/name", commit="abc"), "owner/name"),
        (first, "timm/vit_tiny.augreg"),
        (Weights(library="patchlight", id=str(copy), began_with=first), "timm/vit_tiny.augreg"),
    ):
        text = model_card(Run(copy), dataclasses.replace(card, source=source), "timm")
        name = "copy" if source.began_with else source.id
        assert f"Training began with the weights of `{name}`." in text
        about = huggingface_hub.ModelCard(text).data
        assert about.base_model == base
        assert about.eval_results[0].dataset_name == "pets"
        assert "/home" not in text
    assert str(tmp_path) not in text
    assert "enlarged" not in text
    drawn = dataclasses.replace(card, source=Weights(library="timm", id="vit_tiny", commit="abc", pretrained=False))
    assert "began with" not in model_card(Run(copy), drawn, "timm")
    assert "base_model" not in model_card(Run(copy), drawn, "timm")
    enlarged = dataclasses.replace(card, data_size=8)
    assert "trained on images of 8 x 8 pixels, enlarged" in model_card(Run(copy), enlarged, "timm")
