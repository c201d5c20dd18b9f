"""mixup and CutMix against torchvision on the same parameters, and how they are drawn."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from patchlight.config import AugmentConfig
from patchlight.data import mix as M
from patchlight.data.mix import mix

K = 7
BOTH = AugmentConfig(mixup_alpha=0.8, cutmix_alpha=1.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(n: int = 12, h: int = 10, w: int = 14) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 3, h, w, generator=generator(8)), torch.randint(0, K, (n,), generator=generator(9))


def flat(n: int) -> torch.Tensor:
    """Images that hold their own number everywhere."""
    return torch.arange(1.0, n + 1).view(n, 1, 1, 1).expand(n, 1, 16, 16).contiguous()


def previous(n: int) -> torch.Tensor:
    """torchvision's partner: the image before."""
    return torch.arange(n).roll(1)


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.731, 1.0])
def test_mixup_equals_torchvision(monkeypatch: pytest.MonkeyPatch, lam: float) -> None:
    images, targets = batch()
    lams = torch.full((12,), lam)
    transform = v2.MixUp(num_classes=K)
    monkeypatch.setattr(transform, "make_params", lambda inputs: {"lam": lams[0].item()})
    expected = transform(images, targets)
    result = M.mixup(images, M.one_hot(targets, K), lams, previous(12))
    for ours, theirs in zip(result, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("box", [(0, 0, 10, 14), (2, 3, 4, 9), (5, 5, 0, 0), (9, 13, 1, 1)], ids=str)
def test_cutmix_equals_torchvision(monkeypatch: pytest.MonkeyPatch, box: tuple[int, int, int, int]) -> None:
    images, targets = batch()
    top, left, h, w = box
    params = {"box": (left, top, left + w, top + h), "lam_adjusted": 1.0 - h * w / (10 * 14)}
    transform = v2.CutMix(num_classes=K)
    monkeypatch.setattr(transform, "make_params", lambda inputs: params)
    expected_images, expected_soft = transform(images, targets)
    sides = (torch.full((12,), side) for side in box)
    result, soft = M.cutmix(images, M.one_hot(targets, K), *sides, partner=previous(12))
    assert torch.equal(result, expected_images)
    torch.testing.assert_close(soft, expected_soft, rtol=0, atol=1e-7)


@pytest.mark.parametrize("lam", [0.0, 0.2, 0.65, 1.0])
def test_box_is_drawn_as_in_torchvision(monkeypatch: pytest.MonkeyPatch, lam: float) -> None:
    lams = torch.full((300,), lam)
    top, left, h, w = M.draw_box(lams, 10, 14, generator())
    g = generator()
    centres_y, centres_x = torch.randint(10, (300,), generator=g), torch.randint(14, (300,), generator=g)
    transform = v2.CutMix(num_classes=K)
    monkeypatch.setattr(transform._dist, "sample", lambda shape: lams[0].item())
    for i in range(300):
        centres = iter([centres_x[i : i + 1], centres_y[i : i + 1]])
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randint", lambda *args, centres=centres, **kwargs: next(centres))
            params = transform.make_params([torch.empty(1, 3, 10, 14)])
        box = (left[i], top[i], left[i] + w[i], top[i] + h[i])
        assert params["box"] == tuple(int(side) for side in box)
        assert params["lam_adjusted"] == pytest.approx(1 - float(h[i] * w[i]) / 140)


@pytest.mark.parametrize("alpha", [1e-3, 0.2, 1.0, 5.0])
def test_beta_has_its_moments(alpha: float) -> None:
    lam = M.draw_beta(20_000, alpha, generator())
    assert torch.equal(lam, M.draw_beta(20_000, alpha, generator()))
    assert ((lam >= 0) & (lam <= 1)).all()
    assert lam.mean().item() == pytest.approx(0.5, abs=0.015)
    assert lam.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


@pytest.mark.parametrize("mode", ["image", "batch"])
@pytest.mark.parametrize("alphas", [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)], ids=str)
def test_mix_is_deterministic_and_leaves_its_input(mode: str, alphas: tuple[float, float]) -> None:
    images, targets = batch()
    before = images.clone()
    config = AugmentConfig(mixup_alpha=alphas[0], cutmix_alpha=alphas[1], mix_mode=mode)
    result, soft = mix(images, targets, K, config, generator(1))
    assert torch.equal(images, before)
    assert result.shape == images.shape
    assert soft.shape == (12, K)
    assert soft.dtype == torch.float32
    torch.testing.assert_close(soft.sum(1), torch.ones(12))
    again = mix(images, targets, K, config, generator(1))
    assert torch.equal(result, again[0])
    assert torch.equal(soft, again[1])
    assert not torch.equal(result, mix(images, targets, K, config, generator(2))[0])


