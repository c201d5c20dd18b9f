"""Colour and shape policies on whole batches: RandAugment, AutoAugment (CIFAR-10) and TrivialAugment.

Every image draws its own operations. The draws stay on the CPU, so the host knows which images share an operation
without asking the device: a round sorts the batch by operation and runs each family of operations once, on its slice.

Shapes: B batch, C channels (1 or 3), H, W; R rounds (operations per image). Images are uint8 (B, C, H, W) on any
device; magnitudes are on the CPU, in torchvision's units.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Generator, Tensor

from patchlight.config import AugmentConfig
from patchlight.data.ops import OPS, Operation, runs
from patchlight.machine.device import move

Policy = Callable[[Tensor, AugmentConfig, Generator], Tensor]

# AutoAugment's sub-policies for CIFAR-10: two times op, probability, bin of 10.
SubPolicy = tuple[tuple[str, float, int], tuple[str, float, int]]
CIFAR10_POLICIES: list[SubPolicy] = [
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
]
CIFAR10_PROBABILITIES = torch.tensor([[probability for _, probability, _ in pair] for pair in CIFAR10_POLICIES])
CIFAR10_BINS = torch.tensor([[bin for _, _, bin in pair] for pair in CIFAR10_POLICIES])


def magnitude_table(wide: bool, bins: int, height: int, width: int) -> Tensor:
    """Each operation's magnitude at each bin, without sign, and 0 where it has none: (len(OPS), bins) float32.

    `wide` is TrivialAugment's space. The table is kept for the next call, so it is not to be changed.
    """
    return _magnitudes(tuple(OPS.values()), wide, bins, height, width)


@lru_cache(maxsize=16)
def _magnitudes(rows: tuple[Operation, ...], wide: bool, bins: int, height: int, width: int) -> Tensor:
    none = torch.zeros(bins)
    return torch.stack([row.magnitudes.values(wide, bins, height, width) if row.magnitudes else none for row in rows])


def signed_ops() -> Tensor:
    """(len(OPS),) bool: which rows of OPS have a magnitude that may be negative."""
    return torch.tensor([row.magnitudes is not None and row.magnitudes.signed for row in OPS.values()])


def draw_ops(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Rows of OPS, int64 of `shape`: each that RandAugment and TrivialAugment may use is equally probable."""
    drawn = torch.tensor([row for row, operation in enumerate(OPS.values()) if operation.drawn])
    return drawn[torch.randint(len(drawn), shape, generator=generator)]


def _with_sign(ops: Tensor, magnitudes: Tensor, negative: Tensor) -> Tensor:
    """The magnitudes, negative where `negative` says so and the operation has a sign."""
    return torch.where(negative & signed_ops()[ops], -magnitudes, magnitudes)


def draw_randaugment(
    batch: int, height: int, width: int, rounds: int, magnitude: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """RandAugment (Cubuk et al. 2020, arXiv:1909.13719): any operation at bin `magnitude` (0..30) of 31, either sign.

    Returns rows of OPS and their magnitudes, both (B, R), for `apply_ops`.
    """
    ops = draw_ops((batch, rounds), generator)
    negative = torch.randint(2, (batch, rounds), generator=generator) == 1
    table = magnitude_table(False, 31, height, width)
    return ops, _with_sign(ops, table[ops, magnitude], negative)


def draw_trivialaugment(batch: int, height: int, width: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """TrivialAugment Wide (Müller and Hutter 2021, arXiv:2103.10158): one operation at any of 31 bins, either sign.

    Returns rows of OPS and their magnitudes, both (B, 1), for `apply_ops`.
    """
    ops = draw_ops((batch, 1), generator)
    bins = torch.randint(31, (batch, 1), generator=generator)
    negative = torch.randint(2, (batch, 1), generator=generator) == 1
    return ops, _with_sign(ops, magnitude_table(True, 31, height, width)[ops, bins], negative)


def select_autoaugment(
    policy: Tensor, chance: Tensor, negative: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """The operations of each image's sub-policy `policy` (B,), 0..24; one runs where `chance` (B, 2), 0..1, is at most
    its probability.

    `negative` (B, 2) bool asks for the negative magnitude. Returns rows of OPS and magnitudes, both (B, 2), for
    `apply_ops`.
    """
    row = {name: number for number, name in enumerate(OPS)}
    ops = torch.tensor([[row[name] for name, _, _ in pair] for pair in CIFAR10_POLICIES])[policy]
    magnitudes = _with_sign(ops, magnitude_table(False, 10, height, width)[ops, CIFAR10_BINS[policy]], negative)
    return torch.where(chance <= CIFAR10_PROBABILITIES[policy], ops, row["Identity"]), magnitudes


def draw_autoaugment(batch: int, height: int, width: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """AutoAugment's policy for CIFAR-10 (Cubuk et al. 2019, arXiv:1805.09501): one of 25 sub-policies for each image.

    Returns rows of OPS and their magnitudes, both (B, 2), for `apply_ops`.
    """
    policy = torch.randint(len(CIFAR10_POLICIES), (batch,), generator=generator)
    chance = torch.rand((batch, 2), generator=generator)
    negative = torch.randint(2, (batch, 2), generator=generator) == 0
    return select_autoaugment(policy, chance, negative, height, width)


def apply_ops(images: Tensor, ops: Tensor, magnitudes: Tensor) -> Tensor:
    """Run each image's own operations one after the other, those of one family for all images at once.

    `ops` (B, R) are rows of OPS and `magnitudes` (B, R) theirs, both on the CPU. Returns new images of the same shape.
    """
    rows = list(OPS.values())
    families = list(dict.fromkeys(row.family for row in rows))
    by_family = sorted(range(len(rows)), key=lambda row: families.index(rows[row].family))  # stable
    rank = torch.tensor(by_family).argsort()  # of each row, when the operations of a family stand together
    place = torch.arange(len(images))  # which image a row of the sorted batch holds
    for ops_now, magnitudes_now in zip(ops.unbind(1), magnitudes.unbind(1), strict=True):
        order = rank[ops_now[place]].argsort(stable=True)
        place = place[order]
        images = images.index_select(0, move(order, images.device))
        drawn, strengths = [rows[row] for row in ops_now[place].tolist()], magnitudes_now[place]
        functions = [row.function for row in drawn]
        parts = [
            family(images[part], functions[part], strengths[part])
            for family, part in runs([row.family for row in drawn])
        ]
        images = torch.cat(parts) if parts else images
    return images.index_select(0, move(place.argsort(), images.device))


def randaugment(images: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """`config.randaugment_ops` random operations at `config.randaugment_magnitude`; see `draw_randaugment`."""
    b, _, h, w = images.shape
    rounds, magnitude = config.randaugment_ops, config.randaugment_magnitude
    return apply_ops(images, *draw_randaugment(b, h, w, rounds, magnitude, generator))


def autoaugment(images: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """A random sub-policy that was learned on CIFAR-10; see `draw_autoaugment`."""
    b, _, h, w = images.shape
    return apply_ops(images, *draw_autoaugment(b, h, w, generator))


def trivialaugment(images: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """One random operation at a random strength; see `draw_trivialaugment`."""
    b, _, h, w = images.shape
    return apply_ops(images, *draw_trivialaugment(b, h, w, generator))


# The rows of augment.policy; its names, with "none", stand in config/names.py.
POLICIES: dict[str, Policy] = {
    "randaugment": randaugment,
    "autoaugment": autoaugment,
    "trivialaugment": trivialaugment,
}
