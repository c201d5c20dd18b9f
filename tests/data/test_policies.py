"""Every operation and every policy against torchvision's, pixel for pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import autoaugment as oracle

from patchlight.config import AugmentConfig
from patchlight.data import ops, policies
from patchlight.data.ops import OPS
from patchlight.data.policies import CIFAR10_POLICIES, POLICIES

MAGNITUDES = {name: op.magnitudes for name, op in OPS.items() if op.magnitudes is not None}
SIGNED = policies.signed_ops()

# Square, wide, tall with odd sides, barely and not large enough for a 3 x 3 neighbourhood.
SIZES = [(32, 32), (28, 36), (33, 17), (3, 5), (2, 2), (1, 7)]
# Both spaces' ends, both signs, and angles and slopes that put many pixels exactly between two neighbours.
EDGES = {
    "Rotate": [0.0, 9.0, 30.0, -30.0, 45.0, 60.0, -90.0, 135.0, 180.0],
    "TranslateX": [0.0, 0.4, -3.9, 14.5, 32.0, -32.0],
    "TranslateY": [0.0, 0.4, -3.9, 14.5, 32.0, -32.0],
    "Posterize": [0.0, 2.0, 4.0, 5.0, 7.0, 8.0],
    "Solarize": [0.0, 8.5, 127.5, 254.5, 255.0],
}
OTHER_EDGES = [0.0, -0.0, 0.09, 0.3, -0.15, 0.5, 0.9, -0.9, 0.99, -0.99]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample_images(channels: int, height: int, width: int) -> torch.Tensor:
    """Noise, and images on which an op may divide by zero, overflow or round differently."""
    images = torch.randint(0, 256, (10, channels, height, width), dtype=torch.uint8, generator=generator())
    images[0], images[1], images[2] = 0, 255, 77
    images[3] = images[3] // 128 * 255  # two values
    images[4] = images[4] // 64 * 3 + 9  # few values, close together
    images[5, 0] = 5  # one constant channel
    images[6] = torch.arange(width) * 7 % 256
    return images


def torchvision_op(images: torch.Tensor, name: str, magnitude: float) -> torch.Tensor:
    return oracle._apply_op(images, name, magnitude, InterpolationMode.NEAREST, None)


def test_places_that_are_not_remembered_are_the_same(monkeypatch) -> None:
    images = sample_images(3, 28, 36)
    warps = [op.function for op in OPS.values() if op.family is ops.warp for _ in range(2)]
    magnitudes = torch.tensor([0.3, -0.2, 0.1, -0.9, 3.0, -4.0, 2.0, -9.0, 30.0, -45.0])
    expected = ops.warp(images, warps, magnitudes)
    monkeypatch.setattr(ops, "CACHED_PIXELS", 0)
    assert torch.equal(ops.warp(images, warps, magnitudes), expected)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", OPS)
def test_op_equals_torchvision(name: str, size: tuple[int, int]) -> None:
    for channels in (1, 3):
        images = sample_images(channels, *size)
        before = images.clone()
        for magnitude in EDGES.get(name, OTHER_EDGES if name in MAGNITUDES else [0.0]):
            magnitudes = torch.full((len(images),), magnitude)
            expected = torchvision_op(images, name, magnitudes[0].item())
            assert torch.equal(OPS[name](images, magnitudes), expected)
        assert torch.equal(images, before)


@pytest.mark.parametrize("name", MAGNITUDES)
def test_op_has_a_magnitude_for_each_image(name: str) -> None:
    images = sample_images(3, 32, 32)
    magnitudes = torch.linspace(MAGNITUDES[name].first, MAGNITUDES[name].wide, len(images)).roll(3)
    if name == "Posterize":
        magnitudes = magnitudes.round()
    expected = [torchvision_op(image, name, m) for image, m in zip(images, magnitudes.tolist(), strict=True)]
    assert torch.equal(OPS[name](images, magnitudes), torch.stack(expected))


@pytest.mark.parametrize("name", OPS)
def test_op_takes_any_memory_layout(name: str) -> None:
    images = sample_images(3, 12, 10)
    magnitude = torch.full((len(images),), 4.0 if name == "Posterize" else 0.3)
    strided = images.to(memory_format=torch.channels_last)
    assert torch.equal(OPS[name](strided, magnitude), OPS[name](images, magnitude))


@pytest.mark.parametrize("size", [(32, 32), (40, 24)], ids=str)
@pytest.mark.parametrize(
    ("wide", "bins", "space"),
    [
        (False, 31, oracle.RandAugment()._augmentation_space),
        (False, 10, oracle.AutoAugment(oracle.AutoAugmentPolicy.CIFAR10)._augmentation_space),
        (True, 31, lambda bins, size: oracle.TrivialAugmentWide()._augmentation_space(bins)),
    ],
    ids=["randaugment", "autoaugment", "trivialaugment"],
)
def test_magnitude_table_equals_torchvision(wide: bool, bins: int, space: Callable, size: tuple[int, int]) -> None:
    table = policies.magnitude_table(wide, bins, *size)
    for name, (magnitudes, signed) in space(bins, size).items():
        row = list(OPS).index(name)
        assert torch.equal(table[row], magnitudes.float().expand(bins)), name
        assert SIGNED[row] == signed


def test_cifar10_policies_equal_torchvision() -> None:
    expected = oracle.AutoAugment(oracle.AutoAugmentPolicy.CIFAR10).policies
    assert [[(n, p, b or 0) for n, p, b in pair] for pair in expected] == [list(pair) for pair in CIFAR10_POLICIES]


def replay(monkeypatch: pytest.MonkeyPatch, numbers: list[int]) -> None:
    """Let torchvision's policies draw these numbers."""
    queue = iter(numbers)
    monkeypatch.setattr(oracle.torch, "randint", lambda *args, **kwargs: torch.tensor([next(queue)]))


