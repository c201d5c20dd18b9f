"""Which images an epoch has: how often each class and each image, and that it is the same whoever asks."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from patchlight.config import AugmentConfig
from patchlight.data.batches import TrainBatches
from patchlight.data.images import ImageSet
from patchlight.data.sampling import SAMPLERS, balanced, uniform

SIZES = [50, 23, 7, 1]
LABELS = torch.repeat_interleave(torch.arange(4), torch.tensor(SIZES))[torch.randperm(81, generator=torch.Generator())]


def make_batches(sampler: str, batch_size: int, drop_last: bool = True, flip: str = "alternating") -> TrainBatches:
    """The pixels of an image are its index, and its right half is one more."""
    pixels = torch.arange(81, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 4, 4)
    pixels[..., 2:] += 1
    images = ImageSet(pixels, LABELS, ("a", "b", "c", "d"))
    return TrainBatches(
        images,
        batch_size,
        AugmentConfig(flip=flip),  # type: ignore[arg-type]
        seed=3,
        fill=torch.zeros(3, dtype=torch.uint8),
        device=torch.device("cpu"),
        drop_last=drop_last,
        sampler=sampler,
    )


@pytest.mark.parametrize("length", [80, 81, 64, 3])
def test_every_class_comes_equally_often(length):
    total = torch.zeros(4, dtype=torch.int64)
    for epoch in range(7):
        counts = torch.bincount(LABELS[balanced(LABELS, length, 0, epoch).indices], minlength=4)
        assert counts.sum() == length
        assert counts.max() - counts.min() <= 1
        total += counts
        assert total.max() - total.min() <= 1  # who gets one more goes round


def test_the_images_of_a_class_are_all_used_before_any_is_used_again():
    """Whatever the size of the class: of the largest an epoch has a part, of the smallest one image many times."""
    seen = torch.zeros(81, dtype=torch.int64)
    for epoch in range(12):
        draws = balanced(LABELS, 80, 5, epoch)
        seen += torch.bincount(draws.indices, minlength=81)
        for label in range(4):
            own = seen[label == LABELS]
            assert own.max() - own.min() <= 1
            assert own.sum() == 20 * (epoch + 1)
    assert seen[LABELS == 3].item() == 240


def test_turns_count_how_often_an_image_has_come_before():
    before = torch.zeros(81, dtype=torch.int64)
    for epoch in range(6):
        draws = balanced(LABELS, 80, 5, epoch)
        for index in draws.indices.unique().tolist():
            turns = draws.turns[draws.indices == index].sort().values
            assert turns.tolist() == list(range(int(before[index]), int(before[index]) + len(turns)))
            before[index] += len(turns)


def test_over_many_draws_every_image_of_a_class_is_as_likely_at_every_place():
    first = torch.stack([balanced(LABELS, 4, seed, 0).indices for seed in range(3000)])
    assert (LABELS[first].sort(dim=1).values == torch.arange(4)).all()
    counts = torch.bincount(first.flatten(), minlength=81)
    for label, size in enumerate(SIZES):
        expected = 3000 / size
        assert (counts[label == LABELS] - expected).abs().max() < 5 * expected**0.5
    of_first_place = torch.bincount(LABELS[first[:, 0]], minlength=4)
    assert (of_first_place - 750).abs().max() < 5 * 750**0.5


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_draw_depends_on_seed_and_epoch_alone(sampler):
    draw = SAMPLERS[sampler]
    torch.manual_seed(1)
    first = draw(LABELS, 80, 1, 4)
    draw(LABELS, 80, 1, 0)
    torch.manual_seed(2)
    again = draw(LABELS, 80, 1, 4)
    assert torch.equal(first.indices, again.indices)
    assert torch.equal(first.turns, again.turns)
    assert not torch.equal(first.indices, draw(LABELS, 80, 2, 4).indices)
    assert not torch.equal(first.indices, draw(LABELS, 80, 1, 5).indices)


def test_uniform_is_each_image_once():
    draws = uniform(LABELS, 64, 0, 3)
    assert draws.indices.sort().values.tolist() == list(range(81))
    assert set(draws.turns.tolist()) == {3}


def test_a_class_without_images_is_not_drawn():
    labels = LABELS[LABELS != 1]
    counts = torch.bincount(labels[balanced(labels, 30, 0, 0).indices], minlength=4)
    assert counts.tolist() == [10, 0, 10, 10]


@pytest.mark.parametrize(("batch_size", "drop_last", "images"), [(16, True, 80), (16, False, 81), (200, True, 81)])
def test_batches_hold_what_was_drawn_and_an_epoch_keeps_its_length(batch_size, drop_last, images):
    found = make_batches("balanced", batch_size, drop_last)
    assert found.steps_per_epoch == make_batches("uniform", batch_size, drop_last).steps_per_epoch
    for epoch in (0, 1):
        made = [found.batch(epoch, step).targets for step in range(found.steps_per_epoch)]
        assert len(torch.cat(made)) == images
        counts = torch.bincount(torch.cat(made))
        assert counts.max() - counts.min() <= 1
        for step in reversed(range(found.steps_per_epoch)):
            again = make_batches("balanced", batch_size, drop_last).batch(epoch, step)
            assert torch.equal(again.targets, made[step])
            assert torch.equal(again.targets, LABELS[found.indices(epoch, step)])


def test_the_alternating_flip_shows_an_image_from_its_two_sides_in_turn():
    """Each time that it comes, within an epoch, too."""
    found = make_batches("balanced", 20)
    sides: dict[int, list[tuple[int, bool]]] = {}
    for epoch in range(8):
        draws = found.draws(epoch)
        for step in range(4):
            pixels = found.batch(epoch, step).images[:, 0, 0]
            for row, place in zip(pixels, range(20 * step, 20 * step + 20), strict=True):
                index, turn = int(draws.indices[place]), int(draws.turns[place])
                assert int(row.min()) == index
                sides.setdefault(index, []).append((turn, bool(row[0] > row[-1])))
    assert len(sides) == 81
    for shown in sides.values():
        mirrored = [side for _, side in sorted(shown)]
        assert all(a != b for a, b in pairwise(mirrored))
    assert 20 < sum(sorted(shown)[0][1] for shown in sides.values()) < 61  # the first side is random
