"""The set with planted evidence: the mark of the class, and nothing else, tells the class."""

from __future__ import annotations

import numpy as np
import torch

from patchlight.analysis import faithfulness
from patchlight.data.sources import load_source
from patchlight.data.sources.planted import CLASSES, COUNTS, DECOYS, _marks, evidence, make
from patchlight.models import ModelCard, ModelSpec, VisionTransformer
from patchlight.runs import Faithfulness


def cells(pixels: np.ndarray) -> np.ndarray:
    """(N, 3, 32, 32) -> (N, 64, 48): places in reading order."""
    n = len(pixels)
    return pixels.reshape(n, 3, 8, 4, 8, 4).transpose(0, 2, 4, 1, 3, 5).reshape(n, 64, 48)


def test_the_mark_of_its_class_stands_where_it_is_said_and_nowhere_else():
    pixels, labels, places = make("test")
    found, marks = cells(pixels), _marks().numpy().reshape(-1, 48)
    assert len({mark.tobytes() for mark in marks}) == len(marks)
    marked = labels < CLASSES - 1
    assert ((places >= 0) == marked).all()
    assert (found[np.arange(len(found)), places] == marks[labels])[marked].all()
    is_mark = (found[:, :, None] == marks[None, None]).all(axis=3)
    assert (is_mark[:, :, :CLASSES].sum(axis=(1, 2)) == marked).all()
    assert (is_mark[:, :, CLASSES:].sum(axis=(1, 2)) == DECOYS + ~marked).all()
    assert np.bincount(places[marked], minlength=64).min() > 0


def test_it_is_the_same_each_time_and_splits_share_no_image():
    assert all((a == b).all() for a, b in zip(make("train"), make("train"), strict=True))
    sets = load_source("planted")
    assert {name: len(images) for name, images in sets.items()} == COUNTS
    assert not set(sets["train"].hashes) & set(sets["test"].hashes)
    assert torch.equal(sets["test"].gather([5])[0][0], torch.from_numpy(make("test")[0][5]))
    assert sets["test"].class_counts().tolist() == [200] * CLASSES


def test_pointing_is_at_the_marks_of_the_chosen_images(monkeypatch):
    """Of a shuffled part of the set, on which only some are assessed."""
    seen: dict[str, torch.Tensor | None] = {}

    def assess(anatomy, inputs, black, *, where, **options):
        seen.update(inputs=inputs, where=where)
        return Faithfulness(n=len(inputs), rows=())

    monkeypatch.setattr(faithfulness, "assess", assess)
    shuffled = torch.randperm(1200, generator=torch.Generator().manual_seed(1))
    images = load_source("planted")["test"].select(shuffled[:90])
    model, card = tiny(patch_size=4)
    faithfulness.measure_faithfulness(model, card, images, "planted", count=40)
    assert seen["inputs"] is not None
    assert seen["where"] is not None
    marked = [(image, place) for image, place in zip(seen["inputs"], seen["where"].tolist(), strict=True) if place >= 0]
    assert len(marked) > 20
    for image, place in marked:
        row, column = 4 * (place // 8), 4 * (place % 8)
        block = 255 * (0.25 * image[:, row : row + 4, column : column + 4] + 0.5)
        assert any((block - mark).abs().max() < 1 for mark in _marks()[: CLASSES - 1])
    faithfulness.measure_faithfulness(*tiny(patch_size=2), images, "planted", count=10)
    assert seen["where"] is None  # a mark lies on four patches


def tiny(**options) -> tuple[VisionTransformer, ModelCard]:
    args = {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2, "num_classes": CLASSES, **options}
    names = load_source("planted")["test"].class_names
    return VisionTransformer(**args).eval(), ModelCard(
        "vit-micro", ModelSpec.from_json("vit-micro", args), names, (0.5,) * 3, (0.25,) * 3
    )


def test_evidence_in_patches_of_other_sizes():
    places = make("test")[2]
    assert (evidence("test", (4, 4)) == places).all()
    rows, columns, marked = places // 8, places % 8, places >= 0
    assert (evidence("test", (8, 8)) == rows // 2 * 4 + columns // 2)[marked].all()
    assert (evidence("test", (4, 8)) == rows * 4 + columns // 2)[marked].all()
    assert (evidence("test", (8, 8)) < 0).sum() == (~marked).sum() == 200
