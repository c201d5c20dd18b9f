"""Which parts of a model are trained: for frozen backbones, stages and adapters."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from patchlight.errors import UsageError
from patchlight.models import structure_of
from patchlight.models.lora import is_lora
from patchlight.models.structure import Structure


def set_trainable(model: nn.Module, what: str, names: Sequence[str]) -> None:
    """Train "all", the "head" alone, the "last N" blocks and what follows them, or "lora" adapters and the head.

    What is not in `names` stays frozen. Raises UsageError for another word, and where the model has no N blocks.
    """
    chosen = _chosen(structure_of(model), what)
    for name, p in model.named_parameters():
        p.requires_grad_(name in names and name in chosen)
        if not p.requires_grad:
            p.grad = None


def _chosen(structure: Structure, what: str) -> set[str]:
    """The names of the parameters that these words mean."""
    depths = structure.depths()
    if what == "all":
        return set(depths)
    if what == "head":
        return set(structure.heads)
    if what == "lora":
        return set(structure.heads) | {name for name in depths if is_lora(name)}
    word, _, number = what.partition(" ")
    if word != "last" or not number.isdecimal() or int(number) < 1:
        raise UsageError(
            f'train.trainable must be "all", "head", "lora", or "last N" with a number of blocks, not "{what}"'
        )
    blocks = len(structure.levels)
    if int(number) > blocks:
        raise UsageError(f'train.trainable is "{what}", but the model has {blocks} blocks; choose fewer, or "all"')
    return {name for name, depth in depths.items() if depth > blocks - int(number)}


def train_mode(model: nn.Module, frozen: Sequence[nn.Module]) -> None:
    """But for the `frozen_modules`: in them dropout is off and statistics stay as they are."""
    model.train()
    for part in frozen:
        part.eval()


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The largest parts of which nothing is trained, and the dropout on embeddings that are not."""
    frozen = _largest_frozen(model)
    structure = structure_of(model)
    stem = structure.model.get_submodule(structure.stem) if structure.stem else None
    return [*frozen, *structure.embedding_dropout] if any(part is stem for part in frozen) else frozen


def _largest_frozen(part: nn.Module) -> list[nn.Module]:
    params = list(part.parameters())
    if params and not any(p.requires_grad for p in params):
        return [part]
    return [inner for child in part.children() for inner in _largest_frozen(child)]
