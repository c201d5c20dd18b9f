"""Diagnostics of a ViT: filters, positions, tokens layer by layer, and how far its heads look.

Shapes: B batch, L layers, H heads, T tokens (P prefix tokens first), N patches, D width, K classes, (r, c) the grid.
Images are normalised, (B, 3, h, w). Everything is computed without gradients, in the model's own precision.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchlight.explanation.capture import record_outputs
from patchlight.models.anatomy import VitAnatomy


def principal(rows: Tensor, count: int) -> Tensor:
    """Coordinates (n, count) of rows (n, D) on their first principal components; missing ones are 0.

    A component's sign is such that its largest coordinate is positive.
    """
    centred = (rows - rows.mean(dim=0)).cpu().double()  # Apple GPUs have no float64
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    coordinates = (u * s)[:, :count]
    coordinates = coordinates * coordinates.gather(0, coordinates.abs().argmax(dim=0, keepdim=True)).sign()
    return F.pad(coordinates, (0, count - coordinates.shape[1])).to(rows.dtype)


@torch.no_grad()
def patch_filters(anatomy: VitAnatomy, count: int = 16) -> Tensor:
    """The first principal components of the patch embedding's filters, (count, 3, p, p), as in Dosovitskiy et al. 2021,
    figure 7 (left). Of a convolutional stem, the filters of its first convolution.
    """
    first = next(module for module in anatomy.patch_embed.modules() if isinstance(module, nn.Conv2d))
    rows = first.weight.detach().flatten(1).cpu().double()
    _, _, components = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False)
    return components[:count].unflatten(1, first.weight.shape[1:]).to(first.weight.dtype)


@torch.no_grad()
def position_similarity(anatomy: VitAnatomy, grid: tuple[int, int]) -> Tensor | None:
    """Cosine similarity of each patch's position embedding to all others, (N, r, c), as in Dosovitskiy et al. 2021,
    figure 7 (centre); None where the model has no embedding of its own for each patch.
    """
    table = position_table(anatomy)
    patches = grid[0] * grid[1]
    if table is None or table.shape[0] < patches:
        return None
    table = F.normalize(table[-patches:], dim=1)
    return (table @ table.T).unflatten(1, grid)


def position_table(anatomy: VitAnatomy) -> Tensor | None:
    """(positions, D), or None."""
    return None if anatomy.positions is None else anatomy.positions.detach()[0]


@torch.no_grad()
def tokens_by_layer(anatomy: VitAnatomy, images: Tensor) -> Tensor:
    """Tokens after each block, (B, L, T, D)."""
    with record_outputs(anatomy.blocks) as outputs:
        anatomy.logits(images)
    return torch.stack(outputs, dim=1)


def token_colours(anatomy: VitAnatomy, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patch tokens (B, T, D) as colours (B, r, c, 3) in 0..1: their first three principal components over all images,
    so that equal colours mean like tokens across images (as in Oquab et al. 2023, DINOv2, figure 1).
    """
    return patch_colours(tokens[:, anatomy.num_prefix_tokens :], grid)


def patch_colours(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """`token_colours` of patch tokens alone, (B, N, D)."""
    components = principal(patches.flatten(0, 1), 3)
    low, high = components.amin(dim=0), components.amax(dim=0)
    return ((components - low) / (high - low).clamp(min=1e-12)).view(len(patches), *grid, 3)


def token_norms(anatomy: VitAnatomy, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Euclidean norm of each patch token (B, T, D) -> (B, r, c). A few much greater than all others are the artefacts
    that registers remove (Darcet et al. 2024).
    """
    return tokens[:, anatomy.num_prefix_tokens :].norm(dim=2).unflatten(1, grid)


@torch.no_grad()
def logit_lens(anatomy: VitAnatomy, tokens: Tensor) -> Tensor:
    """The probabilities that the head would give after each layer: tokens (B, L, T, D) -> (B, L, K)."""
    return torch.stack([anatomy.decode(layer).float().softmax(dim=1) for layer in tokens.unbind(dim=1)], dim=1)


def attention_distance(anatomy: VitAnatomy, attention: Tensor, grid: tuple[int, int]) -> Tensor:
    """How far heads look, in pixels: the mean distance between patches weighed by attention (B, L, H, T, T), without
    prefix tokens and rescaled; mean over images and reading patches, (L, H) (Dosovitskiy et al. 2021, figure 7, right).
    """
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    middles = torch.stack([rows.flatten() * anatomy.patch_size[0], columns.flatten() * anatomy.patch_size[1]], dim=1)
    distances = torch.cdist(middles.double(), middles.double()).to(attention)
    patches = attention[..., anatomy.num_prefix_tokens :, anatomy.num_prefix_tokens :]
    patches = patches / patches.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(patches.dtype).tiny)
    return (patches * distances).sum(dim=-1).mean(dim=(0, 3))


def attention_entropy(attention: Tensor) -> Tensor:
    """Entropy of attention (B, L, H, T, T) in nats, from 0 (one token) to log T (all alike), mean over images and rows,
    (L, H).
    """
    return torch.special.entr(attention).sum(dim=-1).mean(dim=(0, 3))


def linear_cka(a: Tensor, b: Tensor) -> Tensor:
    """Linear centred kernel alignment (Kornblith et al. 2019, section 3) of features (n, D1) and (n, D2) of the same
    n images, 0 to 1; it does not change under rotation and scaling of either.
    """
    a, b = (x - x.mean(dim=0) for x in (a.cpu().double(), b.cpu().double()))
    return (a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm()).clamp(min=1e-300)


def cka_of_layers(a: Tensor, b: Tensor) -> Tensor:
    """`linear_cka` of the mean tokens of every two layers, (B, L1, T, D1) and (B, L2, T, D2) -> (L1, L2)."""
    left, right = a.mean(dim=2).cpu(), b.mean(dim=2).cpu()
    return torch.stack([torch.stack([linear_cka(x, y) for y in right.unbind(dim=1)]) for x in left.unbind(dim=1)])
