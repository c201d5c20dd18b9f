"""What a map costs: milliseconds and memory of each method at three image sizes, each in a fresh process.

The networks have random weights, which cost as much as trained ones: ViT-Ti/4 at 32 pixels, ViT-S/16 at 224 and 384.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks import markdown
from benchmarks.options import ROOT, Options

# Pixels a side: the network, and how many images are explained in a call.
SHAPES: dict[int, tuple[dict[str, Any], int]] = {
    32: ({"patch_size": 4, "embed_dim": 192, "depth": 12, "num_heads": 3}, 16),
    224: ({"patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6}, 4),
    384: ({"patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6}, 1),
}
FORWARD = "forward"  # a pass alone, to compare with
LONG = 10.0  # seconds of a call, from which one call is enough


def run(options: Options) -> dict[str, Any]:
    from patchlight.explanation.methods import METHODS

    names = [FORWARD, *options.pick(list(METHODS), ["scaled-rollout", "occlusion"])]
    sizes = options.pick(list(SHAPES), [32])
    rounds = options.rounds_or(3, 1)
    return {
        "images": {str(size): options.pick(SHAPES[size][1], 2) for size in sizes},
        "rounds": rounds,
        "methods": {
            name: {str(size): in_a_process(name, size, options.pick(SHAPES[size][1], 2), rounds) for size in sizes}
            for name in names
        },
    }


def in_a_process(name: str, size: int, count: int, rounds: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.explanations", name, str(size), str(count), str(rounds)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Median seconds of a call, and the most memory in use beyond the network and its images, for each image."""
    from patchlight.explanation.methods import explain_inputs
    from patchlight.machine.process import forget_peak_memory, peak_memory_gb
    from patchlight.models import VisionTransformer

    name, size, count, rounds = sys.argv[1], *map(int, sys.argv[2:])
    torch.manual_seed(0)
    model = VisionTransformer(img_size=size, num_classes=10, **SHAPES[size][0]).eval()
    images, cpu = torch.randn(count, 3, size, size), torch.device("cpu")

    @torch.no_grad()
    def forward() -> None:
        model(images)

    def work() -> None:
        forward() if name == FORWARD else explain_inputs(model, images, method=name)

    forward()  # what is set up once
    gc.collect()
    forget_peak_memory()
    before, seconds = peak_memory_gb(cpu), []
    for _ in range(1 + rounds):  # the first is slower
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
        if seconds[0] > LONG:
            break
    peak = 1e9 * (peak_memory_gb(cpu) - before)
    print(json.dumps({"seconds": statistics.median(seconds[1:] or seconds) / count, "peak_bytes": peak / count}))


def table(result: dict[str, Any]) -> str:
    sizes = list(result["images"])
    rows = []
    for name, found in result["methods"].items():
        cells = [markdown.milliseconds(found[size]["seconds"]) for size in sizes]
        rows.append([name, *cells, *(markdown.number(found[size]["peak_bytes"] / 2**20) for size in sizes)])
    of = ", ".join(f"{count} of {size} pixels" for size, count in result["images"].items())
    intro = (
        f"On the CPU in fp32, each in a fresh process, median of {result['rounds']} calls after the first (of calls of "
        f"more than {LONG:.0f} s the first alone), images in a call: {of}. Memory is the most in use during a call, "
        "beyond the network and the images, by the number of images."
    )
    header = ["method", *(f"ms an image, {size}" for size in sizes), *(f"MiB an image, {size}" for size in sizes)]
    return f"{intro}\n\n{markdown.table(header, rows)}"


if __name__ == "__main__":
    main()
