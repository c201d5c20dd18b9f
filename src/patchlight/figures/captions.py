"""What stands above a picture: what was said of it, how sure that was, and what is true; a sentence in a line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patchlight.figures.style import cut
from patchlight.units import percent

LONGEST = 80  # signs of a class's name


def predicted(name: str, prob: float) -> str:
    """What was said: "predicted cat, 90 %"."""
    return f"predicted {cut(name, LONGEST)}, {percent(prob)}"


def answer_captions(
    preds: Sequence[str],
    probs: Sequence[float],
    true: Sequence[str],
    maps: Sequence[str] = (),
) -> list[str]:
    """The predicted class of each image with its probability; in a line below the true one where it is another one; and
    in a further line what its maps are for, as `map_for` has it, where there are such words.
    """
    captions = [predicted(pred, prob) for pred, prob in zip(preds, probs, strict=True)]
    captions = [
        said if label == pred else f"{said}\ntrue: {cut(label, LONGEST)}"
        for said, pred, label in zip(captions, preds, true, strict=True)
    ]
    return ["\n".join(filter(None, words)) for words in zip(captions, maps or [""] * len(captions), strict=True)]


def map_for(target: str, strength: str) -> str:
    """What the maps of an image are for, and how strong that is: "map for cat, 3 %"."""
    return f"map for {cut(target, LONGEST)}, {strength}"


def pair_captions(classes: Sequence[Sequence[str]], probs: np.ndarray, true: Sequence[str] = ()) -> list[str]:
    """The predicted class of each image and the other one that its maps are for, (S, 2), with their probabilities (S,
    2). `true` are the true classes, where they are known: one that is neither of both is told, too.
    """
    captions = []
    for i, ((pred, other), (p, q)) in enumerate(zip(classes, probs, strict=True)):
        word = "true:" if true and true[i] == other else "or"
        more = f"\ntrue: {cut(true[i], LONGEST)}" if true and true[i] not in (pred, other) else ""
        captions.append(f"{predicted(pred, float(p))}\n{word} {cut(other, LONGEST)}, {percent(float(q))}{more}")
    return captions
