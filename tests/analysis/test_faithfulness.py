"""The faithfulness table on a small trained ViT whose evidence is known."""

from __future__ import annotations

import functools
import json

import pytest
import timm
import torch
import torch.nn.functional as F
from small import make_images
from torch import nn
from vits import images_for, of_timm, ours

from patchlight.analysis.faithfulness import (
    COMPARED,
    MEASURES,
    SHOWN,
    assess,
    classifier_of,
    default_methods,
    least_likely,
    measure_faithfulness,
)
from patchlight.data.sources import load_source
from patchlight.data.sources.planted import CLASSES, evidence, make
from patchlight.errors import PatchlightError, UsageError
from patchlight.explanation.methods import CONTROLS, METHODS, methods_for
from patchlight.explanation.targets import ClassTarget, Difference, similar_to
from patchlight.models import ModelCard, ModelSpec, VisionTransformer
from patchlight.models.anatomy import dissect
from patchlight.models.mae import MaskedAutoencoder
from patchlight.runs import MIN_IMAGES, Faithfulness
from patchlight.runs.faithfulness import CONTROLS as RECORDED_CONTROLS


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
    pixels = torch.from_numpy(make("test")[0][:24]) / 64 - 2
    where = torch.from_numpy(evidence("test", (4, 4))[:24])
    assert (trained(pixels).argmax(1) == torch.arange(24) % CLASSES).float().mean() > 0.95
    return assess(dissect(trained), pixels, torch.full((3,), -2.0), where=where)


def test_every_method_has_every_measure(table):
    assert [row.method for row in table.rows] == list(METHODS)
    assert [row.method for row in table.controls] == list(CONTROLS) == list(RECORDED_CONTROLS)
    assert Faithfulness.from_json(json.loads(json.dumps(table.to_json(), allow_nan=False))) == table
    assert table.target == "the predicted class"
    for row in table.rows:
        assert set(row.scores) == set(MEASURES)
        assert row.ms > 0
        for score in row.scores.values():
            assert score.low <= score.mean <= score.high
    assert {row.scores["pointing"].images for row in table.rows} == {20}  # those of the last class have no mark
    assert {row.scores["infidelity"].images for row in table.rows} == {None}


def test_what_is_tested_against_the_controls(table):
    for row in table.methods:
        for key, score in row.scores.items():
            assert (score.against is not None) == (key in COMPARED)
            if score.against is not None:
                assert set(score.against) == set(CONTROLS)
                for control, against in score.against.items():
                    other = next(each for each in table.controls if each.method == control).scores[key]
                    assert against.difference == pytest.approx(score.mean - other.mean)
    for name in ("occlusion", "integrated-gradients"):
        row = next(row for row in table.methods if row.method == name)
        assert not any(score.fails for score in row.scores.values())
    assert all(score.against is None for row in table.controls for score in row.scores.values())
    assert "for the 12 methods by Holm" in str(table.tested)
    assert set(COMPARED) == set(MEASURES) - {"sensitivity", "randomized", "other class"}


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
    twice = assess(dissect(trained), pixels, torch.full((3,), -2.0), methods=["centre", "rollout", "rollout", "random"])
    assert [row.method for row in twice.methods] == ["rollout"]
    assert {row.method for row in twice.controls} == set(CONTROLS)


def test_a_row_is_a_method_with_its_options(trained):
    pixels, black = torch.from_numpy(make("test")[0][:4]) / 64 - 2, torch.full((3,), -2.0)
    words = ["rollout", "rollout:heads=max,discard=0.9", "rollout: heads = max, discard = 0.9"]
    found = assess(dissect(trained), pixels, black, methods=words)
    assert [row.method for row in found.methods] == words[:2]
    plain, other = found.methods
    assert plain.scores["infidelity"].mean != other.scores["infidelity"].mean
    with pytest.raises(UsageError, match="rollout has no option 'head'; did you mean 'heads'"):
        assess(dissect(trained), pixels, black, methods=["rollout:head=max"])
    with pytest.raises(UsageError, match="no method 'roll'"):
        assess(dissect(trained), pixels, black, methods=["roll"])


