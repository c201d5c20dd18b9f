"""Charts of a ViT's inside take what they should, in both themes."""

from __future__ import annotations

import numpy as np
import pytest

from patchlight.figures import boards, classes, inside, sheets
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
        inside.layer_similarity(np.eye(layers), 12, theme),
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
    board = sheets.board(rows, "A title", ["cat 91 %\ntrue: dog", "two"], theme)
    assert len(png(board, theme)) > 1000
    (sheet,) = sheets.board(rows[:1], "", scales=()).axes
    assert len(sheet.images) == 3


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("views", [1, 2])
def test_tokens_before_the_first_layer(theme, views):
    images = RNG.integers(0, 256, (3, 8, 12, 3), dtype=np.uint8)
    colours = RNG.integers(0, 256, (3, views, 2, 3, 3), dtype=np.uint8)
    alike = RNG.uniform(-1, 1, (3, views, 2, 3))
    board = boards.embeddings_board(images, ["cat"] * 3, colours, alike, "with positions", theme)
    assert len(board.axes[0].images) == 3 * (1 + 2 * views) + 1  # and the scale of likeness
    positions = RNG.uniform(-1, 1, (6, 6)) if views == 2 else None
    norms = np.stack([np.full((2, 3), 4.0), np.full((2, 3), 0.5)])
    text = svg(inside.patch_likeness(RNG.uniform(-1, 1, (views, 6, 6)), positions, norms, theme), theme)
    assert "mean norm 4.00" in text
    assert ("12\N{NO-BREAK SPACE}%" in text) == (views == 2)
    assert "of its" not in text
    text = svg(inside.patch_likeness(np.ones((1, 4, 4)), None, norms, theme), theme)
    assert "(4 of its 6, at equal distances)" in text


def test_the_middle_patch_is_marked_and_nothing_else_changes():
    picture = np.full((8, 12, 3), 100, np.uint8)
    large = boards.marked(picture, (2, 3))  # patches of 4 pixels, enlarged to 16
    assert large.shape == (32, 48, 3)
    rows, columns = np.nonzero(large[..., 0] != 100)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 31, 16, 31)
    assert [large[at, at].tolist() for at in (16, 18, 24)] == [[255] * 3, [0] * 3, [100] * 3]
    assert picture.max() == 100
    like = boards.likeness_map(np.array([[1.0, -1.0, 0.0], [0.0, 1.0, 0.0]]))
    orange, purple, white = like[4, 4].astype(int), like[4, 20].astype(int), like[4, 40].astype(int)
    assert orange[0] > orange[2]
    assert purple[2] > purple[1]
    assert white.min() > 240


@pytest.mark.parametrize("theme", THEMES)
def test_pictures_of_classes(theme):
    rows = [
        classes.ClassRow(
            name=name,
            images=RNG.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8),
            maps=RNG.random((count, 2, 2)),
            preds=["a $ class", "other", "other"][:count],
            probs=[0.91, 0.2, 0.3][:count],
        )
        for name, count in (("a $ class", 3), ("cat", 1))
    ]
    text = svg(classes.class_gallery(rows, "chefer", theme), theme)
    assert text.count("✓") == 1
    assert text.count("✗") == 3
    maps = RNG.random((2, 4, 4))
    figure = classes.mean_maps(["cat", "dog"], maps, maps, [64, 7], [0.5, -0.25], maps[0], "chefer", theme)
    text = svg(figure, theme)
    for words in ("7 images", "like centre +0.50", "like centre -0.25", "control:"):
        assert words in text


def test_mean_maps_and_the_control_have_one_scale():
    mean, centre = 0.2 + 0.3 * RNG.random((2, 4, 4)), RNG.random((4, 4))
    figure = classes.mean_maps(["cat", "dog"], mean, mean, [64, 7], [0.5, -0.25], centre, "chefer")
    shown = [axes.images[0].get_clim() for axes in figure.axes[:3]]
    assert shown == [(centre.min(), max(mean.max(), centre.max()))] * 3


def test_the_likeness_of_layers_may_be_below_zero_and_says_of_how_many_images():
    figure = inside.layer_similarity([[1, -0.5], [-0.5, np.nan]], 4)
    axes = figure.axes[0]
    assert axes.get_title("left") == "Likeness of layers (CKA) of 4 images"
    picture = axes.images[0]
    assert picture.get_clim() == (-1, 1)
    against, alike = (picture.to_rgba(np.array(value)) for value in (-0.5, 1.0))
    assert against[2] > against[0]  # purple
    assert alike[0] > alike[2]  # orange
