"""What timm's names say of a network: its head, blocks, tables of positions, attention; of a ViT its anatomy."""

from __future__ import annotations

import math
import re
from typing import Any

from torch import Tensor, nn

from patchlight.errors import PatchlightError, UsageError
from patchlight.models.families.names import Names, is_headless, no_vit
from patchlight.models.families.switched import attention_layer, fuse_all, unfused
from patchlight.models.families.timm.pooling import pooling_of
from patchlight.models.structure import Anatomy, AttentionShape, Structure, VitAnatomy

HEADS = ("head", "fc", "classifier", "head_dist", "aux_head")
BEFORE_HEAD = ("norm", "pre_logits")  # inside a head, before its last linear map
EMBEDDINGS = ("patch_embed", "pos_embed", "cls_token", "reg_token", "dist_token", "norm_pre")
NO_DECAY = ("pos_embed", "cls_token", "reg_token", "dist_token", "mask_token", "relative_position_bias_table")
LEVELS = ("blocks", "layers", "stages")
DROPOUT = ("pos_drop", "patch_drop")  # on embeddings
RELATIVE = ("rope", "rel_pos", "rel_pos_bias", "shared_rel_pos", "relative_position_bias_table")


def structure(model: nn.Module) -> Structure:
    network: Any = model
    names = Names(model)
    anatomy = _anatomy(network, names)
    attention = _attention_shape(network)
    tokens_first = hasattr(network, "num_prefix_tokens")
    return Structure(
        model=model,
        network=model,
        heads=names.keys_inside(HEADS, BEFORE_HEAD),
        checkpoints_gradients=any(getattr(part, "grad_checkpointing", False) for part in model.modules()),
        checkpoint_gradients=lambda: _checkpoint_gradients(network),
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


def _levels(model: Any, anatomy: Anatomy) -> tuple[nn.Module, ...]:
    if isinstance(anatomy, VitAnatomy):
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
    """Of timm's VisionTransformer and its like; of another network what all networks have."""
    # "heads" is that of torchvision's ViT.
    has_head = getattr(model, "num_classes", None) != 0 and not is_headless(model, (*HEADS, "heads"))
    try:
        return _vit(model, names, has_head)
    except PatchlightError as error:
        tokens_first = hasattr(model, "num_prefix_tokens")
        patch = _patch_size(model) if tokens_first else None
        return Anatomy(
            model=model,
            logits=model,
            has_head=has_head,
            no_attention=str(error),
            num_prefix_tokens=model.num_prefix_tokens if tokens_first else 0,
            patch_size=None if patch is None else (patch, patch),
        )


def _vit(model: Any, names: Names, has_head: bool) -> VitAnatomy:
    """Raises PatchlightError, naming what is missing, of another network."""
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Module) or not hasattr(model, "forward_head"):
        raise PatchlightError(no_vit(model))
    blocks = tuple(blocks)  # type: ignore[arg-type]
    if not blocks:
        raise PatchlightError("the model has no blocks, so there is no attention to look at")
    if not all(hasattr(block, "attn") for block in blocks) or not hasattr(model, "num_prefix_tokens"):
        raise PatchlightError(
            f"{type(model).__name__} has no plain transformer blocks, so its attention cannot be seen"
        )
    attentions = tuple(attention_layer(block.attn, f"blocks.{i}.attn") for i, block in enumerate(blocks))
    pooling, pool_weights = pooling_of(model)
    pool = getattr(model, "attn_pool", None)
    flexible = getattr(model, "embeds", None)  # NaFlexVit's: positions and prefix tokens too, after its `proj`
    embed: Any = getattr(model, "patch_embed", flexible)
    patch = embed.feat_ratio(as_scalar=False) if hasattr(embed, "feat_ratio") else getattr(model, "patch_size", None)
    if patch is None:
        raise PatchlightError(
            f"{type(model).__name__} does not say how large its patches are, so its attention has no place"
        )
    return VitAnatomy(
        model=model,
        logits=model,
        has_head=has_head,
        blocks=blocks,
        attentions=attentions,
        explicit_attention=unfused(attentions),
        patch_embed=embed if flexible is None else flexible.proj,
        patch_size=(patch, patch) if isinstance(patch, int) else tuple(patch),
        padded=bool(getattr(embed, "dynamic_img_pad", False)),
        num_prefix_tokens=model.num_prefix_tokens,
        pooling=pooling,
        pool_weights=pool_weights,
        decode=lambda tokens: model.forward_head(model.norm(tokens)),
        positions=getattr(model, "pos_embed", None),
        can_drop_patches=not names.has_part(RELATIVE) and getattr(pool, "pos_embed", None) is None,
    )
