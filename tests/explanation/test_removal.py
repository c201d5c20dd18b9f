"""Curves of removal on a model whose evidence is known, and what stands where patches were."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from additive import BLACK, ZERO, Additive, additive
from vits import VITS, images_for, of_timm, ours

from patchlight.cli.explain_words import MAPS
from patchlight.errors import PatchlightError, UsageError
from patchlight.explanation.imputation import imputed
from patchlight.explanation.removal import (
    FILLS,
    WAYS,
    Curve,
    blurred,
    check_ways,
    outputs_without,
    removal_counts,
    removal_curve,
    ways_for,
)
from patchlight.explanation.targets import ClassTarget, Difference, Similarity, similar_to
from patchlight.models.anatomy import dissect
from patchlight.models.resnet import ResNet


def test_the_true_map_has_the_best_curves():
    model, images, truth = additive()
    draw = torch.Generator().manual_seed(1)
    for most_first, better in ((True, torch.less), (False, torch.greater)):
        best = removal_curve(model, images, ZERO, truth, BLACK, most_first=most_first, counts=range(17)).area()
        for _ in range(5):
            chance = torch.rand(truth.shape, generator=draw)
            other = removal_curve(model, images, ZERO, chance, BLACK, most_first=most_first, counts=range(17)).area()
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


def test_black_is_black():
    model, images, _ = additive()
    hidden = torch.zeros(5, 16, dtype=torch.bool)
    hidden[:, 3] = True
    painted = images.clone()
    painted[:, :, :4, 12:] = -2
    torch.testing.assert_close(outputs_without(model, images, ZERO, hidden, "black", BLACK), model.logits(painted))


def test_ways_are_checked_and_all_are_named_in_the_help():
    vit, cnn = dissect(ours()), dissect(ResNet(num_classes=2))
    assert check_ways(["tokens", "mean", "mean"], vit) == ("mean", "tokens")
    assert check_ways(["black"], cnn) == ("black",)
    with pytest.raises(PatchlightError, match="no tokens can be taken away from ResNet"):
        check_ways(WAYS, cnn)
    with pytest.raises(UsageError, match="patches are not taken away by 'colour'"):
        check_ways(["colour"], vit)
    with pytest.raises(UsageError, match="name at least one way"):
        check_ways([], vit)
    (told,) = [each for each in MAPS if "--ways" in each.names]
    assert ", ".join(WAYS) in told.keywords["help"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", VITS)
def test_curves_of_every_vit_begin_whole(name, way):
    model, images = VITS[name](), images_for(name)
    anatomy = dissect(model)
    logits = anatomy.logits(images)
    targets = ClassTarget(logits.argmax(1))
    maps = torch.rand(3, *anatomy.grid(images), generator=torch.Generator().manual_seed(0))
    curve = removal_curve(anatomy, images, targets, maps, BLACK, way=way)
    torch.testing.assert_close(curve.probs[:, 0].double(), logits.softmax(1).amax(1), rtol=1e-5, atol=1e-6)
    assert curve.right[:, 0].all()
    assert curve.probs.isfinite().all()
    assert curve.removed[-1] == (1 if way != "tokens" else 1 - 1 / maps[0].numel())
    assert curve.area().shape == curve.accuracy().shape == (3,)


def test_constant_maps_take_patches_in_an_order_of_chance():
    model, images, truth = additive()
    flat = removal_curve(model, images, ZERO, torch.zeros_like(truth), BLACK, counts=range(17)).probs
    reading = torch.arange(16.0).flip(0).view(1, 4, 4).expand(5, -1, -1)
    assert not flat.equal(removal_curve(model, images, ZERO, reading, BLACK, counts=range(17)).probs)


def test_a_blur_is_the_weighted_mean_of_all_pixels():
    """A Gaussian of half the side, its weights those of the pixels that are there: by hand, at an edge too."""
    image = torch.randn(1, 3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = blurred(image)
    for y, x in ((0, 0), (3, 2), (1, 5)):
        down = np.exp(-(((np.arange(4) - y) / 2) ** 2) / 2)
        across = np.exp(-(((np.arange(6) - x) / 3) ** 2) / 2)
        weights = np.outer(down / down.sum(), across / across.sum())
        assert found[0, 1, y, x].item() == pytest.approx((weights * image[0, 1].numpy()).sum())


def test_a_blurred_image_says_next_to_nothing():
    """What a blur leaves of noise, of the slope of an image and of its mean colour."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(8, 3, 32, 32, generator=draw) + 0.7
    assert blurred(noise).std(dim=(2, 3)).max() < 0.05
    assert (blurred(noise).mean(dim=(2, 3)) - noise.mean(dim=(2, 3))).abs().max() < 0.05
    slope = torch.linspace(-1, 1, 32).expand(1, 3, 32, 32)
    assert blurred(slope).std() < slope.std() / 3
    flat = torch.full((1, 3, 9, 12), 0.7)
    torch.testing.assert_close(blurred(flat), flat)


