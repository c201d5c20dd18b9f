"""The figures of `patchlight explain` that show a ViT's attention and tokens: heads, layers, masks, paths, pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from patchlight.analysis.subject import FEW, Subject, attention_maps, token_maps
from patchlight.commands.explain_figures import captions_of, pages
from patchlight.errors import UsageError
from patchlight.explanation.views import (
    POOLED,
    find_start,
    find_tokens,
    head_maps,
    keep_mass,
    prefix_names,
    split_pair,
    strongest_steps,
    token_pair,
)
from patchlight.models.anatomy import Anatomy, VitAnatomy
from patchlight.units import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MASS = 0.6  # of a head's attention, in its mask, as in DINO's pictures


@dataclass(frozen=True)
class Looks:
    """How a ViT's attention is shown, as the command line gives it; None is the default."""

    layers: Sequence[int] | None = None  # whose heads are drawn, from 0; the last one
    mass: float | None = None  # share of a head's attention that its mask holds; MASS
    token: str | None = None  # whose path is drawn; POOLED
    pair: str | None = None  # "QUERY:KEY"; no such figure

    def check_words(self) -> None:
        """Raises UsageError for what is wrong of any model, before one is loaded."""
        if self.mass is not None and not 0 < self.mass <= 1:
            raise UsageError(f"--mass is a share of a head's attention, above 0 and up to 1, not {self.mass:g}")
        if self.pair is not None:
            split_pair(self.pair)

    def check(self, anatomy: Anatomy, grid: tuple[int, int]) -> None:
        """Raises UsageError for what the model does not have, before anything is computed."""
        given = {"--layers": self.layers, "--mass": self.mass, "--token": self.token, "--pair": self.pair}
        named = [word for word, value in given.items() if value is not None]
        if not isinstance(anatomy, VitAnatomy):
            if named:
                raise UsageError(f"{named[0]} is of attention, and {anatomy.no_attention}; leave it out")
            return
        depth = len(anatomy.blocks)
        if self.layers is not None and not all(0 <= layer < depth for layer in self.layers):
            raise UsageError(f"the model has the layers 1 to {depth}, not {', '.join(str(i + 1) for i in self.layers)}")
        if self.token is not None:
            find_start(anatomy, self.token, grid)
        for token in () if self.pair is None else split_pair(self.pair):
            find_tokens(anatomy, token, grid)


def draw_attention(anatomy: VitAnatomy, subject: Subject, looks: Looks, percentile: float) -> dict[str, Figure]:
    """What a ViT's layers make of the images: tokens, answers, attention of heads."""
    from patchlight.figures import boards, inside

    pictures, captions = subject.pictures, captions_of(subject)
    tokens, attention = token_maps(anatomy, subject), attention_maps(anatomy, subject, looks.layers)
    depth, covered = tokens.lens.shape[1], subject.covered
    figures = {"lens": inside.logit_lens(tokens.lens, [caption.split("\n")[0] for caption in captions])}
    for part, number in pages(len(pictures)):
        figures[f"patches{number}"] = boards.tokens_board(
            pictures[part],
            captions[part],
            tokens.first[part],
            tokens.last[part],
            tokens.norms[part],
            depth,
            greatest=float(tokens.norms.max()),
            covered=covered,
        )
    if tokens.similarity is not None:
        figures["layer_likeness"] = inside.layer_similarity(tokens.similarity, len(pictures))
    few, some = pictures[:FEW], captions[:FEW]
    for layer, heads in attention.heads.items():
        name = f"layer{layer + 1}"
        figures[f"heads-{name}"] = boards.heads_board(
            few, some, heads, layer, depth, percentile=percentile, covered=covered
        )
        figures[f"head_masks-{name}"] = draw_masks(anatomy, subject, layer, MASS if looks.mass is None else looks.mass)
    figures["layers"] = boards.layers_board(few, some, attention.layers, percentile=percentile, covered=covered)
    figures["rollout"] = boards.rollout_board(few, some, attention.rollout, percentile=percentile, covered=covered)
    figures["path"] = draw_path(anatomy, subject, POOLED if looks.token is None else looks.token, percentile)
    if looks.pair is not None:
        figures |= draw_pair(anatomy, subject, looks.pair, percentile)
    return figures


