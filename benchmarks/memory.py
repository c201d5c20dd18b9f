"""The peak memory of training ViT-Ti/4: each contender in a fresh process, beyond what its imports take."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks import markdown
from benchmarks.contenders import DEFAULTS, OURS, QUICK, Shape, installed
from benchmarks.options import Options
from benchmarks.timing import Seconds, ratios, spread
from benchmarks.worker import Worker

STEPS = 4  # the optimizer's state is there after the first; the others show what the allocator keeps


def run(options: Options) -> dict[str, Any]:
    shape = options.pick(Shape(), QUICK)
    names = [*installed(options.pick([*DEFAULTS, "Patchlight fp32"], ["timm bf16", OURS]))]
    peaks: Seconds = {name: [] for name in names}  # bytes here
    for _ in range(options.rounds_or(3, 1)):
        for name in names:
            with Worker(name, shape, options.device) as worker:
                peaks[name].append(worker.ask(STEPS)["peak_bytes"])
    return {
        "shape": dataclasses.asdict(shape),
        "steps": STEPS,
        "ratios": {OURS: ratios(peaks, OURS)},
        "bytes": {name: {**spread(values), "rounds": values} for name, values in peaks.items()},
    }


def table(result: dict[str, Any]) -> str:
    rows = [
        [name, markdown.times(result["ratios"][OURS][name]), markdown.number(peak["median"] / 2**20)]
        for name, peak in result["bytes"].items()
    ]
    intro = (
        f"ViT-Ti/4, batch {result['shape']['batch']}, {result['steps']} steps, each in a fresh process: the most "
        "memory in use beyond that after the imports."
    )
    return f"{intro}\n\n{markdown.table(['contender', 'over Patchlight', 'MiB'], rows)}"
