"""Uneven classes in training: what an image counts by its class, and what is said of it.

Shapes: N training images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from patchlight.config import Config
from patchlight.data.images import ImageSet
from patchlight.errors import UsageError, first_of
from patchlight.training.stage import Stage
from patchlight.units import counted

NAMED = 10  # classes, at most, whose weights are all in the line


def class_weights(config: Config, images: ImageSet) -> tuple[float, ...] | None:
    """`train.class_weights` for these training images: a number of each class, or None where all count alike.

    Raises UsageError for a list that is not of the data's classes, or that leaves nothing to learn.
    """
    asked, names = config.train.class_weights, images.class_names
    if asked == "none":
        return None
    counts = images.class_counts().tolist()
    if asked == "balanced":
        return balanced_weights(counts)
    assert not isinstance(asked, str)
    if len(asked) != len(names):
        raise UsageError(
            f"train.class_weights has {counted(len(asked), 'number')} and the data "
            f"{counted(len(names), 'class', 'classes')}: {_listed(names)}; give one number for each, in this order, "
            "or balanced"
        )
    if not any(weight and count for weight, count in zip(asked, counts, strict=True)):
        raise UsageError(
            "train.class_weights is 0 for every class that has training images, so nothing would be learned; give a "
            "number above 0, or balanced"
        )
    return asked


def balanced_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """n / (K n_k) of each class, whose mean over the n images is 1. K are the classes with images; others weigh 0.

    As scikit-learn's `compute_class_weight("balanced")` (after King and Zeng 2001).
    """
    there = sum(count > 0 for count in counts)
    return tuple(sum(counts) / (there * count) if count else 0.0 for count in counts)


def class_lines(stage: Stage, images: ImageSet) -> Iterator[str]:
    """Sentences on how a stage trains on uneven classes."""
    config, names, counts = stage.config, images.class_names, images.class_counts().tolist()
    there = {name: count for name, count in zip(names, counts, strict=True) if count}
    fewest, most = min(there, key=lambda name: there[name]), max(there, key=lambda name: there[name])
    if config.train.task != "classify":
        return
    if stage.class_weights is not None:
        yield _weights_line(config, dict(zip(names, stage.class_weights, strict=True)))
    if config.data.sampler == "balanced":
        each = stage.images_per_epoch / len(there)
        yield (
            f"data.sampler balanced: an epoch draws {stage.images_per_epoch:,} images, {_whole(each)} of each class; "
            f"one of {fewest} comes {each / there[fewest]:.2g} times an epoch, one of {most} {each / there[most]:.2g}"
        )
    is_balanced = (config.data.sampler == "balanced", stage.class_weights is not None)
    if all(is_balanced):
        yield (
            "data.sampler balanced already makes all classes count alike, and train.class_weights weighs them beyond "
            "that; one of the two is enough"
        )


def _weights_line(config: Config, weights: dict[str, float]) -> str:
    kind = "balanced" if config.train.class_weights == "balanced" else "given"
    if len(weights) <= NAMED:
        return f"class weights ({kind}): {', '.join(f'{name} {weight:.3g}' for name, weight in weights.items())}"
    low, high = min(weights, key=lambda name: weights[name]), max(weights, key=lambda name: weights[name])
    return (
        f"class weights ({kind}) of {len(weights)} classes: from {weights[low]:.3g} ({low}) to {weights[high]:.3g} "
        f"({high}); environment.json has them all"
    )


def _whole(number: float) -> str:
    """A mean of whole numbers: "140", or "140 or 141"."""
    low = int(number)
    return f"{low:,}" if low == number else f"{low:,} or {low + 1:,}"


def _listed(names: Sequence[str]) -> str:
    return first_of(names, NAMED)