@pytest.mark.slow
def test_of_few_images_there_are_means_alone(trained):
    pixels = torch.from_numpy(make("test")[0][:MIN_IMAGES]) / 64 - 2
    anatomy, black = dissect(trained), torch.full((3,), -2.0)
    few = assess(anatomy, pixels[:-1], black, methods=["rollout"])
    assert few.tested is None
    assert all(score.low is None and score.against is None for row in few.rows for score in row.scores.values())
    enough = assess(anatomy, pixels, black, methods=["rollout"])
    assert enough.tested is not None
    assert not enough.rows[0].scores["deletion mean"].fails
    assert enough.rows[0].scores["deletion mean"].low is not None


@pytest.mark.slow
def test_a_table_may_be_about_a_class(trained):
    """Of images of mark 1, for mark 1 and for mark 3: evidence for the one, and none for the other."""
    pixels, labels, _ = (torch.from_numpy(part) for part in make("test"))
    images = pixels[labels == 1][:8] / 64 - 2
    options = {"methods": ["occlusion"], "black": torch.full((3,), -2.0)}
    anatomy = dissect(trained)
    own, other = (
        assess(anatomy, images, target=ClassTarget(torch.full((8,), c)), about=f"mark {c}", **options) for c in (1, 3)
    )
    assert (own.target, other.target) == ("mark 1", "mark 3")
    assert score(own, "occlusion", "insertion mean") > 0.8
    assert score(other, "occlusion", "insertion mean") < 0.2
    assert score(own, "occlusion", "negative") > 0.8
    assert score(other, "occlusion", "positive") < 0.1
    as_predicted = assess(anatomy, images, **options)
    for key, value in own.rows[0].scores.items():
        assert as_predicted.rows[0].scores[key] == value


def test_the_other_class_is_the_least_likely_one_but_the_target():
    logits = torch.tensor([[3.0, 1.0, -1.0], [3.0, 1.0, -1.0], [0.0, 0.0, 5.0]])
    found = least_likely(ClassTarget(torch.tensor([0, 2, 0])), logits)
    assert isinstance(found, ClassTarget)
    assert found.indices.tolist() == [2, 1, 1]
    assert least_likely(ClassTarget(torch.zeros(3, dtype=torch.long)), logits[:, :1]) is None
    assert least_likely(Difference(torch.tensor([0]), torch.tensor([1])), logits[:1]) is None


OF_CLASSES = {"positive", "negative", "other class", "pointing"}


def test_a_table_about_two_classes_has_no_right_answers():
    images = images_for("").float()
    target = Difference(torch.tensor([0, 1, 2]), torch.tensor([3, 3, 3]))
    methods = ["gradcam", "chefer", "occlusion"]
    found = assess(dissect(ours().float()), images, torch.zeros(3), methods=methods, target=target, about="0, not 3")
    assert set(found.measures) == set(MEASURES) - OF_CLASSES
    assert found.target == "0, not 3"
    json.dumps(found.to_json(), allow_nan=False)


def test_a_table_about_likeness_of_a_model_without_a_head():
    images, model = images_for("").float(), of_timm(num_classes=0).float()
    with pytest.raises(UsageError, match="the model has no head"):
        assess(dissect(model), images, torch.zeros(3), methods=["gradcam"])
    target = similar_to(model, images.flip(0))
    found = assess(dissect(model), images, torch.zeros(3), methods=["gradcam", "rollout", "occlusion"], target=target)
    assert set(found.measures) == set(MEASURES) - OF_CLASSES
    assert found.target == "a similarity"
    json.dumps(found.to_json(), allow_nan=False)


