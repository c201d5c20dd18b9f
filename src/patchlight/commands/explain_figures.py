"""The figures of `patchlight explain`: what was found of some images, and of classes, by the figure's name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patchlight.analysis.classes import ClassMaps
from patchlight.analysis.embeddings import EmbeddingMaps
from patchlight.analysis.subject import FEW, PAIRS, Subject, attention_maps, class_pair, token_maps
from patchlight.commands.explain_record import native_maps
from patchlight.commands.explain_target import Asked
from patchlight.explanation import methods
from patchlight.explanation.methods import METHODS, Explanation
from patchlight.models.anatomy import VitAnatomy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABREAST = 12  # images in a picture; those after them are in further pictures: maps-2.png, ...
# The names of figures that not every call draws.
NOT_ALWAYS = re.compile(
    r"(maps|patches)-\d+|heads-layer\d+|layer_likeness|patch_embeddings|patch_likeness|class_gallery|class_means"
)


def draw(
    subject: Subject,
    explanations: Mapping[str, Explanation],
    asked: Asked,
    layers: Sequence[int] | None,
    percentile: float,
) -> dict[str, Figure]:
    """The figures about single images by name: maps of each call of a method, and `layers` as in `explain`."""
    from patchlight.figures import boards  # not for a bare model, which needs no matplotlib

    names, first = subject.card.class_names, next(iter(explanations))
    pictures, captions = subject.pictures, captions_of(subject)
    title = "What the model looked at" if len(explanations) > 1 else METHODS[explanations[first].method].about
    title = title[0].upper() + title[1:] + asked.title
    rows = {call + ("" if found.by_class else " (blind)"): native_maps(found) for call, found in explanations.items()}
    pair = class_pair(subject, first)
    figures: dict[str, Figure] = {}
    for part, number in pages(len(pictures)):
        some = {label: values[part] for label, values in rows.items()}
        figures[f"maps{number}"] = boards.maps_board(pictures[part], captions[part], some, title)
    if isinstance(subject.anatomy, VitAnatomy):
        figures |= draw_layers(subject.anatomy, subject, layers)
    both = boards.pair_captions([[names[c] for c in classes] for classes in pair.classes], pair.probs)
    return figures | {"versus": boards.pair_board(pictures[:PAIRS], both, pair.maps, pair.method)}


def pages(count: int) -> Iterator[tuple[slice, str]]:
    """The images of each picture, and what follows its name: nothing, then "-2", "-3", ..."""
    for start in range(0, count, ABREAST):
        yield slice(start, start + ABREAST), f"-{start // ABREAST + 1}" if start else ""


def draw_layers(anatomy: VitAnatomy, subject: Subject, layers: Sequence[int] | None) -> dict[str, Figure]:
    """What a ViT's layers make of the images: tokens, answers, attention of heads."""
    from patchlight.figures import boards, inside

    pictures, captions = subject.pictures, captions_of(subject)
    tokens, attention = token_maps(anatomy, subject), attention_maps(anatomy, subject, layers)
    depth = tokens.lens.shape[1]
    figures = {"lens": inside.logit_lens(tokens.lens, [caption.split("\n")[0] for caption in captions])}
    for part, number in pages(len(pictures)):
        figures[f"patches{number}"] = boards.tokens_board(
            pictures[part], captions[part], tokens.first[part], tokens.last[part], tokens.norms[part], depth
        )
    if tokens.similarity is not None:
        figures["layer_likeness"] = inside.layer_similarity(tokens.similarity)
    few, few_captions = pictures[:FEW], captions[:FEW]
    for layer, heads in attention.heads.items():
        figures[f"heads-layer{layer + 1}"] = boards.heads_board(few, few_captions, heads, layer, depth)
    figures["layers"] = boards.layers_board(few, few_captions, attention.layers)
    return figures | {"rollout": boards.rollout_board(few, few_captions, attention.rollout)}


def captions_of(subject: Subject) -> list[str]:
    """What was said of each image, and what is true where that is something else."""
    from patchlight.figures import boards

    names = subject.card.class_names
    preds, probs = [names[pred] for pred in subject.preds], subject.probs.amax(dim=1).tolist()
    true = preds if subject.labels is None else [names[label] for label in subject.labels]
    return boards.answer_captions(preds, probs, true)


def draw_embedding(subject: Subject, embedding: EmbeddingMaps | None) -> dict[str, Figure]:
    """Tokens before the first block, of the first images."""
    from patchlight.figures import boards, inside

    if embedding is None:
        return {}
    second = "as layer 1 reads it" if embedding.positions is None else "with positions"
    few, captions = subject.pictures[:PAIRS], captions_of(subject)[:PAIRS]
    colours, alike = embedding.colours[:PAIRS], embedding.likeness[:PAIRS]
    return {
        "patch_embeddings": boards.embeddings_board(few, captions, colours, alike, second),
        "patch_likeness": inside.patch_likeness(embedding.matrices, embedding.positions, embedding.norms),
    }


def draw_classes(subject: Subject, found: ClassMaps) -> dict[str, Figure]:
    """Some of the chosen images of each class under their maps, and the mean maps."""
    from patchlight.figures import classes as figures

    names, labels, rows = subject.card.class_names, subject.labels, []
    assert labels is not None
    for label in found.classes:
        places = np.flatnonzero(labels == label)[: figures.COLUMNS]
        maps = methods.explain_inputs(subject.anatomy, subject.inputs[places], method=found.method, target=label).maps
        rows.append(
            figures.ClassRow(
                name=names[label],
                images=subject.pictures[places],
                maps=maps.float().cpu().numpy(),
                preds=[names[pred] for pred in subject.preds[places]],
                probs=subject.probs[places, label].tolist(),
            )
        )
    shown = [names[label] for label in found.classes]
    return {
        "class_gallery": figures.class_gallery(rows, found.method),
        "class_means": figures.mean_maps(
            shown,
            found.mean,
            found.spread,
            found.counts.tolist(),
            found.controls["centre"].tolist(),
            found.centre,
            found.method,
        ),
    }


def write_figures(folder: Path, figures: Mapping[str, Figure]) -> dict[str, str]:
    """Write each figure as NAME.png and return the paths by name."""
    from patchlight.figures import style

    for old in folder.glob("*.png"):
        if NOT_ALWAYS.fullmatch(old.stem):
            old.unlink()  # of other images, or of other layers
    paths = {name: folder / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        paths[name].write_bytes(style.png(figure, "light"))
    return {name: str(path) for name, path in paths.items()}
