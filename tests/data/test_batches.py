import pytest
import torch

from patchlight.config import AugmentConfig
from patchlight.data import batches
from patchlight.data.augment import augment
from patchlight.data.batches import TrainBatches
from patchlight.data.images import ImageSet
from patchlight.data.mix import mix
from patchlight.machine.seeds import seeded_generator

EVERYTHING = AugmentConfig(
    crop_padding=2, flip="alternating", policy="randaugment", erasing_prob=0.5, mixup_alpha=0.4, cutmix_alpha=1.0
)
BLACK = torch.zeros(3, dtype=torch.uint8)


def make_batches(batch_size: int, count: int = 40, side: int = 8, drop_last: bool = True) -> TrainBatches:
    pixels = torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = ImageSet(pixels, torch.arange(count) % 10, tuple("0123456789"))
    cpu = torch.device("cpu")
    return TrainBatches(images, batch_size, EVERYTHING, seed=1, fill=BLACK, device=cpu, drop_last=drop_last)


def mixed(found: TrainBatches, epoch: int, step: int, strong: bool = True) -> list[torch.Tensor]:
    batch = found.batch(epoch, step, strong=strong)
    return [*mix(batch.images.float(), batch.targets, 10, EVERYTHING, batch.generator), batch.targets]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_any_step_can_be_made_again_in_any_order(monkeypatch):
    monkeypatch.setattr(batches, "PIXELS_AT_ONCE", 3 * 8 * 64)  # three batches of the five together
    found = make_batches(8)
    steps = [(epoch, step, step < 4) for epoch in (0, 1) for step in range(found.steps_per_epoch)]
    in_order = {key: mixed(found, *key) for key in steps}
    for key in reversed(steps):
        assert same(mixed(found, *key), in_order[key])
        assert same(mixed(make_batches(8), *key), in_order[key])
    assert not torch.equal(in_order[0, 0, True][0], in_order[1, 0, True][0])


@pytest.mark.parametrize("together", [1, 2, 5, 100])
def test_batches_made_together_are_the_epochs_images_augmented_once(monkeypatch, together):
    monkeypatch.setattr(batches, "PIXELS_AT_ONCE", together * 8 * 64)
    found = make_batches(8)
    together = min(together, 5)
    for first in range(0, 5, together):
        steps = range(first, min(first + together, 5))
        indices = torch.cat([found.indices(3, step) for step in steps])
        draw = seeded_generator(1, "augment", 3, first)
        expected = augment(
            found.images.images[indices], indices, EVERYTHING, seed=1, epoch=3, generator=draw, fill=BLACK
        )
        made = [found.batch(3, step) for step in steps]
        assert torch.equal(torch.cat([batch.images for batch in made]), expected)
        assert torch.equal(torch.cat([batch.targets for batch in made]), indices % 10)
        assert {len(batch.images) for batch in made} == {8}


def test_large_images_are_augmented_batch_by_batch():
    assert make_batches(8, side=8).together == 5  # all of an epoch
    assert make_batches(4, count=40, side=128).together == 8
    assert make_batches(16, count=40, side=224).together == 1


def test_a_set_that_lives_on_the_device_gives_the_same_batches(monkeypatch):
    gathered = make_batches(8)
    monkeypatch.setattr(batches, "fits_on", lambda device, images: True)
    resident = make_batches(8)
    assert resident._resident is not None
    for epoch, step in ((0, 0), (0, 2), (1, 1)):
        assert same(mixed(gathered, epoch, step), mixed(resident, epoch, step))


@pytest.mark.parametrize("together", [1, 2, 100])
def test_without_drop_last_an_epoch_has_every_image_once(monkeypatch, together):
    """In batches of 9, the last of which has 4 of the 40; and any of them can be made again."""
    monkeypatch.setattr(batches, "PIXELS_AT_ONCE", together * 9 * 64)
    found = make_batches(9, drop_last=False)
    assert (found.steps_per_epoch, make_batches(9).steps_per_epoch) == (5, 4)
    indices = [found.indices(1, step) for step in range(5)]
    assert [len(each) for each in indices] == [9, 9, 9, 9, 4]
    assert torch.cat(indices).sort().values.tolist() == list(range(40))
    made = [mixed(found, 1, step) for step in range(5)]
    for step in (4, 0, 3):
        assert torch.equal(made[step][2], indices[step] % 10)
        again = make_batches(9, drop_last=False)
        assert same(mixed(again, 1, step), made[step])


@pytest.mark.parametrize(("images", "size", "steps"), [(20_000, 128, (156, 157)), (45_000, 32, (1406, 1407))])
def test_steps_of_an_epoch(images, size, steps):
    loader = [
        len(torch.utils.data.DataLoader(range(images), batch_size=size, drop_last=drop_last))
        for drop_last in (True, False)
    ]
    found = [batches.steps_per_epoch(images, size, drop_last) for drop_last in (True, False)]
    assert found == loader == list(steps)
