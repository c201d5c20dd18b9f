"""The first batch: it is the loop's own, its numbers are right, and what is odd about it is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small import make_images, small_config, small_splits

from patchlight.config import load_recipe, recipe_names
from patchlight.data.images import ImageSet, channel_stats
from patchlight.errors import UsageError
from patchlight.models import own_input, with_own_input
from patchlight.models.backbone import OwnInput
from patchlight.runs import Run
from patchlight.training.first_batch import first_batch, input_card
from patchlight.training.loop import Trainer
from patchlight.training.setup import prepare
from patchlight.training.state import TrainState

PLAIN = {"crop_padding": 0, "flip": "none"}
MIXED = {"crop_padding": 2, "flip": "random", "mixup_alpha": 1.0, "cutmix_alpha": 1.0, "erasing_prob": 0.5}


def look(config, images: ImageSet | None = None):
    """The first batch as `patchlight data` makes it, without the model."""
    images = make_images(n=48) if images is None else images
    card = input_card(config, images, OwnInput())
    return first_batch(images, config.of_stages()[0], card)


@pytest.mark.parametrize(
    "augment",
    [PLAIN, {**MIXED, "mix_mode": "image"}, {**MIXED, "mix_mode": "batch"}, {**MIXED, "strong_until": 0.0}],
    ids=["plain", "image", "batch", "mixing off"],
)
def test_it_is_what_the_loop_gives_to_the_model(tmp_path, augment):
    config, data = small_config(augment=augment), small_splits()
    setup = prepare(config, data)
    run = Run.create(tmp_path / "run", config)
    stage = setup.stages[0]
    trainer = Trainer(stage, data, run, TrainState(total_steps=stage.total_steps))
    images, targets = trainer.begin_step(0, 0)[:2]
    facts, shown = first_batch(data.train, stage.config, stage.card)
    assert facts.shape == tuple(images.shape)
    assert (facts.min, facts.max) == (float(images.min()), float(images.max()))
    assert shown.labels.tolist() == trainer.batches.batch(0, 0).targets.tolist()[:32]
    if targets.ndim == 1:
        targets = torch.eye(3)[targets]
    np.testing.assert_array_equal(shown.targets, targets[:32])
    # normalisation undone: what the picture shows is what the model sees, to the nearest of 256 values
    mean, std = (np.array(v)[:, None, None] for v in (stage.card.mean, stage.card.std))
    pixels = 255 * (images[:32].double().numpy() * std + mean)
    assert np.abs(shown.images.transpose(0, 3, 1, 2) - pixels).max() <= 0.51
    assert facts == look(config, data.train)[0]  # the model's own card and the one without a model agree


def test_its_numbers():
    images = make_images(n=40)
    facts, shown = look(small_config(augment=PLAIN, train={"batch_size": 40}), images)
    pixels = images.images.double().numpy() / 255
    mean, std = (np.array(values)[:, None, None] for values in channel_stats(images))
    normalised = (pixels - mean) / std
    np.testing.assert_allclose((facts.min, facts.max), (normalised.min(), normalised.max()), rtol=1e-5)
    np.testing.assert_allclose(facts.mean, np.zeros(3), atol=1e-6)  # of the whole set, which is this batch
    np.testing.assert_allclose(facts.std, np.ones(3), rtol=1e-6)
    assert facts.pixels == (int(images.images.min()), int(images.images.max()))
    assert facts.per_class == {"class0": 14, "class1": 13, "class2": 13}
    assert (facts.dtype, facts.not_finite, facts.mixed, facts.lam) == ("float32", 0, 0, None)
    assert facts.target_sums == (1.0, 1.0)
    assert facts.mixing == "no image is mixed"
    assert not facts.warnings
    assert not facts.errors
    assert not shown.mixed.any()
    assert len(shown.images) == 32


def test_which_images_are_mixed_and_by_which_lambda():
    facts, shown = look(small_config(augment={**PLAIN, "mixup_alpha": 1.0, "mix_mode": "batch"}))
    other = shown.targets.max(axis=1) < 1
    own = shown.targets[np.arange(32), shown.labels]
    assert facts.lam is not None
    np.testing.assert_allclose(own[other], facts.lam[0], rtol=1e-6)  # one lambda for the whole batch
    assert f"{facts.mixed} of 32 images are mixed, lambda {facts.lam[0]:.2f}" == facts.mixing
    assert facts.mixed >= other.sum()
    np.testing.assert_allclose(facts.target_sums, 1, rtol=1e-6)
    facts, shown = look(small_config(augment={**PLAIN, "cutmix_alpha": 1.0, "mix_mode": "image", "mix_prob": 0.5}))
    assert 0 < facts.mixed < 32
    assert facts.mixed == shown.mixed.sum()
    assert ((shown.targets.max(axis=1) < 1) <= shown.mixed).all()  # an image that is not mixed has one label
    assert facts.lam is not None
    assert facts.lam[0] < facts.lam[1] < facts.lam[2]
    assert "mean" in facts.mixing


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_has_a_first_batch_without_its_model(name):
    recipe, images = load_recipe(name), make_images(n=40, size=32)
    card = input_card(recipe, images, OwnInput())
    stage = recipe.of_stages()[0]
    facts, shown = first_batch(images, stage, card)
    side = stage.model.img_size or 32
    assert facts.shape == (min(40, stage.train.batch_size), 3, side, side)
    assert not facts.errors
    mixes = bool(stage.augment.mixup_alpha or stage.augment.cutmix_alpha)
    assert (facts.mixed > 0) == mixes
    assert len(shown.images) == min(facts.shape[0], 32 if side <= 64 else 16)


def warned(images: ImageSet | None = None, **sections) -> str:
    facts, _ = look(small_config(augment=PLAIN, **sections), images)
    assert not facts.errors
    return " ".join(facts.warnings)


def test_what_is_odd_is_said():
    images = make_images(n=48)
    assert "after normalisation" in warned(data={"mean": (0.4, 0.4, 0.4), "std": (0.05, 0.05, 0.05)})
    assert "(red" in warned(data={"mean": (0.9, 0.3, 0.3), "std": (0.1, 0.3, 0.3)})
    assert "green" not in warned(data={"mean": (0.9, 0.3, 0.3), "std": (0.1, 0.3, 0.3)})
    assert "on one side of 0, which normalised values are not; data.mean and data.std are of pixels in 0..1" in warned(
        data={"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    )
    one = replace(images, labels=torch.ones_like(images.labels))
    assert warned(one) == "all 32 images of the first batch are of one class, class1"
    flat = images.images.clone()
    flat[::2] = 77
    assert "images of the first batch are of one flat colour" in warned(replace(images, images=flat))
    flat[::2] = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    assert "images of the first batch are of one flat colour" in warned(replace(images, images=flat))
    assert warned(images) == ""


def test_values_that_are_not_finite_are_an_error():
    facts, shown = look(small_config(data={"mean": (0.0, 0.0, 0.0), "std": (1e-42, 1.0, 1.0)}, augment=PLAIN))
    assert facts.not_finite > 0
    assert "are not finite after normalisation by the mean 0, 0, 0 and the deviation 1e-42, 1, 1" in facts.errors[0]
    assert facts.mean[0] is None or np.isfinite(facts.mean[0])
    facts.from_json(facts.to_json())
    assert shown.images.dtype == np.uint8


def test_labels_out_of_range_are_no_image_set():
    from patchlight.errors import PatchlightError

    images = make_images()
    with pytest.raises(PatchlightError, match="labels: 3 is out of range; there are 3 class names"):
        replace(images, labels=images.labels + 1)


def test_the_input_of_weights_that_are_not_loaded(tmp_path):
    images = make_images()
    timms = small_config(model={"name": "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"})
    own = own_input(timms.model)
    card = input_card(with_own_input(timms, own), images, own)
    assert (card.mean, card.std, card.img_size, card.interpolation) == ((0.5,) * 3, (0.5,) * 3, 224, "bicubic")
    card = input_card(timms, images, OwnInput())
    assert (card.mean, card.std, card.img_size) == (*channel_stats(images), 16)
    given = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}
    card = input_card(small_config(model={"name": "timm/vit_tiny_patch16_224"}, data=given), images, own)
    assert (card.mean, card.std) == (given["mean"], given["std"])
    with pytest.raises(UsageError, match=r"data\.mean and data\.std belong together"):
        input_card(small_config(data={"mean": (0.5, 0.5, 0.5)}), images, own)


def test_the_input_of_a_saved_model_is_its_own(tmp_path):
    from patchlight.models import save_model

    setup = prepare(small_config(), small_splits())
    save_model(tmp_path / "saved", setup.model, replace(setup.card, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)))
    config = small_config(model={"name": str(tmp_path / "saved")})
    plain = replace(config, model=replace(config.model, embed_dim=None, depth=None, num_heads=None))
    card = input_card(plain, make_images(), own_input(plain.model))
    assert (card.mean, card.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
