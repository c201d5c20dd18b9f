"""What this machine can do: the rate of large matrix products, of a ViT's own, and of 3 x 3 convolutions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import markdown
from benchmarks.options import Options
from benchmarks.timing import compare, interleave, sampler
from patchlight.machine.process import reuse_memory

Work = Callable[[], Tensor]
Make = Callable[[torch.dtype], Work]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def run(options: Options) -> dict[str, Any]:
    reuse_memory()
    return {"work": {name: measure(options, make) for name, make in work(options).items()}}


def work(options: Options) -> dict[str, Make]:
    """Each product with the way to prepare it; M x K x N is (M, K) @ (K, N)."""
    large = options.pick([1024, 2048, 4096], [64])
    if options.device.type == "cuda" and not options.quick:
        large = [4096, 8192, 16384]
    tokens = options.pick(64, 2) * 65
    products = [(n, n, n) for n in large] + [(tokens, 192, 192), (tokens, 192, 768), (tokens, 768, 192)]
    side, batch = options.pick((32, 128), (8, 2))
    found: dict[str, Make] = {
        f"matmul {m} x {k} x {n}": partial(matmul, options.device, m, k, n) for m, k, n in products
    }
    for channels in options.pick([64, 256], [8]):
        name = f"3 x 3 convolution, {channels} channels, {side} x {side}, batch {batch}"
        found[name] = partial(convolution, options.device, batch, channels, side)
    return found


def matmul(device: torch.device, m: int, k: int, n: int, dtype: torch.dtype) -> Work:
    a, b = torch.randn(m, k, device=device, dtype=dtype), torch.randn(k, n, device=device, dtype=dtype)
    return lambda: a @ b


def convolution(device: torch.device, batch: int, channels: int, side: int, dtype: torch.dtype) -> Work:
    """Channels-last, as Patchlight's are."""
    images = torch.randn(batch, channels, side, side, device=device, dtype=dtype)
    kernels = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    kernels = kernels.contiguous(memory_format=torch.channels_last)
    return lambda: F.conv2d(images, kernels, padding=1)


def measure(options: Options, make: Make) -> dict[str, Any]:
    """fp32 and bf16 in turn; rates in FLOP/s."""
    prepared = {name: make(dtype) for name, dtype in DTYPES.items()}
    with FlopCounterMode(display=False) as counter:
        prepared["fp32"]()
    flops = int(counter.get_total_flops())
    enough = 2e13 if options.device.type == "cuda" else 2e10  # FLOPs that take a fair part of a second
    calls = max(1, min(options.pick(1000, 1), round(enough / flops)))
    samplers = {name: sampler(call, options.device, calls=calls) for name, call in prepared.items()}
    found = compare(interleave(samplers, rounds=options.rounds_or(7)), ["bf16"])
    rates = {name: flops / seconds["median"] for name, seconds in found["seconds"].items()}
    return {"flops": flops, "flops_per_s": rates, **found}


def table(result: dict[str, Any]) -> str:
    rows = [
        [
            name,
            markdown.times(found["ratios"]["bf16"]["fp32"]),
            *(markdown.number(found["flops_per_s"][dtype] / 1e9) for dtype in DTYPES),
        ]
        for name, found in result["work"].items()
    ]
    return markdown.table(["work", "fp32's time over bf16's", "fp32 GFLOP/s", "bf16 GFLOP/s"], rows)
