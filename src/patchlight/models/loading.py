"""From a recipe's model section to a model: new, of a library, or of another run, with a head for the task."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import nn

from patchlight.config import Config, ModelConfig
from patchlight.errors import UsageError, did_you_mean
from patchlight.models.adapt import adapt_weights
from patchlight.models.backbone import Backbone, OwnInput, no_revision
from patchlight.models.card import ModelCard
from patchlight.models.families import FAMILIES, build_model, huggingface, patchlight, structure_of, timm
from patchlight.models.reference import (
    HuggingFaceModel,
    NewModel,
    Reference,
    SavedModel,
    TimmModel,
    is_same_or_last,
    pinned,
    understand,
)
from patchlight.models.saved import card_of, load_model
from patchlight.models.summary import count
from patchlight.runs import Weights
from patchlight.runs.checkpoints import find_checkpoint


def check_model(config: ModelConfig) -> None:
    """Raises UsageError where `load_backbone` would, as far as can be told without weights."""
    _check(understand(config.name), config)


def load_backbone(
    config: ModelConfig, *, img_size: int, num_classes: int, class_names: tuple[str, ...] | None = None
) -> Backbone:
    """The model that a recipe begins with: new, of a library, or of another run, with a head for `num_classes`.

    The head of a run that knows just these `class_names` is kept. Random weights are drawn from torch's generator.
    Raises UsageError for a wrong name or field, PatchlightError where weights are missing, damaged or do not fit.
    """
    reference = understand(config.name)
    _check(reference, config)
    match reference:
        case NewModel():
            backbone = patchlight.load(reference, config, img_size, num_classes)
        case SavedModel():
            backbone = _load_saved(reference, config, img_size, num_classes, class_names)
        case TimmModel():
            backbone = timm.load(reference, config, img_size, num_classes)
        case HuggingFaceModel():
            backbone = huggingface.load(reference, config, img_size, num_classes)
    if config.grad_checkpointing:
        structure_of(backbone.model).checkpoint_gradients()
    if backbone.own.size and backbone.own.size != img_size:
        size_note = _size_note(backbone, backbone.own.size, other_patch=config.patch_size is not None)
        note = "; ".join(filter(None, (backbone.note, size_note)))
        backbone = dataclasses.replace(backbone, note=note)
    return dataclasses.replace(backbone, model=backbone.model.to(memory_format=torch.channels_last))


def _size_note(backbone: Backbone, made_for: int, *, other_patch: bool) -> str:
    """What images of another size than that of the weights cost, in a line. Nothing is computed but shapes.

    It is compared with the weights' own size where the patch is the weights' own, too.
    """
    spec = backbone.spec
    ours = count(copy.deepcopy(backbone.model).to("meta"), spec.img_size).flops_per_image
    line = f"made for {made_for} pixels a side; of {spec.img_size} an image costs {_flops(ours)}"
    if other_patch:
        return line
    native = FAMILIES[spec.family].reshape(spec, made_for, spec.num_classes)
    with torch.random.fork_rng():
        theirs = count(build_model(native).to("meta"), made_for).flops_per_image
    times = f"{max(theirs, ours) / min(theirs, ours):.3g} times {'less' if ours < theirs else 'more'}"
    return f"{line}, {times} than of {made_for} ({_flops(theirs)})"


def _flops(count: int) -> str:
    return f"{count / 1e9:.3g} GFLOPs" if count >= 1e9 else f"{count / 1e6:.3g} MFLOPs"


def pin_checkpoints(config: Config, started: Config | None = None) -> Config:
    """The recipe with the newest checkpoint of now where its model or its teacher is a run's `checkpoints/last`.

    A run that goes on keeps those that it `started` with, which may be gone by now. Raises UsageError where a run has
    no such checkpoint.
    """

    def pin(name: str, before: str | None) -> str:
        return before if before is not None and is_same_or_last(name, before) else pinned(name)

    model, teacher = (None, None) if started is None else (started.model.name, started.train.teacher)
    name = pin(config.model.name, model)
    teacher = config.train.teacher and pin(config.train.teacher, teacher)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, name=name),
        train=dataclasses.replace(config.train, teacher=teacher),
    )


def with_own_input(config: Config, own: OwnInput) -> Config:
    """The recipe with model.img_size and data.interpolation, where they are unset, as its weights want their `own`."""
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, interpolation=config.data.interpolation or own.interpolation),
        model=dataclasses.replace(config.model, img_size=config.model.img_size or own.size),
    )


def own_input(config: ModelConfig) -> OwnInput:
    """The images that a recipe's pretrained weights were made for; nothing of random weights.

    Small files beside the weights say it, and no weights are read. Raises as `load_backbone` does where they cannot be
    read.
    """
    match understand(config.name):
        case SavedModel() as saved:
            return _input_of(card_of(saved.folder))
        case TimmModel() as reference if config.pretrained:
            return timm.own_input(reference, config)
        case HuggingFaceModel() as reference if config.pretrained:
            return huggingface.own_input(reference, config)
    return OwnInput()


def _input_of(card: ModelCard) -> OwnInput:
    return OwnInput(card.img_size, card.mean, card.std, card.interpolation)


def _check(reference: Reference, config: ModelConfig) -> None:
    match reference:
        case NewModel():
            patchlight.check(reference, config)
        case SavedModel():
            _check_saved(config)
        case TimmModel():
            timm.check(reference, config)
        case HuggingFaceModel():
            huggingface.check(reference, config)


def _check_saved(config: ModelConfig) -> None:
    if not config.pretrained:
        raise UsageError(f"model.pretrained = false wants no weights, and {config.name} is nothing else; name a model")
    if config.revision is not None:
        raise no_revision(config.name)


def _load_saved(
    reference: SavedModel, config: ModelConfig, img_size: int, num_classes: int, class_names: tuple[str, ...] | None
) -> Backbone:
    """The weights of another run's model, for another size or other classes if need be."""
    trained, card = load_model(reference.folder)
    checkpoint = find_checkpoint(reference.folder)
    spec = FAMILIES[card.spec.family].reshape(card.spec, img_size, num_classes, config)
    model = build_model(spec)
    new_head = card.class_names != class_names
    model.load_state_dict(adapt_weights(trained.state_dict(), structure_of(model), new_head))
    average = " (their moving average)" if checkpoint is not None and checkpoint.is_averaged else ""
    note = f"{card.name} with the weights of {config.name}{average}, {'a new head' if new_head else 'its head kept'}"
    if card.img_size != img_size:
        note += f", resampled for {img_size} pixels a side"
    source = Weights(library="patchlight", id=pinned(config.name), began_with=card.source)
    return Backbone(model, spec, _input_of(card), note, source, card.name)


