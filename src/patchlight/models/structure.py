"""What a network is made of, seen alike in every family; a family fills it in, and everything else asks it.

Shapes: B batch, T tokens (P prefix tokens first, then N patches in reading order), D width, K classes, (r, c) grid,
h heads, d = D / h. Keys are those of the model's state dict.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

SMALL, CELLS = 64, {True: 8, False: 14}  # pixels, and cells along the longer side of images up to that, or above


class AttentionShape(NamedTuple):
    """Of one layer of attention, in a network whose layers are alike."""

    heads: int
    tokens: int
    head_dim: int


@dataclass(frozen=True)
class Tap:
    """A tensor of the forward pass: `take` finds it in the output of `module`, or gives None where it is not there."""

    module: nn.Module
    take: Callable[[Any], Tensor | None]


@dataclass(frozen=True)
class AttentionLayer:
    """The self-attention of a block, whose insides can be recorded."""

    name: str  # of `module` in the model
    module: nn.Module  # tokens (B, T, D) -> (B, T, D), maybe as the first of a tuple
    num_heads: int
    weights: Tap  # (B, h, T, T), rows summing to 1; inside `VitAnatomy.explicit_attention`
    values: Callable[[Tensor], Tensor]  # what the module gets, (B, T, D) -> the heads' vectors side by side (B, T, D)
    # Weights times values (B, T, D) and what the module gets -> what it gives (B, T, D), in evaluation mode.
    finish: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """What explanations need of any network: images in, numbers out."""

    model: nn.Module
    logits: Callable[[Tensor], Tensor]  # normalised images (B, C, H, W) -> (B, K); without a head features (B, D)
    has_head: bool = True  # False: what it gives are features, not classes
    no_attention: str = ""  # why attention cannot be seen, in a sentence; empty of a VitAnatomy
    num_prefix_tokens: int = 0
    patch_size: tuple[int, int] | None = None  # pixels; None where the network does not cut images into patches

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of the cells that maps are made of: patches, or equal parts of an image, CELLS a side."""
        height, width = images.shape[-2:]
        if self.patch_size is not None:
            return height // self.patch_size[0], width // self.patch_size[1]
        small = max(height, width) <= SMALL
        most = CELLS[small]
        return tuple(max(1, min(side, round(most * side / max(height, width)))) for side in (height, width))  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class VitAnatomy(Anatomy):
    """The parts of a ViT whose attention can be seen, in the order of its layers."""

    patch_size: tuple[int, int]
    blocks: tuple[nn.Module, ...]
    attentions: tuple[AttentionLayer, ...]  # one in each block
    first_norms: tuple[nn.Module, ...]  # before the attention of each block
    explicit_attention: Callable[[], AbstractContextManager[None]]  # inside, weights of attention are computed
    patch_embed: nn.Module
    padded: bool = False  # images that are no multiple of the patch are filled up, where others lose their edges
    pooling: str  # "token", "avg" (mean patch), "seq" (average of learned weights), "token+avg" or "token+dist"
    # Where `pooling` does not say how much of each token is pooled: tokens after the last block (B, T, D) -> (B, T).
    pool_weights: Callable[[Tensor], Tensor] | None = None
    # In evaluation mode, tokens after any block (B, T, D) -> the logits (B, K) that they would give.
    decode: Callable[[Tensor], Tensor]
    positions: Tensor | None  # the table (1, n, D) that is added to the tokens, n = N or P + N
    can_drop_patches: bool  # False where layers know positions by rotations or biases of the whole grid

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches."""
        sides = zip(images.shape[-2:], self.patch_size, strict=True)
        rows, columns = (-(-pixels // side) if self.padded else pixels // side for pixels, side in sides)
        return rows, columns

    def readout(self, tokens: Tensor) -> Tensor:
        """How much of each token after the last block (B, T, D) goes into the pooled one: (B, T), summing to 1."""
        if self.pool_weights is not None:
            return self.pool_weights(tokens)
        weights = tokens.new_zeros(tokens.shape[:2])
        patches = weights[:, self.num_prefix_tokens :]
        if "avg" in self.pooling:
            patches += 1 / patches.shape[1]
        if "token" in self.pooling:
            weights[:, 0] += 1
        if "dist" in self.pooling:
            weights[:, 1] += 1
        return weights / weights.sum(dim=1, keepdim=True)


def nothing_to_fuse(fused: bool) -> None:
    """`Structure.set_fused_attn` of a network without attention, or with one kind of it only."""


@dataclass(frozen=True)
class Structure:
    """What any network is made of. Where a family does not know a part, that part is empty or None."""

    model: nn.Module
    network: nn.Module  # the library's own, where `model` is Patchlight's wrapper around it
    heads: frozenset[str]  # keys of the maps that give the logits
    checkpoints_gradients: bool  # whether activations are computed again in the backward pass
    checkpoint_gradients: Callable[[], None]  # lets them be; raises UsageError where the network cannot
    anatomy: Anatomy | None = None  # what explanations need: of a ViT whose attention can be seen a VitAnatomy
    no_maps: str = ""  # why there is no anatomy
    levels: tuple[nn.Module, ...] = ()  # the blocks of a ViT; of a hierarchy its levels
    stem: str | None = None  # the name of the module that makes tokens of pixels: all before the first block
    stem_kind: str | None = None  # "patch" or "conv", of ours
    embedding_dropout: tuple[nn.Module, ...] = ()  # dropout on what comes from the stem
    patch_size: int | None = None  # pixels a side
    num_prefix_tokens: int = 0
    attention: AttentionShape | None = None
    training_attention: AttentionShape | None = None  # without patches that training leaves out
    set_fused_attn: Callable[[bool], None] = (
        nothing_to_fuse  # attention in one kernel, or as two products and a softmax
    )
    # Keys, by the part that they play.
    embeddings: frozenset[str] = frozenset()  # what comes before the first block
    last_norm: frozenset[str] = frozenset()  # what belongs to the last block, though it stands after it
    no_decay: frozenset[str] = frozenset()  # tokens and positions: never decayed, as vectors are not
    hidden_matrices: frozenset[str] = frozenset()  # inside the blocks
    stem_kernels: frozenset[str] = frozenset()  # of a convolutional stem
    position_tables: frozenset[str] = frozenset()  # (1, n, D), which can be resampled to another grid
    position_prefix: int = 0  # rows of these tables that are no patch's
    patch_kernels: frozenset[str] = frozenset()  # (D, C, p, p), which can be resampled to another patch size

    def depths(self) -> dict[str, int]:
        """How deep each parameter lies: 0 in the embedding or stem, i in level i (from 1), the last norm with the last
        level, and one more what follows. Of a network without levels all but the head are at 0.
        """
        last = len(self.levels)
        inside = {id(p): depth for depth, level in enumerate(self.levels, 1) for p in level.parameters()}
        depths: dict[str, int] = {}
        begun = False  # a stem stands before the levels, whatever it is called
        for name, p in self.model.named_parameters():
            if id(p) in inside:
                depths[name] = inside[id(p)]
            elif name not in self.heads and (not last or not begun or name in self.embeddings):
                depths[name] = 0
            else:
                depths[name] = last if name in self.last_norm else last + 1
            begun = begun or depths[name] > 0
        return depths

    def linear_heads(self) -> list[str]:
        """The names of the linear maps that give the logits."""
        linear = [name for name, module in self.model.named_modules() if isinstance(module, nn.Linear)]
        return [name for name in linear if f"{name}.weight" in self.heads]

    def tokens(self, img_size: int) -> int | None:
        """How many tokens a square image of `img_size` pixels a side becomes; None where there are no patches."""
        return (img_size // self.patch_size) ** 2 + self.num_prefix_tokens if self.patch_size else None
