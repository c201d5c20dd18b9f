"""Distillation: a trained model teaches beside the labels (Hinton et al. 2015; Touvron et al. 2021, DeiT, section 3).

Shapes: B batch, C channels, H W pixels, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from patchlight.config import TrainConfig
from patchlight.errors import PatchlightError
from patchlight.machine.device import autocast
from patchlight.models import ModelCard, load_classifier
from patchlight.models.fused import choose_fused, set_fused_attn


class Teacher:
    """The model of a finished run, frozen. It sees the very images that the student sees."""

    def __init__(self, config: TrainConfig, student: ModelCard, device: torch.device) -> None:
        """`config.precision` is decided. Raises PatchlightError where there is no such run, or it has other classes."""
        assert config.teacher is not None
        self.model, self.card = load_classifier(config.teacher, device)
        if self.card.class_names != student.class_names:
            raise PatchlightError(
                f"train.teacher {config.teacher} knows the classes {', '.join(self.card.class_names[:5])}..., not the "
                f"{len(student.class_names)} of these data; train a teacher on them"
            )
        self.model.requires_grad_(False)
        fused = choose_fused(self.model, config.batch_size, config.precision, device, training=False)
        if fused is not None:
            set_fused_attn(self.model, fused)
        self.config, self.device = config, device
        # From the student's normalisation to the teacher's, of mixed images, too: both are linear.
        mean, std, own_mean, own_std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1)
            for values in (student.mean, student.std, self.card.mean, self.card.std)
        )
        self.scale, self.shift = std / own_std, (mean - own_mean) / own_std

    @torch.no_grad()
    def logits(self, inputs: Tensor) -> Tensor:
        """The teacher's logits (B, K) for the student's inputs (B, C, H, W)."""
        images = inputs * self.scale + self.shift
        size = (self.card.img_size, self.card.img_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode=self.card.interpolation, antialias=True)
        with autocast(self.config.precision, self.device):
            return self.model(images).float()

    def loss(self, label_loss: Tensor, logits: Tensor, inputs: Tensor, share_of_batch: float = 1.0) -> Tensor:
        """The loss by labels, mixed with the distance of the student's `logits` (B, K) from the teacher's answers.

        That distance is a mean over the images, whatever their classes weigh in the loss by labels. Where they are a
        part of a batch, both are the part's share of the batch's, which of images is `share_of_batch`.
        """
        answers = self.logits(inputs)
        teacher_loss = (
            hard_loss(logits, answers)
            if self.config.distill == "hard"
            else soft_loss(logits, answers, self.config.distill_temperature)
        )
        share = self.config.distill_share
        return (1 - share) * label_loss + share * teacher_loss * share_of_batch


def soft_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """DeiT's equation 2, its second term: temperature^2 KL(teacher || student), both softened; mean over the batch."""
    student = (logits / temperature).log_softmax(dim=1)
    target = (teacher / temperature).log_softmax(dim=1)
    return temperature**2 * F.kl_div(student, target, reduction="batchmean", log_target=True)


def hard_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """DeiT's equation 3, its second term: cross entropy with the teacher's answers as labels."""
    return F.cross_entropy(logits, teacher.argmax(dim=1))