def test_randaugment_equals_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    images = sample_images(3, 28, 36).repeat(12, 1, 1, 1)
    ops, magnitudes = policies.draw_randaugment(len(images), 28, 36, 3, 11, generator())
    result = policies.apply_ops(images, ops, magnitudes)
    transform = oracle.RandAugment(num_ops=3, magnitude=11)
    for i, image in enumerate(images):
        numbers = []
        for op, magnitude in zip(ops[i].tolist(), magnitudes[i].tolist(), strict=True):
            numbers += [op, int(magnitude < 0)] if SIGNED[op] else [op]
        with monkeypatch.context() as patch:
            replay(patch, numbers)
            assert torch.equal(result[i], transform(image))


def test_trivialaugment_equals_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    images = sample_images(3, 28, 36).repeat(12, 1, 1, 1)
    ops, magnitudes = policies.draw_trivialaugment(len(images), 28, 36, generator())
    result = policies.apply_ops(images, ops, magnitudes)
    table = policies.magnitude_table(True, 31, 28, 36)
    transform = oracle.TrivialAugmentWide()
    for i, image in enumerate(images):
        op, magnitude = int(ops[i]), magnitudes[i]
        bin_drawn = (table[op] == magnitude.abs()).nonzero()[0].item()
        with monkeypatch.context() as patch:
            replay(patch, [op, bin_drawn, int(magnitude < 0)] if list(OPS)[op] in MAGNITUDES else [op])
            assert torch.equal(result[i], transform(image))


def test_autoaugment_equals_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = torch.arange(25).repeat(4)
    images = torch.randint(0, 256, (len(policy), 3, 28, 36), dtype=torch.uint8, generator=generator())
    chance = torch.rand((len(policy), 2), generator=generator(1))
    for i in range(25):  # exactly at the probability counts as reached
        chance[i] = torch.tensor([CIFAR10_POLICIES[i][0][1], CIFAR10_POLICIES[i][1][1]])
    signs = torch.randint(2, (len(policy), 2), generator=generator(2))
    result = policies.apply_ops(images, *policies.select_autoaugment(policy, chance, signs == 0, 28, 36))
    transform = oracle.AutoAugment(oracle.AutoAugmentPolicy.CIFAR10)
    for i, image in enumerate(images):
        drawn = (int(policy[i]), chance[i], signs[i])
        monkeypatch.setattr(oracle.AutoAugment, "get_params", staticmethod(lambda n, drawn=drawn: drawn))
        assert torch.equal(result[i], transform(image))


def test_draws_are_uniform() -> None:
    ops, magnitudes = policies.draw_randaugment(60_000, 32, 32, 2, 9, generator())
    share = torch.bincount(ops.flatten(), minlength=len(OPS)) / ops.numel()
    drawn = torch.tensor([op.drawn for op in OPS.values()])
    assert drawn.sum() == 14
    assert torch.allclose(share[drawn], torch.tensor(1 / 14), atol=0.005)
    assert not share[~drawn].any()
    signed = SIGNED[ops]
    assert (magnitudes[signed] < 0).float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert (magnitudes[~signed] >= 0).all()

    ops, magnitudes = policies.draw_trivialaugment(60_000, 32, 32, generator())
    turns = magnitudes[ops == list(OPS).index("Rotate")].abs() / 135 * 30
    assert torch.bincount(turns.round().long(), minlength=31).min() > 60_000 / 14 / 31 / 2

    ops, _ = policies.draw_autoaugment(60_000, 32, 32, generator())
    expected = torch.zeros(len(OPS))
    for pair in CIFAR10_POLICIES:
        for name, probability, _ in pair:
            expected[list(OPS).index(name)] += probability / 50
            expected[0] += (1 - probability) / 50
    assert torch.allclose(torch.bincount(ops.flatten(), minlength=len(OPS)) / ops.numel(), expected, atol=0.005)


