"""What `patchlight explain` computes about some images: maps of attention, patch tokens, and evidence for two classes.

Shapes: S images, F of them (the first FEW), H W pixels, K classes, L layers, A heads, T tokens, (r, c) the patch grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from patchlight.analysis import diagnostics
from patchlight.explanation.attention import read_out
from patchlight.explanation.capture import record_attention, record_outputs
from patchlight.explanation.cells import batch_size, cells_of
from patchlight.explanation.methods import default_method, explain_inputs, find_call
from patchlight.explanation.targets import Difference, Target
from patchlight.models import ModelCard
from patchlight.models.anatomy import Anatomy, VitAnatomy

FEW = 6  # images of which many maps are shown
PAIRS = 8  # images of which the evidence for two classes is shown


@dataclass(frozen=True)
class Subject:
    """Some images, the model that is looked into, and what it predicts for them."""

    anatomy: Anatomy
    card: ModelCard
    pixels: Tensor  # (S, 3, H, W) uint8
    labels: np.ndarray | None  # (S,), where they are known
    inputs: Tensor  # (S, 3, H, W), normalised, on the model's device
    probs: Tensor  # (S, K)

    @classmethod
    def of(cls, anatomy: Anatomy, card: ModelCard, pixels: Tensor, labels: np.ndarray | None) -> Subject:
        inputs = card.to_input(pixels.to(next(anatomy.model.parameters()).device))
        with torch.no_grad():
            parts = inputs.split(batch_size(anatomy, inputs))
            probs = torch.cat([anatomy.logits(part).float().softmax(dim=1) for part in parts])
        return cls(anatomy, card, pixels, labels, inputs, probs)

    @property
    def pictures(self) -> np.ndarray:
        """(S, H, W, 3) uint8."""
        return self.pixels.permute(0, 2, 3, 1).numpy()

    @property
    def covered(self) -> tuple[float, float]:
        """The share of the images' height and width that the cells of maps cover."""
        return cells_of(self.anatomy, self.inputs).covered

    @property
    def preds(self) -> np.ndarray:
        """(S,) the predicted classes."""
        return self.probs.argmax(dim=1).cpu().numpy()

    @property
    def black(self) -> Tensor:
        """(3,) the normalised value of black."""
        return self.card.black.to(self.inputs)


@dataclass(frozen=True)
class AttentionMaps:
    """Where the pooled token reads from, in the first FEW images."""

    heads: dict[int, np.ndarray]  # (F, A, r, c) of each head, by the layer's index
    layers: np.ndarray  # (F, L, r, c): of each layer the mean of its heads
    rollout: np.ndarray  # (F, r, c)


def attention_maps(anatomy: VitAnatomy, subject: Subject, layers: Sequence[int] | None) -> AttentionMaps:
    """`layers` are the indices of those whose heads are kept: the last one where none are given."""
    inputs, grid = subject.inputs[:FEW], anatomy.grid(subject.inputs)
    with torch.no_grad(), record_attention(anatomy) as recorded, record_outputs(anatomy.blocks[-1:]) as outputs:
        anatomy.logits(inputs)
        attention, pooling = recorded.attention, anatomy.readout(outputs[-1])

    def maps(matrices: Tensor) -> np.ndarray:
        """Matrices (F, n, T, T) -> (F, n, r, c)."""
        return torch.stack([read_out(anatomy, one, pooling, grid) for one in matrices.unbind(1)], dim=1).cpu().numpy()

    depth = attention.shape[1]
    return AttentionMaps(
        heads={layer: maps(attention[:, layer]) for layer in ([depth - 1] if layers is None else layers)},
        layers=maps(attention.mean(dim=2)),
        rollout=explain_inputs(anatomy, inputs, method="rollout").maps.cpu().numpy(),
    )


@dataclass(frozen=True)
class TokenMaps:
    """What becomes of the patch tokens."""

    first: np.ndarray  # (S, r, c, 3) uint8: the tokens after the first layer, like ones in like colours
    last: np.ndarray  # (S, r, c, 3) uint8: after the last layer
    norms: np.ndarray  # (S, r, c): of the tokens after the last layer
    lens: np.ndarray  # (S, L): the probability of the prediction if the head read each layer
    similarity: np.ndarray | None  # (L, L): CKA of the layers; None of fewer than FEWEST images


def token_maps(anatomy: VitAnatomy, subject: Subject) -> TokenMaps:
    """A few images at a time. Of their tokens those of the first and the last layer are kept, off the GPU, and of each
    layer the mean.
    """
    grid, preds = anatomy.grid(subject.inputs), subject.probs.argmax(dim=1)
    size = batch_size(anatomy, subject.inputs)
    ends, lenses, means = list[Tensor](), list[Tensor](), list[Tensor]()
    for images, classes in zip(subject.inputs.split(size), preds.split(size), strict=True):
        tokens = diagnostics.tokens_by_layer(anatomy, images)  # (b, L, T, D)
        ends.append(tokens[:, [0, -1]].cpu())
        means.append(tokens.mean(dim=2, keepdim=True).cpu())
        lenses.append(diagnostics.logit_lens(anatomy, tokens)[torch.arange(len(classes)), :, classes].cpu())
    (first, last), mean = torch.cat(ends).unbind(dim=1), torch.cat(means)

    def colours(tokens: Tensor) -> np.ndarray:
        return (255 * diagnostics.token_colours(anatomy, tokens, grid).numpy()).round().astype(np.uint8)

    return TokenMaps(
        first=colours(first),
        last=colours(last),
        norms=diagnostics.token_norms(anatomy, last, grid).numpy(),
        lens=torch.cat(lenses).numpy(),
        similarity=diagnostics.cka_of_layers(mean, mean).numpy() if len(mean) >= diagnostics.FEWEST else None,
    )


@dataclass(frozen=True)
class ClassPair:
    """Evidence for the predicted class and for another, in the first PAIRS images (P)."""

    method: str  # with its options
    signed: bool
    classes: np.ndarray  # (P, 2)
    probs: np.ndarray  # (P, 2)
    maps: np.ndarray  # (P, 2, r, c)
    # (P, r, c): signed, above 0 for the predicted class and not the other; None by a method that cannot tell the two.
    difference: np.ndarray | None


def class_pair(subject: Subject, method: str) -> ClassPair:
    """The other class is the true one of a mistake, else the second likeliest. A method that gives every class the same
    map is replaced by the model's default one.
    """
    method = method if find_call(method)[1].by_class else default_method(subject.anatomy)
    classes = subject.probs.topk(2, dim=1).indices
    if subject.labels is not None:
        true = torch.from_numpy(subject.labels).to(classes)
        classes[:, 1] = torch.where(true != classes[:, 0], true, classes[:, 1])
    few = slice(0, PAIRS)

    def maps_for(target: Target | Tensor) -> np.ndarray:
        maps = explain_inputs(subject.anatomy, subject.inputs[few], method=method, target=target).maps
        return maps.float().cpu().numpy()

    pairs = classes[few]
    return ClassPair(
        method=method,
        signed=find_call(method)[1].signed,
        classes=pairs.cpu().numpy(),
        probs=subject.probs.gather(1, classes)[few].cpu().numpy(),
        maps=np.stack([maps_for(target) for target in pairs.unbind(dim=1)], axis=1),
        difference=None if find_call(method)[1].even else maps_for(Difference(pairs[:, 0], pairs[:, 1])),
    )
