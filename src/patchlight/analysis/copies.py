"""Near copies of images in several sets, as the run records them, and the score without them."""

from __future__ import annotations

import numpy as np

from patchlight.data.similar import COMPARED, NearDuplicates, near_duplicates
from patchlight.data.splits import Splits
from patchlight.evaluation.metrics import cross_entropy, wilson_interval
from patchlight.runs import NearCopies, Score

SHOWN = 24  # pairs whose images are kept


def find_copies(data: Splits) -> tuple[NearDuplicates, NearCopies]:
    """What looks almost alike in two sets of a run: all of it, and the record with images of the most alike pairs.

    Pairs of a test image come first.
    """
    found = near_duplicates(data.sets)
    compared = [(seen, held) for seen, held in COMPARED if f"{seen}-{held}" in found.threshold]
    of = [found.of(held, seen) for seen, held in compared]
    shown = sorted(found.pairs, key=lambda pair: (pair.held != "test", -pair.likeness))[:SHOWN]
    images = [
        [data.sets[pair.seen].gather([pair.seen_index])[0][0], data.sets[pair.held].gather([pair.held_index])[0][0]]
        for pair in shown
    ]
    height, width = data.train.image_size
    pixels = [[image.permute(1, 2, 0).numpy() for image in two] for two in images]
    labels = [(int(data.sets[p.seen].labels[p.seen_index]), int(data.sets[p.held].labels[p.held_index])) for p in shown]
    record = NearCopies(
        seen=np.array([seen for seen, _ in compared]),
        held=np.array([held for _, held in compared]),
        images_held=np.array([len(data.sets[held]) for _, held in compared], dtype=np.int64),
        found=np.array([len(pairs) for pairs in of], dtype=np.int64),
        exact=np.array([sum(pair.exact for pair in pairs) for pairs in of], dtype=np.int64),
        threshold=np.array([found.threshold[f"{seen}-{held}"] for seen, held in compared]),
        pairs=np.array(pixels, dtype=np.uint8).reshape(len(shown), 2, height, width, 3),
        labels=np.array(labels, dtype=np.int64).reshape(-1, 2),
        places=np.array([(p.seen_index, p.held_index) for p in shown], dtype=np.int64).reshape(-1, 2),
        comparison=np.array([compared.index((p.seen, p.held)) for p in shown], dtype=np.int64),
        likeness=np.array([p.likeness for p in shown]),
    )
    return found, record


def score_without(found: NearDuplicates, logits: np.ndarray, labels: np.ndarray) -> Score | None:
    """The score of the test images (logits (N, K), labels (N,)) that have no near copy among training or validation
    images; None where that are all of them, or none.
    """
    copies = {pair.held_index for seen in ("train", "val") for pair in found.of("test", seen)}
    kept = np.array([index not in copies for index in range(len(labels))], dtype=bool)
    if kept.all() or not kept.any():
        return None
    right = logits[kept].argmax(axis=1) == labels[kept]
    count = int(kept.sum())
    return Score(
        n=count,
        loss=cross_entropy(logits[kept], labels[kept]),
        top1=float(right.mean()),
        top1_ci95=wilson_interval(int(right.sum()), count),
    )
