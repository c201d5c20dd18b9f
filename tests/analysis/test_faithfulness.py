"""The faithfulness table on a small trained ViT whose evidence is known."""

from __future__ import annotations

import json

import pytest
import timm
import torch
import torch.nn.functional as F

from patchlight.analysis.faithfulness import MEASURES, assess, interval
from patchlight.data.sources.planted import CLASSES, evidence, make
from patchlight.explanation.methods import CONTROLS, METHODS
from patchlight.models import VisionTransformer
from patchlight.models.anatomy import dissect
from patchlight.runs import Faithfulness, Interval


@pytest.fixture(scope="module")
def trained() -> VisionTransformer:
    """A ViT that finds the planted marks, after 200 steps."""
    torch.manual_seed(0)
    model = VisionTransformer(embed_dim=48, depth=2, num_heads=2, mlp_ratio=2.0, num_classes=CLASSES)
    pixels, labels, _ = (torch.from_numpy(part) for part in make("train"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(200):
        rows = torch.arange(step * 64, step * 64 + 64) % len(pixels)
        loss = F.cross_entropy(model(pixels[rows] / 64 - 2), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def table(trained):
    pixels = torch.from_numpy(make("test")[0][:32]) / 64 - 2
    where = torch.from_numpy(evidence("test", (4, 4))[:32])
    assert (trained(pixels).argmax(1) == torch.arange(32) % CLASSES).float().mean() > 0.95
    return assess(dissect(trained), pixels, torch.full((3,), -2.0), where=where)


def test_every_method_has_every_measure(table):
    assert [row.method for row in table.rows] == list(METHODS)
    assert Faithfulness.from_json(json.loads(json.dumps(table.to_json(), allow_nan=False))) == table
    for row in table.rows:
        assert set(row.scores) == set(MEASURES)
        assert row.ms > 0
        for score in row.scores.values():
            assert score.low <= score.mean <= score.high


def score(table, method: str, measure: str) -> float:
    row = next(row for row in table.rows if row.method == method)
    return row.scores[measure].mean


@pytest.mark.parametrize(
    ("method", "hits"), [("occlusion", 0.95), ("integrated-gradients", 0.95), ("rollout", 0.95), ("chefer", 0.4)]
)
def test_methods_find_the_mark_and_controls_do_not(table, method, hits):
    assert score(table, method, "pointing") > hits
    for control in CONTROLS:
        assert score(table, control, "pointing") < 0.2
        assert score(table, method, "deletion mean") < score(table, control, "deletion mean")
        assert score(table, method, "insertion tokens") > score(table, control, "insertion tokens")
        assert score(table, method, "positive") < score(table, control, "positive")


def test_what_is_blind_is_blind(table):
    for name, method in METHODS.items():
        assert (score(table, name, "other class") == pytest.approx(1)) == (not method.by_class)
    for control in CONTROLS:
        assert score(table, control, "randomized") == pytest.approx(1)  # they do not look at the model
        assert score(table, control, "pointing") < 0.2
    assert score(table, "centre", "sensitivity") == 0
    assert score(table, "occlusion", "infidelity") < score(table, "random", "infidelity")


def test_controls_come_with_any_choice(trained):
    pixels = torch.from_numpy(make("test")[0][:4]) / 64 - 2
    found = assess(dissect(trained), pixels, torch.full((3,), -2.0), methods=["rollout"])
    assert [row.method for row in found.rows] == ["rollout", *CONTROLS]
    assert "pointing" not in found.rows[0].scores


def test_an_interval_covers_the_mean_of_a_normal_sample():
    """Its width is nearly 2 * 1.96 standard errors."""
    sample = torch.randn(400, generator=torch.Generator().manual_seed(0)) + 3
    found = interval([sample[:100], sample[100:]])
    assert found.mean == pytest.approx(sample.double().mean().item())
    assert found.high - found.low == pytest.approx(2 * 1.96 * sample.std().item() / 20, rel=0.1)
    assert interval([torch.ones(5)]) == Interval(mean=1.0, low=1.0, high=1.0)


def test_models_with_relative_positions_keep_their_tokens():
    """Rotations and biases are of the whole grid, so no token can be dropped; everything else is measured."""
    torch.manual_seed(0)
    shape = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
    for model in (
        timm.models.eva.Eva(**shape, use_rot_pos_emb=True, mlp_ratio=2),
        timm.models.beit.Beit(**shape, use_rel_pos_bias=True, mlp_ratio=2),
    ):
        found = assess(dissect(model.eval()), torch.randn(2, 3, 16, 16), torch.zeros(3), methods=["attention"])
        measures = set(found.rows[0].scores)
        assert measures == set(MEASURES) - {"deletion tokens", "insertion tokens", "pointing"}
