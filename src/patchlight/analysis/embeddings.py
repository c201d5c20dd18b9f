"""Patch tokens before the first block: as the patch embedding makes them, and with positions.

Shapes: B images, N patches in reading order, D width, (r, c) the patch grid, V views: the patches, and the tokens that
the first block reads where these are others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from patchlight.analysis.diagnostics import patch_colours
from patchlight.explanation.capture import record_inputs, record_outputs
from patchlight.explanation.cells import batch_size
from patchlight.models.anatomy import VitAnatomy

ROUNDING = 4  # steps of a number's last binary place by which an addition may differ from one image to another
MOST_PATCHES = 256  # in a matrix of likeness: it would be of millions of numbers for the largest images


@dataclass(frozen=True)
class Embedded:
    """What the blocks get of each patch, and what of it is the patch and what its position. All is on the CPU."""

    patches: Tensor  # (B, N, D): after the patch embedding
    tokens: Tensor  # (B, N, D): as the first block reads them
    positions: Tensor | None  # (N, D): what is added between the two; None where that is nothing, or no addition
    about: str  # a sentence about the positions


@torch.no_grad()
def embedded(anatomy: VitAnatomy, images: Tensor) -> Embedded | None:
    """The patch tokens of normalised images (B, 3, h, w) before the first block, in the model's own precision, a few
    images at a time.

    Positions are measured, so it does not matter how a family adds them: they are the difference of the two tokens,
    which must be the same for all images, one of zeros among them. None for a model whose patch embedding gives no
    token for each patch.
    """
    pairs = list[tuple[Tensor | None, Tensor]]()
    for part in torch.cat([images, torch.zeros_like(images[:1])]).split(batch_size(anatomy, images)):
        with record_outputs([anatomy.patch_embed]) as outputs, record_inputs(anatomy.blocks[:1]) as inputs:
            anatomy.logits(part)
        found = in_reading_order(outputs[0], anatomy.grid(images))
        pairs.append((None if found is None else found.cpu(), inputs[0][:, anatomy.num_prefix_tokens :].cpu()))
    patches = torch.cat([patch for patch, _ in pairs if patch is not None]) if pairs[0][0] is not None else None
    tokens = torch.cat([token for _, token in pairs])
    if patches is None or patches.shape != tokens.shape:
        return None
    positions, about = added(patches, tokens)
    if positions is None and not anatomy.can_drop_patches:
        about += "; its layers know positions by rotations or biases of their own"
    return Embedded(patches[:-1], tokens[:-1], positions, about)


def in_reading_order(output: Tensor, grid: tuple[int, int]) -> Tensor | None:
    """(B, N, D) of the output of a patch embedding: tokens, (B, r, c, D) or (B, D, r, c); None of another shape."""
    if output.ndim == 4 and output.shape[1:3] == grid:
        output = output.flatten(1, 2)
    elif output.ndim == 4 and output.shape[2:] == grid:
        output = output.flatten(2).transpose(1, 2)
    return output if output.ndim == 3 and output.shape[1] == grid[0] * grid[1] else None


def added(patches: Tensor, tokens: Tensor) -> tuple[Tensor | None, str]:
    """What is added to all patches (B, N, D) alike so that they become `tokens`, (N, D), and a sentence about it."""
    if torch.equal(patches, tokens):
        return None, "no position embedding is added"
    difference = tokens.cpu().double() - patches.cpu().double()  # Apple GPUs have no float64
    rounding = ROUNDING * torch.finfo(tokens.dtype).eps * float(tokens.abs().amax())
    # A blank image comes last. Its patches are one value, the bias, so what is added to it is rounded least.
    if (difference - difference[-1]).abs().amax() <= rounding:
        return difference[-1].to(tokens), "a position embedding is added to each patch"
    return (
        None,
        "more than an addition stands between the patch embedding and the first block, so positions are not apart",
    )


def likeness(tokens: Tensor) -> Tensor:
    """Cosine similarity of every two patches of an image: (..., N, D) -> (..., N, N)."""
    units = F.normalize(tokens, dim=-1)
    return units @ units.transpose(-1, -2)


@dataclass(frozen=True)
class EmbeddingMaps:
    """What is drawn of `Embedded`."""

    colours: np.ndarray  # (B, V, r, c, 3) uint8: like tokens of a view in like colours, across images
    likeness: np.ndarray  # (B, V, r, c): cosine similarity to the middle patch
    matrices: np.ndarray  # (V, M, M): of every two patches of the first image; of MOST_PATCHES at equal distances
    norms: np.ndarray  # (2, r, c): of the patches, mean over images, and of what is added for positions
    positions: np.ndarray | None  # (M, M): cosine similarity of the positions that are added
    about: str  # a sentence about the positions


def embedding_maps(anatomy: VitAnatomy, images: Tensor) -> EmbeddingMaps | None:
    """Of normalised images (B, 3, h, w); None where `embedded` is."""
    found, grid = embedded(anatomy, images), anatomy.grid(images)
    if found is None:
        return None
    views = [found.patches] if torch.equal(found.patches, found.tokens) else [found.patches, found.tokens]
    count = grid[0] * grid[1]
    some = torch.linspace(0, count - 1, min(count, MOST_PATCHES)).round().long()
    alike = torch.stack([F.cosine_similarity(view, view[:, [middle(grid)]], dim=2) for view in views], dim=1)
    colours = torch.stack([patch_colours(view, grid) for view in views], dim=1)
    added_norms = found.patches.new_zeros(grid) if found.positions is None else found.positions.norm(dim=1).view(grid)
    norms = torch.stack([found.patches.norm(dim=2).mean(dim=0).view(grid), added_norms])
    return EmbeddingMaps(
        colours=(255 * colours).round().to(torch.uint8).cpu().numpy(),
        likeness=alike.unflatten(-1, grid).float().cpu().numpy(),
        matrices=torch.stack([likeness(view[0, some]) for view in views]).half().cpu().numpy(),
        norms=norms.float().cpu().numpy(),
        positions=None if found.positions is None else likeness(found.positions[some]).half().cpu().numpy(),
        about=found.about,
    )


def middle(grid: tuple[int, int]) -> int:
    """The index of the patch whose likeness to the others is shown."""
    return grid[0] // 2 * grid[1] + grid[1] // 2
