"""The figures of `patchlight explain`: what was found of some images, and of classes, by the figure's name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patchlight.analysis.classes import ClassMaps
from patchlight.analysis.embeddings import EmbeddingMaps
from patchlight.analysis.subject import FEW, PAIRS, Subject, attention_maps, class_pair, token_maps
from patchlight.explanation import methods
from patchlight.explanation.methods import CONTROLS, METHODS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from patchlight.figures.boards import MapRow

SIGNED = ("integrated-gradients", "occlusion")  # methods whose maps have both signs
ABREAST = 12  # images in a picture; those after them are in further pictures: maps-2.png, ...
# The names of figures that not every call draws.
NOT_ALWAYS = re.compile(
    r"(maps|patches)-\d+|heads-layer\d+|layer_likeness|patch_embeddings|patch_likeness|class_gallery|class_means"
)


def draw(
    subject: Subject, maps: Mapping[str, np.ndarray], layers: Sequence[int] | None, of_class: str
) -> dict[str, Figure]:
    """The figures about single images by name; `maps` (S, r, c) by method, `layers` as in `explain`; `of_class` is ""
    for the predicted class, "true" or a class's name.
    """
    from patchlight.figures import boards, inside  # not for a bare model, which needs no matplotlib
    from patchlight.figures.captions import pair_captions

    names, first = subject.card.class_names, next(iter(maps))
    pictures, captions, true = subject.pictures, captions_of(subject), true_names(subject)
    title = "What the model looked at" if len(maps) > 1 else METHODS[first].about.capitalize()
    if of_class:
        title += ", for the true class" if of_class == "true" else f", for the class '{of_class}'"
    tokens, attention, pair = token_maps(subject), attention_maps(subject, layers), class_pair(subject, first)
    depth = tokens.lens.shape[1]
    figures = {"lens": inside.logit_lens(tokens.lens, [caption.split("\n")[0] for caption in captions])}
    of_maps = captions_of(subject, of_class)
    for start in range(0, len(pictures), ABREAST):
        part, number = slice(start, start + ABREAST), f"-{start // ABREAST + 1}" if start else ""
        rows = [map_row(name, values[part]) for name, values in maps.items()]
        figures[f"maps{number}"] = boards.maps_board(pictures[part], of_maps[part], rows, title)
        figures[f"patches{number}"] = boards.tokens_board(
            pictures[part], captions[part], tokens.first[part], tokens.last[part], tokens.norms[part], depth
        )
    if tokens.similarity is not None:
        figures["layer_likeness"] = inside.layer_similarity(tokens.similarity)
    few, few_captions = pictures[:FEW], captions[:FEW]
    for layer, heads in attention.heads.items():
        figures[f"heads-layer{layer + 1}"] = boards.heads_board(few, few_captions, heads, layer, depth)
    figures["layers"] = boards.layers_board(few, few_captions, attention.layers)
    figures["rollout"] = boards.rollout_board(few, few_captions, attention.rollout)
    both = pair_captions([[names[c] for c in classes] for classes in pair.classes], pair.probs, true[:PAIRS])
    signed = pair.method in SIGNED
    return figures | {"versus": boards.pair_board(pictures[:PAIRS], both, pair.maps, pair.method, signed=signed)}


def map_row(name: str, values: np.ndarray) -> MapRow:
    """A method's maps as a row of a board."""
    from patchlight.figures.boards import MapRow

    label = name if METHODS[name].by_class or name in CONTROLS else f"{name} (blind to the class)"
    return MapRow(label, values, signed=name in SIGNED, control=name in CONTROLS)


def true_names(subject: Subject) -> list[str]:
    """The true class of each image; none where they are not known."""
    return [] if subject.labels is None else [subject.card.class_names[label] for label in subject.labels]


def captions_of(subject: Subject, of_class: str = "") -> list[str]:
    """What was said of each image, what is true where that is something else, and the class that the maps are for where
    it is neither the predicted one: `of_class` is "" for that, "true", or a class's name.
    """
    from patchlight.figures.captions import answer_captions

    names = subject.card.class_names
    preds, probs = [names[pred] for pred in subject.preds], subject.probs.amax(dim=1).tolist()
    true = true_names(subject) or preds
    if not of_class:
        return answer_captions(preds, probs, true)
    targets = true if of_class == "true" else [of_class] * len(preds)
    of_targets = [float(row[names.index(target)]) for row, target in zip(subject.probs, targets, strict=True)]
    return answer_captions(preds, probs, true, targets, of_targets)


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
        maps = methods.explain(subject.anatomy, subject.inputs[places], method=found.method, target=label).maps
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
        "class_gallery": figures.class_gallery(rows, found.method, signed=found.method in SIGNED),
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
