"""The measures on a model whose evidence is known, and against Captum and SciPy."""

from __future__ import annotations

import pytest
import scipy.stats
import timm
import torch
from additive import BLACK, ZERO, Additive, additive
from torch import Tensor, nn
from vits import VITS, images_for, ours

from patchlight.explanation.faithfulness import (
    infidelity,
    max_sensitivity,
    pointing,
    random_removals,
    randomized,
    rank_correlation,
)
from patchlight.explanation.methods import METHODS, maps_of
from patchlight.explanation.targets import ClassTarget
from patchlight.models.anatomy import dissect
from patchlight.models.resnet import ResNet


def test_infidelity_of_the_true_map_is_nothing():
    model, images, truth = additive()
    removals = random_removals(model, images, ZERO, BLACK)
    assert infidelity(3 * truth, removals).max() < 1e-12  # the scale does not matter
    assert infidelity(torch.rand_like(truth), removals).min() > 1e-3
    assert infidelity(torch.zeros_like(truth), removals).tolist() == [1.0] * 5
    assert infidelity(-truth, removals).tolist() == [1.0] * 5  # the opposite of the truth is no good map


def test_infidelity_where_nothing_falls():
    """As of a model that answers the same whatever it sees: no map is wrong about it, or better than another."""
    model, images = Additive(torch.zeros(4, 4, dtype=torch.float64)), torch.ones(5, 3, 16, 16, dtype=torch.float64)
    removals = random_removals(model, images, ZERO, BLACK)
    assert removals.falls.abs().max() == 0
    for maps in (torch.rand(5, 4, 4), torch.zeros(5, 4, 4), -torch.ones(5, 4, 4)):
        assert infidelity(maps, removals).tolist() == [0.0] * 5
    single = Additive(torch.ones(1, 1, dtype=torch.float64))
    assert infidelity(torch.zeros(5, 1, 1), random_removals(single, images, ZERO, BLACK)).isfinite().all()


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


def test_maps_of_any_size_have_finite_numbers():
    """Whose squares float32 cannot hold, as those of networks that blow up or fade away."""
    model, images, truth = additive()
    removals = random_removals(model, images, ZERO, BLACK)
    for scale in (1e30, 1e-30):
        large = (scale * truth).float()
        assert infidelity(large, removals).max() < 1e-8
        changed = max_sensitivity(lambda x, large=large: 2 * large, images, large)
        assert changed.tolist() == pytest.approx([0.5] * 5)
        assert rank_correlation(large, truth.float()).tolist() == pytest.approx([1] * 5)


def test_max_sensitivity_of_a_linear_map():
    """The map is the image itself, of norm 1: it changes by the noise, and that of a constant map not at all."""
    images = torch.zeros(2, 3, 4, 4)
    images[:, 0, 0, 0] = 1
    found = max_sensitivity(lambda x: x[:, 0], images, images[:, 0], radius=0.1)
    draw = torch.Generator().manual_seed(0)
    moves = [torch.empty(images.shape).uniform_(-0.1, 0.1, generator=draw)[:, 0].flatten(1) for _ in range(4)]
    before = images[:, 0].flatten(1)
    shares = [move.norm(dim=1) / torch.maximum(before.norm(dim=1), (before + move).norm(dim=1)) for move in moves]
    torch.testing.assert_close(found.float(), torch.stack(shares).amax(0))
    assert max_sensitivity(lambda x: torch.ones(2, 4, 4), images, torch.ones(2, 4, 4)).tolist() == [0, 0]


def test_rank_correlation_is_scipys():
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randint(6, (2, 4, 3, 5), generator=draw).float()
    expected = [scipy.stats.spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    assert rank_correlation(a, b).tolist() == pytest.approx(expected)
    assert rank_correlation(a, -a).tolist() == pytest.approx([-1] * 4)
    assert rank_correlation(a, torch.ones_like(a)).tolist() == [0] * 4
    assert rank_correlation(torch.ones_like(a), torch.zeros_like(a)).tolist() == [0] * 4
    assert rank_correlation(a[:, :1, :1], b[:, :1, :1]).tolist() == [0] * 4  # one patch has no order


@pytest.mark.parametrize("name", VITS)
def test_randomizing_leaves_the_model_alone(name):
    model, images = VITS[name](), images_for(name)
    anatomy = dissect(model)
    before = anatomy.logits(images)
    top, whole = randomized(anatomy, images, top=1), randomized(anatomy, images)
    assert torch.equal(anatomy.logits(images), before)
    assert not torch.allclose(top.logits(images), before)
    assert not torch.allclose(whole.logits(images), top.logits(images))
    kept = [torch.equal(p, q) for p, q in zip(anatomy.blocks[0].parameters(), top.blocks[0].parameters(), strict=True)]
    assert all(kept)


NETWORKS = {"ours": ResNet, "timm": lambda **options: timm.create_model("resnet18", **options)}


@pytest.mark.slow
@pytest.mark.parametrize("library", NETWORKS)
def test_a_random_network_with_batch_norm_gives_sane_numbers(library):
    """Of one whose running statistics are of small activations, as trained ones may be: they would blow random ones up
    by a thousand in every layer.
    """
    torch.manual_seed(0)
    model = NETWORKS[library](num_classes=4).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(1e-6)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    anatomy = dissect(model)
    statistics = {key: value.clone() for key, value in model.state_dict().items()}
    other = randomized(anatomy, images)
    assert all(torch.equal(value, statistics[key]) for key, value in model.state_dict().items())
    assert other.logits(images).abs().max() < 100
    target = ClassTarget(torch.zeros(8, dtype=torch.long))
    for name in ("gradcam", "integrated-gradients"):
        found = maps_of(METHODS[name], other, images, target)
        assert found.isfinite().all()
        assert found.flatten(1).std(dim=1).min() > 0
    layer = next(module for module in other.model.modules() if isinstance(module, nn.BatchNorm2d))
    first = next(module for module in other.model.modules() if isinstance(module, nn.Conv2d))
    given = first(images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(layer.running_mean, given.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.running_var, given.var(1, correction=0), rtol=1e-4, atol=1e-5)


def test_a_matrix_of_one_number_is_randomized_too():
    model = ours()
    model.odd = nn.Parameter(torch.ones(1, 1, dtype=torch.float64))
    assert randomized(dissect(model), images_for("")).model.odd.isfinite().all()


def test_pointing():
    maps = torch.tensor([[[0.1, 0.9], [0.2, 0.3]], [[0.5, 0.5], [0.5, 0.1]], [[1.0, 0.0], [0.0, 0.0]]])
    assert pointing(maps, torch.tensor([1, 2, 3])).tolist() == pytest.approx([1, 1 / 3, 0])
    assert pointing(maps, torch.tensor([1, -1, 3])).tolist() == [1, 0]


def test_maps_on_pixels_come_to_the_grid():
    anatomy, images = dissect(ours()), images_for("")
    maps = maps_of(METHODS["integrated-gradients"], anatomy, images, ClassTarget(torch.tensor([0, 1, 2])))
    assert maps.shape == (3, 4, 4)
