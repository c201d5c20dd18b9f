"""The figures of `patchlight explain`: what was found of some images, and of classes, by the figure's name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from patchlight.analysis.classes import ClassMaps
from patchlight.analysis.embeddings import EmbeddingMaps
from patchlight.analysis.subject import PAIRS, Subject, class_pair
from patchlight.commands.explain_target import Asked
from patchlight.explanation import methods
from patchlight.explanation.methods import CONTROLS, METHODS, Explanation, find_call
from patchlight.explanation.targets import ClassTarget, Difference, Similarity
from patchlight.units import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from patchlight.figures.boards import MapRow

ABREAST = 12  # images in a picture; those after them are in further pictures: maps-2.png, ...


def draw(
    subject: Subject, explanations: Mapping[str, Explanation], asked: Asked, percentile: float
) -> dict[str, Figure]:
    """The maps of each call of a method, by the figure's name; of the predicted class also those of another one."""
    from patchlight.figures import boards  # not for a bare model, which needs no matplotlib
    from patchlight.figures.captions import pair_captions

    names, first = subject.card.class_names, next(iter(explanations))
    pictures, captions = subject.pictures, captions_of(subject, asked, explanations[first])
    title = "What the model looked at" if len(explanations) > 1 else explanations[first].about
    title = title[0].upper() + title[1:] + asked.title
    rows = {call: map_row(call, found) for call, found in explanations.items()}
    figures: dict[str, Figure] = {}
    for part, number in pages(len(pictures)):
        some = [part_of(row, part) for row in rows.values()]
        ends = ends_of(asked)
        figures[f"maps{number}"] = boards.maps_board(
            pictures[part], captions[part], some, title, percentile=percentile, ends=ends
        )
    if not isinstance(asked.target, ClassTarget) or len(names) < 2:
        return figures
    pair = class_pair(subject, first)
    true = true_names(subject)[:PAIRS]
    both = pair_captions([[names[c] for c in classes] for classes in pair.classes], pair.probs, true)
    return figures | {
        "versus": boards.pair_board(
            pictures[:PAIRS],
            both,
            pair.maps,
            pair.method,
            signed=pair.signed,
            difference=pair.difference,
            percentile=percentile,
            covered=subject.covered,
        )
    }


def pages(count: int) -> Iterator[tuple[slice, str]]:
    """The images of each picture, and what follows its name: nothing, then "-2", "-3", ..."""
    for start in range(0, count, ABREAST):
        yield slice(start, start + ABREAST), f"-{start // ABREAST + 1}" if start else ""


def map_row(call: str, found: Explanation) -> MapRow:
    """A method's maps as a row of a board."""
    from patchlight.figures.boards import MapRow

    control = found.method in CONTROLS
    label = call if found.by_class or control else f"{call} (blind to the class)"
    return MapRow(
        label,
        found.native.float().cpu().numpy(),
        found.signed,
        control,
        crisp=METHODS[found.method].on_pixels,
        covered=found.covered,
    )


def part_of(row: MapRow, part: slice | list[int]) -> MapRow:
    """The maps of some of the images."""
    return replace(row, values=row.values[part])


def ends_of(asked: Asked) -> tuple[str, str]:
    """What the least and the greatest value of a signed map mean."""
    return ("for the other", "for the target") if isinstance(asked.target, Difference) else ("against", "for")


def true_names(subject: Subject) -> list[str]:
    """The true class of each image; none where they are not known."""
    return [] if subject.labels is None else [subject.card.class_names[label] for label in subject.labels]


def captions_of(subject: Subject, asked: Asked | None = None, found: Explanation | None = None) -> list[str]:
    """What was said of each image, what is true where that is something else, and what the maps are for where that is
    not the predicted class.
    """
    from patchlight.figures.captions import answer_captions

    names = subject.card.class_names
    preds, probs = [names[pred] for pred in subject.preds], subject.probs.amax(dim=1).tolist()
    true = true_names(subject) or preds
    return answer_captions(preds, probs, true, () if asked is None or found is None else words_of(asked, found, preds))


def words_of(asked: Asked, found: Explanation, preds: list[str]) -> list[str]:
    """What the maps of each image are for, with its strength; "" of the predicted class."""
    from patchlight.figures.captions import map_for

    strengths = found.strength.tolist()
    if isinstance(asked.target, Similarity):
        return [map_for("likeness", f"cosine {strength:.2f}") for strength in strengths]
    if isinstance(asked.target, Difference):
        pairs = zip(asked.each, strengths, strict=True)
        return [map_for(pair, f"{percent(strength)} of the two") for pair, strength in pairs]
    told = zip(asked.each, preds, strengths, strict=True)
    return ["" if target == pred else map_for(target, percent(strength)) for target, pred, strength in told]


def draw_embedding(subject: Subject, embedding: EmbeddingMaps | None) -> dict[str, Figure]:
    """Tokens before the first block, of the first images."""
    from patchlight.figures import boards, inside

    if embedding is None:
        return {}
    second = "as layer 1 reads it" if embedding.positions is None else "with positions"
    few, captions = subject.pictures[:PAIRS], captions_of(subject)[:PAIRS]
    colours, alike = embedding.colours[:PAIRS], embedding.likeness[:PAIRS]
    return {
        "patch_embeddings": boards.embeddings_board(few, captions, colours, alike, second, covered=subject.covered),
        "patch_likeness": inside.patch_likeness(embedding.matrices, embedding.positions, embedding.norms),
    }


def draw_classes(subject: Subject, found: ClassMaps, percentile: float) -> dict[str, Figure]:
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
        "class_gallery": figures.class_gallery(
            rows,
            found.method,
            signed=find_call(found.method)[1].signed,
            percentile=percentile,
            covered=subject.covered,
        ),
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


def png_files(figures: Mapping[str, Figure]) -> dict[str, bytes]:
    """Each figure as the bytes of its file, by the file's name: NAME.png."""
    from patchlight.figures import style

    return {f"{name}.png": style.png(figure, "light") for name, figure in figures.items()}
