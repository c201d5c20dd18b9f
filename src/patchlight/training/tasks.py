"""What a model is trained for: a loss, a score on a set, and what is kept of it. TASKS is `train.task`.

Shapes: B batch, C channels, H W pixels, K classes, N patches; S samples.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchlight.config import Config
from patchlight.data.images import ImageSet
from patchlight.errors import PatchlightError
from patchlight.evaluation.evaluate import predict_logits
from patchlight.evaluation.metrics import cross_entropy, topk_accuracy
from patchlight.machine.device import autocast
from patchlight.models import ModelCard, VisionTransformer, save_model
from patchlight.models.mae import MaskedAutoencoder, patchify, unpatchify
from patchlight.runs import Run
from patchlight.training.distill import Teacher

PAINTED = "reconstructions.npz"
SAMPLES = 8  # images that are painted for the report


class Classification:
    """Learn labels: cross entropy and, where there is one, what a teacher says."""

    def __init__(self, config: Config, card: ModelCard, model: nn.Module, device: torch.device, precision: str) -> None:
        self.config, self.card, self.precision = config, card, precision
        self.teacher = Teacher(config.train, card, device, precision) if config.train.teacher else None
        if isinstance(model, VisionTransformer):
            model.distilled_training = self.teacher is not None

    def loss(self, answer: Any, images: Tensor, targets: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Of the model's answer to images (B, C, H, W): the mean loss, and how many are of their label (B,).

        targets: (B,) or, of mixed images, (B, K). An answer of two heads is two tensors (B, K).
        """
        logits, distilled = answer if isinstance(answer, tuple) else (answer, answer)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.config.train.label_smoothing)
        if self.teacher is not None:
            loss = self.teacher.loss(loss, distilled.float(), images)
        return loss, (logits.detach().argmax(dim=1) == labels).sum()

    def score(self, model: nn.Module, images: ImageSet) -> tuple[float, float | None]:
        """Loss and top-1 accuracy."""
        size = self.config.eval.batch_size
        logits = predict_logits(model, self.card, images, batch_size=size, precision=self.precision, label="validating")
        return self.score_of(logits, images)

    def score_of(self, logits: np.ndarray, images: ImageSet) -> tuple[float, float | None]:
        """The same, of what was said of the images, (S, K)."""
        if not np.isfinite(logits).all():
            raise PatchlightError(diverged("the model's outputs are no longer finite"))
        labels = images.labels.numpy()
        return cross_entropy(logits, labels), topk_accuracy(logits, labels, 1)

    def keep(self, model: nn.Module, run: Run, images: ImageSet) -> None:
        save_model(run.path / "model", model, self.card)


class Reconstruction:
    """Paint hidden patches: the model is a MaskedAutoencoder, of which the encoder is kept. There is no accuracy."""

    def __init__(self, config: Config, card: ModelCard, model: nn.Module, device: torch.device, precision: str) -> None:
        assert isinstance(model, MaskedAutoencoder)
        self.config, self.card, self.precision, self.model = config, card, precision, model

    def loss(self, answer: Any, images: Tensor, targets: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """The mean squared error of the hidden patches; labels are not looked at."""
        return self.model.loss(answer, images), None

    @torch.inference_mode()
    def score(self, model: nn.Module, images: ImageSet) -> tuple[float, float | None]:
        """The loss over all images, each with the same patches hidden whenever it is asked for."""
        device, was_training = next(model.parameters()).device, model.training
        model.eval()
        total = 0.0
        for rows in torch.arange(len(images)).split(self.config.eval.batch_size):
            inputs = self.card.to_input(images.gather(rows)[0].to(device))
            with autocast(self.precision, device):
                answer = model(inputs)
            total += float(self.model.loss(answer, inputs)) * len(rows)
        model.train(was_training)
        if not math.isfinite(total):
            raise PatchlightError(diverged("the loss of what the model paints is no longer finite"))
        return total / len(images), None

    def keep(self, model: nn.Module, run: Run, images: ImageSet) -> None:
        """The encoder's weights, and `reconstructions.npz`: what the whole paints of a few `images`."""
        assert isinstance(model, MaskedAutoencoder)
        save_model(run.path / "model", model.encoder, self.card)
        run.write_arrays(PAINTED, paint(model, self.card, images))


Task = Classification | Reconstruction
TASKS: dict[str, type[Classification] | type[Reconstruction]] = {
    "classify": Classification,
    "reconstruct": Reconstruction,
}


@torch.inference_mode()
def paint(model: MaskedAutoencoder, card: ModelCard, images: ImageSet) -> dict[str, np.ndarray]:
    """`images`, `hidden` (the mean colour where patches were hidden) and `painted`, (S, H, W, 3) uint8 each.

    A painted patch is given the true one's mean and deviation, which the model is not asked for.
    """
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    chosen = torch.linspace(0, len(images) - 1, min(SAMPLES, len(images))).round().long().unique()
    inputs = card.to_input(images.gather(chosen)[0].to(device))
    answer, hidden = model(inputs)
    model.train(was_training)
    patches, covered = patchify(inputs, model.patch_size), hidden.unsqueeze(2)
    mean, deviation = patches.mean(dim=2, keepdim=True), patches.std(dim=2, keepdim=True)
    views = {
        "images": patches,
        "hidden": torch.where(covered, torch.zeros_like(patches), patches),
        "painted": torch.where(covered, answer.float() * deviation + mean, patches),
    }
    shape = (card.img_size, card.img_size)
    return {name: as_pixels(unpatchify(view, model.patch_size, shape), card) for name, view in views.items()}


def as_pixels(inputs: Tensor, card: ModelCard) -> np.ndarray:
    """Normalised (S, 3, H, W) -> (S, H, W, 3) uint8."""
    mean, std = (torch.tensor(values, device=inputs.device).view(1, 3, 1, 1) for values in (card.mean, card.std))
    pixels = (255 * (inputs * std + mean)).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def diverged(what: str) -> str:
    return f"{what}; lower optim.lr, set optim.grad_clip = 1 or use train.precision = 'fp32'"
