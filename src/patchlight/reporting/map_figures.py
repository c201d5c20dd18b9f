"""The pictures of `patchlight explain`: what a model looked at in some images, as PNG files.

Shapes: S images, H W pixels, K classes, (r, c) the patch grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from patchlight.analysis import diagnostics
from patchlight.config import DEFAULT_METHOD
from patchlight.explanation.attention import read_out
from patchlight.explanation.capture import record_attention, record_outputs
from patchlight.explanation.methods import METHODS, Explanation, explain
from patchlight.figures import galleries, inside, style
from patchlight.models import ModelCard
from patchlight.models.anatomy import Anatomy
from patchlight.units import percent

FEW = 6  # images in figures of many rows
ONCE = ("layer_likeness.png", "heads-layer*.png")  # figures that not every call draws


@dataclass(frozen=True)
class Subject:
    """What is explained: images with their names, the model, and what it made of them."""

    anatomy: Anatomy
    card: ModelCard
    pixels: Tensor  # (S, 3, H, W) uint8
    labels: np.ndarray | None  # (S,), where they are known
    names: list[str]
    inputs: Tensor  # (S, 3, H, W), normalised, on the model's device
    probs: Tensor  # (S, K)

    @property
    def pictures(self) -> np.ndarray:
        """(S, H, W, 3) uint8."""
        return self.pixels.permute(0, 2, 3, 1).numpy()

    @property
    def preds(self) -> np.ndarray:
        return self.probs.argmax(dim=1).cpu().numpy()

    @property
    def black(self) -> Tensor:
        return self.card.black.to(self.inputs)

    def captions(self) -> list[str]:
        """What the model said, how sure it was, and the truth where that is another."""
        names, preds = self.card.class_names, self.preds
        true = preds if self.labels is None else self.labels
        said = [f"{names[pred]} {percent(float(self.probs[i, pred]))}" for i, pred in enumerate(preds)]
        return [
            line if label == pred else f"{line}\ntrue: {names[label]}"
            for line, label, pred in zip(said, true, preds, strict=True)
        ]


def write_figures(
    folder: Path, subject: Subject, found: dict[str, Explanation], layers: Sequence[int] | None
) -> dict[str, str]:
    """Every figure as PNG; `{name: path}`."""
    captions, pictures = subject.captions(), list(subject.pictures)
    maps = {name: one.maps.cpu().numpy() for name, one in found.items()}
    blind = {name: "" if METHODS[name].by_class else " (blind)" for name in found}
    figures = {
        "maps": galleries.board(
            [
                ("image", pictures),
                *((name + blind[name], overlays(subject.pictures, values)) for name, values in maps.items()),
            ],
            "What the model looked at" if len(found) > 1 else METHODS[next(iter(found))].about.capitalize(),
            captions,
        ),
        **_token_figures(subject),
        **_attention_figures(subject, layers),
        "versus": _versus(subject, next(iter(found))),
    }
    for old in (path for pattern in ONCE for path in folder.glob(pattern)):
        old.unlink()  # of other images, or of other layers
    paths = {}
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        path.write_bytes(style.png(figure, "light"))
        paths[name] = str(path)
    return paths


def overlays(pictures: np.ndarray, maps: np.ndarray) -> list[np.ndarray]:
    return [galleries.overlay(picture, values) for picture, values in zip(pictures, maps, strict=True)]


def _attention_figures(subject: Subject, layers: Sequence[int] | None) -> dict[str, Figure]:
    """Heads of the chosen layers, attention over all layers, and rollout as image, map and overlay."""
    anatomy, grid = subject.anatomy, subject.anatomy.grid(subject.inputs)
    pictures, inputs, captions = subject.pictures[:FEW], subject.inputs[:FEW], subject.captions()[:FEW]
    with torch.no_grad(), record_attention(anatomy) as recorded, record_outputs(anatomy.blocks[-1:]) as outputs:
        anatomy.logits(inputs)
        attention, share = recorded.attention, anatomy.readout(outputs[-1])
    depth, heads = attention.shape[1:3]

    def row(label: str, matrix: Tensor) -> tuple[str, list[np.ndarray]]:
        return label, overlays(pictures, read_out(anatomy, matrix, share, grid).cpu().numpy())

    image = ("image", list(pictures))
    figures: dict[str, Figure] = {}
    for layer in [depth - 1] if layers is None else layers:
        rows = [image, *(row(f"head {i + 1}", attention[:, layer, i]) for i in range(heads))]
        title = f"Attention of each head in layer {layer + 1} of {depth}"
        figures[f"heads-layer{layer + 1}"] = galleries.board(rows, title, captions)
    rows = [image, *(row(f"layer {i + 1}", attention[:, i].mean(dim=1)) for i in range(depth))]
    figures["layers"] = galleries.board(rows, "Attention over the layers, mean over heads", captions)
    values = explain(anatomy, inputs, method="rollout").maps.cpu().numpy()
    rows = [
        image,
        ("map", [galleries.heat(_stretched(value)) for value in values]),
        ("overlay", overlays(pictures, values)),
    ]
    title = "Attention rollout through all layers (the same for every class)"
    figures["rollout"] = galleries.board(rows, title, captions)
    return figures


def _stretched(values: np.ndarray) -> np.ndarray:
    span = float(np.ptp(values))
    return (values - values.min()) / span if span else np.full_like(values, 0.5)


def _token_figures(subject: Subject) -> dict[str, Figure]:
    """Patch tokens as colours and norms, the answer layer by layer, and how alike layers are."""
    anatomy, grid = subject.anatomy, subject.anatomy.grid(subject.inputs)
    tokens = diagnostics.tokens_by_layer(anatomy, subject.inputs)
    rows = [("image", list(subject.pictures))]
    for label, layer in (("after layer 1", 0), (f"after layer {tokens.shape[1]}", -1)):
        colours = diagnostics.token_colours(anatomy, tokens[:, layer], grid).cpu().numpy()
        rows.append((label, list((255 * colours).round().astype(np.uint8))))
    norms = diagnostics.token_norms(anatomy, tokens[:, -1], grid).cpu().numpy()
    rows.append(("norms of the last", [galleries.heat(norm / norms.max()) for norm in norms]))
    title = "Patch tokens as colours (three principal components, like tokens in like colours) and their norms"
    answer = subject.probs.argmax(dim=1)
    lens = diagnostics.logit_lens(anatomy, tokens)[torch.arange(len(answer)), :, answer]
    figures = {
        "patches": galleries.board(rows, title, subject.captions(), scale=False),
        "lens": inside.logit_lens(lens.cpu().numpy(), [line.split("\n")[0] for line in subject.captions()]),
    }
    if len(tokens) > 2:  # of two images everything is alike
        cka = diagnostics.cka_of_layers(tokens, tokens).cpu().numpy()
        figures["layer_likeness"] = inside.layer_similarity(cka)
    return figures


def _versus(subject: Subject, method: str) -> Figure:
    """Why this class and why not the other: of mistakes the predicted and the true class, else the two likeliest."""
    method = method if METHODS[method].by_class else DEFAULT_METHOD
    first, second = subject.probs.topk(2, dim=1).indices.unbind(dim=1)
    if subject.labels is not None:
        true = torch.from_numpy(subject.labels).to(first)
        second = torch.where(true != first, true, second)
    few = slice(0, 8)
    names = subject.card.class_names
    maps = [
        explain(subject.anatomy, subject.inputs[few], method=method, target=target[few]).maps.cpu().numpy()
        for target in (first, second)
    ]
    captions = []
    for row, a, b in zip(subject.probs[few].tolist(), first[few].tolist(), second[few].tolist(), strict=True):
        captions.append(f"{names[a]} {percent(row[a])}\nnot {names[b]} {percent(row[b])}")
    return galleries.board(
        [
            ("image", list(subject.pictures[few])),
            ("for the prediction", overlays(subject.pictures[few], maps[0])),
            ("for the other", overlays(subject.pictures[few], maps[1])),
        ],
        f"Why the one class, why not the other ({method})",
        captions,
    )
