"""Pretrained models of timm and of Hugging Face: their weights, their own input, and a new head.

A name says where a model comes from, and is never guessed at:

timm/NAME or timm/NAME.TAG   timm's registry; the weights come from the hub
hf-hub:OWNER/NAME            a model on the hub in timm's format
local-dir:FOLDER             a folder in that format
OWNER/NAME                   a model on the hub in Hugging Face's format
FOLDER                       a folder in either format, told apart by its config.json

No code of a repository is run; weights are read as safetensors or, where there are none, without pickled objects.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from patchlight.config import ModelConfig
from patchlight.errors import UsageError
from patchlight.machine.libraries import import_library
from patchlight.models.backbone import Backbone, does_not_apply, no_revision, read_json, told_plainly
from patchlight.models.families.huggingface import (
    HUGGING_FACE_FIELDS,
    HuggingFaceClassifier,
    load_hugging_face,
    prefix_of,
    with_shape,
)
from patchlight.models.families.timm import TIMM_FIELDS, check_timm_name, load_timm

FIELDS = {"timm": TIMM_FIELDS, "huggingface": HUGGING_FACE_FIELDS}
ELSEWHERE = ("name", "pretrained", "revision", "fused_attn", "grad_checkpointing")  # fields that every model has


def library_of(name: str) -> str | None:
    """ "timm" or "huggingface", by what stands in the name or, of a folder, in its config.json; None for neither."""
    if name.startswith(("timm/", "hf-hub:", "local-dir:")):
        return "timm"
    if (Path(name) / "config.json").is_file():
        found = read_json(Path(name) / "config.json")
        if "architecture" in found:
            return "timm"
        return "huggingface" if "model_type" in found else None
    return "huggingface" if name.count("/") == 1 and not name.startswith((".", "/", "~")) else None


def check_fields(config: ModelConfig, given: dict[str, Any], library: str | None = None) -> None:
    """Raises UsageError for a field that a model of this library, by default the name's, does not take."""
    known = FIELDS[library or library_of(config.name) or "huggingface"]
    for key in given:
        if key not in known and key not in ELSEWHERE:
            raise does_not_apply(key, config.name)
    if config.revision is not None and Path(config.name.removeprefix("local-dir:")).is_dir():
        raise no_revision(config.name)
    if config.name.startswith("timm/"):
        check_timm_name(config.name.removeprefix("timm/"))


def is_in_timm(name: str) -> bool:
    """Whether a name that lacks its "timm/" is one of timm's, if timm is here to say so."""
    with contextlib.suppress(UsageError):
        return bool(import_library("timm").is_model(name.partition(".")[0]))
    return False


def load_backbone(config: ModelConfig, given: dict[str, Any], *, img_size: int, num_classes: int) -> Backbone:
    """The model of `config.name` with a new head, its fields `given`, for images of `img_size` pixels a side.

    Raises UsageError for a wrong name or field and PatchlightError where weights are missing, damaged or others.
    """
    load = load_timm if library_of(config.name) == "timm" else load_hugging_face
    with told_plainly(config.name):
        backbone = load(config, given, img_size, num_classes)
    if config.grad_checkpointing:
        checkpoint_gradients(backbone.model)
    return backbone


def checkpoint_gradients(model: Any) -> None:
    """Let a model of a library compute activations again in the backward pass."""
    inner = getattr(model, "hf", model)
    for name in ("activation_checkpointing_enable", "gradient_checkpointing_enable", "set_grad_checkpointing"):
        if hasattr(inner, name):  # of Hugging Face, of its older versions, of timm
            getattr(inner, name)()
            return
    raise UsageError(f"model.grad_checkpointing does not apply to {type(inner).__name__}; leave it out")


def checkpoints_gradients(model: Any) -> bool:
    """Whether any part of it does: timm's hierarchies have the switch in their levels."""
    switches = ("grad_checkpointing", "gradient_checkpointing")  # timm's, Hugging Face's
    return any(getattr(part, name, False) for part in model.modules() for name in switches)


def build(args: dict[str, Any]) -> nn.Module:
    """The model that `Backbone.args` describe, its weights drawn anew."""
    if args["library"] == "timm":
        return import_library("timm").create_model(
            args["architecture"], num_classes=args["num_classes"], **args["options"]
        )
    transformers = import_library("transformers")
    config = transformers.AutoConfig.for_model(**args["config"])
    return HuggingFaceClassifier(transformers.AutoModelForImageClassification.from_config(config))


def reshaped(
    args: dict[str, Any], img_size: int, num_classes: int, given: dict[str, Any] | None = None
) -> dict[str, Any]:
    """`args` for another image size and number of classes, the fields `given` laid over them."""
    args = {**args, "img_size": img_size, "num_classes": num_classes}
    if args["library"] == "timm":
        theirs = {TIMM_FIELDS[key]: value for key, value in (given or {}).items() if key in TIMM_FIELDS}
        size = {"img_size": img_size} if "img_size" in args["options"] else {}
        return {**args, "options": {**args["options"], **size, **theirs}}
    return {**args, "config": with_shape(args["config"], img_size, num_classes, given or {})}


def prefix_tokens(model: Any) -> int:
    """How many tokens stand before the patches in a model's table of positions."""
    if isinstance(model, HuggingFaceClassifier):
        return prefix_of(model)
    table, grid = getattr(model, "pos_embed", None), getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if grid and isinstance(table, Tensor) and table.ndim == 3:  # timm's; some have none for their tokens
        return int(table.shape[1] - math.prod(grid))
    return int(getattr(model, "num_prefix_tokens", 0))
