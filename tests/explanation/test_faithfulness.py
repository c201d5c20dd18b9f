"""The measures on a model whose evidence is known, and against Captum and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from vits import VITS, images_for, ours

from patchlight.explanation.faithfulness import (
    WAYS,
    blurred,
    infidelity,
    max_sensitivity,
    outputs_without,
    pointing,
    random_removals,
    randomized,
    rank_correlation,
    removal_curve,
)
from patchlight.explanation.methods import METHODS, maps_of
from patchlight.explanation.targets import ClassTarget
from patchlight.models.anatomy import dissect

BLACK = torch.tensor([-2.0, -2.0, -2.0], dtype=torch.float64)


class Additive(nn.Module):
    """Its logit of class 0 is the weighted sum of the patches' means; class 1 is always 0. Stands in for an anatomy."""

    num_prefix_tokens = 0
    patch_size = None
    has_head = True

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = weights  # (r, c)

    def grid(self, images: Tensor) -> tuple[int, int]:
        return self.weights.shape[0], self.weights.shape[1]

    def contributions(self, images: Tensor) -> Tensor:
        means = nn.functional.adaptive_avg_pool2d(images, self.weights.shape).mean(dim=1)
        return means * self.weights

    def logits(self, images: Tensor) -> Tensor:
        total = self.contributions(images).sum(dim=(1, 2))
        return torch.stack([total, torch.zeros_like(total)], dim=1)


@pytest.fixture
def additive() -> tuple[Additive, Tensor, Tensor]:
    """A model, images in which every patch speaks for class 0, and the true map."""
    draw = torch.Generator().manual_seed(0)
    model = Additive(torch.rand(4, 4, generator=draw, dtype=torch.float64))
    images = torch.rand(5, 3, 16, 16, generator=draw, dtype=torch.float64) + 0.5
    return model, images, model.contributions(images)


ZERO = ClassTarget(torch.zeros(5, dtype=torch.long))


def test_the_true_map_has_the_best_curves(additive):
    model, images, truth = additive
    draw = torch.Generator().manual_seed(1)
    for most_first, better in ((True, torch.less), (False, torch.greater)):
        best = removal_curve(model, images, ZERO, truth, BLACK, most_first=most_first, steps=16).area()
        for _ in range(5):
            chance = torch.rand(truth.shape, generator=draw)
            other = removal_curve(model, images, ZERO, chance, BLACK, most_first=most_first, steps=16).area()
            assert better(best, other).all()


def test_a_curve_by_hand():
    """Two patches of contributions 2 and 1: without the first sigmoid(1) is left, without both sigmoid(0)."""
    model = Additive(torch.tensor([[2.0, 1.0]]))
    images = torch.ones(1, 3, 4, 8)
    curve = removal_curve(model, images, ClassTarget(torch.tensor([0])), torch.tensor([[[5.0, 4.0]]]), BLACK.float())
    sigmoid = [1 / (1 + 2.718281828459045**-x) for x in (3, 1, 0)]
    assert curve.removed.tolist() == [0, 0.5, 1]
    assert curve.probs[0].tolist() == pytest.approx(sigmoid)
    assert curve.area().item() == pytest.approx((sigmoid[0] + 2 * sigmoid[1] + sigmoid[2]) / 4)
    other = removal_curve(
        model, images, ClassTarget(torch.tensor([0])), torch.tensor([[[5.0, 4.0]]]), BLACK.float(), most_first=False
    )
    assert other.probs[0, 1].item() == pytest.approx(1 / (1 + 2.718281828459045**-2))


