"""The data path: uint8 images of CIFAR's shape to augmented, normalised float batches on the training device.

What is drawn is the same where a library can: torchvision and Patchlight draw policies for each image, kornia draws the
operations once for a batch and their strength for each image.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks import markdown
from benchmarks.options import Options
from benchmarks.pictures import MEAN, PADDING, STD, Pictures, TensorPictures
from benchmarks.timing import Sampler, compare, interleave, sampler
from patchlight.config import AugmentConfig
from patchlight.data.batches import TrainBatches
from patchlight.data.images import ImageSet
from patchlight.machine.process import reuse_memory
from patchlight.models import pixels_to_input

OURS = "Patchlight"
SIDE, BATCH = 32, 128
PIPELINES = {"crop and flip": "none", "with RandAugment": "randaugment", "with AutoAugment": "autoaugment"}
Pass = Callable[[], Iterator[Tensor]]  # over all images once, a batch at a time


def run(options: Options) -> dict[str, Any]:
    reuse_memory()
    images = random_images(options.pick(100 * BATCH, BATCH))
    found = {name: measure(options, images, policy) for name, policy in PIPELINES.items()}
    return {"images": len(images), "batch": BATCH, "pipelines": found}


def random_images(count: int) -> ImageSet:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, SIDE, SIDE), generator=draw, dtype=torch.uint8)
    return ImageSet(pixels, torch.randint(10, (count,), generator=draw), tuple("0123456789"))


def measure(options: Options, images: ImageSet, policy: str) -> dict[str, Any]:
    """Seconds per image of a pass over all images; worker processes are started in the warm-up and stay."""
    samplers = {
        name: over(one_pass, options, len(images)) for name, one_pass in passes(options, images, policy).items()
    }
    return compare(interleave(samplers, rounds=options.rounds_or(7)), [OURS])


def over(one_pass: Pass, options: Options, items: int) -> Sampler:
    def work() -> None:
        for batch in one_pass():
            assert batch.dtype == torch.float32

    return sampler(work, options.device, items=items)


def passes(options: Options, images: ImageSet, policy: str) -> dict[str, Pass]:
    found: dict[str, Pass] = {}
    if importlib.util.find_spec("torchvision"):
        for workers in (2, 4):
            found[f"torchvision, PIL, {workers} workers"] = loaded(Pictures(images, policy), workers, options)
        found["torchvision v2, tensors, 2 workers"] = loaded(TensorPictures(images, policy), 2, options)
        if not options.quick:
            found["torchvision v2, tensors, 4 workers"] = loaded(TensorPictures(images, policy), 4, options)
    if importlib.util.find_spec("kornia"):
        found["kornia, whole batches"] = kornia(images, policy, options.device)
    found[OURS] = ours(images, policy, options.device)
    return found


def loaded(pictures: Any, workers: int, options: Options) -> Pass:
    """torchvision's transforms of single images in the worker processes of a DataLoader."""
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores are meant
    on_gpu = options.device.type == "cuda"
    loader = torch.utils.data.DataLoader(
        pictures, BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True, pin_memory=on_gpu
    )

    def one_pass() -> Iterator[Tensor]:
        for batch, _ in loader:
            yield batch.to(options.device, non_blocking=True)

    return one_pass


def kornia(images: ImageSet, policy: str, device: torch.device) -> Pass:
    """kornia's modules on float batches, on the training device."""
    import kornia.augmentation as K
    from kornia.augmentation.auto import AutoAugment, RandAugment

    plain = {"transformation_matrix_mode": "skip"}  # nobody asks for the matrices
    policies = {
        "none": [],
        "randaugment": [RandAugment(n=2, m=9, **plain)],
        "autoaugment": [AutoAugment("cifar10", **plain)],
    }
    augment = K.AugmentationSequential(
        K.RandomCrop((SIDE, SIDE), padding=PADDING),
        K.RandomHorizontalFlip(),
        *policies[policy],
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
        data_keys=["input"],
        **plain,
    ).to(device)

    def one_pass() -> Iterator[Tensor]:
        for rows in torch.randperm(len(images)).split(BATCH):
            pixels, _ = images.gather(rows)
            yield augment(pixels.to(device).float() / 255)

    return one_pass


def ours(images: ImageSet, policy: str, device: torch.device) -> Pass:
    config = AugmentConfig(crop_padding=PADDING, flip="random", policy=policy)
    batches = TrainBatches(images, BATCH, config, seed=0, fill=torch.zeros(3, dtype=torch.uint8), device=device)
    epoch = 0

    def one_pass() -> Iterator[Tensor]:
        nonlocal epoch
        epoch += 1
        for step in range(batches.steps_per_epoch):
            yield pixels_to_input(batches.batch(epoch, step).images, MEAN, STD)

    return one_pass


def table(result: dict[str, Any]) -> str:
    intro = (
        f"{result['images']:,} random images of {SIDE} x {SIDE}, crop of padding {PADDING} and flip, batch {BATCH}. "
        "kornia draws a policy's operations once for a batch, the others for each image."
    )
    parts = [intro]
    for pipeline, found in result["pipelines"].items():
        rows = [
            [name, markdown.times(found["ratios"][OURS][name]), markdown.number(1 / seconds["median"])]
            for name, seconds in found["seconds"].items()
        ]
        parts.append(markdown.table([pipeline, "time over Patchlight's", "images/s"], rows))
    return "\n\n".join(parts)
