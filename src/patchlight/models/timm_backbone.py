"""Pretrained models of timm: of its registry, of the hub and of folders in its format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from patchlight.config import ModelConfig
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.libraries import import_library
from patchlight.models.backbone import Backbone, commit_of, read_json, resampled

TIMM_FIELDS = {  # our words for timm's
    "patch_size": "patch_size", "drop_rate": "drop_rate",
    "patch_drop_rate": "patch_drop_rate", "pos_drop_rate": "pos_drop_rate",
    "proj_drop_rate": "proj_drop_rate", "attn_drop_rate": "attn_drop_rate", "drop_path_rate": "drop_path_rate",
}  # fmt: skip


def load_timm(config: ModelConfig, given: dict[str, Any], img_size: int, num_classes: int) -> Backbone:
    """timm resamples positions and patch kernels itself; the head is made anew."""
    timm = import_library("timm")
    source, architecture, saved, weights = _timm_source(config)
    options = {TIMM_FIELDS[key]: value for key, value in given.items() if key in TIMM_FIELDS}
    if weights.get("fixed_input_size", False):
        options["img_size"] = img_size
    saved = {key: value for key, value in saved.items() if key != "num_classes"}
    options = {**saved, **options}
    # With all of its own classes, so that every weight must be there; then with ours.
    model = timm.create_model(source, pretrained=config.pretrained, **options)
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
        {"library": "timm", "architecture": architecture, "options": options, "img_size": img_size,
         "num_classes": num_classes},
        tuple(weights["mean"]) if config.pretrained else None,
        tuple(weights["std"]) if config.pretrained else None,
        note=note,
        source={"library": f"timm {timm.__version__}", "id": source, "pretrained": config.pretrained,
                **commit_of(weights.get("hf_hub_id"), config.revision)},
    )  # fmt: skip


def _timm_source(config: ModelConfig) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """What timm calls the model, its architecture, the arguments it was saved with, and what it says of its weights."""
    timm = import_library("timm")
    at = f"@{config.revision}" if config.revision else ""
    if config.name.startswith("timm/"):
        name = config.name.removeprefix("timm/")
        found = timm.get_pretrained_cfg(name)
        weights = {} if found is None else found.to_dict()
        if config.pretrained and not (found and found.has_weights):
            raise UsageError(f"timm has no weights of {name}; set model.pretrained = false, or choose another model")
        if at and not weights.get("hf_hub_id"):
            raise UsageError(f"the weights of {name} are in no repository of the hub; leave out model.revision")
        if at:
            return f"hf-hub:{weights['hf_hub_id'].partition('@')[0]}{at}", name.partition(".")[0], {}, weights
        return name, name.partition(".")[0], {}, weights
    if config.name.startswith("hf-hub:"):
        source = config.name + at
        weights, architecture, saved = timm.models.load_model_config_from_hf(source.removeprefix("hf-hub:"))
        return source, architecture, saved or {}, weights
    folder = Path(config.name.removeprefix("local-dir:"))
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
