"""The training batches of an epoch, as a pure function of (seed, epoch, step).

Shapes: B batch, C channels, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from patchlight.config import AugmentConfig
from patchlight.data.augment import augment
from patchlight.data.images import ImageSet
from patchlight.data.sampling import SAMPLERS, Draws
from patchlight.machine.device import move
from patchlight.machine.seeds import seeded_generator

PIXELS_AT_ONCE = 512 * 32 * 32  # that are augmented together; with fewer, calls cost more than the work


@dataclass(frozen=True)
class Batch:
    """One step's images and labels."""

    images: Tensor  # (B, C, H, W) uint8, augmented, on the training device
    targets: Tensor  # (B,) int64
    generator: torch.Generator  # of the batch's own draws, for mixing


class TrainBatches:
    """The batches of every epoch. `batch` changes no state that matters, so any step can be made again.

    On a GPU with room for it, the whole set is moved there once; else images are gathered in memory and moved batch by
    batch. Either way they are augmented on `device`, a few small batches in one call. The random numbers are the same
    on every device.

    `fill` (C,) uint8 is the colour that random erasing paints. The last images of an epoch that do not fill a batch are
    left out or, without `drop_last`, a smaller batch. `sampler` is a row of SAMPLERS.
    """

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        config: AugmentConfig,
        *,
        seed: int,
        fill: Tensor,
        device: torch.device,
        drop_last: bool = True,
        sampler: str = "uniform",
    ) -> None:
        self.images, self.config, self.seed, self.device = images, config, seed, device
        self.batch_size = min(batch_size, len(images))
        self.fill = fill
        self.steps_per_epoch = steps_per_epoch(len(images), self.batch_size, drop_last)
        self._resident = images.to(device) if fits_on(device, images) else None
        height, width = images.image_size
        together = PIXELS_AT_ONCE // (self.batch_size * height * width)
        self.together = max(1, min(together, self.steps_per_epoch))  # steps whose images are augmented at once
        self.images_per_epoch = min(self.steps_per_epoch * self.batch_size, len(images))
        self._sampler = SAMPLERS[sampler]
        self._draws: tuple[int, Draws] | None = None  # the epoch, and its own
        self._group: tuple[tuple[int, int, bool], tuple[Tensor, Tensor]] | None = None  # the last that was made

    def draws(self, epoch: int) -> Draws:
        """The images of this epoch in their order: `images_per_epoch` of them or, where some are left out, more."""
        if self._draws is None or self._draws[0] != epoch:
            self._draws = epoch, self._sampler(self.images.labels, self.images_per_epoch, self.seed, epoch)
        return self._draws[1]

    def indices(self, epoch: int, step: int, steps: int = 1) -> Tensor:
        """The indices in the set of the images of `steps` batches from `step` on, (steps * B,) int64 or, where the last
        of them is a smaller one, fewer.
        """
        return self.draws(epoch).indices[self._places(step, steps)]

    def _places(self, step: int, steps: int) -> slice:
        """Of the images of `steps` batches from `step` on, among those of an epoch."""
        return slice(step * self.batch_size, (step + steps) * self.batch_size)

    def batch(self, epoch: int, step: int, *, strong: bool = True) -> Batch:
        """The augmented batch of one step; `strong` is False once policies and mixing are switched off."""
        place = step % self.together
        first = epoch, step - place, strong
        if self._group is None or self._group[0] != first:
            self._group = first, self.group(*first)
        images, targets = self._group[1]
        own = slice(place * self.batch_size, (place + 1) * self.batch_size)
        return Batch(images[own], targets[own], seeded_generator(self.seed, "mix", epoch, step))

    def group(self, epoch: int, step: int, strong: bool = True) -> tuple[Tensor, Tensor]:
        """Augmented images and labels of the batches that are made together, those of `step` first."""
        places = self._places(step, min(self.together, self.steps_per_epoch - step))
        draws = self.draws(epoch)
        indices = draws.indices[places]
        images, targets = self.gather(indices)
        draw = seeded_generator(self.seed, "augment", epoch, step)
        pixels = augment(
            images,
            indices,
            self.config,
            seed=self.seed,
            epoch=draws.turns[places],
            generator=draw,
            strong=strong,
            fill=self.fill,
        )
        return pixels, targets

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images (B, C, H, W) uint8 and labels (B,) int64 at `indices` (on the CPU), on the device."""
        if self._resident is None:
            images, labels = self.images.gather(indices)
            if self.device.type == "cuda":
                images = images.pin_memory()  # or the move of so much would wait for the GPU
            return move(images, self.device), move(labels, self.device)
        images, labels = self._resident
        there = move(indices, self.device)
        return images.index_select(0, there), labels.index_select(0, there)


def steps_per_epoch(images: int, batch_size: int, drop_last: bool) -> int:
    """How many batches an epoch has; `drop_last` leaves out the last images, which do not fill one."""
    return images // batch_size if drop_last else math.ceil(images / batch_size)


def fits_on(device: torch.device, images: ImageSet) -> bool:
    """Whether a whole set is kept on the device: on a CUDA GPU with free memory of at least four times its pixels."""
    if device.type != "cuda":
        return False
    height, width = images.image_size
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for reuse
    return 4 * len(images) * 3 * height * width <= torch.cuda.mem_get_info(device)[0] + kept
