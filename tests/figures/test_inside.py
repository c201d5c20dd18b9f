"""Charts of a ViT's inside take what they should, in both themes."""

from __future__ import annotations

import numpy as np
import pytest

from patchlight.figures import galleries, inside
from patchlight.figures.style import png, svg

THEMES = ["light", "dark"]
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("layers", [1, 12])
def test_charts(theme, layers):
    figures = [
        inside.attention_distance(RNG.random((layers, 3)), theme),
        inside.attention_entropy(RNG.random((layers, 3)), 17, theme),
        inside.position_similarity(RNG.random((6, 2, 3)), theme),
        inside.position_similarity(RNG.random((196, 14, 14)), theme),
        inside.logit_lens(RNG.random((5, layers)), [f"image {i} of $ class" for i in range(5)], theme),
        inside.layer_similarity(np.eye(layers), theme),
    ]
    for figure in figures:
        assert "</svg>" in svg(figure, theme)


def test_the_lens_tells_its_numbers():
    text = svg(inside.logit_lens([[0.1, 0.954]], ["cat"]), "light")
    assert ">10<" in text
    assert ">95<" in text
    assert ">cat<" in text


@pytest.mark.parametrize("theme", THEMES)
def test_a_board_of_pictures_of_any_size(theme):
    pictures = list(RNG.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8))
    rows = [("image", pictures), ("a map with a long name", pictures[:2])]
    board = galleries.board(rows, "A title", ["cat 91 %\ntrue: dog", "two"], theme)
    assert len(png(board, theme)) > 1000
    (sheet,) = galleries.board(rows[:1], "", scale=False).axes
    assert len(sheet.images) == 3
