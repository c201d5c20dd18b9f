"""Which parts of a model are trained, and how deep each lies: for frozen backbones, stages and layer-wise rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from patchlight.errors import UsageError
from patchlight.models.adapt import is_head
from patchlight.models.anatomy import find_anatomy
from patchlight.models.families.huggingface import HuggingFaceClassifier
from patchlight.models.lora import is_lora

# Words of names of what comes before the first block, wherever it is written: ours and timm's, then Hugging Face's.
EMBEDDING = {"patch_embed", "pos_embed", "cls_token", "reg_token", "dist_token", "norm_pre", "embeddings"}
NOISE = {"pos_drop", "patch_drop"}  # dropout on embeddings
LAST_NORM = {"norm", "layernorm"}  # belongs to the last block, as timm has it


def blocks_of(model: nn.Module) -> Sequence[nn.Module]:
    """A ViT's blocks; of a hierarchical transformer its levels; of other networks nothing."""
    anatomy = find_anatomy(model)
    if anatomy is not None:
        return anatomy.blocks
    if isinstance(model, HuggingFaceClassifier):  # whose levels are the list that holds the most
        lists = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
        lists.sort(key=lambda part: sum(p.numel() for p in part.parameters()))
        return list(lists[-1]) if lists else []
    named: Any = model
    levels = getattr(named, "blocks", None) or getattr(named, "layers", None) or getattr(named, "stages", None)
    return list(levels) if isinstance(levels, (nn.Sequential, nn.ModuleList)) else []


def depths(model: nn.Module) -> dict[str, int]:
    """How deep each parameter lies: 0 in the embedding or stem, i in block i (from 1), the last norm with the last
    block, and one more what follows. Of a model without blocks all but the head are at 0.
    """
    blocks = blocks_of(model)
    within = {id(p): depth for depth, block in enumerate(blocks, 1) for p in block.parameters()}
    found: dict[str, int] = {}
    for name, p in model.named_parameters():
        words = set(name.split("."))
        first = not any(found.values())  # a stem stands before the blocks
        before = not is_head(name) and (not blocks or first or bool(words & EMBEDDING))
        after = len(blocks) if words & LAST_NORM else len(blocks) + 1
        found[name] = within.get(id(p), 0 if before else after)
    return found


def set_trainable(model: nn.Module, what: str, names: Sequence[str]) -> None:
    """Train "all", the "head" alone, the "last N" blocks and what follows them, or "lora" adapters and the head.

    What is not in `names` stays frozen. Raises UsageError for another word, and where the model has no N blocks.
    """
    kept = _least_depth(model, what)
    depth = depths(model)
    for name, p in model.named_parameters():
        of_it = depth[name] >= kept if kept is not None else is_head(name) or (what == "lora" and is_lora(name))
        p.requires_grad_(name in names and of_it)
        if not p.requires_grad:
            p.grad = None


def _least_depth(model: nn.Module, what: str) -> int | None:
    """From which depth on is trained; None where depth does not decide."""
    if what in ("all", "head", "lora"):
        return 0 if what == "all" else None
    word, _, number = what.partition(" ")
    if word != "last" or not number.isdecimal() or int(number) < 1:
        raise UsageError(
            f'train.trainable must be "all", "head", "lora", or "last N" with a number of blocks, not "{what}"'
        )
    blocks = len(blocks_of(model))
    if int(number) > blocks:
        raise UsageError(f'train.trainable is "{what}", but the model has {blocks} blocks; choose fewer, or "all"')
    return blocks + 1 - int(number)


def train_mode(model: nn.Module, frozen: Sequence[nn.Module]) -> None:
    """But for the `frozen_modules`: in them dropout is off and statistics stay as they are."""
    model.train()
    for part in frozen:
        part.eval()


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The largest parts of which nothing is trained, and the dropout on embeddings that are not."""
    params = list(model.parameters())
    if params and not any(p.requires_grad for p in params):
        return [model]
    found = [part for child in model.children() for part in frozen_modules(child)]
    if any(part is getattr(model, "patch_embed", None) for part in found):
        found += [child for name, child in model.named_children() if name in NOISE]
    return found
