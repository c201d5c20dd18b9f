"""What a model is trained for: a loss, a score on a set of images, and the files that are kept. TASKS is `train.task`.

Their recipe is that of a stage, in which the precision is decided.

Shapes: B batch, C channels, H W pixels, K classes, N patches; S samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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
from patchlight.runs import Reconstructions, Run
from patchlight.training.distill import Teacher

SAMPLES = 8  # images whose reconstructions the report shows


@dataclass(frozen=True)
class Validation:
    """What the validation images tell of a model."""

    loss: float
    top1: float | None = None  # accuracy in 0..1, where there are labels
    loss_smoothed: float | None = None  # the loss with the label smoothing of training, where that has some

    @property
    def better(self) -> float:
        """The higher, the better: the accuracy or, where there is none, the loss below zero."""
        return -self.loss if self.top1 is None else self.top1


class Classification:
    """Learn labels by cross entropy and, where there is a teacher, its answers too."""

    def __init__(self, config: Config, card: ModelCard, model: nn.Module, teacher: Teacher | None = None) -> None:
        self.config, self.card, self.teacher = config, card, teacher
        if isinstance(model, VisionTransformer):
            model.distilled_training = teacher is not None

    def loss(self, output: Any, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        """The mean loss of the model's output for images (B, C, H, W), and how many of its predictions are right.

        targets: (B,) or, of mixed images, (B, K). The output is logits (B, K), or those of two heads.
        """
        logits, distilled = output if isinstance(output, tuple) else (output, output)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.config.train.label_smoothing)
        if self.teacher is not None:
            loss = self.teacher.loss(loss, distilled.float(), images)
        return loss, count_right(logits.detach(), targets)

    def score(self, model: nn.Module, images: ImageSet) -> Validation:
        """Mean cross entropy and top-1 accuracy. Raises PatchlightError where logits are not finite."""
        size, precision = self.config.eval.batch_size, self.config.train.precision
        logits = predict_logits(model, self.card, images, batch_size=size, precision=precision, label="validating")
        return self.score_logits(logits, images)

    def score_logits(self, logits: np.ndarray, images: ImageSet) -> Validation:
        """As `score`, of logits (N, K) for the images."""
        if not np.isfinite(logits).all():
            raise PatchlightError(diverged("the model's outputs are no longer finite"))
        labels, smoothing = images.labels.numpy(), self.config.train.label_smoothing
        smoothed = cross_entropy(logits, labels, smoothing) if smoothing else None
        return Validation(cross_entropy(logits, labels), topk_accuracy(logits, labels, 1), smoothed)

    def kept_part(self, model: nn.Module) -> nn.Module:
        """What of the model the run is for: all of it."""
        return model

    def keep(self, model: nn.Module, run: Run, images: ImageSet) -> None:
        """Save the weights in the run's `model/`."""
        save_model(run.path / "model", model, self.card)


class Reconstruction:
    """Reconstruct hidden patches (masked autoencoding): of the MaskedAutoencoder the encoder is kept.

    There is no accuracy.
    """

    def __init__(self, config: Config, card: ModelCard, model: nn.Module, teacher: Teacher | None = None) -> None:
        assert isinstance(model, MaskedAutoencoder)
        assert teacher is None
        self.config, self.card, self.model = config, card, model

    def loss(self, output: Any, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        """The mean squared error of the hidden patches; targets are not used."""
        return self.model.loss(output, images), None

    @torch.inference_mode()
    def score(self, model: nn.Module, images: ImageSet) -> Validation:
        """The mean loss over all images, the same patches of each being hidden every time.

        Raises PatchlightError where it is not finite.
        """
        device, was_training = next(model.parameters()).device, model.training
        model.eval()
        total = 0.0
        for rows in torch.arange(len(images)).split(self.config.eval.batch_size):
            inputs = self.card.to_input(images.gather(rows)[0].to(device))
            with autocast(self.config.train.precision, device):
                output = model(inputs)
            total += float(self.model.loss(output, inputs)) * len(rows)
        model.train(was_training)
        if not math.isfinite(total):
            raise PatchlightError(diverged("the loss of the reconstructions is no longer finite"))
        return Validation(total / len(images))

    def kept_part(self, model: nn.Module) -> nn.Module:
        """What of the model the run is for: the encoder."""
        assert isinstance(model, MaskedAutoencoder)
        return model.encoder

    def keep(self, model: nn.Module, run: Run, images: ImageSet) -> None:
        """Save the encoder's weights in the run's `model/`, and reconstructions of a few `images`."""
        assert isinstance(model, MaskedAutoencoder)
        save_model(run.path / "model", self.kept_part(model), self.card)
        run.write(reconstruct(model, self.card, images))


def count_right(logits: Tensor, targets: Tensor) -> Tensor:
    """How many predictions of logits (B, K) are right, as a number on their device.

    Of an image that is its label's alone, targets (B,), that is 1 or 0; of a mixed one, targets (B, K), the share that
    the predicted class has in the label: lam for its own, 1 - lam for its partner's, as in the code of mixup's authors.
    """
    predicted = logits.argmax(dim=1)
    if targets.ndim == 1:
        return (predicted == targets).sum()
    return targets.gather(1, predicted[:, None]).sum()


Task = Classification | Reconstruction
TASKS: dict[str, type[Classification] | type[Reconstruction]] = {
    "classify": Classification,
    "reconstruct": Reconstruction,
}


@torch.inference_mode()
def reconstruct(model: MaskedAutoencoder, card: ModelCard, images: ImageSet) -> Reconstructions:
    """A few of the images, what the model sees of them, and what it puts in place of the hidden patches.

    A reconstructed patch is given the true one's mean and deviation, which the model does not predict.
    """
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    chosen = torch.linspace(0, len(images) - 1, min(SAMPLES, len(images))).round().long().unique()
    inputs = card.to_input(images.gather(chosen)[0].to(device))
    predicted, hidden = model(inputs)
    model.train(was_training)
    patches, covered = patchify(inputs, model.patch_size), hidden.unsqueeze(2)
    mean, deviation = patches.mean(dim=2, keepdim=True), patches.std(dim=2, keepdim=True)
    shown = torch.where(covered, torch.zeros_like(patches), patches)
    painted = torch.where(covered, predicted.float() * deviation + mean, patches)

    def pixels(view: Tensor) -> np.ndarray:
        inputs = unpatchify(view, model.patch_size, (card.img_size, card.img_size))
        return card.to_pixels(inputs).permute(0, 2, 3, 1).cpu().numpy()

    return Reconstructions(images=pixels(patches), hidden=pixels(shown), painted=pixels(painted))


def diverged(what: str) -> str:
    """The message of a training that diverged."""
    return f"{what}; lower optim.lr, set optim.grad_clip = 1 or use train.precision = 'fp32'"
