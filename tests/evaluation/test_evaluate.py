"""Predictions on a set: batches, precisions, and the score with mirror images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from small import make_images, small_config, small_splits

from patchlight.errors import PatchlightError
from patchlight.evaluation.evaluate import align_classes, choose_precision, choose_speed, evaluate, predict_logits
from patchlight.machine import device
from patchlight.training.setup import build


def model_and_card():
    model, card = build(small_config(), small_splits())
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=draw))
    return model.eval(), card


def test_batches_do_not_matter():
    model, card = model_and_card()
    images = make_images(n=23)
    whole, parts = (predict_logits(model, card, images, batch_size=size) for size in (23, 5))
    np.testing.assert_allclose(whole, parts, atol=1e-5)
    with torch.inference_mode():
        by_hand = model(card.to_input(images.images))
    np.testing.assert_allclose(whole, by_hand.numpy(), atol=1e-5)


def test_labels_of_another_source_are_put_into_the_models_order():
    _, card = model_and_card()
    card = dataclasses.replace(card, class_names=("a", "b", "c"))
    theirs = dataclasses.replace(make_images(n=4, classes=2), labels=torch.tensor([0, 0, 1, 0]), class_names=("c", "a"))
    aligned = align_classes(theirs, card)
    assert aligned.labels.tolist() == [2, 2, 0, 2]
    assert aligned.class_names == ("a", "b", "c")
    with pytest.raises(PatchlightError, match="does not know the classes d"):
        align_classes(dataclasses.replace(theirs, class_names=("c", "d")), card)


def test_mirror_images_are_scored_apart():
    model, card = model_and_card()
    images = make_images(n=40, seed=3)
    plain, logits = evaluate(model, card, images, data="made up", split="test")
    result, same = evaluate(model, card, images, data="made up", split="test", mirror=True)
    assert np.array_equal(logits, same)
    mirrored = result.mirrored
    assert plain.mirrored is None
    assert dataclasses.replace(result, mirrored=None) == plain
    assert set(result.to_json()["mirrored"]) == {"loss", "top1", "top1_ci95"}
    with torch.inference_mode():
        sides = [model(card.to_input(x)).softmax(1) for x in (images.images, images.images.flip(3))]
    mean = (sides[0] + sides[1]) / 2
    assert mirrored.top1 == pytest.approx((mean.argmax(1) == images.labels).float().mean().item())
    assert mirrored.loss == pytest.approx(-mean.gather(1, images.labels[:, None]).log().mean().item(), rel=1e-5)


def test_bf16_agrees_with_fp32_on_almost_all():
    model, card = model_and_card()
    images = make_images(n=60, seed=5)
    exact, low = (predict_logits(model, card, images, precision=p) for p in ("fp32", "bf16"))
    assert np.abs(exact - low).max() < 0.05 * np.abs(exact).max()


def test_scores_say_in_which_precision_they_were_made():
    model, card = model_and_card()
    images = make_images(n=60, seed=5)
    exact, logits = evaluate(model, card, images, data="made up", split="test")
    low, others = evaluate(model, card, images, data="made up", split="test", precision="bf16")
    assert (exact.precision, low.precision) == ("fp32", "bf16")
    assert not np.array_equal(logits, others)
    assert low.loss == pytest.approx(exact.loss, rel=0.05)
    assert (exact.data, exact.split, exact.to_json()["data"]) == ("made up", "test", "made up")


@pytest.mark.parametrize(("answer", "fused"), [("explicit", False), ("fused", True)])
def test_below_fp32_attention_is_of_the_faster_kind(monkeypatch, answer, fused):
    asked = []

    def faster(*args, training):
        asked.append(training)
        return answer

    monkeypatch.setattr("patchlight.models.fused.faster_attention", faster)
    model, _ = model_and_card()
    before = [block.attn.fused_attn for block in model.blocks]
    assert choose_speed(model, "fp32", 8) == "fp32"
    assert [block.attn.fused_attn for block in model.blocks] == before
    assert not asked
    assert choose_speed(model, "bf16", 8) == "bf16"
    assert {block.attn.fused_attn for block in model.blocks} == {fused}
    assert asked == [False]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("has_them", [True, False])
def test_a_precision_that_is_emulated_is_told(monkeypatch, capsys, precision, has_them):
    monkeypatch.setattr(device, "processor_multiplies", lambda precision: has_them)
    assert choose_precision(precision, torch.device("cpu")) == precision
    told = f"this cpu has no {precision} instructions, as far as torch tells; "
    assert capsys.readouterr().err.count(told) == (not has_them and precision != "fp32")
