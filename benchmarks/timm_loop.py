"""A plain training loop with timm and torchvision within a wall-clock budget, the other side of `accuracy`.

deit-tiny-300's model and recipe as users of timm's scripts write them: DeiT-Ti of 4 x 4 patches, RandAugment, flip and
crop in a DataLoader's workers, mixup and CutMix from timm, label smoothing, AdamW, warm-up and cosine over the budget,
bf16 autocast. Runs by itself: `python -m benchmarks.timm_loop '{"source": "digits", "seconds": 60}'` prints JSON.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.pictures import Pictures
from patchlight.config import DataConfig
from patchlight.data.images import ImageSet, channel_stats, digest
from patchlight.data.splits import load_splits
from patchlight.machine.device import resolve_device

WARMUP_SHARE = 0.05
VALIDATIONS = 20  # at most, over the budget


@dataclass(frozen=True)
class Job:
    """`seconds` is the budget from the first step on, validation included; `source` as in a recipe."""

    source: str = "digits"
    seconds: float = 60.0
    device: str = "cpu"
    seed: int = 0
    batch: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.05
    smoothing: float = 0.1
    workers: int = 2


def train(job: Job) -> dict[str, Any]:
    """The rows of the run: wall seconds since training began, images seen, validation accuracy."""
    from timm.data import Mixup
    from timm.loss import SoftTargetCrossEntropy
    from timm.optim import param_groups_weight_decay

    torch.manual_seed(job.seed)
    device = torch.device(job.device)
    splits = load_splits(DataConfig(source=job.source))
    assert splits.val is not None, "data.val_fraction is above 0"
    classes = len(splits.train.class_names)
    train_loader, val_loader = loaders(job, splits.train, splits.val)
    model = deit(splits.train.image_size[0], classes).to(device)
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=job.smoothing, num_classes=classes)
    loss_of = SoftTargetCrossEntropy()
    # As timm's own script has it: norms, biases, tokens and positions are not decayed.
    undecayed: Any = model.no_weight_decay
    groups = param_groups_weight_decay(model, job.weight_decay, undecayed())
    optimizer = torch.optim.AdamW(groups, lr=job.lr)

    rows: list[dict[str, Any]] = []
    started, seen, epoch = time.monotonic(), 0, 0

    def spent() -> float:
        return time.monotonic() - started

    def left_for_training() -> float:
        """Seconds until the last validation must begin, at a third of a training step's time per image."""
        pace = spent() / seen if seen else 0.0
        validation = min(len(splits.val or ()) * pace / 3, 0.1 * job.seconds)  # the first steps are slow
        return job.seconds - validation - spent()

    def note() -> None:
        top1 = validate(model, val_loader, device)
        rows.append({"wall_s": spent(), "epoch": epoch, "images": seen, "val_top1": top1})

    while left_for_training() > 0:
        epoch += 1
        for images, labels in train_loader:
            share = spent() / (spent() + max(left_for_training(), 0.0)) if seen else 0.0
            for group in optimizer.param_groups:
                group["lr"] = job.lr * rate(share)
            images, targets = mixup(images.to(device), labels.to(device))
            with torch.autocast(device.type, torch.bfloat16):
                logits = model(images)
            loss = loss_of(logits.float(), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(images)
            if left_for_training() <= 0:
                break
        if left_for_training() <= 0 or not rows or spent() - rows[-1]["wall_s"] > job.seconds / VALIDATIONS:
            note()
    return {"rows": rows, "images": seen, "digest_val": digest(splits.val), "train": len(splits.train)}


def loaders(job: Job, train_set: ImageSet, val_set: ImageSet) -> tuple[Any, Any]:
    mean, std = channel_stats(train_set)
    augmented = Pictures(train_set, "randaugment", mean=mean, std=std)
    plain = Pictures(val_set, "none", augmented=False, mean=mean, std=std)
    common: dict[str, Any] = {
        "num_workers": job.workers,
        "persistent_workers": True,
        "pin_memory": job.device == "cuda",
    }
    return (
        torch.utils.data.DataLoader(augmented, job.batch, shuffle=True, drop_last=True, **common),
        torch.utils.data.DataLoader(plain, 500, **common),
    )


def deit(side: int, classes: int) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(
        "deit_tiny_patch16_224", img_size=side, patch_size=side // 8, num_classes=classes
    )
    return model


def rate(share: float) -> float:
    """Of the peak, at this share of the budget: a linear warm-up, then half a cosine."""
    if share < WARMUP_SHARE:
        return share / WARMUP_SHARE
    return 0.5 * (1 + math.cos(math.pi * (share - WARMUP_SHARE) / (1 - WARMUP_SHARE)))


@torch.inference_mode()
def validate(model: nn.Module, loader: Any, device: torch.device) -> float:
    model.eval()
    correct = total = 0
    for images, labels in loader:
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(images.to(device))
        correct += int((logits.argmax(dim=1).cpu() == labels).sum())
        total += len(labels)
    model.train()
    return correct / total


def main() -> None:
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand beside the answer
    job = Job(**json.loads(sys.argv[1]))
    resolve_device(job.device)
    answer.write(json.dumps(train(job)) + "\n")


if __name__ == "__main__":
    main()
