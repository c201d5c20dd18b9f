"""An ImageSet as torchvision's users have it: a data set of single images and a chain of transforms for each."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from patchlight.data.images import ImageSet

PADDING = 4
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Single images through torchvision's classic transforms, from a NumPy array by way of PIL, as its CIFAR10 does.

    `policy` is "none", "randaugment" or "autoaugment" (with torchvision's own defaults); without `augmented` images are
    only normalised.
    """

    def __init__(
        self,
        images: ImageSet,
        policy: str,
        *,
        augmented: bool = True,
        flip: bool = True,
        mean: tuple[float, ...] = MEAN,
        std: tuple[float, ...] = STD,
    ) -> None:
        pixels, labels = images.gather(range(len(images)))
        self.pixels, self.labels = pixels.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()
        self.transform = classic_transform(pixels.shape[2], policy, augmented, flip, mean, std)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture: Tensor = self.transform(Image.fromarray(self.pixels[index]))
        return picture, self.labels[index]


class TensorPictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Single images through torchvision's transforms v2, as uint8 tensors until they are normalised."""

    def __init__(self, images: ImageSet, policy: str) -> None:
        self.pixels, labels = images.gather(range(len(images)))
        self.labels = labels.tolist()
        self.transform = v2_transform(self.pixels.shape[2], policy)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture: Tensor = self.transform(self.pixels[index])
        return picture, self.labels[index]


def classic_transform(
    side: int, policy: str, augmented: bool, flip: bool, mean: tuple[float, ...], std: tuple[float, ...]
) -> Any:
    from torchvision import transforms

    policies = {
        "none": lambda: [],
        "randaugment": lambda: [transforms.RandAugment()],
        "autoaugment": lambda: [transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10)],
    }
    steps: list[Any] = []
    if augmented:
        steps = [transforms.RandomCrop(side, padding=PADDING), *policies[policy]()]
        steps += [transforms.RandomHorizontalFlip()] if flip else []
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean, std)])


def v2_transform(side: int, policy: str) -> Any:
    from torchvision.transforms import v2

    policies = {
        "none": lambda: [],
        "randaugment": lambda: [v2.RandAugment()],
        "autoaugment": lambda: [v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)],
    }
    steps = [v2.RandomCrop(side, padding=PADDING), v2.RandomHorizontalFlip(), *policies[policy]()]
    return v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
