"""Uneven classes in training: what an image counts, which are drawn, and by which measure weights are kept."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.utils.class_weight import compute_class_weight
from small import make_images, make_trainer, rows_of, run_fit, small_config, small_splits, stopped_at_save

from patchlight.data.splits import Splits
from patchlight.errors import PatchlightError, UsageError
from patchlight.models import load_model
from patchlight.runs import Environment, Run, kept_epoch
from patchlight.training import fit as fitting
from patchlight.training.classes import balanced_weights, class_lines, class_weights
from patchlight.training.loop import Trainer
from patchlight.training.record import describe_run
from patchlight.training.setup import prepare
from patchlight.training.tasks import Classification, Validation, weighted_loss

WEIGHTS = [0.5, 2.0, 5.0]


def uneven_splits() -> Splits:
    """Training images of the three classes: 24, 12 and 4."""
    images = make_images(n=144)
    rows = [i for c, count in enumerate((24, 12, 4)) for i in range(c, 144, 3)[:count]]
    return Splits(images.select(rows), images.select(range(102, 123)), images.select(range(123, 144)))


def start(tmp_path, **sections) -> Trainer:
    sections.setdefault("train", {}).setdefault("batch_size", 16)
    return make_trainer(small_config(**sections), tmp_path, uneven_splits())


def test_balanced_weights_are_sklearns():
    for counts in ([24, 12, 4], [1, 1000], [7, 7, 7]):
        labels = np.repeat(np.arange(len(counts)), counts)
        theirs = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
        assert balanced_weights(counts) == pytest.approx(theirs.tolist())
    assert balanced_weights([6, 0, 2]) == pytest.approx((8 / 12, 0.0, 2.0))  # of the classes that are there


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_torchs(smoothing):
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(9, 3, generator=draw), torch.randint(3, (9,), generator=draw)
    weights = torch.tensor(WEIGHTS)
    theirs = F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(weighted_loss(logits, labels, labels, weights, smoothing), theirs)
    # Of mixed images it is torch's sum, over the images' mean weights; and one that is not mixed counts as ever.
    soft = torch.rand(9, 3, generator=draw).softmax(dim=1)
    summed = F.cross_entropy(logits, soft, weight=weights, label_smoothing=smoothing, reduction="sum")
    expected = summed / (soft * weights).sum()
    torch.testing.assert_close(weighted_loss(logits, soft, soft, weights, smoothing), expected)
    hard = F.one_hot(labels, 3).float()
    torch.testing.assert_close(weighted_loss(logits, hard, hard, weights, smoothing), theirs)
    # Equal weights are none.
    plain = F.cross_entropy(logits, soft, label_smoothing=smoothing)
    torch.testing.assert_close(weighted_loss(logits, soft, soft, torch.full((3,), 7.0), smoothing), plain)


def test_a_batch_of_which_nothing_counts_has_no_gradient():
    """Torch's loss is nan there."""
    logits, labels = torch.randn(4, 3, requires_grad=True), torch.zeros(4, dtype=torch.int64)
    loss = weighted_loss(logits, labels, labels, torch.tensor([0.0, 1.0, 1.0]), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(4, 3))


@pytest.mark.parametrize("augment", [{}, {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}], ids=["labels", "mixed"])
@pytest.mark.parametrize("micro", [1, 3, 16])
def test_the_mean_is_right_over_micro_batches(tmp_path, augment, micro):
    """Loss and gradients of the whole batch, whose parts weigh differently, against torch on the whole."""
    settings = {"class_weights": WEIGHTS, "label_smoothing": 0.1, "micro_batch_size": micro}
    trainer = start(tmp_path / "run", augment=augment, train=settings)
    model = trainer.stage.model
    images, targets = trainer.begin_step(0, 0)
    logits, weights = model(images), torch.tensor(WEIGHTS)
    summed = F.cross_entropy(logits, targets, weight=weights, label_smoothing=0.1, reduction="sum")
    expected = summed / (weights[targets].sum() if targets.ndim == 1 else (targets @ weights).sum())
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for optimizer in trainer.stage.optimizers:
        optimizer.step = lambda: None  # the gradients are looked at, not used
        optimizer.zero_grad = lambda set_to_none: None
    loss, _ = trainer.train_step(0, 0)
    torch.testing.assert_close(loss, expected.detach())
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("micro", [None, 3])
def test_a_teachers_part_of_the_loss_does_not_weigh_classes(tmp_path, micro):
    _, run = run_fit(tmp_path, "teacher")
    settings = {"class_weights": WEIGHTS, "teacher": str(run.path), "distill_share": 0.25, "micro_batch_size": micro}
    trainer = start(tmp_path / "run", train=settings)
    images, labels = trainer.begin_step(0, 0)
    task = trainer.stage.task
    assert isinstance(task, Classification)
    assert task.teacher is not None
    logits = trainer.stage.model(images)
    by_labels = F.cross_entropy(logits, labels, weight=torch.tensor(WEIGHTS))
    by_teacher = F.cross_entropy(logits, task.teacher.logits(images).argmax(dim=1))
    loss, _ = trainer.train_step(0, 0)
    torch.testing.assert_close(loss, (0.75 * by_labels + 0.25 * by_teacher).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1, 2], "train.class_weights has 2 numbers and the data 3 classes: class0, class1, class2; give one number"),
        ([1], "has 1 number and the data 3 classes"),
        ([], "has 0 numbers and the data 3 classes"),
        ([0, 0, 0], "is 0 for every class that has training images"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_training(weights, words):
    config = small_config(train={"class_weights": weights})
    with pytest.raises(UsageError, match=words):
        prepare(config, small_splits())


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"train": {"class_weights": "balanced"}}, "leave out train.class_weights"),
        ({"data": {"sampler": "balanced"}}, r"leave out data\.sampler"),
        ({"train": {"select": "best_f1"}}, r"train\.select = 'best_f1' is a score of labels"),
    ],
)
def test_masked_autoencoding_uses_no_labels(sections, words):
    sections = {**sections, "train": {**sections.get("train", {}), "task": "reconstruct"}}
    with pytest.raises(UsageError, match=f"train.task 'reconstruct' uses no labels: {words}"):
        prepare(small_config(**sections), small_splits())


