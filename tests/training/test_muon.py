"""Muon against torch's own for matrices, and by hand for kernels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from patchlight.training import muon
from patchlight.training.muon import Muon, orthogonalize


@pytest.fixture(autouse=True, params=[torch.bfloat16, torch.float32])
def dtype(request, monkeypatch):
    """Each of these holds on a device with bf16 instructions and on one without."""
    monkeypatch.setattr(muon, "multiplies", lambda precision, device: request.param is torch.bfloat16)
    return request.param


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]


def give_gradients(parameters: list[nn.Parameter], seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=draw)


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
def test_singular_values_come_near_one(shape, dtype):
    draw = torch.Generator().manual_seed(1)
    matrices = torch.randn((3, *shape), generator=draw)
    assert orthogonalize(matrices).dtype == dtype
    found = orthogonalize(matrices).double()
    assert torch.linalg.svdvals(found).min() > 0.5
    assert torch.linalg.svdvals(found).max() < 1.3
    u, _, v = torch.linalg.svd(matrices.double(), full_matrices=False)
    cosine = (found * (u @ v)).sum((1, 2)) / (found.norm(dim=(1, 2)) * (u @ v).norm(dim=(1, 2)))
    assert cosine.min() > 0.97  # not far from the matrix that it stands for


def test_each_singular_value_goes_through_the_polynomial(dtype):
    """The steps change singular values alone: s <- a s + b s^3 + c s^5, five times, here in float64."""
    draw = torch.Generator().manual_seed(2)
    matrix = torch.randn(6, 9, generator=draw)
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    atol = 0.02 if dtype is torch.bfloat16 else 1e-5
    torch.testing.assert_close(orthogonalize(matrix).double(), u @ s.diag() @ v, atol=atol, rtol=0)


def test_a_zero_gradient_stays_zero():
    assert not orthogonalize(torch.zeros(1, 4, 6)).any()


@pytest.mark.parametrize("nesterov", [True, False])
def test_on_matrices_it_is_torchs(nesterov):
    shapes = [(12, 12), (12, 36), (36, 12), (12, 12)]
    ours, theirs = parameters(*shapes), parameters(*shapes)
    settings = {"lr": 0.02, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.1}
    mine, torchs = Muon(ours, **settings), torch.optim.Muon(theirs, **settings)
    for seed in range(4):
        give_gradients(ours, seed)
        give_gradients(theirs, seed)
        mine.step()
        torchs.step()
    for p, q in zip(ours, theirs, strict=True):
        # bfloat16 products summed in another order: a step of 0.02 differs by a few of its 256ths
        torch.testing.assert_close(p, q, atol=1e-3, rtol=0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_is_the_matrix_of_its_rows(memory_format):
    kernel, matrix = parameters((8, 4, 3, 3))[0], nn.Parameter(parameters((8, 4, 3, 3))[0].detach().flatten(1))
    kernel.data = kernel.data.contiguous(memory_format=memory_format)
    give_gradients([kernel], 3)
    matrix.grad = kernel.grad.flatten(1)
    Muon([kernel], lr=0.1).step()
    Muon([matrix], lr=0.1).step()
    torch.testing.assert_close(kernel.flatten(1), matrix, atol=2e-3, rtol=0)


def test_a_normalised_kernel_turns_by_the_rate():
    (kernel,) = parameters((8, 4, 3, 3))
    direction = kernel.detach() / kernel.detach().norm() * 8**0.5
    give_gradients([kernel], 3)
    step = orthogonalize(kernel.grad.flatten(1)[None])[0].float().view_as(kernel)
    Muon([{"params": [kernel], "normalize": True}], lr=0.06, momentum=0.0).step()
    torch.testing.assert_close(kernel, direction - 0.06 * step, atol=1e-6, rtol=1e-5)
    for seed in range(20):
        give_gradients([kernel], seed)
        Muon([{"params": [kernel], "normalize": True}], lr=0.06).step()
    assert kernel.norm().item() == pytest.approx(8**0.5, rel=0.1)


def test_what_has_no_gradient_stays():
    ours = parameters((4, 4), (4, 4))
    before = ours[1].detach().clone()
    ours[0].grad = torch.ones(4, 4)
    Muon(ours, lr=0.1).step()
    assert torch.equal(ours[1], before)
