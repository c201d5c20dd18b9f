"""Patchlight's own models: the rows of MODELS, and the autoencoder around one."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchlight.config import ModelConfig
from patchlight.errors import PatchlightError, UsageError
from patchlight.models.backbone import WHICH, Backbone, check_fields, does_not_apply, given_fields, no_revision
from patchlight.models.bounds import check_plain, shown
from patchlight.models.card import ModelSpec
from patchlight.models.families.names import Names, no_vit
from patchlight.models.families.switched import attention_layer, fuse_all, unfused
from patchlight.models.layers import ConvStem, PatchEmbed, kept_patches
from patchlight.models.mae import MaskedAutoencoder
from patchlight.models.reference import NewModel
from patchlight.models.registry import MODELS, all_arguments
from patchlight.models.resnet import ResNet
from patchlight.models.structure import Anatomy, AttentionShape, Structure, VitAnatomy
from patchlight.models.vit import VisionTransformer

TABLES = ("sincos1d", "sincos2d")  # positions that are computed for a grid, not learned


def owns(model: nn.Module) -> bool:
    return isinstance(model, (VisionTransformer, ResNet, MaskedAutoencoder))


def check(reference: NewModel, config: ModelConfig) -> None:
    """Raises UsageError for a field that the model does not have."""
    check_fields(config, all_arguments(reference.name, {}))
    if config.revision is not None:
        raise no_revision(config.name)


def new_spec(config: ModelConfig, *, img_size: int, num_classes: int) -> ModelSpec:
    """A row of MODELS with the fields of `config` laid over its arguments; its name must be a row's."""
    arguments = {**MODELS[config.name][1], **given_fields(config)}
    return ModelSpec("patchlight", config.name, arguments, img_size, num_classes)


def load(reference: NewModel, config: ModelConfig, img_size: int, num_classes: int) -> Backbone:
    """A new model, its weights drawn from torch's generator."""
    spec = new_spec(config, img_size=img_size, num_classes=num_classes)
    return Backbone(build(spec), spec)


def build(spec: ModelSpec) -> nn.Module:
    cls, _ = MODELS[spec.architecture]
    return cls(**spec.arguments, img_size=spec.img_size, num_classes=spec.num_classes)


def check_spec(spec: ModelSpec) -> None:
    """Raises PatchlightError where a spec that was read is of a model that this version has not, or not so.

    Arguments that a recipe has, too, are checked as its fields are.
    """
    name = spec.architecture
    if name not in MODELS:
        raise PatchlightError(f"it names the model {shown(name)}, which this version does not have")
    fields = {f.name for f in dataclasses.fields(ModelConfig)} - set(WHICH)
    for key, value in spec.arguments.items():
        if key not in all_arguments(name, {}):
            raise PatchlightError(f"it has the argument {shown(key)}, which is none of {name}")
        check_plain(value, key)
        if key in fields:
            ModelConfig(name=name, **{key: value})
        elif key in COUNTED and value is not None:
            _check_counts(key, value, COUNTED[key])
        elif key == "in_chans" and value != 3:
            raise PatchlightError(f"in_chans is {shown(value)}; images have 3 channels here")


COUNTED = {"layers": range(1, 5), "pos_grid": range(2, 3)}  # lists of counts, and how many there can be


def _check_counts(key: str, value: Any, lengths: range) -> None:
    good = isinstance(value, tuple) and len(value) in lengths and all(type(n) is int and n > 0 for n in value)
    if not good:
        raise PatchlightError(f"{key} is {shown(value)}; it must be a list of {lengths[-1]} whole numbers above 0")


