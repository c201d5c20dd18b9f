"""What a report needs to look inside a ViT, computed while the model is at hand: the arrays of `insight.npz`.

Shapes: S samples, L layers, H heads, N patches, (r, c) the patch grid, p pixels a side of a filter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from patchlight.analysis import diagnostics
from patchlight.analysis.assess import assess
from patchlight.config import DEFAULT_METHOD
from patchlight.data.images import ImageSet
from patchlight.data.sources.planted import MARK, SIZE, evidence
from patchlight.explanation.capture import record_attention, record_outputs
from patchlight.explanation.methods import explain
from patchlight.machine.seeds import seeded_generator
from patchlight.models import ModelCard
from patchlight.models.anatomy import find_anatomy

METHOD = "chefer"  # of the quick methods that point well, the one whose maps differ most between classes
SHOWN = ("attention", DEFAULT_METHOD, METHOD)  # whose maps the page and `patchlight explain` show
EXPLORED = 6  # images whose attention can be explored patch by patch
MOST_BYTES = 1_500_000  # of that attention, so that a page stays light
FILTERS = 16


def collect_insight(model: nn.Module, card: ModelCard, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """None for a model without attention or without samples.

    `relevance` (S, 2, r, c): METHOD's maps for the predicted and for the true class. `explored` (E,): which samples;
    `attention` (E, L, H, N, N) uint8, each row of patches stretched to its own greatest weight (H is 1, the mean, where
    all heads would be too much); `pooled` (E, L, H, r, c) uint8, what the pooled token reads, the heads of a layer
    stretched alike. `distance` (L, H) pixels; `entropy` (L, H) nats; `filters` (16, p, p, 3) uint8; `positions`
    (N, r, c) similarity, where there are any.
    """
    anatomy = find_anatomy(model)
    if anatomy is None or not len(samples["images"]):
        return None
    pixels = torch.from_numpy(samples["images"]).permute(0, 3, 1, 2)
    inputs = card.to_input(pixels.to(next(model.parameters()).device))
    targets = [torch.from_numpy(part).to(inputs.device) for part in (samples["probs"].argmax(1), samples["labels"])]
    relevance = [explain(anatomy, inputs, method=METHOD, target=target).maps.cpu() for target in targets]
    explored = spread_out(len(inputs), EXPLORED)
    with torch.no_grad(), record_attention(anatomy) as recorded, record_outputs(anatomy.blocks[-1:]) as outputs:
        anatomy.logits(inputs[explored])
    attention, grid, prefix = recorded.attention.float().cpu(), anatomy.grid(inputs), anatomy.num_prefix_tokens
    pooled = torch.einsum("et,elhtn->elhn", anatomy.readout(outputs[-1]).float().cpu(), attention)[..., prefix:]
    found = {
        "relevance": torch.stack(relevance, dim=1).float().numpy(),
        **quantized(attention[..., prefix:, prefix:], explored),
        "pooled": stretched(pooled.flatten(2)).unflatten(-1, (pooled.shape[2], *grid)).numpy(),
        "distance": diagnostics.attention_distance(anatomy, attention, grid).numpy(),
        "entropy": diagnostics.attention_entropy(attention).numpy(),
        "filters": as_pictures(diagnostics.patch_filters(anatomy, FILTERS).cpu()),
    }
    similarity = diagnostics.position_similarity(anatomy, grid)
    if similarity is not None:
        found["positions"] = similarity.float().cpu().numpy()
    return found


def measure_faithfulness(
    model: nn.Module,
    card: ModelCard,
    images: ImageSet,
    source: str,
    *,
    methods: Sequence[str] = SHOWN,
    count: int = 500,
    label: str = "",
) -> dict[str, Any] | None:
    """`assess` of the methods on `count` test images of `source`, drawn by a fixed seed; None for a model without
    attention. Planted images have a patch that decides, which is pointed at where one patch holds it.
    """
    anatomy = find_anatomy(model)
    if anatomy is None:
        return None
    chosen = torch.randperm(len(images), generator=seeded_generator(0, "faithfulness"))[:count].sort().values
    pixels, _ = images.gather(chosen)
    inputs = card.to_input(pixels.to(next(model.parameters()).device))
    where = None
    # At another size, or in smaller patches, a mark would lie on several.
    whole = {card.img_size, *images.image_size} == {SIZE} and min(anatomy.patch_size) >= MARK
    if source == "planted" and whole:
        rows = chosen if images.rows is None else images.rows[chosen]
        where = torch.from_numpy(evidence("test", anatomy.patch_size))[rows].to(inputs.device)
    found = assess(anatomy, inputs, card.black.to(inputs), methods=methods, where=where, label=label)
    return {"data": source, **found}


def spread_out(count: int, most: int) -> np.ndarray:
    """Up to `most` indices, evenly over 0..count-1: samples are mistakes first and right answers last."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


def quantized(attention: Tensor, explored: np.ndarray) -> dict[str, np.ndarray]:
    """`attention` (E, L, H, N, N) between patches as uint8, over heads or their mean, of as many images as fit."""
    if attention[0].numel() > MOST_BYTES / 2:
        attention = attention.mean(dim=2, keepdim=True)
    kept = max(1, min(len(attention), int(MOST_BYTES // attention[0].numel())))
    attention = attention[:kept]
    return {"explored": explored[:kept], "attention": stretched(attention).numpy()}


def stretched(weights: Tensor) -> Tensor:
    """Each last row as uint8, its greatest value 255."""
    return (255 * weights / weights.amax(dim=-1, keepdim=True).clamp(min=1e-12)).round().to(torch.uint8)


def as_pictures(filters: Tensor) -> np.ndarray:
    """Filters (n, C, p, p), three channels or one as grey, stretched around the middle: (n, p, p, 3) uint8."""
    shown = filters[:, :3] if filters.shape[1] >= 3 else filters[:, :1].expand(-1, 3, -1, -1)
    scale = shown.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    return (127.5 * (shown / scale + 1)).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