class SmallCnn(nn.Sequential):
    """A convolutional network of nobody's library, with batch norm."""

    def __init__(self, num_classes: int = 4) -> None:
        layers: list[nn.Module] = []
        for width, out in ((3, 8), (8, 12), (12, 16)):
            layers += [nn.Conv2d(width, out, 3, stride=2, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes))


@pytest.mark.parametrize("make", [SmallCnn, lambda: timm.create_model("convnext_atto", num_classes=4)])
def test_a_network_without_attention_has_the_same_table(make):
    """But for tokens, which it does not have. Numbers are finite though a random network's batch statistics would not
    be those of the trained one, and the model is given back as it was.
    """
    torch.manual_seed(0)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(1e-6)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = assess(dissect(model.train()), images, torch.zeros(3), methods=["gradcam", "layercam"])
    assert set(found.measures) == set(MEASURES) - {"deletion tokens", "insertion tokens", "pointing"}
    json.dumps(found.to_json(), allow_nan=False)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(PatchlightError, match="chefer reads attention"):
        assess(dissect(model), images, torch.zeros(3), methods=["chefer"])


def test_all_methods_are_those_that_the_network_has():
    torch.manual_seed(0)
    anatomy = dissect(SmallCnn())
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = assess(anatomy, images, torch.zeros(3))
    assert [row.method for row in found.rows] == methods_for(anatomy)
    assert default_methods(anatomy) == ["gradcam"]
    assert default_methods(dissect(ours())) == list(SHOWN)


def card_for(size: int, names: tuple[str, ...]) -> ModelCard:
    spec = ModelSpec.from_json("resnet18", {"img_size": size, "num_classes": len(names)})
    return ModelCard("resnet18", spec, names, (0.5,) * 3, (0.25,) * 3)


@pytest.mark.slow
def test_planted_evidence_is_known_for_a_convolutional_network():
    """In its cells, which are as large as marks here, and for a class only where the mark is the class's."""
    torch.manual_seed(0)
    images = load_source("planted")["test"]
    measure = functools.partial(
        measure_faithfulness, SmallCnn(CLASSES).eval(), card_for(32, images.class_names), images, "planted", count=24
    )
    found = measure()
    assert found is not None
    assert [row.method for row in found.methods] == ["gradcam"]
    assert found.data == "planted"
    known = found.rows[0].scores["pointing"].images
    assert known is not None
    assert 14 < known < 24
    of_one = measure(target=2)
    assert of_one is not None
    assert of_one.target == "the class 'mark 2'"
    fewer = of_one.rows[0].scores["pointing"].images
    assert fewer is not None
    assert 0 < fewer < 10
    none = measure(target=5)
    assert none is not None
    assert "pointing" not in none.measures  # the last class has no mark


class Steep(nn.Module):
    """A root, whose slope at black is no number."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(images.abs().mean(dim=(2, 3)).sqrt())


def test_maps_that_are_not_finite_are_refused():
    with pytest.raises(PatchlightError, match="maps of integrated-gradients are NaN or infinite for some images"):
        assess(dissect(Steep()), torch.zeros(2, 3, 16, 16), torch.zeros(3), methods=["integrated-gradients"])


def test_what_cannot_be_measured_is_none():
    """A network that sees one patch, or gives no classes."""
    images = make_images(n=4, size=16)
    names = {"img_size": 16, "patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 2, "num_classes": 3}
    card = ModelCard("vit-micro", ModelSpec.from_json("vit-micro", names), images.class_names, (0.5,) * 3, (0.25,) * 3)
    model = VisionTransformer(**names).eval()
    assert measure_faithfulness(model, card, images, "digits") is None
    with pytest.raises(PatchlightError, match="the model sees images of 16 x 16 pixels as 1 patch"):
        assess(dissect(model), torch.zeros(2, 3, 16, 16), torch.zeros(3), methods=["occlusion"])
    assert measure_faithfulness(of_timm(num_classes=0).float(), card, images, "digits") is None
    encoder = VisionTransformer(**names)
    assert classifier_of(MaskedAutoencoder(encoder)) is None


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
