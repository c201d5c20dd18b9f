"""How the cost of our forward and backward pass grows with tokens, width, depth and batch.

The slope of log(time) over log(size): 1 is proportional, 2 quadratic, 0 free. The slope of the FLOPs stands beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import markdown
from benchmarks.contenders import (
    CONTENDERS,
    OURS,
    Shape,
    build,
    choose_attention,
    forward_flops,
    in_layout_of,
    make_batch,
    precision_of,
)
from benchmarks.options import Options
from benchmarks.timing import interleave, sampler, spread
from patchlight.machine.device import autocast
from patchlight.machine.process import reuse_memory

HEAD_DIM = 64


def run(options: Options) -> dict[str, Any]:
    reuse_memory()
    base = options.pick(Shape(depth=6, batch=32), Shape(depth=1, batch=2))
    return {
        "base": dataclasses.asdict(base),
        "precision": precision_of(CONTENDERS[OURS], options.device),
        "axes": {axis: measure(options, shapes) for axis, shapes in axes(base, options).items()},
    }


def axes(base: Shape, options: Options) -> dict[str, dict[int, Shape]]:
    """For each quantity, its values and the shapes that have them."""
    change = dataclasses.replace
    sides = options.pick([16, 32, 48, 64, 96], [16, 32])
    widths = options.pick([64, 128, 192, 256, 384, 512], [64, 128])
    depths = options.pick([1, 2, 4, 8, 12], [1, 2])
    batches = options.pick([4, 8, 16, 32, 64, 128], [1, 2])
    return {
        "tokens": {(side // base.patch_size) ** 2 + 1: change(base, img_size=side) for side in sides},
        "width": {width: change(base, dim=width, heads=width // HEAD_DIM) for width in widths},
        "depth": {depth: change(base, depth=depth) for depth in depths},
        "batch": {batch: change(base, batch=batch) for batch in batches},
    }


def measure(options: Options, shapes: dict[int, Shape]) -> dict[str, Any]:
    samplers = {
        str(size): sampler(forward_backward(shape, options.device), options.device, calls=options.calls(cpu=3, cuda=30))
        for size, shape in shapes.items()
    }
    seconds = interleave(samplers, rounds=options.rounds_or(5))
    sizes, flops = list(shapes), [3 * forward_flops(shape) for shape in shapes.values()]
    rounds = zip(*seconds.values(), strict=True)
    return {
        "sizes": sizes,
        "seconds": [spread(times) for times in seconds.values()],
        "flops": flops,
        "slope": spread([slope(sizes, times) for times in rounds]),
        "slope_of_flops": slope(sizes, flops),
    }


def forward_backward(shape: Shape, device: torch.device) -> Callable[[], None]:
    contender = CONTENDERS[OURS]
    model = build(contender, shape, device).train()
    choose_attention(model, contender, shape.batch, device)
    images, labels = make_batch(shape, device)
    images, precision = in_layout_of(contender, images), precision_of(contender, device)

    def call() -> None:
        with autocast(precision, device):
            logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()
        model.zero_grad(set_to_none=True)

    return call


def slope(sizes: Any, costs: Any) -> float:
    """Of the line through log(cost) over log(size), by least squares."""
    return float(np.polyfit(np.log(np.asarray(sizes, dtype=float)), np.log(np.asarray(costs, dtype=float)), 1)[0])


def table(result: dict[str, Any]) -> str:
    base = result["base"]
    rows = [
        [
            axis,
            markdown.times(found["slope"]),
            f"{found['slope_of_flops']:.2f}",
            ", ".join(map(str, found["sizes"])),
            ", ".join(markdown.milliseconds(seconds["median"]) for seconds in found["seconds"]),
        ]
        for axis, found in result["axes"].items()
    ]
    intro = (
        f"Forward and backward of our ViT around width {base['dim']}, depth {base['depth']}, batch {base['batch']}, "
        f"{base['img_size']} x {base['img_size']} pixels in patches of {base['patch_size']}; {result['precision']}."
    )
    return f"{intro}\n\n{markdown.table(['of', 'slope of time', 'slope of FLOPs', 'sizes', 'ms'], rows)}"
