"""The models: Patchlight's own, those of the hubs and those of other runs, all begun with in one way."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from patchlight.config import ModelConfig
from patchlight.errors import UsageError, did_you_mean
from patchlight.models.adapt import adapt_weights
from patchlight.models.backbone import Backbone, no_revision
from patchlight.models.families import hub
from patchlight.models.registry import MODELS, all_args, build_model, given_fields, model_args, with_fields
from patchlight.models.resnet import ResNet
from patchlight.models.saved import ModelCard, is_model_folder, load_classifier, load_model, pixels_to_input, save_model
from patchlight.models.vit import VisionTransformer

__all__ = [
    "MODELS",
    "Backbone",
    "ModelCard",
    "ResNet",
    "VisionTransformer",
    "build_model",
    "check_model",
    "create_model",
    "is_model_folder",
    "load_backbone",
    "load_classifier",
    "load_model",
    "model_args",
    "pixels_to_input",
    "resize_model",
    "save_model",
]


def check_model(config: ModelConfig) -> None:
    """Raises UsageError where `load_backbone` would, as far as can be told without weights."""
    if not is_model_folder(config.name) and hub.library_of(config.name):
        _check_path(config.name)
        hub.check_fields(config, given_fields(config))
    elif not is_model_folder(config.name):
        model_args(config, img_size=32, num_classes=2)


def _check_path(name: str) -> None:
    """Raises UsageError for a name in a folder of runs, where nothing has it: no repository of a hub is meant."""
    path = Path(name)
    if path.exists() or not path.parent.is_dir() or path.parent == Path():
        return
    beside = [str(path.parent / folder.name) for folder in path.parent.iterdir() if is_model_folder(str(folder))]
    if beside:
        raise UsageError(f"there is no run or model at {name}; {did_you_mean(name, beside)}")


def load_backbone(
    config: ModelConfig, *, img_size: int, num_classes: int, class_names: tuple[str, ...] | None = None
) -> Backbone:
    """The model that a recipe begins with: new, of a hub, or of another run, with a head for `num_classes`.

    The head of a run that knows just these `class_names` is kept. Random weights are drawn from torch's generator.
    Raises UsageError for a wrong name or field, PatchlightError where weights are missing, damaged or do not fit.
    """
    if is_model_folder(config.name):
        return _from_run(config, img_size, num_classes, class_names)
    if config.name not in MODELS and hub.library_of(config.name):
        hub.check_fields(config, given_fields(config))
        backbone = hub.load_backbone(config, given_fields(config), img_size=img_size, num_classes=num_classes)
        return dataclasses.replace(backbone, model=backbone.model.to(memory_format=torch.channels_last))
    args = model_args(config, img_size=img_size, num_classes=num_classes)
    return Backbone(build_model(config.name, args), args)


def _from_run(config: ModelConfig, img_size: int, num_classes: int, class_names: tuple[str, ...] | None) -> Backbone:
    """The weights of another run's model, for another size or other classes if need be."""
    if not config.pretrained:
        raise UsageError(f"model.pretrained = false wants no weights, and {config.name} is nothing else; name a model")
    if config.revision is not None:
        raise no_revision(config.name)
    trained, card = load_model(config.name)
    given = given_fields(config)
    if "library" in card.args:
        hub.check_fields(config, given, card.args["library"])
        args = hub.reshaped(card.args, img_size, num_classes, given)
    else:
        args = with_fields(card.name, card.args, config, img_size, num_classes)
        _check_unseen(config.name, all_args(card.name, card.args), all_args(card.name, args))
        args = _with_positions_of(trained, card.name, args)
    model = build_model(card.name, args)
    if "library" in card.args and config.grad_checkpointing:
        hub.checkpoint_gradients(model)
    new_head = card.class_names != class_names
    model.load_state_dict(adapt_weights(trained.state_dict(), model, hub.prefix_tokens(trained), new_head))
    note = f"{card.name} with the weights of {config.name}, {'a new head' if new_head else 'its head kept'}"
    if card.img_size != img_size:
        note += f", made for {card.img_size} pixels a side and resampled for {img_size}"
    source = {"library": "patchlight", "id": config.name, **({"began_with": card.source} if card.source else {})}
    return Backbone(model, args, card.mean, card.std, note, source, card.name)


def _check_unseen(run: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Raises UsageError where weights would fit, and yet mean something else."""
    for key in ("num_heads", "pos_embed"):
        if before.get(key) != after.get(key):
            raise UsageError(
                f"model.{key} is {after[key]}, but the weights of {run} were trained with {before[key]}; set that"
            )


def _with_positions_of(trained: nn.Module, name: str, args: dict[str, Any]) -> dict[str, Any]:
    """`args` with the grid that the fixed positions of `trained` are made for, where the new one is another."""
    args = {key: value for key, value in args.items() if key != "pos_grid"}
    if not isinstance(trained, VisionTransformer) or isinstance(trained.pos_embed, nn.Parameter | None):
        return args
    shape = all_args(name, args)
    side = shape["img_size"] // shape["patch_size"]
    return args if trained.pos_grid == (side, side) else {**args, "pos_grid": trained.pos_grid}


def resize_model(model: nn.Module, card: ModelCard, img_size: int) -> tuple[nn.Module, ModelCard]:
    """The same weights for images of another size, positions resampled."""
    args = {**card.args, "img_size": img_size}
    if "library" in args:
        args = hub.reshaped(args, img_size, len(card.class_names))
    else:
        args = _with_positions_of(model, card.name, args)
    other = build_model(card.name, args)
    if "library" in args and hub.checkpoints_gradients(model):
        hub.checkpoint_gradients(other)
    other.load_state_dict(adapt_weights(model.state_dict(), other, hub.prefix_tokens(model), new_head=False))
    return other.to(next(model.parameters()).device), dataclasses.replace(card, args=args)


def create_model(name: str | ModelConfig, *, img_size: int = 32, num_classes: int = 10, **overrides: Any) -> nn.Module:
    """A new model with random weights: `create_model("vit-tiny", patch_size=8)`. Its convolutions are channels-last.

    Raises UsageError for an unknown name or argument, or shapes that do not fit together.
    """
    config = name if isinstance(name, ModelConfig) else _as_config(name, overrides)
    return load_backbone(config, img_size=img_size, num_classes=num_classes).model


def _as_config(name: str, overrides: dict[str, Any]) -> ModelConfig:
    known = {f.name for f in dataclasses.fields(ModelConfig)}
    for key in overrides:
        if key not in known:
            raise UsageError(f"no model argument '{key}'; {did_you_mean(key, known)}")
    return ModelConfig(name=name, **overrides)