def reshape(spec: ModelSpec, img_size: int, num_classes: int, config: ModelConfig | None = None) -> ModelSpec:
    """Of trained weights: for another image size and number of classes, a recipe's fields laid over its arguments.

    Raises UsageError for a field that the model does not have, and where weights would fit and yet mean something else.
    """
    name = spec.architecture
    given = {} if config is None else given_fields(config)
    before = all_arguments(name, spec.arguments)
    for field, value in given.items():
        if field not in before:
            raise does_not_apply(field, config.name if config else name)
        if field in ("num_heads", "pos_embed") and before[field] != value:
            run = config.name if config else name
            raise UsageError(
                f"model.{field} is {value}, but the weights of {run} were trained with {before[field]}; set that"
            )
    arguments = {key: value for key, value in {**spec.arguments, **given}.items() if key != "pos_grid"}
    if before.get("pos_embed") in TABLES:
        # Positions stay those of the grid that they were made for, and are resampled to the new one.
        patch_size = all_arguments(name, arguments)["patch_size"]
        made_for = before["pos_grid"] or (spec.img_size // before["patch_size"],) * 2
        if tuple(made_for) != (img_size // patch_size,) * 2:
            arguments["pos_grid"] = tuple(made_for)
    return dataclasses.replace(spec, arguments=arguments, img_size=img_size, num_classes=num_classes)


def structure(model: nn.Module) -> Structure:
    if isinstance(model, VisionTransformer):
        return _of_vit(model)
    if isinstance(model, MaskedAutoencoder):
        return _of_autoencoder(model)
    assert isinstance(model, ResNet)
    return Structure(
        model=model,
        network=model,
        heads=Names(model).keys_of(model.fc),
        checkpoints_gradients=False,
        checkpoint_gradients=lambda: _refuse_checkpoints(model),
        anatomy=Anatomy(model=model, logits=model, no_attention=no_vit(model)),
    )


def _refuse_checkpoints(model: nn.Module) -> None:
    raise UsageError(f"model.grad_checkpointing does not apply to {type(model).__name__}; leave it out")


def _of_vit(model: VisionTransformer) -> Structure:
    names = Names(model)
    whole, kept = _attention_shapes(model)
    table = model.pos_embed if isinstance(model.pos_embed, nn.Parameter) else None
    tokens = (model.cls_token, model.dist_token, model.reg_token)
    patch_kernel = model.patch_embed.proj.weight if isinstance(model.patch_embed, PatchEmbed) else None
    kernels = []
    if isinstance(model.patch_embed, ConvStem):
        kernels = [layer.weight for layer in model.patch_embed.stem if isinstance(layer, nn.Conv2d)]
    return Structure(
        model=model,
        network=model,
        heads=names.keys_of(model.head, model.head_dist),
        checkpoints_gradients=model.grad_checkpointing,
        checkpoint_gradients=lambda: setattr(model, "grad_checkpointing", True),
        anatomy=_anatomy(model),
        levels=tuple(model.blocks),
        stem="patch_embed",
        stem_kind=model.stem,
        embedding_dropout=(model.pos_drop, model.patch_drop),
        patch_size=model.patch_size,
        num_prefix_tokens=model.num_prefix_tokens,
        attention=whole,
        training_attention=kept,
        set_fused_attn=fuse_all(model),
        embeddings=names.keys_of(model.patch_embed, table, *tokens),
        last_norm=names.keys_of(model.norm),
        no_decay=names.keys_of(table, *tokens),
        hidden_matrices=names.matrices_of(model.blocks),
        stem_kernels=names.keys_of(*kernels),
        position_tables=names.keys_of(table),
        position_prefix=model.num_prefix_tokens,
        patch_kernels=names.keys_of(patch_kernel),
    )


def _anatomy(model: VisionTransformer) -> Anatomy:
    """That of any network where there are no blocks, or a block's attention was replaced by one that cannot be seen."""
    blocks: tuple[Any, ...] = tuple(model.blocks)
    prefix, pool, patch = model.num_prefix_tokens, model.attn_pool, (model.patch_size, model.patch_size)
    try:
        attentions = tuple(attention_layer(block.attn, f"blocks.{i}.attn") for i, block in enumerate(blocks))
        why = "" if blocks else "the model has no blocks (model.depth 0), so there is no attention to look at"
    except PatchlightError as error:
        why = str(error)
    if why:
        return Anatomy(model=model, logits=model, no_attention=why, num_prefix_tokens=prefix, patch_size=patch)

    def pool_weights(tokens: Tensor) -> Tensor:
        assert pool is not None
        return F.pad(pool.weights(model.norm(tokens)[:, prefix:]), (prefix, 0))

    def decode(tokens: Tensor) -> Tensor:
        logits = model.forward_head(model.norm(tokens))
        return logits if isinstance(logits, Tensor) else torch.stack(logits).mean(dim=0)

    return VitAnatomy(
        model=model,
        logits=model,
        blocks=blocks,
        attentions=attentions,
        explicit_attention=unfused(attentions),
        patch_embed=model.patch_embed,
        patch_size=patch,
        num_prefix_tokens=prefix,
        pooling="token+dist" if model.head_dist is not None else model.global_pool,
        pool_weights=None if pool is None else pool_weights,
        decode=decode,
        positions=model.pos_embed,
        can_drop_patches=True,
    )


def _attention_shapes(model: VisionTransformer) -> tuple[AttentionShape | None, AttentionShape | None]:
    """Of all patches, and of those that training keeps."""
    if not len(model.blocks):
        return None, None
    patches, prefix = model.grid_size[0] * model.grid_size[1], model.num_prefix_tokens
    kept = kept_patches(patches, model.patch_drop.rate)
    whole = AttentionShape(model.num_heads, prefix + patches, model.head_dim)
    return whole, whole._replace(tokens=prefix + kept)


def _of_autoencoder(model: MaskedAutoencoder) -> Structure:
    """Its levels are the decoder's blocks, before which the whole encoder stands."""
    encoder, names = _of_vit(model.encoder), Names(model)
    attention = encoder.attention
    visible = model.encoder.num_prefix_tokens + model.visible
    heads = names.keys_of(model.encoder.head, model.encoder.head_dist)
    embeddings = names.keys_of(model.encoder, model.mask_token) - heads
    return Structure(
        model=model,
        network=model,
        heads=heads,
        checkpoints_gradients=encoder.checkpoints_gradients,
        checkpoint_gradients=encoder.checkpoint_gradients,
        no_maps=f"{type(model).__name__} gives pixels back, not classes or features, so there is nothing to explain",
        levels=tuple(model.blocks),
        stem="encoder.patch_embed",
        embedding_dropout=encoder.embedding_dropout,
        attention=attention,
        training_attention=attention and attention._replace(tokens=visible),
        set_fused_attn=fuse_all(model),
        embeddings=embeddings,
        last_norm=names.keys_of(model.norm),
        no_decay=frozenset(f"encoder.{key}" for key in encoder.no_decay) | {"mask_token"},
        hidden_matrices=names.matrices_of(model.encoder.blocks, model.blocks),
    )
