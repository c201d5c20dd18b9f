"""The first batch of a training, looked at before the first step: what the model is given, and whether it is as it
should be.

Shapes: B batch, C channels, H W pixels, K classes; S images that are shown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from patchlight.config import Config
from patchlight.data.batches import Batch
from patchlight.data.images import ImageSet
from patchlight.models import ModelCard, ModelSpec
from patchlight.models.backbone import OwnInput
from patchlight.runs import BatchFacts, FirstBatch
from patchlight.training.checks import check_normalisation
from patchlight.training.inputs import make_batches, mixes, model_input
from patchlight.training.setup import make_card

SHOWN, SHOWN_LARGE = 32, 16  # images that are kept to be shown, and those of more than 64 pixels a side
FEW = 8  # images of so small a batch may be of one class by chance
FARTHEST_MEAN, LEAST_STD, GREATEST_STD = 1.5, 1 / 3, 3.0  # of a channel's normalised values; beyond is odd
CHANNELS = ("red", "green", "blue")
RECIPES_OWN = "data.mean and data.std are of pixels in 0..1, and those of the recipe do not fit these images"
NOT_THE_RECIPES = "the augmentation, or the mean and deviation of the weights, do not fit these images"


def first_batch(images: ImageSet, config: Config, card: ModelCard) -> tuple[BatchFacts, FirstBatch]:
    """The first batch of a stage, of which `config` is the recipe: the loop's own, made on the CPU.

    A GPU makes the same one but for rounding.
    """
    augment = config.augment
    strong = augment.strong_until > 0
    mixing = strong and mixes(augment)
    batch = make_batches(images, config, card, torch.device("cpu")).batch(0, 0, strong=strong)
    inputs, targets = model_input(batch, card, augment, mixing)
    changed = inputs != card.to_input(batch.images) if mixing else torch.zeros_like(inputs, dtype=torch.bool)
    mixed = changed.flatten(1).any(dim=1)
    shares = targets if mixing else F.one_hot(targets, len(images.class_names)).float()
    facts = describe(batch, inputs, shares, mixed, card, images.class_names)
    odd = odd_things(facts, batch, is_given=config.data.mean is not None)
    facts = dataclasses.replace(facts, warnings=tuple(odd), errors=tuple(what_is_wrong(facts)))
    few = slice(0, SHOWN if max(inputs.shape[2:]) <= 64 else SHOWN_LARGE)
    shown = FirstBatch(
        images=card.to_pixels(inputs[few].nan_to_num()).permute(0, 2, 3, 1).numpy(),
        labels=batch.targets[few].numpy(),
        targets=shares[few].nan_to_num().numpy(),
        mixed=mixed[few].numpy(),
    )
    return facts, shown


def describe(
    batch: Batch, inputs: Tensor, shares: Tensor, mixed: Tensor, card: ModelCard, class_names: tuple[str, ...]
) -> BatchFacts:
    """The numbers of a batch: inputs (B, C, H, W), shares of each class (B, K), and which images are `mixed` (B,)."""
    finite = inputs.isfinite()
    channels = [moments(inputs[:, c][finite[:, c]]) for c in range(inputs.shape[1])]
    known = [channel for channel in channels if channel is not None]
    own = shares.gather(1, batch.targets[:, None]).squeeze(1)
    own = own[mixed & (own < 1 - 1e-4)]  # of an image that is mixed with one of its class, the label does not tell
    sums = shares.double().sum(dim=1)
    counts = torch.bincount(batch.targets, minlength=len(class_names)).tolist()
    return BatchFacts(
        shape=tuple(inputs.shape),
        dtype=str(inputs.dtype).removeprefix("torch."),
        pixels=(int(batch.images.min()), int(batch.images.max())),
        channel_mean=card.mean,
        channel_std=card.std,
        min=min((channel[0] for channel in known), default=None),
        max=max((channel[1] for channel in known), default=None),
        mean=tuple(channel and channel[2] for channel in channels),
        std=tuple(channel and channel[3] for channel in channels),
        not_finite=int((~finite).sum()),
        per_class=dict(zip(class_names, counts, strict=True)),
        mixed=int(mixed.sum()),
        lam=(float(own.min()), float(own.mean()), float(own.max())) if len(own) else None,
        target_sums=(float(sums.min()), float(sums.max())),
    )


def moments(values: Tensor) -> tuple[float, float, float, float] | None:
    """Least, greatest, mean and deviation of values (n,); None where there are none."""
    if not len(values):
        return None
    precise = values.double()
    low, high = precise.aminmax()
    return float(low), float(high), float(precise.mean()), float(precise.std(correction=0))


def what_is_wrong(facts: BatchFacts) -> Iterator[str]:
    """Sentences on what cannot be trained on."""
    if facts.not_finite:
        yield (
            f"{facts.not_finite:,} values of the first batch are not finite after normalisation by the mean "
            f"{_numbers(facts.channel_mean)} and the deviation {_numbers(facts.channel_std)}; correct data.mean and "
            "data.std"
        )
    low, high = facts.target_sums
    if not (abs(low - 1) < 1e-4 and abs(high - 1) < 1e-4):
        yield f"the labels of the first batch do not sum to 1 but to {low:g} to {high:g}"


def odd_things(facts: BatchFacts, batch: Batch, *, is_given: bool) -> Iterator[str]:
    """Sentences on what can be trained on and is hardly meant; mean and deviation are the recipe's if `is_given`."""
    images, there = len(batch.images), [name for name, count in facts.per_class.items() if count]
    if len(there) == 1 and len(facts.per_class) > 1 and images >= FEW:
        yield f"all {images} images of the first batch are of one class, {there[0]}"
    pixels = batch.images.flatten(2)
    flat = int((pixels.amax(dim=2) == pixels.amin(dim=2)).all(dim=1).sum())
    if flat:
        yield (
            f"{flat} of the {images} images of the first batch are of one flat colour after augmentation; look at the "
            "files, or weaken [augment]"
        )
    advice = RECIPES_OWN if is_given else NOT_THE_RECIPES
    if facts.min is not None and facts.max is not None and (facts.min >= 0 or facts.max <= 0):
        yield (
            f"the values of the first batch lie between {facts.min:.2f} and {facts.max:.2f}, on one side of 0, which "
            f"normalised values are not; {advice}"
        )
        return
    channels = [(name, m, s) for name, m, s in zip(CHANNELS, facts.mean, facts.std, strict=True) if m is not None]
    far = [(n, m, s) for n, m, s in channels if abs(m) > FARTHEST_MEAN or not LEAST_STD <= (s or 0) <= GREATEST_STD]
    if far:
        told = ", ".join(f"{name} {mean:.2f} and {std:.2f}" for name, mean, std in far)
        yield (
            f"after normalisation the values of the first batch have means and deviations far from 0 and 1 ({told}); "
            f"{advice}"
        )


def input_card(config: Config, images: ImageSet, own: OwnInput) -> ModelCard:
    """The input of a recipe's model in its first stage, without the model, whose pretrained weights want their `own`.

    Raises UsageError for numbers that training would refuse.
    """
    check_normalisation(config.data)
    size = config.of_stages()[0].model.img_size or images.image_size[0]
    return make_card(config, images, own, ModelSpec("patchlight", config.model.name, {}, size, len(images.class_names)))


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
