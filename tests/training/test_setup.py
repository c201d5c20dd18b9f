"""What training begins with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small import make_images, run_fit, small_config, small_splits

from patchlight.config import ModelConfig
from patchlight.data.splits import Splits
from patchlight.errors import UsageError
from patchlight.models.mae import MaskedAutoencoder
from patchlight.training.setup import build, pinned

STEM = {"name": "vit-compact", "embed_dim": 24, "depth": 1, "num_heads": 2, "stem_whitening": 12}


def other_splits() -> Splits:
    """Of the same classes, but the pixels of another world."""
    images = make_images(n=72, seed=1)
    images.images.copy_(255 - images.images.roll(3, 2))
    return Splits(images.select(range(48)), images.select(range(48, 60)), images.select(range(60, 72)))


def test_a_new_stem_is_whitened_by_the_training_images():
    first, _ = build(small_config(model=STEM), small_splits())
    second, _ = build(small_config(model=STEM), other_splits())
    assert not torch.equal(first.patch_embed.whitening.weight, second.patch_embed.whitening.weight)


def test_trained_weights_keep_their_whitening_on_other_images(tmp_path):
    _, run = run_fit(tmp_path, model=STEM)
    config = replace(small_config(), model=ModelConfig(name=str(run.path)))
    same, _ = build(config, small_splits())
    other, _ = build(config, other_splits())
    for name, weights in same.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name]), name


def test_what_paints_is_a_vit_of_ours():
    config = small_config(train={"task": "reconstruct"})
    model, card = build(config, small_splits())
    assert isinstance(model, MaskedAutoencoder)
    assert card.class_names == ()
    with pytest.raises(UsageError, match="not for resnet18"):
        build(replace(config, model=ModelConfig(name="resnet18")), small_splits())


def test_a_run_goes_on_with_the_commit_that_it_began_with():
    config = small_config()
    record = {"model": {"weights": {"commit": "abc", "revision": None}}}
    assert pinned(config, record).model.revision == "abc"
    assert pinned(config, {"model": {"weights": None}}) is config
    asked = replace(config, model=replace(config.model, revision="v1"))
    assert pinned(asked, record) is asked
