"""Models of timm: of its registry, of the hub and of folders in its format; and any network with timm's names."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from patchlight.config import ModelConfig
from patchlight.config.sections import Interpolation
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.machine.process import import_library
from patchlight.models.backbone import (
    COMMON,
    Backbone,
    OwnInput,
    check_fields,
    nearest_interpolation,
    no_revision,
    resampling_note,
    their_fields,
)
from patchlight.models.card import ModelSpec
from patchlight.models.families.hub import commit_of, plain_errors
from patchlight.models.families.names import Names
from patchlight.models.families.switched import attention_layer, fuse_all, unfused
from patchlight.models.reference import TimmModel, read_json
from patchlight.models.structure import Anatomy, AttentionShape, Structure
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
# Names of parts.
HEADS = ("head", "fc", "classifier", "head_dist", "aux_head")
BEFORE_HEAD = ("norm", "pre_logits")  # inside a head, before its last linear map
EMBEDDINGS = ("patch_embed", "pos_embed", "cls_token", "reg_token", "dist_token", "norm_pre")
NO_DECAY = ("pos_embed", "cls_token", "reg_token", "dist_token", "mask_token", "relative_position_bias_table")
LEVELS = ("blocks", "layers", "stages")
DROPOUT = ("pos_drop", "patch_drop")  # on embeddings
RELATIVE = ("rope", "rel_pos", "rel_pos_bias", "shared_rel_pos", "relative_position_bias_table")


def owns(model: nn.Module) -> bool:
    """Every network: parts that have none of timm's names are left out of its structure."""
    return True


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

    @property
    def interpolation(self) -> str:
        """That the weights name, else timm's default."""
        return str(self.weights.get("interpolation") or "bicubic")


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
    with plain_errors(config.name):
        # With all of its own classes, so that every weight must be there; then with ours.
        model = timm.create_model(
            origin.source, pretrained=config.pretrained, pretrained_cfg_overlay=origin.pinned, **options
        )
        model.reset_classifier(num_classes)
    mean, std = (_of_colours(origin.weights[key]) if config.pretrained else None for key in ("mean", "std"))
    source = Weights(
        library=f"timm {timm.__version__}",
        id=origin.source.partition("@")[0] if origin.revision else origin.source,
        pretrained=config.pretrained,
        revision=origin.revision,
        commit=commit_of(origin.repository, origin.revision),
    )
    spec = ModelSpec("timm", origin.architecture, options, img_size, num_classes)
    note = _resampled(model, origin, saved, "patch_size" in options) if config.pretrained else ""
    own, made_for = OwnInput(mean, std, None, note), None
    if config.pretrained:
        own, made_for = _own_input(origin, own), origin.weights.get("input_size", (3, None, None))[-1]
    return Backbone(model, spec, mean, std, own.note, source, interpolation=own.interpolation, made_for=made_for)


def own_interpolation(reference: TimmModel, config: ModelConfig) -> Interpolation:
    """By which the images of the pretrained weights were resized, by what timm says of them. Raises as `load` does."""
    return nearest_interpolation(ORIGINS[reference.place](reference, config).interpolation)[0]


def _own_input(origin: Origin, own: OwnInput) -> OwnInput:
    """With the weights' interpolation, and what of their preprocessing is done otherwise here."""
    interpolation, other = nearest_interpolation(origin.interpolation)
    crop = origin.weights.get("crop_pct") or 1.0
    cut = f"its own preprocessing keeps the middle {crop:.1%} of an image; here images are kept whole"
    notes = (own.note, other, cut if crop < 1 else "")
    return dataclasses.replace(own, interpolation=interpolation, note="; ".join(filter(None, notes)))


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
    return Origin(f"hf-hub:{place}", architecture, weights, arguments or {}, repository, revision=revision)


def _in_folder(reference: TimmModel, config: ModelConfig) -> Origin:
    folder = Path(reference.id)
    about = read_json(folder / "config.json")
    if "architecture" not in about:
        raise PatchlightError(f"{folder / 'config.json'} names no 'architecture', so it is not in timm's format")
    weights = about.get("pretrained_cfg", about)
    return Origin(f"local-dir:{folder}", about["architecture"], weights, about.get("model_args", {}))


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


def structure(model: nn.Module) -> Structure:
    network: Any = model
    names = Names(model)
    try:
        anatomy, no_maps = _anatomy(network, names), ""
    except PatchlightError as error:
        anatomy, no_maps = None, str(error)
    attention = _attention_shape(network)
    tokens_first = hasattr(network, "num_prefix_tokens")
    return Structure(
        model=model,
        network=model,
        heads=names.keys_inside(HEADS, BEFORE_HEAD),
        checkpoints_gradients=any(getattr(part, "grad_checkpointing", False) for part in model.modules()),
        checkpoint_gradients=lambda: _checkpoint_gradients(network),
        no_maps=no_maps,
        anatomy=anatomy,
        levels=_levels(network, anatomy),
        stem="patch_embed" if isinstance(getattr(network, "patch_embed", None), nn.Module) else None,
        embedding_dropout=tuple(part for name, part in model.named_children() if name in DROPOUT),
        patch_size=_patch_size(network) if tokens_first else None,
        num_prefix_tokens=network.num_prefix_tokens if tokens_first else 0,
        attention=attention,
        training_attention=attention,
        set_fused_attn=fuse_all(model),
        embeddings=names.keys_with(EMBEDDINGS),
        last_norm=names.keys_with(("norm",)),
        no_decay=names.keys_with(NO_DECAY),
        hidden_matrices=frozenset(
            name
            for name, p in model.named_parameters()
            if p.ndim == 2 and re.search(r"(^|\.)(blocks|layers?)\.\d", name)
        ),
        position_tables=names.keys_ending("pos_embed"),
        position_prefix=_position_prefix(network),
        patch_kernels=names.keys_ending("patch_embed.proj.weight"),
    )


