"""What a report shows of the inside of a ViT, computed while the model is at hand: the record of `insight.npz`.

Shapes: S samples, L layers, H heads, N patches, (r, c) the patch grid, p pixels a side of a filter.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from patchlight.analysis import diagnostics
from patchlight.analysis.embeddings import embedding_maps
from patchlight.config import DEFAULT_METHOD
from patchlight.explanation.capture import record_attention, record_outputs
from patchlight.explanation.methods import explain_inputs
from patchlight.models import ModelCard
from patchlight.models.anatomy import find_vit
from patchlight.runs import Insight, Samples

EXPLORED = 6  # images whose attention can be explored patch by patch
MOST_BYTES = 1_500_000  # of that attention, so that a page stays light
FILTERS = 16


def collect_insight(model: nn.Module, card: ModelCard, samples: Samples) -> Insight | None:
    """None for a model without attention or without samples. The relevance is DEFAULT_METHOD's."""
    anatomy = find_vit(model, card.img_size)
    if anatomy is None or not len(samples.images):
        return None
    pixels = torch.from_numpy(samples.images).permute(0, 3, 1, 2)
    inputs = card.to_input(pixels.to(next(model.parameters()).device))
    targets = [torch.from_numpy(classes).to(inputs.device) for classes in (samples.probs.argmax(1), samples.labels)]
    relevance = [explain_inputs(anatomy, inputs, method=DEFAULT_METHOD, target=target).maps.cpu() for target in targets]
    explored = spread_out(len(inputs), EXPLORED)
    with torch.no_grad(), record_attention(anatomy) as recorded, record_outputs(anatomy.blocks[-1:]) as outputs:
        anatomy.logits(inputs[explored])
    attention, grid, prefix = recorded.attention.float().cpu(), anatomy.grid(inputs), anatomy.num_prefix_tokens
    pooled = torch.einsum("et,elhtn->elhn", anatomy.readout(outputs[-1]).float().cpu(), attention)[..., prefix:]
    between_patches = quantized(attention[..., prefix:, prefix:])
    similarity = diagnostics.position_similarity(anatomy, grid)
    kept = explored[: len(between_patches)]
    embedding = embedding_maps(anatomy, inputs[kept])
    return Insight(
        relevance=torch.stack(relevance, dim=1).float().numpy(),
        explored=kept,
        attention=between_patches,
        pooled=stretched(pooled.flatten(2)).unflatten(-1, (pooled.shape[2], *grid)).numpy(),
        distance=diagnostics.attention_distance(anatomy, attention, grid).numpy(),
        entropy=diagnostics.attention_entropy(attention).numpy(),
        filters=as_pictures(diagnostics.patch_filters(anatomy, FILTERS).cpu()),
        positions=None if similarity is None else similarity.float().cpu().numpy(),
        **({} if embedding is None else {f"embed_{name}": value for name, value in vars(embedding).items()}),
    )


def spread_out(count: int, most: int) -> np.ndarray:
    """Up to `most` indices, evenly over 0..count-1: samples are mistakes first and right answers last."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


def quantized(attention: Tensor) -> np.ndarray:
    """`attention` (E, L, H, N, N) between patches as uint8, of each head or as their mean, of as many images as fit."""
    if attention[0].numel() > MOST_BYTES / 2:
        attention = attention.mean(dim=2, keepdim=True)
    kept = max(1, min(len(attention), int(MOST_BYTES // attention[0].numel())))
    return stretched(attention[:kept]).numpy()


def stretched(weights: Tensor) -> Tensor:
    """Each last row as uint8, its greatest value 255."""
    return (255 * weights / weights.amax(dim=-1, keepdim=True).clamp(min=1e-12)).round().to(torch.uint8)


def as_pictures(filters: Tensor) -> np.ndarray:
    """Filters (n, C, p, p), three channels or one as grey, stretched around the middle: (n, p, p, 3) uint8."""
    shown = filters[:, :3] if filters.shape[1] >= 3 else filters[:, :1].expand(-1, 3, -1, -1)
    scale = shown.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    return (127.5 * (shown / scale + 1)).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
