"""Masked autoencoding: what is hidden, what is painted, what it is worth, and what is kept of it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from small import SMALL, make_images, small_config

from patchlight.cli.main import main
from patchlight.config import ModelConfig, config_from_dict
from patchlight.errors import PatchlightError, UsageError
from patchlight.models import ModelCard, ModelSpec, VisionTransformer, load_backbone, load_model
from patchlight.models.mae import MaskedAutoencoder, normalized, patchify, unpatchify
from patchlight.models.resnet import ResNet
from patchlight.runs.records import FORMAT
from patchlight.training import setup
from patchlight.training.tasks import Reconstruction

OPTIONS = {"img_size": 16, "num_classes": 10, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}


def autoencoder(**options) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(VisionTransformer(**OPTIONS, **options), decoder_dim=16, decoder_depth=1, decoder_heads=2)


def test_patches_and_back():
    images = torch.randn(2, 3, 8, 12)
    patches = patchify(images, 4)
    assert patches.shape == (2, 6, 48)
    torch.testing.assert_close(patches[0, 1].view(3, 4, 4), images[0, :, :4, 4:8])  # reading order
    torch.testing.assert_close(unpatchify(patches, 4, (8, 12)), images)


@pytest.mark.parametrize("options", [{}, {"global_pool": "avg"}, {"reg_tokens": 2, "pos_embed": "sincos2d"}])
def test_hidden_patches_are_not_seen(options):
    """Whatever stands in them, the same is painted; a change of what is shown changes it."""
    model = autoencoder(**options).eval()
    images = torch.randn(3, 3, 16, 16)
    painted, hidden = model(images)
    assert painted.shape == (3, 16, 48)
    assert hidden.sum(dim=1).tolist() == [12, 12, 12]
    mask = unpatchify(hidden.unsqueeze(2).expand(-1, -1, 48).float(), 4, (16, 16))
    torch.testing.assert_close(model(images + 5 * mask)[0], painted)
    assert not torch.allclose(model(images + (1 - mask))[0], painted)


def test_the_encoder_sees_all_patches_as_ever():
    """With every patch shown, in reading order, tokens are those of a plain forward pass."""
    model = VisionTransformer(**OPTIONS).eval()
    images = torch.randn(2, 3, 16, 16)
    shown = torch.arange(16).expand(2, -1)
    torch.testing.assert_close(model.encode_visible(images, shown), model.forward_features(images))


def test_the_loss_by_hand():
    model = autoencoder().eval()
    images = torch.randn(2, 3, 16, 16)
    target = normalized(patchify(images, 4))
    assert target.mean(dim=2).abs().max() < 1e-6
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[0, 3] = True
    answer = target.clone()
    answer[0, 3] += 2.0
    answer[1] += 7.0  # shown, so it does not count
    assert model.loss((answer, hidden), images).item() == pytest.approx(4.0)


def test_training_draws_anew_and_evaluation_does_not():
    model = autoencoder()
    images = torch.randn(8, 3, 16, 16)
    assert not torch.equal(model(images)[1], model(images)[1])
    model.eval()
    assert torch.equal(model(images)[1], model(images)[1])


def test_a_convolutional_stem_sees_too_much():
    with pytest.raises(UsageError, match=r"set model\.stem = 'patch'"):
        autoencoder(stem="conv", global_pool="avg")


def test_patches_are_hidden_once():
    with pytest.raises(UsageError, match=r"leave out model\.patch_drop_rate"):
        autoencoder(patch_drop_rate=0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("mae") / "run"
    words = ["train", "mae-cifar10", "--data.source", "digits", *SMALL, "--train.epochs", "4", "--optim.lr", "3e-3"]
    assert main([*words, "--mae.decoder_dim", "32", "--out", str(path)]) == 0
    return path


def test_a_run_learns_and_keeps_its_encoder(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["val/loss"] < rows[0]["val/loss"]
    assert all(row["val/top1"] is None and row["train/top1"] is None for row in rows)
    assert json.loads((run / "reconstruction.json").read_text())["epoch"] == 4
    model, card = load_model(run)
    assert isinstance(model, VisionTransformer)
    assert card.class_names == ()
    found = load_backbone(ModelConfig(name=str(run)), img_size=16, num_classes=7)
    torch.testing.assert_close(found.model.blocks[1].mlp.fc2.weight, model.blocks[1].mlp.fc2.weight)
    assert found.model.head.out_features == 7
    with np.load(run / "reconstructions.npz") as arrays:
        assert arrays["images"].shape == arrays["hidden"].shape == arrays["painted"].shape == (8, 16, 16, 3)
        assert not np.array_equal(arrays["painted"], arrays["hidden"])


def test_a_loss_that_is_no_number_is_never_the_best(tmp_path, monkeypatch):
    loss = MaskedAutoencoder.loss
    monkeypatch.setattr(
        MaskedAutoencoder, "loss", lambda self, *words: loss(self, *words) * (1 if self.training else math.nan)
    )
    model = autoencoder().train()
    card = ModelCard("vit-micro", ModelSpec.from_json("vit-micro", OPTIONS), ("a", "b", "c"), (0.5,) * 3, (0.25,) * 3)
    task = Reconstruction(small_config(train={"task": "reconstruct"}), card, model)
    with pytest.raises(PatchlightError, match=r"no longer finite; lower optim\.lr"):
        task.score(model, make_images(n=8))


def test_its_report(run, capsys):
    page = (run / "report.html").read_text()
    assert "What it reconstructed" in page
    assert "by reconstructing the 75 % of each image" in page.replace("\u202f", " ").replace("\u00a0", " ")
    assert "No test result yet" not in page
    assert (run / "figures" / "painted.png").is_file()
    assert main(["report", str(run)]) == 0


@pytest.mark.parametrize("words", [["eval"], ["explain"], ["predict", "image.png"]])
def test_it_knows_no_classes(run, capsys, words):
    assert main([words[0], str(run), *words[1:]]) == 1
    assert f"{run} learned without labels and knows no classes; train on from it with" in capsys.readouterr().err


def test_its_export(run, tmp_path):
    assert main(["export", str(run), "--format", "timm", "--out", str(tmp_path)]) == 0
    assert "image-feature-extraction" in (tmp_path / "README.md").read_text()


def test_its_export_to_hugging_face(tmp_path, no_charts):
    words = ["train", "mae-cifar10", "--data.source", "digits", *SMALL, "--model.global_pool", "token"]
    words += ["--model.pos_embed", "learn", "--train.debug", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    assert main(["export", str(tmp_path / "run"), "--format", "hf", "--out", str(tmp_path / "out")]) == 0


def test_training_goes_on_from_it(run, tmp_path, no_charts):
    words = ["train", "finetune", "--data.source", "digits", *SMALL[:8], "--model.name", str(run)]
    words += ["--model.img_size", "16", "--train.debug", "--train.device", "cpu", "--out", str(tmp_path / "fine")]
    assert main(words) == 0
    record = json.loads((tmp_path / "fine" / "environment.json").read_text())
    assert record["model"]["weights"]["id"] == str(run)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--augment.mixup_alpha", "0.5"], "leave out augment.mixup_alpha"),
        (["--train.teacher", "x"], "leave out train.teacher"),
        (["--optim.layer_decay", "0.75"], "leave out optim.layer_decay"),
    ],
)
def test_what_does_not_go_together(tmp_path, capsys, words, message):
    start = ["train", "mae-cifar10", "--data.source", "digits", "--train.debug", "--out", str(tmp_path / "run")]
    assert main([*start, *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("validated", [True, False])
def test_the_result_is_of_the_weights_that_are_kept(tmp_path, capsys, validated, no_charts):
    words = ["train", "mae-cifar10", "--data.source", "digits", *SMALL, "--train.epochs", "3", "--train.select", "last"]
    words += ["--optim.lr", "0.5", "--out", str(tmp_path / "run")]  # so much that the last epoch is not the best
    words += [] if validated else ["--data.val_per_class", "none", "--data.val_fraction", "0"]
    assert main(words) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((tmp_path / "run" / "reconstruction.json").read_text())
    assert result == {"format": FORMAT, "val_loss": rows[-1]["val/loss"], "epoch": 3}
    assert ("validation loss" if validated else "kept epoch 3, the last") in capsys.readouterr().out


def test_only_our_vits_paint():
    config = config_from_dict({"model": {"name": "resnet18"}, "train": {"task": "reconstruct"}})
    with pytest.raises(UsageError, match="is for a ViT of `patchlight models`, not for resnet18"):
        setup.autoencoder(ResNet(), config)
