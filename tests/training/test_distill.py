"""Distillation: DeiT's losses, a teacher with an input of its own, and the second token."""

from __future__ import annotations

import dataclasses
import math

import pytest
import timm
import torch
from small import rows_of, run_fit, small_config, small_splits

from patchlight.config import TrainConfig
from patchlight.errors import PatchlightError, UsageError
from patchlight.models import VisionTransformer, build_model, load_model
from patchlight.training.distill import Teacher, hard_loss, soft_loss
from patchlight.training.setup import prepare
from patchlight.training.tasks import Classification

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    _, run = run_fit(tmp_path_factory.mktemp("teacher"), train={"epochs": 12, "select": "last"})
    return run.path


def test_losses_by_hand():
    student = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    told = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    p = 1 / (1 + math.exp(-1))  # softmax of (2, 0) / 2
    kl = (1 - p) * math.log((1 - p) / p) + p * math.log(p / (1 - p))
    assert soft_loss(student, told, 2.0).item() == pytest.approx(4 * kl)
    assert hard_loss(student, told).item() == pytest.approx(math.log(1 + math.exp(2)))
    assert soft_loss(student, student, 3.0).item() == pytest.approx(0, abs=1e-12)


def test_the_teacher_sees_the_same_image_in_its_own_normalisation_and_size(teacher):
    model, card = load_model(teacher)
    student = dataclasses.replace(
        card, mean=(0.1, 0.5, 0.9), std=(0.3, 0.2, 0.1), spec=dataclasses.replace(card.spec, img_size=32)
    )
    pixels = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    config = TrainConfig(teacher=str(teacher), precision="fp32")
    asked = Teacher(config, dataclasses.replace(student, spec=card.spec), CPU)
    inputs = dataclasses.replace(student, spec=card.spec).to_input(pixels)
    torch.testing.assert_close(asked.logits(inputs), model(card.to_input(pixels)), atol=1e-4, rtol=1e-4)
    assert asked.logits(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    assert not asked.logits(inputs).requires_grad


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_the_loss_is_shared_between_labels_and_teacher(teacher, kind):
    _, card = load_model(teacher)
    settings = {"distill": kind, "distill_share": 0.25, "distill_temperature": 2.0}
    config = small_config(train={"teacher": str(teacher), **settings})
    task = Classification(config, card, build_model(card.spec), Teacher(config.train, card, CPU))
    inputs, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    by_class, by_distilled = torch.randn(2, 4, 3)
    answers = task.teacher.logits(inputs)
    for answer, taught in ((by_class, by_class), ((by_class, by_distilled), by_distilled)):
        by_teacher = hard_loss(taught, answers) if kind == "hard" else soft_loss(taught, answers, 2.0)
        expected = 0.75 * torch.nn.functional.cross_entropy(by_class, labels) + 0.25 * by_teacher
        loss, right = task.loss(answer, inputs, labels)
        torch.testing.assert_close(loss, expected)
        assert right == (by_class.argmax(1) == labels).sum()


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("token", [False, True])
def test_a_student_learns_from_the_teacher(tmp_path, teacher, kind, token):
    """It comes to agree with the teacher; without a second token from labels that say something else."""
    settings = {
        "model": {"global_pool": "token", **({"distill_token": True} if token else {})},
        "train": {
            "epochs": 12,
            "teacher": str(teacher),
            "distill": kind,
            "distill_share": 0.5 if token else 1.0,
            "select": "last",
        },
    }
    if not token:
        wrong = dataclasses.replace(small_splits().train, labels=(small_splits().train.labels + 1) % 3)
        settings["data_set"] = dataclasses.replace(small_splits(), train=wrong)
    _, run = run_fit(tmp_path, **settings)
    rows = rows_of(run)
    assert rows[-1]["train/loss"] < 0.8 * rows[0]["train/loss"]
    model, card = load_model(run.path)
    own, _ = load_model(teacher)
    images = card.to_input(small_splits().test.images)
    assert (model(images).argmax(1) == own(images).argmax(1)).float().mean() > 0.7


def test_the_second_token_is_timms():
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
    theirs = timm.models.deit.VisionTransformerDistilled(**options).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    ours = VisionTransformer(**options, distill_token=True).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(ours(images), theirs(images))
    ours.distilled_training = True
    theirs.set_distilled_training(True)
    for a, b in zip(ours.train()(images), theirs.train()(images), strict=True):
        torch.testing.assert_close(a, b)


def test_what_does_not_go_together(tmp_path, teacher):
    with pytest.raises(UsageError, match=r"name a finished run with train\.teacher"):
        run_fit(tmp_path / "a", model={"distill_token": True, "global_pool": "token"})
    with pytest.raises(UsageError, match=r"set model\.global_pool = 'token'"):
        VisionTransformer(global_pool="avg", distill_token=True)
    with pytest.raises(PatchlightError, match="nothing"):
        run_fit(tmp_path / "b", train={"teacher": str(tmp_path / "nothing")})
    config = small_config(train={"teacher": str(teacher)})
    data = small_splits()
    other = dataclasses.replace(data, train=dataclasses.replace(data.train, class_names=("x", "y", "z")))
    with pytest.raises(PatchlightError, match="knows the classes class0, class1, class2"):
        prepare(config, other)
