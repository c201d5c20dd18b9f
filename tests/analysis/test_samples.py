"""What the page shows of single images: which they are, and whose maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import make_images, small_config, small_splits
from vits import stirred

from patchlight.analysis.insight import collect_insight
from patchlight.analysis.samples import collect_samples, right_by_class
from patchlight.config import DEFAULT_METHOD
from patchlight.evaluation.evaluate import predict_logits
from patchlight.explanation.methods import explain
from patchlight.models.anatomy import dissect
from patchlight.runs import Insight
from patchlight.runs.codec import RecordError
from patchlight.training.setup import build

IMAGES = make_images(n=60, seed=4)


@pytest.fixture(scope="module")
def found():
    model, card = build(small_config(), small_splits())
    model = stirred(model).float()
    logits = predict_logits(model, card, IMAGES)
    return model, card, logits, collect_samples(model, card, IMAGES, logits, 6)


def test_the_surest_mistakes_come_first_then_right_answers_class_by_class(found):
    _, _, logits, samples = found
    labels, preds = IMAGES.labels.numpy(), logits.argmax(1)
    sure = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).max(axis=1)
    wrong = samples.kind == "wrong"
    assert wrong.tolist() == [True] * 6 + [False] * (len(wrong) - 6)
    np.testing.assert_allclose(samples.probs[wrong].max(1), np.sort(sure[preds != labels])[::-1][:6], rtol=1e-4)
    assert (samples.probs[wrong].argmax(1) != samples.labels[wrong]).all()
    assert (samples.probs[~wrong].argmax(1) == samples.labels[~wrong]).all()
    pixels = {image.numpy().tobytes(): label for image, label in zip(IMAGES.images, labels, strict=True)}
    for image, label in zip(samples.images, samples.labels, strict=True):
        assert pixels[image.transpose(2, 0, 1).tobytes()] == label


def test_right_answers_come_from_each_class_in_turn():
    labels = np.array([0] * 5 + [1] * 2 + [2] * 4)
    probs = np.eye(3)[labels]
    probs[0] = [0, 1, 0]  # wrong
    chosen = right_by_class(probs, labels, 8)
    assert 0 not in chosen
    assert len(set(chosen.tolist())) == 8
    assert labels[chosen].tolist() == [0, 1, 2, 0, 1, 2, 0, 2]
    many = np.arange(400) % 100
    assert many[right_by_class(np.eye(100)[many], many, 4)].tolist() == [0, 33, 66, 99]
    assert right_by_class(np.eye(100)[many], many, 0).tolist() == []


def test_relevance_is_of_the_predicted_and_of_the_true_class(found):
    model, card, _, samples = found
    insight = collect_insight(model, card, samples)
    assert insight is not None
    inputs = card.to_input(torch.from_numpy(samples.images).permute(0, 3, 1, 2))
    for place, target in enumerate((samples.probs.argmax(1), samples.labels)):
        maps = explain(dissect(model), inputs, method=DEFAULT_METHOD, target=torch.from_numpy(target)).maps
        np.testing.assert_allclose(insight.relevance[:, place], maps, rtol=1e-4, atol=1e-6)
    wrong = samples.kind == "wrong"
    assert not np.allclose(insight.relevance[wrong, 0], insight.relevance[wrong, 1])


def test_attention_that_is_too_much_for_a_page_is_the_mean_of_the_heads(found, monkeypatch):
    model, card, _, samples = found
    whole = collect_insight(model, card, samples)
    monkeypatch.setattr("patchlight.analysis.insight.MOST_BYTES", whole.attention[0].size)
    insight = collect_insight(model, card, samples)
    layers, heads = insight.distance.shape
    assert heads > 1
    assert insight.attention.shape[1:3] == (layers, 1)
    assert insight.pooled.shape[2] == heads
    assert Insight.from_arrays(insight.to_arrays()).distance.shape == (layers, heads)


def test_insight_has_the_tokens_before_the_first_block(found):
    """Of the images that are explored, as `embedded` has them: their likeness, and the norms."""
    model, card, _, samples = found
    insight = collect_insight(model, card, samples)
    inputs = card.to_input(torch.from_numpy(samples.images[insight.explored]).permute(0, 3, 1, 2))
    with torch.no_grad():
        patches = model.patch_embed(inputs)
    table = model.pos_embed[:, -patches.shape[1] :].detach()
    unit = [F.normalize(view, dim=-1) for view in (patches, patches + table)]
    matrices = torch.stack([view @ view.transpose(1, 2) for view in unit], dim=1)  # (X, 2, N, N)
    np.testing.assert_allclose(insight.embed_likeness.reshape(len(inputs), 2, -1), matrices[:, :, 10], atol=1e-5)
    np.testing.assert_allclose(insight.embed_matrices, matrices[0], atol=1e-3)
    np.testing.assert_allclose(insight.embed_norms[0].ravel(), patches.norm(dim=2).mean(dim=0), rtol=1e-4)
    np.testing.assert_allclose(insight.embed_norms[1].ravel(), table[0].norm(dim=1), rtol=1e-4)
    assert insight.embed_colours.shape == (len(inputs), 2, 4, 4, 3)
    assert insight.embed_about == "a position embedding is added to each patch"
    again = Insight.from_arrays(insight.to_arrays())
    assert again.embed_about == insight.embed_about
    arrays = {name: value for name, value in insight.to_arrays().items() if not name.startswith("embed_")}
    assert Insight.from_arrays(arrays).embed_colours is None  # as in folders of older versions
    for name, value in (("embed_likeness", np.zeros((1, 2))), ("embed_positions", np.zeros((3, 3)))):
        with pytest.raises(RecordError, match=name):
            Insight.from_arrays(insight.to_arrays() | {name: value})
