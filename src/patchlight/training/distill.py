"""Distillation: a trained model teaches beside the labels (Hinton et al. 2015; Touvron et al. 2021, DeiT, section 3).

Shapes: B batch, C channels, H W pixels, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchlight.config import TrainConfig
from patchlight.errors import PatchlightError
from patchlight.machine.device import autocast
from patchlight.models import ModelCard, load_classifier
from patchlight.models.fused import choose_fused, set_fused_attn


def load_teacher(name: str, student: ModelCard, device: str | torch.device = "cpu") -> tuple[nn.Module, ModelCard]:
    """The model of a finished run. Raises PatchlightError where there is none, or it knows other classes."""
    model, card = load_classifier(name, device)
    if card.class_names != student.class_names:
        raise PatchlightError(
            f"train.teacher {name} knows the classes {', '.join(card.class_names[:5])}..., not the "
            f"{len(student.class_names)} of these data; train a teacher on them"
        )
    return model, card


class Teacher:
    """The model of a finished run, frozen, asked about the very images that the student sees."""

    def __init__(self, config: TrainConfig, student: ModelCard, device: torch.device, precision: str) -> None:
        assert config.teacher is not None
        self.model, self.card = load_teacher(config.teacher, student, device)
        self.model.requires_grad_(False)
        fused = choose_fused(self.model, config.batch_size, precision, device, training=False)
        if fused is not None:
            set_fused_attn(self.model, fused)
        self.config, self.device, self.precision = config, device, precision
        # From the student's normalisation to the teacher's, of mixed images, too: both are linear.
        mean, std, own_mean, own_std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1)
            for values in (student.mean, student.std, self.card.mean, self.card.std)
        )
        self.scale, self.shift = std / own_std, (mean - own_mean) / own_std

    @torch.no_grad()
    def logits(self, inputs: Tensor) -> Tensor:
        """What the teacher says of the student's inputs (B, C, H, W): (B, K)."""
        images = inputs * self.scale + self.shift
        size = (self.card.img_size, self.card.img_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode="bicubic", antialias=True)
        with autocast(self.precision, self.device):
            return self.model(images).float()

    def loss(self, by_labels: Tensor, logits: Tensor, inputs: Tensor) -> Tensor:
        """The loss by the labels, mixed with how far `logits` (B, K) are from the teacher's on `inputs`."""
        told = self.logits(inputs)
        by_teacher = (
            hard_loss(logits, told)
            if self.config.distill == "hard"
            else soft_loss(logits, told, self.config.distill_temperature)
        )
        share = self.config.distill_share
        return (1 - share) * by_labels + share * by_teacher


def soft_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """DeiT's equation 2, its second term: temperature^2 KL(teacher || student), both softened; mean over the batch."""
    student = (logits / temperature).log_softmax(dim=1)
    target = (teacher / temperature).log_softmax(dim=1)
    return temperature**2 * F.kl_div(student, target, reduction="batchmean", log_target=True)


def hard_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """DeiT's equation 3, its second term: cross entropy with the teacher's answers as labels."""
    return F.cross_entropy(logits, teacher.argmax(dim=1))
