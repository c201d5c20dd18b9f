"""Attention looked at by hand: a mask for each head, one pair of tokens in every layer, a token's way through all
layers.

A token is named by a word or by its patch. Words: "cls", "dist" and "registers" ("register0", ...) where the model
pools a CLS token; "prefix0", ... where it pools its patches, as it then does not say what its prefix tokens are;
"pooled" for what the head reads. Patches: (row, column) in the grid or "row,column", counted from 0.

Shapes: B batch, L layers, H heads, T tokens (P prefix tokens first, then the patches in reading order), (r, c) the
patch grid. Images are normalised, (B, 3, h, w). All is computed in evaluation mode, and the model is given back as it
was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from patchlight.errors import UsageError
from patchlight.explanation.attention import read_out
from patchlight.explanation.capture import as_found, record_attention, record_outputs
from patchlight.explanation.cells import batch_size
from patchlight.explanation.gradients import wide
from patchlight.models.anatomy import VitAnatomy

Token = str | tuple[int, int]
POOLED = "pooled"

PATCH = re.compile(r"\s*(\d+)\s*,\s*(\d+)\s*")


@dataclass(frozen=True)
class Tokens:
    """The tokens that a name stands for."""

    name: str
    indices: tuple[int, ...] | None  # None: those that the pooling reads

    def weights(self, pooling: Tensor) -> Tensor:
        """How much of each token, (B, T), summing to 1: alike for all of a name, or as the pooling (B, T) reads
        them.
        """
        if self.indices is None:
            return pooling
        weights = torch.zeros_like(pooling)
        weights[:, list(self.indices)] = 1 / len(self.indices)
        return weights


def prefix_names(anatomy: VitAnatomy) -> tuple[str, ...]:
    """A name for each prefix token, as far as the pooling tells what it is."""
    known = [name for name, word in (("cls", "token"), ("dist", "dist")) if word in anatomy.pooling]
    rest = "register" if known else "prefix"
    return (*known, *(f"{rest}{i}" for i in range(anatomy.num_prefix_tokens - len(known))))


def token_name(anatomy: VitAnatomy, index: int, grid: tuple[int, int]) -> str:
    """What the token with this index is called: "cls", or "3,4" of the patch in row 3 and column 4."""
    prefix = anatomy.num_prefix_tokens
    return prefix_names(anatomy)[index] if index < prefix else ",".join(map(str, divmod(index - prefix, grid[1])))


def find_tokens(anatomy: VitAnatomy, token: Token, grid: tuple[int, int]) -> Tokens:
    """The tokens of a name. Raises UsageError for one that the model does not have, with those that it has."""
    names = prefix_names(anatomy)
    registers = tuple(i for i, name in enumerate(names) if name.startswith("register"))
    words = {name: (i,) for i, name in enumerate(names)} | ({"registers": registers} if registers else {})
    if token == POOLED:
        return Tokens(POOLED, None)
    if token in words:
        return Tokens(str(token), words[str(token)])
    patch = PATCH.fullmatch(token if isinstance(token, str) else ",".join(map(str, token)))
    if patch is not None and int(patch[1]) < grid[0] and int(patch[2]) < grid[1]:
        index = anatomy.num_prefix_tokens + int(patch[1]) * grid[1] + int(patch[2])
        return Tokens(token_name(anatomy, index, grid), (index,))
    shown = token if isinstance(token, str) else ",".join(map(str, token))
    raise UsageError(
        f"there is no token '{shown}'; name {', '.join([POOLED, *words])}, or a patch by row,column from 0,0 to "
        f"{grid[0] - 1},{grid[1] - 1}"
    )


def split_pair(text: str) -> tuple[str, str]:
    """The two names in "3,4:5,6" or "cls:registers". Raises UsageError where there are not two."""
    names = [name.strip() for name in text.split(":")]
    if len(names) != 2 or not all(names):
        raise UsageError(f"a pair of tokens is QUERY:KEY, as 3,4:5,6 or cls:3,4, not '{text}'")
    return names[0], names[1]


def head_maps(anatomy: VitAnatomy, images: Tensor, *, layer: int = -1, token: Token | None = None) -> Tensor:
    """How much a token reads from each patch in each head of a layer, (B, H, r, c).

    The token is by default the CLS token, also where the head reads the patches beside it; where the model pools its
    patches alone it is "pooled", the mean of their rows as the pooling weighs them (`VitAnatomy.readout`). What goes to
    prefix tokens is left out, so a map sums to 1 at most. Raises PatchlightError for a layer that is not there,
    UsageError for such a token.
    """
    grid = anatomy.grid(images)
    default = "cls" if "cls" in prefix_names(anatomy) else POOLED
    tokens = find_tokens(anatomy, default if token is None else token, grid)

    def compute(attention: Tensor, pooling: Tensor) -> tuple[Tensor]:
        reads = tokens.weights(pooling)
        heads = [read_out(anatomy, head, reads, grid) for head in wide(attention[:, 0]).unbind(dim=1)]
        return (torch.stack(heads, dim=1),)

    return _over_parts(anatomy, images, [layer], compute)[0]


def attention_masks(
    anatomy: VitAnatomy, images: Tensor, *, layer: int = -1, mass: float = 0.6, token: Token | None = None
) -> Tensor:
    """Of each head the patches that hold the share `mass` of a token's attention, (B, H, r, c) bool.

    The masks of DINO (Caron et al. 2021, section 4.2.2 and figure 4): `keep_mass` of `head_maps`, of the CLS token and
    the last layer by default.
    """
    return keep_mass(head_maps(anatomy, images, layer=layer, token=token), mass)


def keep_mass(maps: Tensor, mass: float = 0.6) -> Tensor:
    """The greatest patches of each map (..., r, c), not negative, that hold at least the share `mass` of its sum, as
    bool.

    Patches are taken from the greatest on until their sum reaches mass; one is in if those greater than it hold less.
    That is the rule of DINO's visualize_attention.py, which sorts upwards and keeps those at which the running sum is
    above 1 - mass. There patches of equal weight are told apart by their place; here they are in or out together, so
    that even attention keeps the whole image and not a part of it. A map of zeros keeps nothing. Raises UsageError
    unless 0 < mass <= 1.
    """
    if not 0 < mass <= 1:
        raise UsageError(f"mass is the share of the attention that is kept, above 0 and at most 1, not {mass}")
    flat = maps.flatten(-2)
    values, order = flat.sort(dim=-1, descending=True)
    total = values.cumsum(dim=-1)
    before = torch.cat([torch.zeros_like(total[..., :1]), total[..., :-1]], dim=-1)
    first = torch.ones_like(values, dtype=torch.bool)  # of a run of equal values, all of which have what is before it
    first[..., 1:] = values[..., 1:] < values[..., :-1]
    before = torch.where(first, before, torch.zeros_like(before)).cummax(dim=-1).values
    kept = before < mass * total[..., -1:]
    return torch.zeros_like(kept).scatter(-1, order, kept).view(maps.shape)


@dataclass(frozen=True)
class TokenPair:
    """How one token reads from another, in every layer and head."""

    query: str
    key: str
    weights: Tensor  # (B, L, H) attention: the share of what the query reads that comes from the key
    scores: Tensor  # (B, L, H) how far the score before the softmax lies above that of the query's average key
    exact: Tensor  # (B, L, H) bool; False: weights of the row were too small to be held, and `scores` is a lower bound


def token_pair(anatomy: VitAnatomy, images: Tensor, query: Token, key: Token) -> TokenPair:
    """The attention and the score of a query token and a key token, by layer and head.

    Before the softmax stands s[i, j] = scale * q_i . k_j, with rotary positions, normalised queries and keys, and
    biases where the model has them. Each family computes these in another place, so they are not taken from inside it
    but regained from what is recorded for all: log A[i, j] = s[i, j] - log(sum over k of exp s[i, k]), which is the
    score up to one constant of the row. That constant cannot be known from A, and does nothing, as the softmax takes
    it away. So a score is given from the row's mean on,

        log A[i, j] - mean over k of log A[i, k] = s[i, j] - mean over k of s[i, k],

    in nats: 0 is the average key, and a key of score 1 has e times the weight of one of score 0. So the scores of one
    query can be compared between its keys; s itself is not given.

    Of several queries ("registers", or "pooled" where patches are) it is their mean, of several keys the sum of weights
    and the mean of scores. A weight below what its number type holds in full counts as the least that it does, so that
    a score is then at least what is given, and `exact` is False there; of such a key itself the score is unknown.
    Raises UsageError for a token that is not there.
    """
    grid = anatomy.grid(images)
    queries, keys = find_tokens(anatomy, query, grid), find_tokens(anatomy, key, grid)

    def compute(attention: Tensor, pooling: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reads, given = queries.weights(pooling), (keys.weights(pooling) > 0).to(pooling)  # (B, T) each
        rows, least = (reads > 0).any(dim=0), least_held(attention.dtype)
        reads, row = reads[:, rows], wide(attention[:, :, :, rows])  # (B, L, H, rows, T)
        weights = torch.einsum("bq,blhqk,bk->blh", reads, row, given)
        held, logs = row >= least, row.clamp(min=least).log()
        above = logs - logs.mean(dim=-1, keepdim=True)
        scores = torch.einsum("bq,blhqk,bk->blh", reads, above, given / given.sum(dim=1, keepdim=True))
        return weights, scores, held.flatten(3).all(dim=3)

    return TokenPair(queries.name, keys.name, *_over_parts(anatomy, images, None, compute))


def least_held(kind: torch.dtype) -> float:
    """The least weight of a recorded type that has all its digits. No type counts for more than float32, in which
    Hugging Face computes the softmax of float64 models, too.
    """
    return max(torch.finfo(kind).tiny, torch.finfo(torch.float32).tiny)


@dataclass(frozen=True)
class TokenPath:
    """Where a token has its content from, layer by layer. Depth 0 lies before the first layer and depth L after the
    last; layer l leads from depth l to l + 1. `token_name` names an index.
    """

    token: str
    tokens: Tensor  # (B, L + 1) the index of the path's token at each depth
    weights: Tensor  # (B, L) of its step in each layer
    share: Tensor  # (B,) their product, with the pooling's weight of the last token; those of all ways sum to 1
    reads: Tensor  # (B, L) the index of the other token that the path's token reads most in each layer
    read_weights: Tensor  # (B, L) how much, as attention has it; 0 where there is no other token
    maps: Tensor  # (B, L, r, c) how much of the token came from each patch before layer l
    prefix: Tensor  # (B, L) and how much from all prefix tokens; with its map it sums to 1


def token_path(anatomy: VitAnatomy, images: Tensor, token: Token = POOLED, *, from_patches: bool = True) -> TokenPath:
    """A token's way through the layers in attention rollout: its most weighty single path, and all paths together.

    What a token reads in a layer is (A + I) / 2 with A the mean over heads (Abnar and Zuidema 2020, eq. 1): half stays
    by the residual connection. A path names a token at each depth, and weighs the product of its steps; the best is
    found by Viterbi's algorithm on logarithms, from the last layer down. Of equal paths the first in reading order is
    taken.

    With `from_patches` it begins at a patch, by which alone an image comes in. Without, it may begin at a prefix token,
    and the best way of a CLS token is nearly always to have stayed itself, since every layer leaves half in place. For
    the same reason a path has few steps aside, and `share` tells how little of the whole one path is; `reads` says what
    its token read most beside itself, layer by layer.

    `maps` are all paths together: maps[:, 0] is the rollout of all layers, maps[:, -1] the last layer alone. Tokens
    after a few layers hold more than their own patch, so only maps[:, 0] is about the image itself. Raises UsageError
    for a token that is not there.
    """
    grid, prefix = anatomy.grid(images), anatomy.num_prefix_tokens
    tokens = find_tokens(anatomy, token, grid)

    def compute(attention: Tensor, pooling: Tensor) -> tuple[Tensor, ...]:
        start, flow = tokens.weights(pooling), residual_flow(wide(attention))
        path, share = best_path(flow, start, first=prefix if from_patches else 0)
        batch, layer = (torch.arange(n, device=path.device) for n in flow.shape[:2])
        rows = flow[batch[:, None], layer, path[:, 1:]]  # (B, L, T) of the path's tokens
        steps = rows.gather(2, path[:, :-1, None]).squeeze(2)
        others, reads = rows.scatter(2, path[:, 1:, None], -1).max(dim=2)
        content = roll_back(flow, start)
        maps = content[..., prefix:].unflatten(-1, grid)
        return path, steps, share, reads, 2 * others.clamp(min=0), maps, content[..., :prefix].sum(dim=-1)

    return TokenPath(tokens.name, *_over_parts(anatomy, images, None, compute))


def residual_flow(attention: Tensor) -> Tensor:
    """Attention (B, L, H, T, T) -> what each token reads in each layer, (A + I) / 2, rows summing to 1, (B, L, T,
    T).
    """
    mean = attention.mean(dim=2)
    eye = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    return (mean / mean.sum(dim=-1, keepdim=True) + eye) / 2


def roll_back(flow: Tensor, start: Tensor) -> Tensor:
    """How much of `start` (B, T), weights of tokens after the last layer, came from each token before layer l: (B, L,
    T), start @ flow[L - 1] @ ... @ flow[l], of flow (B, L, T, T).
    """
    row, rows = start.unsqueeze(1), list[Tensor]()
    for matrix in reversed(flow.unbind(dim=1)):
        row = row @ matrix
        rows.append(row)
    return torch.cat(rows[::-1], dim=1)


def best_path(flow: Tensor, start: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
    """The path t_L, ..., t_0 of the greatest start[t_L] * flow[L - 1][t_L, t_(L-1)] * ... * flow[0][t_1, t_0], among
    those whose t_0 is `first` or a later token: indices (B, L + 1) from t_0 to t_L, and the product (B,).
    """
    best = start.log()  # (B, T) of the best path from the top down to each token
    readers: list[Tensor] = []
    for step in reversed(flow.log().unbind(dim=1)):
        best, reader = (best.unsqueeze(2) + step).max(dim=1)
        readers.append(reader)
    value, place = best[:, first:].max(dim=1)
    path = [place + first]
    for reader in reversed(readers):
        path.append(reader.gather(1, path[-1].unsqueeze(1)).squeeze(1))
    return torch.stack(path, dim=1), value.exp()


Compute = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


@torch.no_grad()
def _over_parts(anatomy: VitAnatomy, images: Tensor, layers: Sequence[int] | None, compute: Compute) -> list[Tensor]:
    """What `compute` makes of the attention of some `layers`, (b, L, H, T, T), and of the pooling's weights, (b, T) in
    float32 at least, a few images at a time, joined.
    """
    if images.ndim != 4:
        raise UsageError(f"images are a batch (B, 3, height, width), not of shape {tuple(images.shape)}")
    parts = []
    with as_found(anatomy.model):
        for part in images.split(batch_size(anatomy, images)):
            with record_attention(anatomy, layers) as recorded, record_outputs(anatomy.blocks[-1:]) as outputs:
                anatomy.logits(part)
            attention = recorded.attention
            parts.append(compute(attention, anatomy.readout(outputs[-1]).to(wide(attention[:0]))))
    return [torch.cat(column) for column in zip(*parts, strict=True)]


@dataclass(frozen=True)
class Steps:
    """What a token reads most, what that one reads most, and so on, from the last layer to the first."""

    token: str
    tokens: Tensor  # (B, L + 1) indices: its last column is the token itself, T where it is what the head pools
    weights: Tensor  # (B, L) the attention of each to the one before it, mean over heads
    maps: Tensor  # (B, L, r, c) the attention of the token that reads in each layer


def find_start(anatomy: VitAnatomy, token: Token, grid: tuple[int, int]) -> Tokens:
    """`find_tokens` of the token that a path of strongest steps begins at. Raises UsageError also for a name of
    several.
    """
    tokens = find_tokens(anatomy, token, grid)
    if tokens.indices is not None and len(tokens.indices) > 1:
        raise UsageError(f"'{tokens.name}' are several tokens; a path begins at one, such as {tokens.name[:-1]}0")
    return tokens


def strongest_steps(anatomy: VitAnatomy, images: Tensor, token: Token = POOLED) -> Steps:
    """From a token after the last layer down, always on to the token that is read most there, be it itself.

    Each step is the strongest of its layer; `token_path` finds the strongest way as a whole. Raises UsageError for a
    token that is not there, or a name of several.
    """
    grid, prefix = anatomy.grid(images), anatomy.num_prefix_tokens
    tokens = find_start(anatomy, token, grid)

    def compute(attention: Tensor, pooling: Tensor) -> tuple[Tensor, ...]:
        mean = wide(attention).mean(dim=2)
        pooled = len(tokens.indices or ()) == 0
        start = mean.shape[-1] if pooled else (tokens.indices or (0,))[0]
        path = [torch.full((len(mean),), start, device=mean.device)]
        weights, maps, row = [], [], tokens.weights(pooling)
        for layer in reversed(mean.unbind(dim=1)):
            read = torch.einsum("bt,bts->bs", row.to(layer), layer)
            weight, source = read.max(dim=1)
            path.append(source)
            weights.append(weight)
            maps.append(read[:, prefix:].unflatten(1, grid))
            row = F.one_hot(source, read.shape[1])
        return tuple(torch.stack(steps[::-1], dim=1) for steps in (path, weights, maps))

    return Steps(tokens.name, *_over_parts(anatomy, images, None, compute))
