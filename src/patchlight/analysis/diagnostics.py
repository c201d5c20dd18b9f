"""Diagnostics of a ViT: filters, positions, tokens layer by layer, and how far its heads look.

Shapes: B batch, L layers, H heads, T tokens (P prefix tokens first), N patches, D width, K classes, (r, c) the grid.
Images are normalised, (B, 3, h, w). Everything is computed without gradients, in the model's own precision.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchlight.errors import UsageError
from patchlight.explanation.capture import record_outputs
from patchlight.models.anatomy import VitAnatomy

ALIKE = 1e-6  # features that differ by less than this share of their size are alike, as float32 rounds


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


FEWEST = 4  # images of which a likeness of layers can be estimated without bias


def linear_cka(a: Tensor, b: Tensor) -> Tensor:
    """Linear centred kernel alignment of features (n, D1) and (n, D2) of the same n images, at least FEWEST, by the
    unbiased estimate of HSIC (`unbiased_hsic`), as in Nguyen et al. 2021: 1 of features that are rotated,
    scaled or moved, about 0 of unrelated ones, and below 0 by chance. Kornblith et al. 2019 have the biased estimate,
    which is near 1 of any features that are wider than there are images. NaN where either are alike for all images.
    """
    grams = [_gram(x) for x in (a, b)]
    own = [unbiased_hsic(gram, gram) for gram in grams]
    return unbiased_hsic(*grams) / (own[0] * own[1]).sqrt()


def unbiased_hsic(k: Tensor, m: Tensor) -> Tensor:
    """HSIC_1 of Gram matrices (n, n) of n >= FEWEST images (Song et al. 2012; Nguyen et al. 2021, eq. 3), without bias:
    with the diagonals set to 0 and 1 a vector of ones,

        (tr(K M) + (1'K1)(1'M1) / ((n - 1)(n - 2)) - 2 (1'K M1) / (n - 2)) / (n (n - 3)).

    Raises UsageError for fewer images.
    """
    n = len(k)
    if n < FEWEST:
        raise UsageError(f"an unbiased likeness needs {FEWEST} images or more, not {n}")
    k, m = (x - torch.diag(x.diagonal()) for x in (k, m))
    sums = k.sum(dim=1), m.sum(dim=1)
    whole = sums[0].sum() * sums[1].sum() / ((n - 1) * (n - 2))
    return ((k * m).sum() + whole - 2 * (sums[0] @ sums[1]) / (n - 2)) / (n * (n - 3))


def _gram(features: Tensor) -> Tensor:
    """Products of the features (n, D) of every two images, (n, n) float64, from their mean on, as the place of features
    means nothing; NaN where they are alike but for rounding.
    """
    wide = features.cpu().double()
    centred = wide - wide.mean(dim=0)
    if centred.norm() <= ALIKE * wide.norm():
        return torch.full((len(wide), len(wide)), torch.nan, dtype=wide.dtype)
    return centred @ centred.T


def cka_of_layers(a: Tensor, b: Tensor) -> Tensor:
    """`linear_cka` of the mean tokens of every two layers, (B, L1, T, D1) and (B, L2, T, D2) -> (L1, L2), float64."""
    left, right = a.mean(dim=2).cpu(), b.mean(dim=2).cpu()
    return torch.stack([torch.stack([linear_cka(x, y) for y in right.unbind(dim=1)]) for x in left.unbind(dim=1)])