@pytest.mark.parametrize("config", [AugmentConfig(), AugmentConfig(mixup_alpha=1.0, cutmix_alpha=1.0, mix_prob=0.0)])
def test_mix_off_changes_nothing(config: AugmentConfig) -> None:
    images, targets = batch()
    result, soft = mix(images, targets, K, config, generator())
    assert torch.equal(result, images)
    assert torch.equal(soft, torch.nn.functional.one_hot(targets, K).float())


@pytest.mark.parametrize("mode", ["image", "batch"])
@pytest.mark.parametrize("alphas", [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)], ids=str)
def test_labels_are_shared_as_the_pixels_are(mode: str, alphas: tuple[float, float]) -> None:
    """Every image holds one number and is its own class, so the mean pixel must be the label's expected number."""
    n = 64
    config = AugmentConfig(mixup_alpha=alphas[0], cutmix_alpha=alphas[1], mix_mode=mode)
    for seed in range(5):
        images, soft = mix(flat(n), torch.arange(n), n, config, generator(seed))
        torch.testing.assert_close(images.mean(dim=(1, 2, 3)), soft @ torch.arange(1.0, n + 1), rtol=1e-4, atol=1e-4)


def own_share(soft: torch.Tensor) -> torch.Tensor:
    """What is left of each image where image i is of class i."""
    return soft.diagonal()


def test_image_mode_draws_for_each_image() -> None:
    n = 2000
    config = AugmentConfig(mixup_alpha=0.8, cutmix_alpha=1.0, mix_prob=0.6, cutmix_share=0.3)
    images, soft = mix(flat(n), torch.arange(n), n, config, generator())
    mixed = own_share(soft) < 1
    assert mixed.float().mean().item() == pytest.approx(0.6, abs=0.06)
    assert len(own_share(soft)[mixed].unique()) > 500
    # Cut images hold two numbers, mixed-up ones a single new number.
    cut = images.flatten(1).amax(1) != images.flatten(1).amin(1)
    assert (cut[mixed]).float().mean().item() == pytest.approx(0.3, abs=0.06)


def test_batch_mode_draws_once() -> None:
    n, kinds = 16, []
    config = AugmentConfig(mixup_alpha=0.8, cutmix_alpha=1.0, mix_prob=0.7, mix_mode="batch")
    for seed in range(200):
        images, soft = mix(flat(n), torch.arange(n), n, config, generator(seed))
        share = own_share(soft)[own_share(soft) < 1]  # an image may be its own partner
        assert len(share.unique()) <= 1
        cut = images.flatten(1).amax(1) != images.flatten(1).amin(1)
        kinds.append("none" if len(share) == 0 else "cutmix" if cut.any() else "mixup")
    assert kinds.count("none") / 200 == pytest.approx(0.3, abs=0.1)
    assert kinds.count("cutmix") / 200 == pytest.approx(0.35, abs=0.1)


def test_mix_draws_as_much_whatever_the_images() -> None:
    states = []
    for value in (0.0, 3.0):
        g = generator(3)
        mix(torch.full((8, 3, 12, 12), value), torch.full((8,), int(value)), K, BOTH, g)
        states.append(g.get_state())
    assert torch.equal(*states)


def test_mix_keeps_half_precision() -> None:
    images, targets = batch()
    result, soft = mix(images.bfloat16(), targets, K, BOTH, generator())
    assert result.dtype == torch.bfloat16
    assert soft.dtype == torch.float32


def test_a_class_beyond_the_last_is_an_error() -> None:
    with pytest.raises(RuntimeError):
        mix(torch.zeros(1, 3, 4, 4), torch.tensor([K]), K, BOTH, generator())
