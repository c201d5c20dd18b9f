"""Weights of timm: of its registry, of the hub and of folders in its format."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from patchlight.config import ModelConfig
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.machine.process import import_library
from patchlight.models.backbone import (
    COMMON,
    MIDDLE,
    WHOLE,
    Backbone,
    OwnInput,
    check_fields,
    nearest_interpolation,
    no_revision,
    resampling_note,
    their_fields,
)
from patchlight.models.bounds import check_size, weigh
from patchlight.models.card import ModelSpec
from patchlight.models.families.hub import commit_of, plain_errors
from patchlight.models.families.timm.options import check_architecture, check_options, check_weights
from patchlight.models.reference import TimmModel, read_json
from patchlight.runs import Weights

FIELDS = {  # our words for timm's
    "patch_size": "patch_size",
    "drop_rate": "drop_rate",
    "patch_drop_rate": "patch_drop_rate",
    "pos_drop_rate": "pos_drop_rate",
    "proj_drop_rate": "proj_drop_rate",
    "attn_drop_rate": "attn_drop_rate",
    "drop_path_rate": "drop_path_rate",
}


def check(reference: TimmModel, config: ModelConfig) -> None:
    """Raises UsageError for a field that no model of timm has, and for a name that its registry does not have."""
    check_fields(config, (*FIELDS, *COMMON))
    if config.revision is not None and reference.place == "folder":
        raise no_revision(config.name)
    if reference.place == "registry":
        _check_registered(reference.id)


def _check_registered(name: str) -> None:
    timm = import_library("timm")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = did_you_mean(architecture, timm.list_models())
        raise UsageError(f"timm has no model '{architecture}'; {near}")
    tags = [known.partition(".")[2] for known in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        raise UsageError(f"timm has no weights '{tag}' of {architecture}; {did_you_mean(tag, tags)}")


@dataclass(frozen=True)
class Origin:
    """What timm knows of a model before it is built."""

    source: str  # what its `create_model` takes
    architecture: str
    weights: dict[str, Any]  # what it says of them: mean, std, input_size, ...
    arguments: dict[str, Any] = field(default_factory=dict)  # that the model was saved with
    repository: str | None = None  # of the weights on the hub
    pinned: dict[str, Any] | None = None  # what makes it take a revision of registered weights
    revision: str | None = None


def load(reference: TimmModel, config: ModelConfig, img_size: int, num_classes: int) -> Backbone:
    """timm resamples positions and patch kernels itself; the head is made anew.

    Raises UsageError for a model without weights, PatchlightError where they are missing, damaged or others.
    """
    timm = import_library("timm")
    origin = ORIGINS[reference.place](reference, config)
    saved = {key: value for key, value in origin.arguments.items() if key != "num_classes"}
    options = {**saved, **their_fields(config, FIELDS)}
    if origin.weights.get("fixed_input_size", False):
        options["img_size"] = img_size
    if saved.get("in_chans", 3) != 3:
        options["in_chans"] = 3  # images are RGB; timm spreads the first kernel over the colours
    if reference.place != "registry":
        classes = {"num_classes": origin.arguments.get("num_classes") or origin.weights.get("num_classes", num_classes)}
        model = weigh(lambda: timm.create_model(origin.architecture, **{**options, **classes}), img_size, config.name)
        check_size(model, Path(reference.id) if reference.place == "folder" else None, config.name)
    with plain_errors(config.name):
        # With all of its own classes, so that every weight must be there; then with ours.
        model = timm.create_model(
            origin.source, pretrained=config.pretrained, pretrained_cfg_overlay=origin.pinned, **options
        )
        model.reset_classifier(num_classes)
    source = Weights(
        library=f"timm {timm.__version__}",
        id=origin.source.partition("@")[0] if origin.revision else origin.source,
        pretrained=config.pretrained,
        revision=origin.revision,
        commit=commit_of(origin.repository, origin.revision),
    )
    spec = ModelSpec("timm", origin.architecture, options, img_size, num_classes)
    if not config.pretrained:
        return Backbone(model, spec, source=source)
    own = _own_input(origin)
    note = "; ".join(filter(None, (_resampled(model, origin, saved, "patch_size" in options), own.note)))
    return Backbone(model, spec, own, note, source)


def own_input(reference: TimmModel, config: ModelConfig) -> OwnInput:
    """The images of the pretrained weights, by what timm says of them. Raises as `load` does."""
    return _own_input(ORIGINS[reference.place](reference, config))


def _own_input(origin: Origin) -> OwnInput:
    usual = dataclasses.fields(import_library("timm").models.PretrainedCfg)
    weights: dict[str, Any] = {field.name: field.default for field in usual}
    weights |= {key: value for key, value in origin.weights.items() if value not in (None, "")}
    height, width = weights["input_size"][-2:]
    if weights["fixed_input_size"] and (made_for := origin.arguments.get("img_size")):
        # Older files kept the size of the weights before them.
        height, width = (made_for, made_for) if isinstance(made_for, int) else made_for
    named = origin.weights.get("mean") and origin.weights.get("std")
    unknown = "" if named else "it does not name mean and deviation: timm's default, ImageNet's, is taken"
    interpolation, other = nearest_interpolation(str(weights["interpolation"]))
    crop, mode = weights["crop_pct"], weights["crop_mode"]
    cut = f"its own preprocessing keeps the middle {crop:.1%} of an image; {WHOLE}"
    how = {"squash": "stretches", "border": "adds borders to"}.get(str(mode))
    shape = f"its own preprocessing {how} an image that is not square; {MIDDLE}" if how else ""
    return OwnInput(
        size=height if height == width else None,
        mean=_of_colours(weights["mean"]),
        std=_of_colours(weights["std"]),
        interpolation=interpolation,
        note="; ".join(filter(None, (other, cut if crop < 1 else "", shape, unknown))),
    )


def _of_colours(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(values) * 3 if len(values) == 1 else tuple(values)


def _in_registry(reference: TimmModel, config: ModelConfig) -> Origin:
    name, revision = reference.id, config.revision
    registered = import_library("timm").get_pretrained_cfg(name)
    if config.pretrained and not (registered and registered.has_weights):
        raise UsageError(f"timm has no weights of {name}; set model.pretrained = false, or choose another model")
    weights = {} if registered is None else registered.to_dict()
    repository = weights.get("hf_hub_id")
    if revision and not repository:
        raise UsageError(f"the weights of {name} are in no repository of the hub; leave out model.revision")
    pinned = None
    if revision:
        pinned = {"hf_hub_id": f"{repository}@{revision}", "custom_load": weights.get("custom_load", False)}
    architecture = name.partition(".")[0]
    return Origin(name, architecture, weights, repository=repository, pinned=pinned, revision=revision)


def _on_hub(reference: TimmModel, config: ModelConfig) -> Origin:
    repository, _, at = reference.id.partition("@")  # timm's own word for a revision may stand in the name
    revision = config.revision or at or None
    place = f"{repository}@{revision}" if revision else repository
    with plain_errors(config.name):
        weights, architecture, arguments = import_library("timm").models.load_model_config_from_hf(place)
    repository = weights.get("hf_hub_id")
    origin = Origin(f"hf-hub:{place}", architecture, weights, arguments or {}, repository, revision=revision)
    check_origin(origin, f"the config.json of {config.name}")
    return origin


def _in_folder(reference: TimmModel, config: ModelConfig) -> Origin:
    folder = Path(reference.id)
    about = read_json(folder / "config.json")
    if "architecture" not in about:
        raise PatchlightError(f"{folder / 'config.json'} names no 'architecture', so it is not in timm's format")
    weights = about.get("pretrained_cfg", about)
    origin = Origin(f"local-dir:{folder}", about["architecture"], weights, about.get("model_args") or {})
    check_origin(origin, str(folder / "config.json"))
    return origin


def check_origin(origin: Origin, where: str) -> None:
    """Raises PatchlightError, which begins with `where`, for what does not describe a network and its images by plain
    data. What would load something else is refused, or never followed, as timm reads the weights of this place alone.
    """
    try:
        check_architecture(origin.architecture)
        check_options(origin.arguments, "model_args")
        check_weights(origin.weights)
    except PatchlightError as error:
        raise PatchlightError(f"{where} describes no model that can be loaded: {error}") from None


ORIGINS = {"registry": _in_registry, "hub": _on_hub, "folder": _in_folder}


def _resampled(model: Any, origin: Origin, saved: dict[str, Any], other_patch: bool) -> str:
    """What timm has resampled for the model, in a line."""
    grid = _grid_of(model)
    if grid is None:
        return ""
    kernel = model.patch_embed.proj.weight.shape[-1]
    size = origin.weights.get("input_size", (3, 0, 0))[-1]
    with plain_errors(origin.source), torch.device("meta"):  # only to ask for its shape
        native = import_library("timm").create_model(
            origin.architecture, pretrained=False, **{**saved, "img_size": size}
        )
    first = native.patch_embed.proj.weight.shape[-1] if other_patch else kernel
    return resampling_note(_grid_of(native), grid, first, kernel)


def _grid_of(model: Any) -> tuple[int, int] | None:
    """The grid of patches of a ViT that has a table of positions, and one convolution as its patch embedding."""
    embed = getattr(model, "patch_embed", None)
    if getattr(model, "pos_embed", None) is None or not isinstance(getattr(embed, "proj", None), nn.Conv2d):
        return None
    return getattr(embed, "grid_size", None)


def check_spec(spec: ModelSpec) -> None:
    """Raises PatchlightError where a spec that was read describes no network of timm by plain data."""
    check_architecture(spec.architecture)
    if "num_classes" in spec.arguments:
        raise PatchlightError("its options have num_classes, which stands beside them")
    check_options(spec.arguments, "options")


def build(spec: ModelSpec) -> nn.Module:
    model: nn.Module = import_library("timm").create_model(
        spec.architecture, num_classes=spec.num_classes, **spec.arguments
    )
    return model


def reshape(spec: ModelSpec, img_size: int, num_classes: int, config: ModelConfig | None = None) -> ModelSpec:
    """For another image size and number of classes, a recipe's fields laid over its arguments.

    Raises UsageError for a field that no model of timm has.
    """
    options = spec.arguments
    if config is not None:
        check_fields(config, (*FIELDS, *COMMON))
        options = {**options, **their_fields(config, FIELDS)}
    if "img_size" in options:
        options = {**options, "img_size": img_size}
    return dataclasses.replace(spec, arguments=options, img_size=img_size, num_classes=num_classes)
