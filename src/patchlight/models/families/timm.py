"""Pretrained models of timm: of its registry, of the hub and of folders in its format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from patchlight.config import ModelConfig
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.machine.libraries import import_library
from patchlight.models.backbone import Backbone, commit_of, read_json, resampled

TIMM_FIELDS = {  # our words for timm's
    "patch_size": "patch_size",
    "drop_rate": "drop_rate",
    "patch_drop_rate": "patch_drop_rate",
    "pos_drop_rate": "pos_drop_rate",
    "proj_drop_rate": "proj_drop_rate",
    "attn_drop_rate": "attn_drop_rate",
    "drop_path_rate": "drop_path_rate",
}


def load_timm(config: ModelConfig, given: dict[str, Any], img_size: int, num_classes: int) -> Backbone:
    """timm resamples positions and patch kernels itself; the head is made anew."""
    timm = import_library("timm")
    name, revision = config.name, config.revision
    if name.startswith("hf-hub:"):  # timm's own word for a revision may stand in the name
        name, _, at = name.partition("@")
        revision = revision or at or None
    source, architecture, saved, weights = _timm_source(name, revision, config.pretrained)
    pinned = None
    if revision and name.startswith("timm/"):
        pinned = {"hf_hub_id": f"{weights['hf_hub_id']}@{revision}", "custom_load": weights.get("custom_load", False)}
    options = {TIMM_FIELDS[key]: value for key, value in given.items() if key in TIMM_FIELDS}
    if weights.get("fixed_input_size", False):
        options["img_size"] = img_size
    saved = {key: value for key, value in saved.items() if key != "num_classes"}
    if saved.get("in_chans", 3) != 3:
        options["in_chans"] = 3  # images are RGB; timm spreads the first kernel over the colours
    options = {**saved, **options}
    # With all of its own classes, so that every weight must be there; then with ours.
    model = timm.create_model(source, pretrained=config.pretrained, pretrained_cfg_overlay=pinned, **options)
    model.reset_classifier(num_classes)
    size, patch = weights.get("input_size", (3, 0, 0))[-1], options.get("patch_size")
    note = ""
    if (grid := _grid_of(model)) and config.pretrained:
        kernel = model.patch_embed.proj.weight.shape[-1]
        with torch.device("meta"):  # only to ask for its shape
            native = timm.create_model(architecture, pretrained=False, **{**saved, "img_size": size})
        note = resampled(_grid_of(native), grid, native.patch_embed.proj.weight.shape[-1] if patch else kernel, kernel)
    return Backbone(
        model,
        {
            "library": "timm",
            "architecture": architecture,
            "options": options,
            "img_size": img_size,
            "num_classes": num_classes,
        },
        _of_colours(weights["mean"]) if config.pretrained else None,
        _of_colours(weights["std"]) if config.pretrained else None,
        note=note,
        source={
            "library": f"timm {timm.__version__}",
            "id": source.partition("@")[0] if revision else source,
            "pretrained": config.pretrained,
            **commit_of(weights.get("hf_hub_id"), revision),
        },
    )


def _of_colours(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(values) * 3 if len(values) == 1 else tuple(values)


def _timm_source(name: str, revision: str | None, pretrained: bool) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """What timm calls the model, its architecture, the arguments it was saved with, and what it says of its weights."""
    timm = import_library("timm")
    if name.startswith("timm/"):
        name = name.removeprefix("timm/")
        found = timm.get_pretrained_cfg(name)
        weights = {} if found is None else found.to_dict()
        if pretrained and not (found and found.has_weights):
            raise UsageError(f"timm has no weights of {name}; set model.pretrained = false, or choose another model")
        if revision and not weights.get("hf_hub_id"):
            raise UsageError(f"the weights of {name} are in no repository of the hub; leave out model.revision")
        return name, name.partition(".")[0], {}, weights
    if name.startswith("hf-hub:"):
        source = f"{name}@{revision}" if revision else name
        weights, architecture, saved = timm.models.load_model_config_from_hf(source.removeprefix("hf-hub:"))
        return source, architecture, saved or {}, weights
    folder = Path(name.removeprefix("local-dir:"))
    found = read_json(folder / "config.json")
    if "architecture" not in found:
        raise PatchlightError(f"{folder / 'config.json'} names no 'architecture', so it is not in timm's format")
    return f"local-dir:{folder}", found["architecture"], found.get("model_args", {}), found.get("pretrained_cfg", found)


def check_timm_name(name: str) -> None:
    """Raises UsageError where timm has no such model or no weights of that tag."""
    timm = import_library("timm")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = did_you_mean(architecture, timm.list_models())
        raise UsageError(f"timm has no model '{architecture}'; {near}")
    tags = [known.partition(".")[2] for known in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        raise UsageError(f"timm has no weights '{tag}' of {architecture}; {did_you_mean(tag, tags)}")


def _grid_of(model: Any) -> tuple[int, int] | None:
    """The grid of patches of a timm ViT that has a table of positions, and one convolution as its patch embedding."""
    embed = getattr(model, "patch_embed", None)
    if getattr(model, "pos_embed", None) is None or not isinstance(getattr(embed, "proj", None), nn.Conv2d):
        return None
    return getattr(embed, "grid_size", None)