def _checkpoint_gradients(model: Any) -> None:
    if not hasattr(model, "set_grad_checkpointing"):
        raise UsageError(f"model.grad_checkpointing does not apply to {type(model).__name__}; leave it out")
    model.set_grad_checkpointing()


def _levels(model: Any, anatomy: Anatomy | None) -> tuple[nn.Module, ...]:
    if anatomy is not None and anatomy.blocks:
        return anatomy.blocks
    levels = next((part for name in LEVELS if (part := getattr(model, name, None))), None)
    return tuple(levels) if isinstance(levels, (nn.Sequential, nn.ModuleList)) else ()


def _patch_size(model: Any) -> int | None:
    """Pixels a side; None of patches that are not square. Of a hybrid timm counts `patch_size` in cells of the network
    before it, the ratio in pixels.
    """
    ratio = getattr(getattr(model, "patch_embed", None), "feat_ratio", None)
    size = getattr(model, "patch_size", None) or (ratio() if ratio is not None else None)
    return size if isinstance(size, int) else None


def _position_prefix(model: Any) -> int:
    """Rows of the table of positions before the patches'; some models have none for their tokens."""
    table, grid = getattr(model, "pos_embed", None), getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if grid and isinstance(table, Tensor) and table.ndim == 3:
        return int(table.shape[1] - math.prod(grid))
    return int(getattr(model, "num_prefix_tokens", 0))


def _attention_shape(model: Any) -> AttentionShape | None:
    """Of a ViT whose attention can be fused or not, and looks at all patches."""
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential) or not len(blocks) or not hasattr(model, "num_prefix_tokens"):
        return None
    attention: Any = getattr(blocks[0], "attn", None)
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    width = getattr(attention, "head_dim", None)
    if not hasattr(attention, "fused_attn") or grid is None or width is None:
        return None
    return AttentionShape(attention.num_heads, model.num_prefix_tokens + grid[0] * grid[1], width)


def _anatomy(model: Any, names: Names) -> Anatomy:
    """Of timm's VisionTransformer and its like. Raises PatchlightError, naming what is missing, of another network."""
    if not isinstance(getattr(model, "blocks", None), nn.Module) or not hasattr(model, "forward_head"):
        raise PatchlightError(
            f"{type(model).__name__} is no Vision Transformer that can be explained; give one of Patchlight, timm's "
            "VisionTransformer, or a ...ForImageClassification of Hugging Face"
        )
    blocks = tuple(model.blocks)
    plain = all(hasattr(block, "attn") and hasattr(block, "norm1") for block in blocks)
    if not plain or not hasattr(model, "num_prefix_tokens"):
        raise PatchlightError(f"{type(model).__name__} has no plain transformer blocks of norm1 and attn, so no map")
    attentions = tuple(attention_layer(block.attn, f"blocks.{i}.attn") for i, block in enumerate(blocks))
    if (pool := getattr(model, "attn_pool", None)) is not None:
        raise PatchlightError(f"{type(model).__name__} pools by {type(pool).__name__}, which maps cannot see through")
    pooling = "token+dist" if getattr(model, "head_dist", None) is not None else str(model.global_pool)
    if pooling not in ("token", "avg", "token+dist"):
        raise PatchlightError(f"{type(model).__name__} pools by '{pooling}'; maps know token and avg")
    embed: Any = getattr(model, "patch_embed", None)
    patch = embed.feat_ratio(as_scalar=False) if hasattr(embed, "feat_ratio") else getattr(model, "patch_size", None)
    if patch is None:
        raise PatchlightError(f"{type(model).__name__} does not say how large its patches are, so no map")
    return Anatomy(
        model=model,
        logits=model,
        blocks=blocks,
        attentions=attentions,
        first_norms=tuple(block.norm1 for block in blocks),
        explicit_attention=unfused(attentions),
        patch_embed=embed,
        patch_size=(patch, patch) if isinstance(patch, int) else tuple(patch),
        num_prefix_tokens=model.num_prefix_tokens,
        pooling=pooling,
        pool_weights=None,
        decode=lambda tokens: model.forward_head(model.norm(tokens)),
        positions=getattr(model, "pos_embed", None),
        can_drop_patches=not names.has_part(RELATIVE),
    )
