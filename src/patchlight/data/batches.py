"""The training batches of an epoch, as a pure function of (seed, epoch, step).

Shapes: B batch, C channels, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchlight import runtime
from patchlight.config import AugmentConfig
from patchlight.data.augment import augment
from patchlight.data.images import ImageSet


@dataclass(frozen=True)
class Batch:
    images: Tensor  # (B, C, H, W) uint8, augmented, on the training device
    targets: Tensor  # (B,) int64
    generator: torch.Generator  # where the draws of this batch go on, for mixing


class TrainBatches:
    """The batches of every epoch. Nothing is consumed by `batch`, so any step can be made again.

    On a GPU with room for it, the whole set is moved there once; else a batch is gathered in memory and moved. Either
    way it is augmented on `device`, and what is drawn does not depend on where.
    """

    def __init__(
        self, images: ImageSet, batch_size: int, config: AugmentConfig, *, seed: int, fill: Tensor, device: torch.device
    ) -> None:
        self.images, self.config, self.seed, self.device = images, config, seed, device
        self.batch_size = min(batch_size, len(images))
        self.fill = fill  # (C,) uint8, what random erasing writes
        self.steps_per_epoch = len(images) // self.batch_size  # what is left over comes up in another epoch's order
        self._resident = images.to(device) if fits_on(device, images) else None
        self._order: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.int64))

    def order(self, epoch: int) -> Tensor:
        """The permutation of the set in this epoch, (N,)."""
        if self._order[0] != epoch:
            draw = runtime.generator(self.seed, "order", epoch)
            self._order = epoch, torch.randperm(len(self.images), generator=draw)
        return self._order[1]

    def indices(self, epoch: int, step: int) -> Tensor:
        """Which images of the set make the batch of one step, (B,)."""
        return self.order(epoch)[step * self.batch_size : (step + 1) * self.batch_size]

    def batch(self, epoch: int, step: int, *, strong: bool = True) -> Batch:
        """The augmented batch of one step; `strong` is False once policies and mixing are switched off."""
        indices = self.indices(epoch, step)
        images, targets = self.gather(indices)
        draw = runtime.generator(self.seed, "augment", epoch, step)
        pixels = augment(
            images, indices, self.config,
            seed=self.seed, epoch=epoch, generator=draw, strong=strong, fill=self.fill,
        )  # fmt: skip
        return Batch(pixels, targets, draw)

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) uint8 and labels (B,) of these places (on the CPU), on the device."""
        if self._resident is None:
            images, labels = self.images.gather(indices)
            return runtime.move(images, self.device), runtime.move(labels, self.device)
        images, labels = self._resident
        there = runtime.move(indices, self.device)
        return images.index_select(0, there), labels.index_select(0, there)


def fits_on(device: torch.device, images: ImageSet) -> bool:
    """A GPU whose free memory is at least four times the set's pixels. A CPU's memory is where they are already."""
    if device.type != "cuda":
        return False
    height, width = images.image_size
    return 4 * len(images) * 3 * height * width <= torch.cuda.mem_get_info(device)[0]
