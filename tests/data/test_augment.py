"""The elementary operations against torchvision on the same parameters, and the draws against its distributions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as TF

from patchlight.config import AugmentConfig
from patchlight.data import augment as A
from patchlight.data.augment import augment
from patchlight.errors import UsageError

FULL = AugmentConfig(crop_padding=4, flip="random", policy="randaugment", erasing_prob=0.5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(batch: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (batch, channels, height, width), dtype=torch.uint8, generator=generator(9))


def run(images: torch.Tensor, config: AugmentConfig, seed: int = 0, epoch: int = 0, **more: object) -> torch.Tensor:
    indices = torch.arange(len(images))
    return augment(images, indices, config, seed=5, epoch=epoch, generator=generator(seed), **more)


# --- crop ---


@pytest.mark.parametrize("mode", ["zero", "reflect"])
@pytest.mark.parametrize("size", [(12, 12), (9, 14)], ids=str)
def test_crop_equals_torchvision(mode: str, size: tuple[int, int]) -> None:
    images = noise(40, *size)
    top, left = A.draw_crop(40, 5, generator())
    result = A.crop(images, top, left, size, 5, mode)
    for i, image in enumerate(images):
        padded = TF.pad(image, 5, padding_mode={"zero": "constant"}.get(mode, mode))
        assert torch.equal(result[i], TF.crop(padded, int(top[i]), int(left[i]), *size))
    mask = torch.arange(40) % 3 == 0
    assert torch.equal(A.crop(images, top, left, size, 5, mode, mask), A.flip(result, mask))


def test_crop_to_another_size_without_padding() -> None:
    images = noise(2, 8, 9)
    result = A.crop(images, torch.tensor([0, 3]), torch.tensor([2, 1]), (5, 6))
    assert torch.equal(result, torch.stack([images[0, :, :5, 2:8], images[1, :, 3:8, 1:7]]))


def test_crop_draws_every_place() -> None:
    top, left = A.draw_crop(5000, 3, generator())
    for drawn in (top, left):
        assert torch.bincount(drawn, minlength=7).min() > 5000 / 7 * 0.8
        assert drawn.max() == 6


def test_crop_reflects_no_further_than_the_image() -> None:
    zero = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(UsageError, match="reflected by 3 at most"):
        A.crop(noise(1, 4, 8), zero, zero, (4, 8), 4, "reflect")


# --- resized crop ---


@pytest.mark.parametrize("size", [(32, 32), (20, 28)], ids=str)
def test_resized_crop_equals_torchvision(size: tuple[int, int]) -> None:
    images = noise(60, *size)
    images[0], images[1] = 0, 255
    box = A.draw_resized_crop(60, *size, (0.02, 1.0), (0.5, 2.0), generator())
    for out in (size, (7, 50)):  # also far smaller, where antialiasing shows, and larger
        result = A.resized_crop(images, *box, size=out)
        for i, image in enumerate(images):
            top, left, h, w = (int(side[i]) for side in box)
            expected = TF.resized_crop(image, top, left, h, w, list(out), antialias=True)
            assert (result[i].int() - expected.int()).abs().max() <= 1


def test_resized_crop_of_everything_changes_nothing() -> None:
    images = noise(3, 11, 13)
    zero = torch.zeros(3, dtype=torch.int64)
    assert torch.equal(A.resized_crop(images, zero, zero, zero + 11, zero + 13, (11, 13)), images)


@pytest.mark.parametrize("size", [(32, 32), (16, 48), (60, 12)], ids=str)
def test_resized_crop_is_distributed_as_in_torchvision(size: tuple[int, int]) -> None:
    scale, ratio, n = (0.3, 1.0), (0.75, 4 / 3), 4000
    boxes = torch.stack(A.draw_resized_crop(n, *size, scale, ratio, generator()), 1).double()
    top, left, h, w = boxes.unbind(1)
    assert (boxes >= 0).all()
    assert ((top + h <= size[0]) & (left + w <= size[1])).all()
    torch.manual_seed(0)
    image = torch.empty(3, *size)
    expected = torch.tensor([T.RandomResizedCrop.get_params(image, scale, ratio) for _ in range(n)]).double()
    spread = expected.std(0)
    assert ((boxes.mean(0) - expected.mean(0)).abs() < 0.1 * spread + 1e-9).all()
    assert ((boxes.std(0) - spread).abs() < 0.1 * spread + 1e-9).all()


@pytest.mark.parametrize(("size", "box"), [((10, 100), [0, 43, 10, 13]), ((100, 10), [43, 0, 13, 10])], ids=str)
def test_resized_crop_falls_back_to_the_middle(size: tuple[int, int], box: list[int]) -> None:
    drawn = A.draw_resized_crop(50, *size, (0.9, 1.0), (0.75, 4 / 3), generator())
    assert T.RandomResizedCrop.get_params(torch.empty(3, *size), (0.9, 1.0), (0.75, 4 / 3)) == tuple(box)
    assert torch.equal(torch.stack(drawn, 1), torch.tensor([box] * 50))


# --- flip ---


def test_flip_mirrors_the_chosen() -> None:
    images = noise(6, 5, 7)
    mask = torch.tensor([True, False, True, True, False, False])
    result = A.flip(images, mask)
    for i, image in enumerate(images):
        assert torch.equal(result[i], TF.hflip(image) if mask[i] else image)


def test_random_flip_takes_half() -> None:
    images = torch.arange(4, dtype=torch.uint8).expand(2000, 1, 1, 4)
    mirrored = (run(images, AugmentConfig(flip="random"))[:, 0, 0, 0] == 3).float().mean()
    assert mirrored.item() == pytest.approx(0.5, abs=0.04)


def test_alternating_flip_shows_each_side_in_turn() -> None:
    images = noise(64, 4, 6)
    config = AugmentConfig(flip="alternating")
    epochs = [run(images, config, seed=e, epoch=e) for e in range(4)]
    assert torch.equal(epochs[0], epochs[2])
    assert torch.equal(epochs[1], epochs[3])
    assert torch.equal(epochs[0], epochs[1].flip(3))


def test_alternating_flip_depends_on_seed_and_index_alone() -> None:
    indices = torch.arange(50_000)
    mask = A.alternating_mask(indices, 0, 0)
    order = torch.randperm(50_000, generator=generator())
    assert torch.equal(A.alternating_mask(indices[order], 0, 0), mask[order])
    assert mask.float().mean().item() == pytest.approx(0.5, abs=0.01)
    # Neighbours, and the same index under another seed, agree half of the time.
    assert (mask[1:] == mask[:-1]).float().mean().item() == pytest.approx(0.5, abs=0.01)
    for seed in (1, 2, 2**40):
        other = A.alternating_mask(indices, seed, 0)
        assert (mask == other).float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert not torch.equal(A.alternating_mask(indices[:-1], 1, 0), mask[1:])


def test_hash_is_splitmix64() -> None:
    # The first outputs of the published generator seeded with 0 and with 1234567.
    assert A._mix(torch.tensor(A._signed(0x9E3779B97F4A7C15))).item() == A._signed(0xE220A8397B1DCDAF)
    assert A._mix(torch.tensor(A._signed(0x9E3779B97F4A7C15 + 1234567))).item() == 6457827717110365317


# --- erasing ---


def test_erase_equals_torchvision() -> None:
    images = noise(50, 20, 14)
    box = A.draw_erasing(50, 20, 14, 0.8, generator())
    colour = torch.tensor([1, 200, 255], dtype=torch.uint8)
    result = A.erase(images, *box, value=colour)
    for i, image in enumerate(images):
        top, left, h, w = (int(side[i]) for side in box)
        assert torch.equal(result[i], TF.erase(image, top, left, h, w, colour.view(3, 1, 1)))


@pytest.mark.parametrize("size", [(32, 32), (20, 48)], ids=str)
def test_erasing_is_distributed_as_in_torchvision(size: tuple[int, int]) -> None:
    n = 4000
    drawn = torch.stack(A.draw_erasing(n, *size, 1.0, generator()), 1).double()
    torch.manual_seed(0)
    image = torch.empty(3, *size)
    draws = [T.RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0]) for _ in range(n)]
    expected = torch.tensor([draw[:4] for draw in draws]).double()
    spread = expected.std(0)
    assert ((drawn.mean(0) - expected.mean(0)).abs() < 0.1 * spread).all()
    assert ((drawn.std(0) - spread).abs() < 0.1 * spread).all()


def test_erasing_spares_the_others() -> None:
    _, _, h, w = A.draw_erasing(4000, 32, 32, 0.25, generator())
    assert (h > 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(h > 0, w > 0)
    assert (A.draw_erasing(100, 32, 32, 0.0, generator())[2] == 0).all()


# --- all together ---


@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(),
        FULL,
        replace(FULL, crop_mode="reflect", flip="alternating", policy="autoaugment"),
        replace(FULL, crop_padding=0, resized_crop_scale=(0.4, 1.0), policy="trivialaugment"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_augment_is_deterministic(config: AugmentConfig, channels: int) -> None:
    images = noise(32, 12, 16, channels)
    before = images.clone()
    result = run(images, config, fill=[100] * channels)
    assert result.dtype == torch.uint8
    assert result.shape == images.shape
    assert torch.equal(result, run(images, config, fill=[100] * channels))
    assert torch.equal(images, before)
    if config == AugmentConfig():
        assert torch.equal(result, images)
    else:
        assert not torch.equal(result, run(images, config, seed=1, fill=[100] * channels))


def test_augment_draws_for_each_image() -> None:
    images = noise(1, 16, 16).repeat(32, 1, 1, 1)
    for config in (AugmentConfig(crop_padding=4), AugmentConfig(resized_crop_scale=(0.2, 1.0)), FULL):
        assert len(run(images, config).unique(dim=0)) > 20


def test_augment_composes_its_parts_in_order() -> None:
    images, g = noise(16, 12, 12), generator(3)
    mirrored = torch.rand(16, generator=g) < 0.5
    top, left = A.draw_crop(16, 4, g)
    expected = A.flip(A.crop(images, top, left, (12, 12), 4), mirrored)
    assert torch.equal(run(images, FULL, seed=3, strong=False), expected)
    expected = A.POLICIES["randaugment"](expected, FULL, g)
    expected = A.erase(expected, *A.draw_erasing(16, 12, 12, 0.5, g), value=[9, 8, 7])
    assert torch.equal(run(images, FULL, seed=3, fill=torch.tensor([9, 8, 7])), expected)


def test_augment_draws_as_much_whatever_the_images() -> None:
    states = []
    for value in (0, 200):
        g = generator(3)
        images = torch.full((8, 3, 12, 12), value, dtype=torch.uint8)
        augment(images, torch.arange(8) + value, FULL, seed=value, epoch=value, generator=g)
        states.append(g.get_state())
    assert torch.equal(*states)


def test_erasing_is_black_without_a_fill() -> None:
    images = torch.full((64, 3, 10, 10), 255, dtype=torch.uint8)
    result = run(images, AugmentConfig(erasing_prob=1.0))
    assert set(result.unique().tolist()) == {0, 255}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_padding": 4, "resized_crop_scale": (0.5, 1.0)}, "choose one"),
        ({"resized_crop_scale": (0.0, 1.0)}, "resized_crop_scale must be"),
        ({"resized_crop_scale": (0.8, 0.5)}, "resized_crop_scale must be"),
        ({"resized_crop_scale": (0.5,)}, "resized_crop_scale must be"),
        ({"resized_crop_scale": (0.5, 1.0), "resized_crop_ratio": (2.0, 1.0)}, "resized_crop_ratio must be"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(noise(1, 8, 8), AugmentConfig(**settings))