def draw_masks(anatomy: VitAnatomy, subject: Subject, layer: int, mass: float) -> Figure:
    """Of each head the patches that hold the share `mass` of the attention of the CLS token, or of what is pooled."""
    from patchlight.figures.masks import masks_board

    maps = head_maps(anatomy, subject.inputs[:FEW], layer=layer)
    masks = keep_mass(maps, mass).cpu().numpy()  # (F, A, r, c)
    whose = "the CLS token" if "cls" in prefix_names(anatomy) else "what the model pools"
    shares = masks.mean(axis=(2, 3)).T  # (A, F)
    return masks_board(
        subject.pictures[:FEW],
        captions_of(subject)[:FEW],
        masks,
        [f"head {i + 1}" for i in range(masks.shape[1])],
        f"Masks of the heads in layer {layer + 1} of {len(anatomy.blocks)}",
        notes=[[f"{percent(float(share))} of patches" for share in row] for row in shares],
        foot=f"The fewest patches that hold {percent(mass)} of what {whose} reads from patches in this head.",
        covered=subject.covered,
    )


def draw_path(anatomy: VitAnatomy, subject: Subject, token: str, percentile: float) -> Figure:
    """From a token down through the layers, always to the token that is read most."""
    from patchlight.figures.tokens import path_board

    steps = strongest_steps(anatomy, subject.inputs[:FEW], token)
    return path_board(
        subject.pictures[:FEW],
        captions_of(subject)[:FEW],
        steps.maps.float().cpu().numpy(),
        drawn_places(anatomy, steps.tokens.cpu().numpy(), subject),
        steps.weights.float().cpu().numpy(),
        prefix=drawn_names(anatomy),
        percentile=percentile,
        covered=subject.covered,
    )


def draw_pair(anatomy: VitAnatomy, subject: Subject, pair: str, percentile: float) -> dict[str, Figure]:
    """What one token reads from another in every head: a figure for each of the first images."""
    from patchlight.figures.tokens import query_key

    query, key = split_pair(pair)
    few, grid, layer = subject.inputs[:FEW], anatomy.grid(subject.inputs), len(anatomy.blocks)
    found = token_pair(anatomy, few, query, key)
    read = head_maps(anatomy, few, token=query).mean(dim=1).float().cpu().numpy()
    names, ends = drawn_names(anatomy), list[int]()
    for token in (query, key):
        indices = find_tokens(anatomy, token, grid).indices
        if indices is not None and len(indices) > 1:  # mean of queries, sum of keys: under their common name
            names.append(token)
            ends.append(-len(names))
            continue
        index = anatomy.num_prefix_tokens + grid[0] * grid[1] if indices is None else indices[0]
        ends.append(int(drawn_places(anatomy, np.array([index]), subject)[0]))
    weights, captions = found.weights.float().cpu().numpy(), captions_of(subject)
    return {
        "pair" + (f"-{i + 1}" if i else ""): query_key(
            subject.pictures[i],
            read[i],
            ends[0],
            ends[1],
            weights[i],
            read=f"layer {layer}, mean of its heads",
            caption=captions[i],
            prefix=names,
            percentile=percentile,
            covered=subject.covered,
        )
        for i in range(len(few))
    }


def drawn_places(anatomy: VitAnatomy, tokens: np.ndarray, subject: Subject) -> np.ndarray:
    """Indices of tokens as figures take them: patches from 0; below 0 the names of `drawn_names`, -1 the first."""
    prefix, (rows, columns) = anatomy.num_prefix_tokens, anatomy.grid(subject.inputs)
    pooled = tokens >= prefix + rows * columns
    return np.where(pooled, -1 - prefix, np.where(tokens >= prefix, tokens - prefix, -1 - tokens))


def drawn_names(anatomy: VitAnatomy) -> list[str]:
    """What is no patch: the prefix tokens, and what the model pools."""
    words = {"cls": "CLS token", "dist": "distillation token"}
    return [*(words.get(name, name) for name in prefix_names(anatomy)), "pooled token"]
