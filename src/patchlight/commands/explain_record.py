"""What `patchlight explain` records: the images with what is explained of each, classes, figures, and `maps.npz`."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from patchlight.analysis.choice import Chosen
from patchlight.analysis.classes import ClassMaps
from patchlight.analysis.subject import Subject
from patchlight.commands.explain_masks import MaskTable
from patchlight.commands.explain_target import Asked
from patchlight.errors import PatchlightError
from patchlight.models import ModelCard
from patchlight.runs import Faithfulness
from patchlight.runs.codec import Record


@dataclass(frozen=True, kw_only=True)
class ExplainedImage(Record):
    """An image by name, and by its index in the split where it is of one; the predicted class with its probability, the
    true one where it is known; what is explained, and the model's probability of it (or cosine, of a likeness).
    """

    image: str
    index: int | None
    predicted: str
    probability: float
    true: str | None
    target: str
    strength: float


@dataclass(frozen=True, kw_only=True)
class ExplainedClass(Record):
    """Whose images a class's mean map is of. `centre` and `random` are its rank correlations with these controls."""

    name: str
    n: int
    right: int
    centre: float
    random: float


@dataclass(frozen=True, kw_only=True)
class RunExplanation(Record):
    """What `explain` makes of images of a run: paths of figures by name and of `maps.npz`, and how true maps are."""

    run: str
    methods: tuple[str, ...]  # with their options, as --method takes them
    # "predicted", "true", "class", "difference" or "likeness"; of an older version None.
    target_kind: str | None = None
    target: str  # "predicted", "true", a class's name (perhaps one of these), "cat, not dog", "like photo.jpg"
    split: str | None  # whose images these are; None for image files and for samples of the report
    chosen: str  # how the images were chosen, in a sentence
    right: int | None  # how many are predicted right; None where the true classes are not known
    wrong: int | None
    images: tuple[ExplainedImage, ...]
    notes: tuple[str, ...] = ()  # on the image files, as what Pillow warned of; on words and methods
    class_method: str | None  # of the maps that `classes` are about
    classes: tuple[ExplainedClass, ...]  # those that were asked for
    positions: str | None  # whether positions are added to the patch tokens, in a sentence; None without patches
    figures: dict[str, str]
    arrays: str
    features: dict[str, str] = field(default_factory=dict)  # of a method that reads a layer, which one, in words
    masks: MaskTable | None = field(default=None, metadata={"brief": True})
    faithfulness: Faithfulness  # on these images, for the same target
    # A checkpoint's: "epoch 50"; None: the kept ones.
    weights: str | None = field(default=None, metadata={"brief": True})


def record_text(explanation: RunExplanation) -> str:
    """What `explanation.json` holds. Raises PatchlightError where a number is none."""
    try:
        return json.dumps(explanation.to_json(), indent=1, allow_nan=False) + "\n"
    except ValueError:
        raise PatchlightError(
            "what the model says of these images, or a measure of maps, is NaN or infinite, so nothing was written: "
            "leave out images one by one to find which, or name other methods"
        ) from None


def describe_images(subject: Subject, chosen: Chosen, asked: Asked, strength: torch.Tensor) -> list[ExplainedImage]:
    """`strength` (S,) is of the target."""
    classes = subject.card.class_names
    return [
        ExplainedImage(
            image=name,
            index=None if chosen.indices is None else int(chosen.indices[i]),
            predicted=classes[pred],
            probability=float(subject.probs[i, pred]),
            true=None if subject.labels is None else classes[subject.labels[i]],
            target=asked.each[i],
            strength=float(strength[i]),
        )
        for i, (name, pred) in enumerate(zip(chosen.names, subject.preds, strict=True))
    ]


def describe_classes(card: ModelCard, found: ClassMaps) -> list[ExplainedClass]:
    return [
        ExplainedClass(
            name=card.class_names[label],
            n=int(found.counts[i]),
            right=int(found.right[i]),
            centre=float(found.controls["centre"][i]),
            random=float(found.controls["random"][i]),
        )
        for i, label in enumerate(found.classes)
    ]


def array_name(call: str) -> str:
    """ "gradcam:layer=-2" -> "gradcam_layer_minus_2"."""
    return re.sub(r"\W+", "_", call.replace("=-", "=minus_"))


def array_file(
    subject: Subject,
    chosen: Chosen,
    maps: Mapping[str, np.ndarray],
    asked: Asked,
    of_classes: ClassMaps | None,
) -> bytes:
    """The bytes of `maps.npz`; docs/explaining.md tells its arrays."""
    arrays: dict[str, Any] = {array_name(call): values for call, values in maps.items()}
    arrays |= {name: tensor.cpu().numpy() for name, tensor in asked.tensors().items()}
    arrays |= {} if chosen.indices is None else {"indices": chosen.indices}
    if of_classes is not None:
        arrays |= {"class_labels": np.array(of_classes.classes), "class_counts": of_classes.counts}
        arrays |= {"class_means": of_classes.mean, "class_spreads": of_classes.spread}
    file = io.BytesIO()
    np.savez_compressed(file, images=subject.pictures, **arrays)
    return file.getvalue()
