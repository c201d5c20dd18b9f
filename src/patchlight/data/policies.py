"""Colour and shape policies on whole batches: RandAugment, AutoAugment (CIFAR-10) and TrivialAugment.

Every image draws its own operations. The draws stay on the CPU, so the host knows which images share an operation
without asking the device: a round sorts the batch by operation and runs each operation once, on its slice.

Shapes: B batch, C channels (1 or 3), H, W; R rounds (operations per image). Images are uint8 (B, C, H, W) on any
device; magnitudes are on the CPU, in torchvision's units.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Generator, Tensor

from patchlight.config import AugmentConfig
from patchlight.data.ops import FAMILIES, OPS
from patchlight.machine.device import move

Policy = Callable[[Tensor, AugmentConfig, Generator], Tensor]

DRAWN_OPS = [name for name in OPS if name != "Invert"]

# Rows of OPS in their order, families in one.
TOGETHER = list(dict.fromkeys(next((names for names in FAMILIES if op in names), (op,)) for op in OPS))

# Magnitude of the first bin, of the last bin, and of the last bin in TrivialAugment's "wide" space. The narrow
# translations are shares of the image's side. An op without a row has no magnitude.
MAGNITUDES: dict[str, tuple[float, float, float]] = {
    "ShearX": (0.0, 0.3, 0.99),
    "ShearY": (0.0, 0.3, 0.99),
    "TranslateX": (0.0, 150.0 / 331.0, 32.0),
    "TranslateY": (0.0, 150.0 / 331.0, 32.0),
    "Rotate": (0.0, 30.0, 135.0),
    "Brightness": (0.0, 0.9, 0.99),
    "Color": (0.0, 0.9, 0.99),
    "Contrast": (0.0, 0.9, 0.99),
    "Sharpness": (0.0, 0.9, 0.99),
    "Posterize": (8.0, 4.0, 2.0),
    "Solarize": (255.0, 0.0, 0.0),
}
SIGNED = torch.tensor([name in MAGNITUDES and name not in ("Posterize", "Solarize") for name in OPS])

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
CIFAR10_OPS = torch.tensor([[list(OPS).index(name) for name, _, _ in pair] for pair in CIFAR10_POLICIES])
CIFAR10_PROBABILITIES = torch.tensor([[probability for _, probability, _ in pair] for pair in CIFAR10_POLICIES])
CIFAR10_BINS = torch.tensor([[bin for _, _, bin in pair] for pair in CIFAR10_POLICIES])


@lru_cache(maxsize=16)
def magnitude_table(wide: bool, bins: int, height: int, width: int) -> Tensor:
    """Each op's magnitude at each bin, without sign, or 0: (len(OPS), bins) float32, not to be changed."""
    table = torch.zeros(len(OPS), bins)
    for row, name in enumerate(OPS):
        if name not in MAGNITUDES:
            continue
        first, last_narrow, last_wide = MAGNITUDES[name]
        last = last_wide if wide else last_narrow
        if name == "Posterize":  # whole bits
            table[row] = first - (torch.arange(bins) / ((bins - 1) / (first - last))).round()
            continue
        if name.startswith("Translate") and not wide:
            last *= width if name == "TranslateX" else height
        table[row] = torch.linspace(first, last, bins)
    return table


def _with_sign(ops: Tensor, magnitudes: Tensor, negative: Tensor) -> Tensor:
    """Turn the magnitudes where `negative` and the op can go both ways."""
    return torch.where(negative & SIGNED[ops], -magnitudes, magnitudes)


def draw_randaugment(
    batch: int, height: int, width: int, rounds: int, magnitude: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """RandAugment (Cubuk et al. 2020, arXiv:1909.13719): any op, `magnitude` (0..30) of 31 bins, either sign.

    Returns rows of OPS and their magnitudes, both (B, R), for `apply_ops`.
    """
    ops = torch.randint(len(DRAWN_OPS), (batch, rounds), generator=generator)
    negative = torch.randint(2, (batch, rounds), generator=generator) == 1
    table = magnitude_table(False, 31, height, width)
    return ops, _with_sign(ops, table[ops, magnitude], negative)


def draw_trivialaugment(batch: int, height: int, width: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """TrivialAugment Wide (Müller and Hutter 2021, arXiv:2103.10158): one op of any of 31 bins, either sign.

    Returns rows of OPS and their magnitudes, both (B, 1), for `apply_ops`.
    """
    ops = torch.randint(len(DRAWN_OPS), (batch, 1), generator=generator)
    bins = torch.randint(31, (batch, 1), generator=generator)
    negative = torch.randint(2, (batch, 1), generator=generator) == 1
    return ops, _with_sign(ops, magnitude_table(True, 31, height, width)[ops, bins], negative)


def select_autoaugment(
    policy: Tensor, chance: Tensor, negative: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """The ops of each image's sub-policy `policy` (B,), 0..24, whose probability reaches `chance` (B, 2), 0..1.

    `negative` (B, 2) bool asks for the other sign. Returns rows of OPS and magnitudes, both (B, 2), for `apply_ops`.
    """
    ops = CIFAR10_OPS[policy]
    magnitudes = _with_sign(ops, magnitude_table(False, 10, height, width)[ops, CIFAR10_BINS[policy]], negative)
    return torch.where(chance <= CIFAR10_PROBABILITIES[policy], ops, list(OPS).index("Identity")), magnitudes


def draw_autoaugment(batch: int, height: int, width: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """AutoAugment's policy for CIFAR-10 (Cubuk et al. 2019, arXiv:1805.09501): a sub-policy of 25 for each image.

    Returns rows of OPS and their magnitudes, both (B, 2), for `apply_ops`.
    """
    policy = torch.randint(len(CIFAR10_POLICIES), (batch,), generator=generator)
    chance = torch.rand((batch, 2), generator=generator)
    negative = torch.randint(2, (batch, 2), generator=generator) == 0
    return select_autoaugment(policy, chance, negative, height, width)


def apply_ops(images: Tensor, ops: Tensor, magnitudes: Tensor) -> Tensor:
    """Run each image's own operations one after the other.

    `ops` (B, R) are rows of OPS and `magnitudes` (B, R) theirs, both on the CPU. Returns new images of the same shape.
    """
    place = torch.arange(len(images))  # which image a row of the sorted batch holds
    for ops_now, magnitudes_now in zip(ops.unbind(1), magnitudes.unbind(1), strict=True):
        order = ops_now[place].argsort(stable=True)
        place = place[order]
        images = images.index_select(0, move(order, images.device))
        counts = dict(zip(OPS, torch.bincount(ops_now, minlength=len(OPS)).tolist(), strict=True))
        sizes = [sum(counts[name] for name in names) for names in TOGETHER]
        parts = zip(TOGETHER, images.split(sizes), magnitudes_now[place].split(sizes), strict=True)
        for names, part, magnitude in parts:
            if len(part) == 0 or names == ("Identity",):
                continue
            if names in FAMILIES:
                kinds = [name for name in names for _ in range(counts[name])]
                part.copy_(FAMILIES[names](part, kinds, magnitude))
            else:
                part.copy_(OPS[names[0]](part, magnitude))
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


POLICIES: dict[str, Policy] = {
    "randaugment": randaugment,
    "autoaugment": autoaugment,
    "trivialaugment": trivialaugment,
}