def test_road_puts_what_neighbours_suggest():
    model, images, _ = additive()
    hidden = torch.zeros(5, 16, dtype=torch.bool)
    hidden[:, 5] = True
    mask = torch.zeros(5, 1, 16, 16)
    mask[:, :, 4:8, 4:8] = 1
    expected = model.logits(imputed(images, mask))
    torch.testing.assert_close(outputs_without(model, images, ZERO, hidden, "road", BLACK), expected)


def test_points_of_a_curve_are_single_patches_where_one_may_decide():
    assert removal_counts(1) == [0, 1]
    assert removal_counts(16) == list(range(17))
    assert removal_counts(64) == [0, 1, 2, 3, 4, 6, 9, 13, 19, 25, 31, 37, 43, 49, 55, 61, 64]
    for count in range(1, 400):
        counts = removal_counts(count)
        steps = np.diff(counts)
        assert (counts[0], counts[-1]) == (0, count)
        assert (steps > 0).all()
        assert (steps[:4] == 1).all()
        assert steps.max() <= max(1, round(count / 10))
        assert len(counts) <= 22


@pytest.mark.parametrize("first", [True, False])
def test_the_one_patch_that_decides_shows_in_the_area(first):
    """Of 64 patches: at the front of the deletion, at the end of the insertion, as if each patch went alone."""
    weights = torch.zeros(8, 8, dtype=torch.float64)
    weights[3, 6] = 20
    model, images = Additive(weights), torch.ones(2, 3, 32, 32, dtype=torch.float64)
    target = ClassTarget(torch.zeros(2, dtype=torch.long))
    for place in range(4):
        maps = torch.rand(2, 64, generator=torch.Generator().manual_seed(place)).sort(dim=1, descending=True).values
        order = [p for p in range(64) if p != 30]
        order.insert(place, 30)  # 30 is row 3, column 6
        ranked = torch.empty_like(maps)
        ranked[:, order] = maps
        options = {"maps": ranked.view(2, 8, 8), "black": BLACK, "most_first": first}
        found = removal_curve(model, images, target, **options)
        all_points = removal_curve(model, images, target, counts=range(65), **options)
        assert len(found.removed) == 17
        torch.testing.assert_close(found.area(), all_points.area(), rtol=1e-6, atol=1e-6)


def test_where_nothing_can_be_taken_away_a_curve_is_its_point():
    whole = Curve(torch.tensor([0.0]), torch.tensor([[0.25], [0.5]]), torch.tensor([[True], [False]]))
    assert whole.area().tolist() == [0.25, 0.5]
    assert whole.accuracy().tolist() == [1, 0]


@pytest.mark.parametrize("way", WAYS)
def test_the_only_patch_has_a_curve_too(way):
    anatomy = dissect(ours(img_size=8, patch_size=8))
    images = images_for("")[:, :, :8, :8]
    target = ClassTarget(anatomy.logits(images).argmax(1).detach())
    for first in (True, False):
        curve = removal_curve(anatomy, images, target, torch.zeros(3, 1, 1), BLACK, way=way, most_first=first)
        assert curve.area().isfinite().all()
        assert curve.accuracy().isfinite().all()
        assert len(curve.removed) == (1 if way == "tokens" else 2)


def test_ways_of_a_network_without_tokens_to_take_away():
    assert ways_for(dissect(ours())) == WAYS
    network = dissect(ResNet(num_classes=4).double().eval())
    assert ways_for(network) == tuple(FILLS)
    images = images_for("", count=2)
    target = ClassTarget(network.logits(images).argmax(1).detach())
    for way in FILLS:
        curve = removal_curve(network, images, target, torch.rand(2, *network.grid(images)), BLACK, way=way)
        assert curve.probs.isfinite().all()
        assert curve.right[:, 0].all()


def test_curves_follow_what_the_target_is():
    """A cosine of features for a model without a head, the probability of one class of two for a difference."""
    images = images_for("")
    headless = dissect(of_timm(num_classes=0))
    maps = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    like = similar_to(headless, images[:1]).take(torch.zeros(3, dtype=torch.long))
    assert isinstance(like, Similarity)
    curve = removal_curve(headless, images, like, maps, BLACK)
    assert curve.probs[0, 0].item() == pytest.approx(1)
    assert curve.right[0, 0]
    anatomy, one, other = dissect(ours()), torch.tensor([0, 1, 2]), torch.tensor([3, 3, 3])
    curve = removal_curve(anatomy, images, Difference(one, other), maps, BLACK)
    pair = anatomy.logits(images).gather(1, torch.stack([one, other], dim=1)).softmax(dim=1)[:, 0]
    torch.testing.assert_close(curve.probs[:, 0].double(), pair.detach(), rtol=1e-5, atol=1e-6)
