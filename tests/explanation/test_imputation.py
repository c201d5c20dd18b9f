"""Noisy linear imputation: by hand, and against the sparse system of its equations, solved directly by SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from patchlight.explanation.imputation import NOISE, imputed, solved

WEIGHTS = {(dy, dx): 1 / 6 if dy * dx == 0 else 1 / 12 for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx}


def board(*values: float) -> Tensor:
    """One image of square size, its three colours alike but for a factor, in float64."""
    side = int(len(values) ** 0.5)
    plane = torch.tensor(values, dtype=torch.float64).view(1, 1, side, side)
    return torch.cat([plane, 2 * plane, -plane], dim=1)


def hide(image: Tensor, *places: tuple[int, int]) -> Tensor:
    mask = torch.zeros_like(image[:, :1])
    for row, column in places:
        mask[..., row, column] = 1
    return mask


def test_one_pixel_is_the_mean_of_its_neighbours():
    image = board(1, 2, 3, 4, 99, 6, 7, 8, 9)
    found = solved(image, hide(image, (1, 1)))
    by_hand = (2 + 4 + 6 + 8) / 6 + (1 + 3 + 7 + 9) / 12
    torch.testing.assert_close(found[0, :, 1, 1], torch.tensor([1, 2, -1], dtype=torch.float64) * by_hand)


def test_where_the_image_ends_the_neighbours_that_are_there_share():
    """A corner has two at its sides and one diagonal: their weights 1/6, 1/6 and 1/12 are 2, 2 and 1 of 5."""
    image = board(99, 2, 3, 4, 5, 6, 7, 8, 9)
    found = solved(image, hide(image, (0, 0)))
    assert found[0, 0, 0, 0].item() == pytest.approx((2 * 2 + 2 * 4 + 5) / 5)


def test_two_neighbours_are_solved_together():
    """a = (known of a + 2 b) / 12 and b = (known of b + 2 a) / 12, in twelfths."""
    values = list(range(16))
    image = board(*values)
    grid = np.arange(16.0).reshape(4, 4)
    found = solved(image, hide(image, (1, 1), (1, 2)))
    known = [
        sum(
            12 * w * grid[1 + dy, x + dx] for (dy, dx), w in WEIGHTS.items() if (1 + dy, x + dx) not in ((1, 1), (1, 2))
        )
        for x in (1, 2)
    ]
    a, b = np.linalg.solve([[12, -2], [-2, 12]], known)
    assert found[0, 0, 1, 1:3].tolist() == pytest.approx([a, b])


def directly(image: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The equations of each hidden pixel p, sum over its neighbours n of w_n (x_p - x_n) = 0, one by one."""
    places = {place: i for i, place in enumerate(zip(*np.nonzero(hidden), strict=True))}
    system, right = scipy.sparse.lil_matrix((len(places), len(places))), np.zeros((len(places), len(image)))
    for (y, x), i in places.items():
        for (dy, dx), weight in WEIGHTS.items():
            other = (y + dy, x + dx)
            if not (0 <= other[0] < hidden.shape[0] and 0 <= other[1] < hidden.shape[1]):
                continue
            system[i, i] += weight
            if other in places:
                system[i, places[other]] -= weight
            else:
                right[i] += weight * image[:, other[0], other[1]]
    found = image.copy()
    found[:, hidden] = scipy.sparse.linalg.spsolve(system.tocsc(), right).T
    return found


@pytest.mark.parametrize(("height", "width", "cell"), [(8, 8, 2), (32, 32, 4), (21, 30, 3), (56, 40, 8)])
@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
def test_it_is_the_solution_of_the_equations(height, width, cell, share):
    """Far nearer than the noise that is added; cells of patches hidden, each image its own."""
    draw = np.random.default_rng(height + int(100 * share))
    images = draw.standard_normal((3, 3, height, width))
    cells = draw.random((3, -(-height // cell), -(-width // cell))) < share
    cells[:, 0, 0], cells[:, -1, -1] = True, False
    hidden = cells.repeat(cell, axis=1).repeat(cell, axis=2)[:, :height, :width]
    expected = np.stack([directly(image, mask) for image, mask in zip(images, hidden, strict=True)])
    for dtype in (torch.float64, torch.float32):
        found = solved(torch.from_numpy(images).to(dtype), torch.from_numpy(hidden).unsqueeze(1).to(dtype))
        assert np.abs(found.numpy() - expected).max() < NOISE / 8


def test_a_single_pixel_that_is_known_fills_the_whole_image():
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    hidden = torch.ones(2, 1, 32, 32)
    hidden[:, :, 20, 7] = 0
    expected = image[:, :, 20:21, 7:8].expand_as(image)
    torch.testing.assert_close(solved(image, hidden), expected, atol=NOISE / 10, rtol=0)


def test_noise_is_the_images_own_and_known_pixels_stay():
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    hidden = torch.zeros(3, 1, 32, 32)
    hidden[..., 4:28] = 1
    found = imputed(images, hidden)
    assert torch.equal(found[..., :4], images[..., :4])
    noise = (found - solved(images, hidden))[..., 4:28]
    assert noise.std().item() == pytest.approx(NOISE, rel=0.05)
    assert noise.mean().abs() < NOISE / 10
    torch.testing.assert_close(imputed(images[1:2], hidden[1:2]), found[1:2])


def test_where_nothing_is_known_it_is_the_mean_colour():
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    found = imputed(images, torch.ones(2, 1, 8, 8))
    assert found.isfinite().all()
    assert found.abs().max() < 5 * NOISE
    assert torch.equal(solved(images, torch.zeros(2, 1, 8, 8)), images)