def test_what_is_said_of_uneven_classes(tmp_path):
    def said(**sections):
        data = uneven_splits()
        (stage,) = prepare(small_config(**sections), data).stages
        return list(class_lines(stage, data.train))

    assert said() == []  # the data's own notes say that they are uneven
    assert said(train={"class_weights": "balanced"}) == [
        "class weights (balanced): class0 0.556, class1 1.11, class2 3.33"
    ]
    assert said(train={"class_weights": [1, 2, 3]}) == ["class weights (given): class0 1, class1 2, class2 3"]
    (drawn,) = said(data={"sampler": "balanced"}, train={"batch_size": 16})
    assert drawn == (
        "data.sampler balanced: an epoch draws 32 images, 10 or 11 of each class; one of class2 comes 2.7 times an "
        "epoch, one of class0 0.44"
    )
    *_, both = said(data={"sampler": "balanced"}, train={"class_weights": "balanced"})
    assert "one of the two is enough" in both
    (stage,) = prepare(small_config(), small_splits()).stages
    assert list(class_lines(stage, small_splits().train)) == []  # even classes
    many = make_images(n=40, classes=12, size=16)
    config = small_config(train={"class_weights": "balanced"})
    (stage,) = prepare(config, Splits(many, many, many)).stages
    (line,) = class_lines(stage, many)
    assert "of 12 classes: from 0.833 (class0) to 1.11 (class4); environment.json has them all" in line


def test_weights_are_recorded_and_a_stage_may_have_its_own(tmp_path):
    stages = [{"train": {"epochs": 1}}, {"train": {"epochs": 1, "class_weights": "balanced"}}]
    data = uneven_splits()
    record = describe_run(prepare(small_config(stages=stages), data), "patchlight train")
    assert record.data.train_per_class == {"class0": 24, "class1": 12, "class2": 4}
    assert record.class_weights == (None, pytest.approx((40 / 72, 40 / 36, 40 / 12)))
    assert Environment.from_json(json.loads(json.dumps(record.to_json()))) == record
    plain = describe_run(prepare(small_config(), data), "patchlight train")
    assert "class_weights" not in plain.to_json()


def test_weights_change_what_is_learned(tmp_path):
    """A class that weighs 0 is never predicted, though its images are there."""
    _, run = run_fit(tmp_path, data_set=uneven_splits(), train={"epochs": 12, "class_weights": [0, 1, 1]})
    model, card = load_model(run.path)
    images = uneven_splits().test.images
    assert 0 not in model(card.to_input(images)).argmax(dim=1)


@pytest.mark.parametrize("sections", [{"data": {"sampler": "balanced"}}, {"train": {"class_weights": "balanced"}}])
@pytest.mark.parametrize("saves", [1, 2])
def test_a_run_that_is_resumed_is_the_same_run(tmp_path, sections, saves):
    def sections_of():
        train = {"epochs": 3, "batch_size": 16, **sections.get("train", {})}
        return {**sections, "augment": {"flip": "alternating", "mixup_alpha": 0.5}, "train": train}

    _, whole = run_fit(tmp_path, "whole", data_set=uneven_splits(), **sections_of())
    with stopped_at_save(saves):
        run_fit(tmp_path, "cut", data_set=uneven_splits(), **sections_of())
    _, cut = run_fit(tmp_path, "cut", resume=True, data_set=uneven_splits(), **sections_of())
    a, b = (load_model(run.path)[0].state_dict() for run in (whole, cut))
    assert all(torch.equal(a[key], b[key]) for key in a)
    for one, other in zip(rows_of(whole), rows_of(cut), strict=True):
        clocks = {"images_per_s", "epoch_s", "wall_s"}
        assert {k: v for k, v in one.items() if k not in clocks} == {k: v for k, v in other.items() if k not in clocks}