def resize_model(model: nn.Module, card: ModelCard, img_size: int) -> tuple[nn.Module, ModelCard]:
    """The same weights for images of another size, positions resampled."""
    spec = FAMILIES[card.spec.family].reshape(card.spec, img_size, card.spec.num_classes)
    other = build_model(spec)
    structure = structure_of(other)
    if structure_of(model).checkpoints_gradients:
        structure.checkpoint_gradients()
    other.load_state_dict(adapt_weights(model.state_dict(), structure, new_head=False))
    return other.to(next(model.parameters()).device), dataclasses.replace(card, spec=spec)


def create_model(name: str | ModelConfig, *, img_size: int = 32, num_classes: int = 10, **overrides: Any) -> nn.Module:
    """A new model with random weights: `create_model("vit-tiny", patch_size=8)`. Its convolutions are channels-last.

    Raises UsageError for an unknown name or argument, or shapes that do not fit together.
    """
    config = name if isinstance(name, ModelConfig) else _as_config(name, overrides)
    return load_backbone(config, img_size=img_size, num_classes=num_classes).model


def _as_config(name: str, overrides: dict[str, Any]) -> ModelConfig:
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    for key in overrides:
        if key not in known:
            raise UsageError(f"no model argument '{key}'; {did_you_mean(key, known)}")
    return ModelConfig(name=name, **overrides)
