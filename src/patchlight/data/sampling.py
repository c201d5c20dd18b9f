"""Which training images an epoch has, and in which order. SAMPLERS is `data.sampler`.

What is drawn depends on (seed, epoch) alone, on the CPU, so it is the same on every device and in a resumed run.

Shapes: N images of the set, L draws of an epoch, n images of a class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from patchlight.machine.seeds import seeded_generator


@dataclass(frozen=True)
class Draws:
    """The images of an epoch, in the order in which they are trained on."""

    indices: Tensor  # (L,) int64, places in the set
    turns: Tensor  # (L,) int64: how often that image has had its turn before, which decides the alternating flip


Sampler = Callable[[Tensor, int, int, int], Draws]  # labels (N,), the epoch's length L at least, seed, epoch from 0


def uniform(labels: Tensor, length: int, seed: int, epoch: int) -> Draws:
    """Every image once, in a random order; what is beyond `length` is for who takes the last, smaller batch."""
    order = torch.randperm(len(labels), generator=seeded_generator(seed, "order", epoch))
    return Draws(order, torch.full_like(order, epoch))


def balanced(labels: Tensor, length: int, seed: int, epoch: int) -> Draws:
    """`length` images, of every class that has any equally many: the counts differ by one at most, and over the epochs
    the one more goes round.

    Within a class images are dealt from a pack that is shuffled anew when it is used up, from one epoch into the next:
    all have been used before any is used again. So chance favours no image of a class, as drawing with replacement
    does, which would leave out a third of a class in as many draws as it has images.
    """
    members = torch.argsort(labels, stable=True).split(torch.bincount(labels).tolist())
    packs = [pack for pack in members if len(pack)]
    base, over = divmod(length, len(packs))
    places = torch.randperm(len(packs), generator=seeded_generator(seed, "sampler")).tolist()
    indices, turns = [], []
    for pack, place in zip(packs, places, strict=True):
        first = base * epoch + _goes_round(over * epoch, place, len(packs))
        end = base * (epoch + 1) + _goes_round(over * (epoch + 1), place, len(packs))
        dealt = _deal(pack, first, end, seed)
        indices.append(dealt.indices)
        turns.append(dealt.turns)
    order = torch.randperm(length, generator=seeded_generator(seed, "order", epoch))
    return Draws(torch.cat(indices)[order], torch.cat(turns)[order])


def _goes_round(count: int, place: int, places: int) -> int:
    """How many of `count` things that are handed out one by one, over and over from place 0 on, a place has got."""
    return (count - place + places - 1) // places


def _deal(pack: Tensor, first: int, end: int, seed: int) -> Draws:
    """The draws `first` to `end` of a class, of all epochs together, from its images (n,)."""
    drawn = torch.arange(first, end)
    turns, places = drawn // len(pack), drawn % len(pack)
    indices = pack[places]
    for turn in {first // len(pack), (end - 1) // len(pack)} if end > first else ():
        # A turn that is whole within the epoch need not be shuffled: the epoch is.
        draw = seeded_generator(seed, "sampler", int(pack[0]), turn)
        own = turns == turn
        indices[own] = pack[torch.randperm(len(pack), generator=draw)][places[own]]
    return Draws(indices, turns)


SAMPLERS: dict[str, Sampler] = {"uniform": uniform, "balanced": balanced}