def test_a_head_on_kept_features_is_trained_the_same(tmp_path, monkeypatch):
    def sections():
        train = {"epochs": 3, "trainable": "head", "class_weights": WEIGHTS, "micro_batch_size": 5}
        return {"data": {"sampler": "balanced"}, "train": {**train, "select": "best_balanced"}}

    lines: list[str] = []
    monkeypatch.setattr(fitting, "say", lines.append)
    _, kept = run_fit(tmp_path, "kept", data_set=uneven_splits(), **sections())
    assert "the backbone is frozen, so each image goes through it once" in lines
    monkeypatch.setattr(fitting, "can_keep_features", lambda *args: False)
    _, plain = run_fit(tmp_path, "plain", data_set=uneven_splits(), **sections())
    keys = ("train/loss", "train/top1", "val/loss", "val/balanced_accuracy", "val/macro_f1")
    scores = [[[row[key] for key in keys] for row in rows_of(run)] for run in (kept, plain)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)


def test_the_measures_are_sklearns(tmp_path):
    trainer = start(tmp_path)
    logits = np.random.default_rng(0).normal(size=(21, 3))
    images = uneven_splits().val
    assert images is not None
    found = trainer.stage.task.score_logits(logits, images)  # type: ignore[union-attr]
    labels, preds = images.labels.numpy(), logits.argmax(axis=1)
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, preds))
    assert found.macro_f1 == pytest.approx(f1_score(labels, preds, average="macro", zero_division=0))


EPOCHS = [  # loss, top-1, smoothed loss, balanced accuracy, macro F1
    Validation(1.0, 0.9, None, 0.3, 0.5),
    Validation(1.0, 0.8, None, 0.7, 0.4),
    Validation(1.0, 0.7, None, 0.6, 0.6),
    Validation(1.0, 0.6, None, 0.5, 0.1),
]


@pytest.mark.parametrize(
    ("select", "epoch", "key", "words"),
    [
        ("best", 1, "val/top1", "val acc 90.0% *"),
        ("best_balanced", 2, "val/balanced_accuracy", "val acc 80.0%  val balanced accuracy 70.0% *"),
        ("best_f1", 3, "val/macro_f1", "val acc 70.0%  val macro F1 60.0% *"),
        ("last", 4, "val/top1", "val acc 60.0%    "),
    ],
)
def test_weights_are_kept_by_the_measure(tmp_path, monkeypatch, select, epoch, key, words):
    scores, kept, said = iter(EPOCHS), [], []
    monkeypatch.setattr(Classification, "score", lambda *_: next(scores))
    monkeypatch.setattr(Classification, "keep", lambda *_: kept.append(1))
    monkeypatch.setattr("patchlight.training.loop.say", said.append)
    state, run = run_fit(tmp_path, train={"epochs": 4, "select": select})
    rows = run.epochs()
    found = kept_epoch(rows, small_config(train={"select": select}))
    assert found is not None
    assert found.epoch == epoch
    assert words in said[epoch - 1]
    assert {row.best_by for row in rows} == {key}
    assert [row.val_macro_f1 for row in rows] == [each.macro_f1 for each in EPOCHS]
    assert len(kept) == (4 if select == "last" else sum(row.best for row in rows))
    best = max(rows, key=lambda row: row.to_json()[key])  # type: ignore[arg-type, return-value]
    assert (state.best_epoch, state.best_score) == (best.epoch, best.to_json()[key])


@pytest.mark.parametrize(
    ("select", "stopped", "measure"), [("best", 3, "accuracy"), ("best_balanced", 4, "balanced accuracy")]
)
def test_early_stopping_goes_by_the_same_measure(tmp_path, monkeypatch, select, stopped, measure):
    scores = iter([*EPOCHS, *EPOCHS])
    monkeypatch.setattr(Classification, "score", lambda *_: next(scores))
    _, run = run_fit(tmp_path, train={"epochs": 8, "select": select, "early_stop_epochs": 2})
    last = run.epochs()[-1]
    assert last.early_stop is not None
    assert (last.epoch, last.early_stop.measure) == (stopped, measure)
    assert last.early_stop.in_words.endswith(f"2 epochs without a better validation {measure}")


@pytest.mark.parametrize("select", ["best_balanced", "best_f1"])
def test_every_selection_needs_validation_images(select):
    data = dataclasses.replace(small_splits(), val=None)
    with pytest.raises(PatchlightError, match="there are no validation images to select by"):
        prepare(small_config(train={"select": select}), data)


def test_a_class_without_training_images(tmp_path):
    images = make_images(n=60)
    rows = [i for i in range(60) if i % 3 != 1]
    data = Splits(images.select(rows[:32]), images.select(range(12)), images.select(range(12, 24)))
    config = small_config(train={"class_weights": "balanced", "label_smoothing": 0.1}, data={"sampler": "balanced"})
    assert class_weights(config, data.train) == (1.0, 0.0, 1.0)
    run = Run.create(tmp_path / "run", config)
    fitting.fit(prepare(config, data), run)
    assert np.isfinite([row.train_loss for row in run.epochs()]).all()