PINNED_DRAWS = {
    "randaugment": ([[7, 3], [4, 10], [3, 13]], [[0.27, -4.35], [-4.35, 7.0], [4.35, 0.0]], "5148ee000eee53bc"),
    "trivialaugment": ([[7], [3], [4]], [[0.132], [-1.067], [-13.867]], "15bb40e28b95c265"),
    "autoaugment": ([[11, 12], [11, 0], [4, 12]], [[113.333, 0.0], [198.333, 0.0], [14.502, 0.0]], "99a22b408143f8b7"),
}


@pytest.mark.parametrize("name", POLICIES)
def test_draws_are_pinned(name: str) -> None:
    """A seed gives the same operations and magnitudes in every release, so that old runs can be made again."""
    draw = {
        "randaugment": lambda: policies.draw_randaugment(64, 32, 32, 2, 9, generator(1)),
        "trivialaugment": lambda: policies.draw_trivialaugment(64, 32, 32, generator(1)),
        "autoaugment": lambda: policies.draw_autoaugment(64, 32, 32, generator(1)),
    }
    ops, magnitudes = draw[name]()
    first_ops, first_magnitudes, digest = PINNED_DRAWS[name]
    assert ops[:3].tolist() == first_ops
    assert torch.allclose(magnitudes[:3], torch.tensor(first_magnitudes), atol=6e-4)
    thousandths = (magnitudes * 1000).round().long()
    together = ops.numpy().astype("<i8").tobytes() + thousandths.numpy().astype("<i8").tobytes()
    assert hashlib.blake2b(together, digest_size=8).hexdigest() == digest


def test_an_operation_that_is_appended_is_drawn_and_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of each family, after Invert, which is not drawn: a row is all that an operation takes."""

    def half(images: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
        return images // 2

    def mirror(magnitude: float, height: int, width: int) -> ops.Matrix:
        return (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)

    def white(pixels: torch.Tensor) -> torch.Tensor:
        return torch.full_like(pixels, 255.0)

    whole = ops.Magnitudes(-1.0, -1.0, -1.0, signed=False)
    rows = {
        "Half": (ops.Operation(half, ops.one_by_one), lambda x: x // 2),
        "Mirror": (ops.Operation(mirror, ops.warp), lambda x: x.flip(3)),
        "White": (ops.Operation(white, ops.blend, whole), lambda x: torch.full_like(x, 255)),
    }
    for name, (operation, _) in rows.items():
        monkeypatch.setitem(OPS, name, operation)
    images = sample_images(3, 12, 10).repeat(400, 1, 1, 1)
    drawn, magnitudes = policies.draw_randaugment(len(images), 12, 10, 1, 9, generator())
    result = policies.apply_ops(images, drawn, magnitudes)
    for name, (_, expected) in rows.items():
        chosen = (drawn == list(OPS).index(name)).flatten()
        assert chosen.float().mean().item() == pytest.approx(1 / 17, abs=0.02)
        assert torch.equal(result[chosen], expected(images[chosen]))
    assert not (drawn == list(OPS).index("Invert")).any()
    both = torch.tensor([[list(OPS).index("Mirror"), list(OPS).index("White")]])
    assert (policies.apply_ops(images[:10], both.expand(10, 2), torch.tensor([[0.0, -1.0]]).expand(10, 2)) == 255).all()
    assert (policies.draw_trivialaugment(20_000, 12, 10, generator())[0] == len(OPS) - 1).sum() > 1000


@pytest.mark.parametrize("name", POLICIES)
def test_policy_is_deterministic_and_per_image(name: str) -> None:
    one = torch.randint(0, 256, (1, 3, 20, 24), dtype=torch.uint8, generator=generator())
    images = one.repeat(64, 1, 1, 1)
    config = AugmentConfig(policy=name)
    first = POLICIES[name](images, config, generator(1))
    assert first.shape == images.shape
    assert first.dtype == torch.uint8
    assert torch.equal(first, POLICIES[name](images, config, generator(1)))
    assert not torch.equal(first, POLICIES[name](images, config, generator(2)))
    assert len(first.unique(dim=0)) > 16
    assert torch.equal(images, one.expand_as(images))


@pytest.mark.parametrize("name", POLICIES)
def test_policy_draws_as_much_whatever_the_images(name: str) -> None:
    states = []
    for value in (0, 200):
        g = generator(3)
        POLICIES[name](torch.full((8, 3, 8, 8), value, dtype=torch.uint8), AugmentConfig(policy=name), g)
        states.append(g.get_state())
    assert torch.equal(*states)


def test_randaugment_follows_the_config() -> None:
    images = sample_images(3, 16, 16)
    config = AugmentConfig(randaugment_ops=1, randaugment_magnitude=0)
    drawn = policies.draw_randaugment(len(images), 16, 16, 1, 0, generator())
    assert drawn[0].shape == (len(images), 1)
    assert torch.equal(policies.randaugment(images, config, generator()), policies.apply_ops(images, *drawn))


def test_apply_ops_takes_an_empty_batch() -> None:
    empty = torch.empty(0, 3, 8, 8, dtype=torch.uint8)
    none = torch.empty(0, 2, dtype=torch.int64)
    assert policies.apply_ops(empty, none, none.float()).shape == empty.shape