def test_black_is_black_and_blur_keeps_the_mean(additive):
    model, images, _ = additive
    hidden = torch.zeros(5, 16, dtype=torch.bool)
    hidden[:, 3] = True
    painted = images.clone()
    painted[:, :, :4, 12:] = -2
    torch.testing.assert_close(outputs_without(model, images, ZERO, hidden, "black", BLACK), model.logits(painted))
    flat = torch.full_like(images, 0.7)
    torch.testing.assert_close(outputs_without(model, flat, ZERO, hidden, "blur", BLACK), model.logits(flat))
    point = torch.zeros(1, 1, 21, 21)
    point[0, 0, 10, 10] = 1
    box = torch.ones(5) / 5
    row = torch.from_numpy(np.convolve(np.convolve(box, box), box))  # three times a mean of five
    expected = torch.zeros(21, 21)
    expected[4:17, 4:17] = row[:, None] * row
    torch.testing.assert_close(blurred(point)[0, 0], expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", VITS)
def test_curves_of_every_vit_begin_whole(name, way):
    model, images = VITS[name](), images_for(name)
    anatomy = dissect(model)
    logits = anatomy.logits(images)
    targets = ClassTarget(logits.argmax(1))
    maps = torch.rand(3, *anatomy.grid(images), generator=torch.Generator().manual_seed(0))
    curve = removal_curve(anatomy, images, targets, maps, BLACK, way=way, steps=4)
    torch.testing.assert_close(curve.probs[:, 0].double(), logits.softmax(1).amax(1), rtol=1e-5, atol=1e-6)
    assert curve.right[:, 0].all()
    assert curve.probs.isfinite().all()
    assert curve.removed[-1] == (1 if way != "tokens" else 1 - 1 / maps[0].numel())
    assert curve.area().shape == curve.accuracy().shape == (3,)


def test_constant_maps_take_patches_in_an_order_of_chance(additive):
    model, images, truth = additive
    flat = removal_curve(model, images, ZERO, torch.zeros_like(truth), BLACK, steps=16).probs
    reading = torch.arange(16.0).flip(0).view(1, 4, 4).expand(5, -1, -1)
    assert not flat.equal(removal_curve(model, images, ZERO, reading, BLACK, steps=16).probs)


def test_infidelity_of_the_true_map_is_nothing(additive):
    model, images, truth = additive
    removals = random_removals(model, images, ZERO, BLACK)
    assert infidelity(3 * truth, removals).max() < 1e-12  # the scale does not matter
    assert infidelity(torch.rand_like(truth), removals).min() > 1e-3
    assert infidelity(torch.zeros_like(truth), removals).tolist() == [1.0] * 5
    assert infidelity(-truth, removals).tolist() == [1.0] * 5  # the opposite of the truth is no good map


def test_infidelity_is_captums():
    metrics = pytest.importorskip("captum.metrics")
    model, images = ours(), images_for("")
    anatomy, targets = dissect(model), torch.tensor([0, 1, 2])
    maps = torch.rand(3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = infidelity(maps, random_removals(anatomy, images, ClassTarget(targets), BLACK, samples=8))

    draw = torch.Generator().manual_seed(0)
    falls = []
    sets = []
    for _ in range(8):
        share = torch.rand(1, generator=draw)
        sets.append((torch.rand(16, generator=draw) < share).view(1, 1, 4, 4).double())
    order = iter(sets)

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        """One set of patches, as Captum asks for one sample at a time."""
        gone = next(order)
        wide = gone.repeat_interleave(4, 2).repeat_interleave(4, 3)
        with torch.no_grad():
            changed = inputs * (1 - wide)
            falls.append((model(inputs) - model(changed)).gather(1, targets[:, None])[:, 0])
        return gone.expand(3, 3, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3), changed

    spread = maps.unsqueeze(1).expand(-1, 3, -1, -1).repeat_interleave(4, 2).repeat_interleave(4, 3) / 48
    theirs = metrics.infidelity(
        model, perturb, images, spread, target=targets, n_perturb_samples=8, max_examples_per_batch=3, normalize=True
    )
    expected = theirs / torch.stack(falls, 1).pow(2).mean(1)  # Captum's scale may turn a map round, ours does not
    told = found < 1
    assert told.any()
    torch.testing.assert_close(found[told], expected[told])
    assert (found[~told] == 1).all()


def test_max_sensitivity_where_a_map_is_empty():
    images = torch.zeros(2, 3, 4, 4)
    assert max_sensitivity(lambda x: x[:, 0], images, images[:, 0]).tolist() == [1.0, 1.0]
    assert max_sensitivity(lambda x: 0 * x[:, 0], images, images[:, 0]).tolist() == [0.0, 0.0]


def test_max_sensitivity_of_a_linear_map():
    """The map is the image itself, of norm 1: it changes by the noise, and that of a constant map not at all."""
    images = torch.zeros(2, 3, 4, 4)
    images[:, 0, 0, 0] = 1
    found = max_sensitivity(lambda x: x[:, 0], images, images[:, 0], radius=0.1)
    draw = torch.Generator().manual_seed(0)
    moves = [torch.empty(images.shape).uniform_(-0.1, 0.1, generator=draw)[:, 0].flatten(1) for _ in range(4)]
    before = images[:, 0].flatten(1)
    shares = [move.norm(dim=1) / torch.maximum(before.norm(dim=1), (before + move).norm(dim=1)) for move in moves]
    torch.testing.assert_close(found, torch.stack(shares).amax(0))
    assert max_sensitivity(lambda x: torch.ones(2, 4, 4), images, torch.ones(2, 4, 4)).tolist() == [0, 0]


def test_rank_correlation_is_scipys():
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randint(6, (2, 4, 3, 5), generator=draw).float()
    expected = [scipy.stats.spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    assert rank_correlation(a, b).tolist() == pytest.approx(expected)
    assert rank_correlation(a, -a).tolist() == pytest.approx([-1] * 4)
    assert rank_correlation(a, torch.ones_like(a)).tolist() == [0] * 4


@pytest.mark.parametrize("name", VITS)
def test_randomizing_leaves_the_model_alone(name):
    model, images = VITS[name](), images_for(name)
    anatomy = dissect(model)
    before = anatomy.logits(images)
    top, whole = randomized(anatomy, top=1), randomized(anatomy)
    assert torch.equal(anatomy.logits(images), before)
    assert not torch.allclose(top.logits(images), before)
    assert not torch.allclose(whole.logits(images), top.logits(images))
    kept = [torch.equal(p, q) for p, q in zip(anatomy.blocks[0].parameters(), top.blocks[0].parameters(), strict=True)]
    assert all(kept)


def test_pointing():
    maps = torch.tensor([[[0.1, 0.9], [0.2, 0.3]], [[0.5, 0.5], [0.5, 0.1]], [[1.0, 0.0], [0.0, 0.0]]])
    assert pointing(maps, torch.tensor([1, 2, 3])).tolist() == pytest.approx([1, 1 / 3, 0])
    assert pointing(maps, torch.tensor([1, -1, 3])).tolist() == [1, 0]


def test_maps_on_pixels_come_to_the_grid():
    anatomy, images = dissect(ours()), images_for("")
    maps = maps_of(METHODS["integrated-gradients"], anatomy, images, ClassTarget(torch.tensor([0, 1, 2])))
    assert maps.shape == (3, 4, 4)
