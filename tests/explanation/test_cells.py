"""Cells of an image and its pixels, on sizes that divide and sizes that do not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from patchlight.explanation.cells import cells_of
from patchlight.models.structure import Anatomy

NOTHING = nn.Identity()


def of_patches(rows: int, columns: int) -> Anatomy:
    return Anatomy(model=NOTHING, logits=NOTHING, patch_size=(rows, columns))


def test_patches_have_their_pixels_and_the_edge_is_in_none():
    images = torch.zeros(1, 3, 7, 8)
    cells = cells_of(of_patches(3, 4), images)
    values = torch.tensor([[1.0, 2], [3, 4]])
    spread = cells.spread(values)
    assert spread.shape == (7, 8)
    assert spread[:6].tolist() == [[1.0] * 4 + [2.0] * 4] * 3 + [[3.0] * 4 + [4.0] * 4] * 3
    assert spread[6].tolist() == [0.0] * 8
    torch.testing.assert_close(cells.pool(spread + 0.5), values + 0.5)
    large = cells.enlarge(values[None])[0]
    assert large.shape == (7, 8)
    assert large[6].equal(large[5])  # the nearest value, where no patch is


@pytest.mark.parametrize(("size", "grid"), [((32, 32), (8, 8)), ((224, 224), (14, 14)), ((30, 45), (5, 8))])
def test_a_network_without_patches_has_equal_parts(size, grid):
    anatomy, images = Anatomy(model=NOTHING, logits=NOTHING), torch.zeros(1, 3, *size)
    assert anatomy.grid(images) == grid
    cells = cells_of(anatomy, images)
    assert cells.spread(torch.ones(grid)).equal(torch.ones(size))  # every pixel is in one cell
    heights = cells.rows.sum(dim=1)
    assert heights.max() - heights.min() <= 1
    drawn = torch.rand(*size, generator=torch.Generator().manual_seed(0))
    by_hand = torch.stack([row.mean() for row in drawn.tensor_split([round(float(heights[0]))])])
    torch.testing.assert_close(cells.pool(drawn)[0].mean(), by_hand[0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (1, 40), (300, 20)])
def test_odd_images_have_a_cell_at_least(size):
    anatomy = Anatomy(model=NOTHING, logits=NOTHING)
    cells = cells_of(anatomy, torch.zeros(1, 3, *size))
    assert cells.rows.sum() == size[0]
    assert cells.columns.sum() == size[1]
    assert cells.rows.sum(dim=1).min() >= 1
