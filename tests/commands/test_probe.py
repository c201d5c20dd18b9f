"""Features before the head, a linear probe and nearest neighbours, on all kinds of models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from saved import SAVED
from small import SMALL

from patchlight.cli.main import main
from patchlight.commands.probe import linear_probe, nearest_neighbours
from patchlight.config import ModelConfig
from patchlight.errors import PatchlightError
from patchlight.evaluation.features import without_head
from patchlight.models import load_backbone

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["vit-micro", "vit-hybrid", "resnet18", "timm", "huggingface"])
def test_features_are_what_the_head_reads(kind, tmp_path):
    name = str(SAVED[kind](tmp_path)) if kind in SAVED else kind
    model = load_backbone(ModelConfig(name=name), img_size=32, num_classes=5).model.eval()
    logits = model(IMAGES)
    head = next(module for module in reversed(list(model.modules())) if getattr(module, "out_features", 0) == 5)
    with without_head(model):
        features = model(IMAGES)
    torch.testing.assert_close(head(features), logits)
    torch.testing.assert_close(model(IMAGES), logits)


def test_a_model_with_two_heads():
    with pytest.raises(PatchlightError, match="has 0 linear heads"), without_head(torch.nn.Conv2d(3, 3, 1)):
        pass


def clouds(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return (draw.normal(size=(count, 4)) + 6 * np.eye(3, 4)[labels]).astype(np.float32), labels


@pytest.mark.parametrize("probe", [linear_probe, nearest_neighbours])
def test_what_can_be_told_apart_is_told_apart(probe):
    parts = {"train": clouds(0, 90), "val": clouds(1, 30), "test": clouds(2, 60)}
    found = probe({k: v[0] for k, v in parts.items()}, {k: v[1] for k, v in parts.items()})
    assert found.n == 60
    assert found.top1 > 0.9
    shuffled = {k: v[1] if k != "test" else np.roll(v[1], 1) for k, v in parts.items()}
    assert probe({k: v[0] for k, v in parts.items()}, shuffled).top1 < 0.2


def test_fewer_images_than_neighbours():
    parts = {"train": clouds(0, 3), "val": clouds(1, 30), "test": clouds(2, 60)}
    found = nearest_neighbours({k: v[0] for k, v in parts.items()}, {k: v[1] for k, v in parts.items()})
    assert found.k == 3


def test_the_command(capsys, tmp_path):
    folder = SAVED["timm"](tmp_path / "weights")
    words = ["probe", "finetune", "--data.source", "digits", *SMALL[:8], "--model.name", str(folder)]
    words += ["--model.img_size", "16", "--train.device", "cpu"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "24 features of" in text
    assert "nearest neighbours" in text
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["linear"]["n"] == found["knn"]["n"] == 60
    assert {"C", "val_top1", "top1", "top1_ci95", "n", "seconds"} <= set(found["linear"])
    assert found["knn"]["k"] in (5, 10, 20)
    assert found["weights"]["library"].startswith("timm")
    assert main([*words, "--data.val_per_class", "0", "--data.val_fraction", "0"]) != 0
    assert main([*words, "--train.task", "reconstruct"]) == 2
    assert "trains no features to probe" in capsys.readouterr().err
