"""What a model is trained for: a loss, a score on a set of images, and the files that are kept. TASKS is `train.task`.

Their recipe is that of a stage, in which the precision is decided.

Shapes: B batch, C channels, H W pixels, K classes, N patches; S samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchlight.config import Config
from patchlight.data.images import ImageSet
from patchlight.errors import PatchlightError, diverged
from patchlight.evaluation.evaluate import predict_logits
from patchlight.evaluation.metrics import (
    balanced_accuracy,
    confusion_matrix,
    cross_entropy,
    macro_average,
    precision_recall_f1,
    topk_accuracy,
)
from patchlight.machine.device import autocast
from patchlight.models import ModelCard, VisionTransformer, save_model
from patchlight.models.mae import MaskedAutoencoder, patchify, unpatchify
from patchlight.runs import Measure, Reconstructions, Run
from patchlight.training.distill import Teacher

SAMPLES = 8  # images whose reconstructions the report shows


@dataclass(frozen=True)
class Validation:
    """What the validation images tell of a model."""

    loss: float
    top1: float | None = None  # accuracy in 0..1, where there are labels
    loss_smoothed: float | None = None  # the loss with the label smoothing of training, where that has some
    balanced_accuracy: float | None = None  # the mean of the classes' accuracies, likewise
    macro_f1: float | None = None  # the mean of the classes' F1

    def by(self, measure: Measure) -> float | None:
        """The score that selects; None where there are no labels."""
        value: float | None = getattr(self, measure.name)
        return value

    def better(self, measure: Measure) -> float:
        """The higher, the better: that score or, where there is none, the loss below zero."""
        score = self.by(measure)
        return -self.loss if score is None else score


class Classification:
    """Learn labels by cross entropy and, where there is a teacher, its answers too.

    `weights` (K,) are what an image counts in the cross entropy, by its class; None: all alike.
    """

    def __init__(
        self,
        config: Config,
        card: ModelCard,
        model: nn.Module,
        teacher: Teacher | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.config, self.card, self.teacher = config, card, teacher
        device = next(model.parameters()).device
        self.weights = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)
        if isinstance(model, VisionTransformer):
            model.distilled_training = teacher is not None

    def loss(
        self, output: Any, images: Tensor, targets: Tensor, batch: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The mean loss of the model's output for images (B, C, H, W), and how many of its predictions are right.

        targets: (B,) or, of mixed images, (B, K). The output is logits (B, K), or those of two heads. Where the images
        are a part of a batch, `batch` are the targets of all of it, and the loss is the part's share of its mean: those
        of all parts sum up to it.
        """
        logits, distilled = output if isinstance(output, tuple) else (output, output)
        batch = targets if batch is None else batch
        share, smoothing = len(targets) / len(batch), self.config.train.label_smoothing
        if self.weights is None:
            loss = F.cross_entropy(logits.float(), targets, label_smoothing=smoothing) * share
        else:
            loss = weighted_loss(logits.float(), targets, batch, self.weights, smoothing)
        if self.teacher is not None:
            loss = self.teacher.loss(loss, distilled.float(), images, share)
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
        confusion = confusion_matrix(labels, logits.argmax(axis=1), logits.shape[1])
        return Validation(
            loss=cross_entropy(logits, labels),
            top1=topk_accuracy(logits, labels, 1),
            loss_smoothed=cross_entropy(logits, labels, smoothing) if smoothing else None,
            balanced_accuracy=balanced_accuracy(confusion),
            macro_f1=macro_average(precision_recall_f1(confusion)[2]),
        )

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

    def __init__(
        self,
        config: Config,
        card: ModelCard,
        model: nn.Module,
        teacher: Teacher | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        assert isinstance(model, MaskedAutoencoder)
        assert teacher is None
        assert weights is None
        self.config, self.card, self.model = config, card, model

    def loss(
        self, output: Any, images: Tensor, targets: Tensor, batch: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The mean squared error of the hidden patches, or the share of it; of targets only the number is used."""
        share = 1.0 if batch is None else len(targets) / len(batch)
        return self.model.loss(output, images) * share, None

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


def weighted_loss(logits: Tensor, targets: Tensor, batch: Tensor, weights: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross entropy in which an image counts by its class: its part of the weighted mean over a batch.

    logits (B, K); targets (B,) or, of mixed images, (B, K), and `batch` those of the whole batch; weights (K,). It is
    torch's own weighted mean, which divides by the sum of the images' weights; label smoothing weighs each class's term
    and does not change that sum. A mixed image weighs the mean of its classes' weights, by their shares of its label:
    there torch divides by the number of images, and its loss would jump where mixing begins. 0 where all images of the
    batch weigh 0.
    """
    total = weights[batch].sum() if batch.ndim == 1 else (batch @ weights).sum()
    summed = F.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing, reduction="sum")
    return summed * ((total > 0) / torch.where(total > 0, total, 1.0))


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
