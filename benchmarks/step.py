"""A training step of ViT-Ti/4 on 32 x 32 images: the same mathematics from four libraries.

First all in one process, with the same memory settings (`reuse_memory`) and the same batch: what the model's and the
optimizer's code cost. Then each in a process of its own with its library's defaults: what a user sees.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

from benchmarks import markdown
from benchmarks.contenders import (
    CONTENDERS,
    DEFAULTS,
    OURS,
    QUICK,
    Shape,
    installed,
    parameters,
    patchlights_choice,
    same_precision,
    step_flops,
    training_step,
)
from benchmarks.options import Options
from benchmarks.timing import Seconds, compare, interleave, sampler
from benchmarks.worker import Worker
from patchlight.machine.process import reuse_memory


def run(options: Options) -> dict[str, Any]:
    shape = options.pick(Shape(), QUICK)
    own = in_own_processes(options, shape)  # first, while this process holds no models
    shared = in_one_process(options, shape)
    references = [OURS, "Patchlight fp32", "Patchlight bf16"]
    return {
        "shape": dataclasses.asdict(shape),
        "parameters": parameters(shape),
        "flops_per_step": step_flops(shape),
        "patchlight_chose": patchlights_choice(shape, options.device),
        "one_process": compare(shared, references),
        "own_processes": compare(own, [OURS]),
    }


def in_one_process(options: Options, shape: Shape) -> Seconds:
    reuse_memory()
    calls = options.calls(cpu=5, cuda=50)
    samplers = {
        name: sampler(training_step(contender, shape, options.device), options.device, calls=calls)
        for name, contender in installed(CONTENDERS).items()
    }
    return interleave(samplers, rounds=options.rounds_or(9), warmup=options.pick(2, 1))


def in_own_processes(options: Options, shape: Shape) -> Seconds:
    calls = options.calls(cpu=5, cuda=50)
    names = options.pick(DEFAULTS, ["Hugging Face bf16", OURS])
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker(name, shape, options.device)) for name in installed(names)]
        for worker in workers:
            worker.ask(1)  # one after another: nobody may still be starting when the clock runs
        samplers = {w.name: lambda w=w: float(w.ask(calls)["seconds"]) for w in workers}
        return interleave(samplers, rounds=options.rounds_or(9), warmup=options.pick(2, 1))


def table(result: dict[str, Any]) -> str:
    batch, flops = result["shape"]["batch"], result["flops_per_step"]
    return "\n\n".join(
        [
            f"ViT-Ti/4, {result['parameters']:,} parameters, batch {batch}, {flops / 1e9:,.0f} GFLOPs a step. "
            f"Patchlight chose {result['patchlight_chose']}. Ratios: the contender's time over ours, "
            "median (least to greatest round).",
            "In one process with the same memory settings:",
            _rows(result["one_process"], batch, flops, chosen=result["patchlight_chose"].partition(",")[0]),
            "Each in its own process, with its own defaults:",
            _rows(result["own_processes"], batch, flops),
        ]
    )


def _rows(part: dict[str, Any], batch: int, flops: int, *, chosen: str = "") -> str:
    header = ["contender", "time over Patchlight's"]
    header += ["over Patchlight's in its precision, with fused attention"] if chosen else []
    rows = []
    for name, seconds in part["seconds"].items():
        row = [name, markdown.times(part["ratios"][OURS][name])]
        row += [markdown.times(part["ratios"][same_precision(name, chosen)][name])] if chosen else []
        median = seconds["median"]
        row += [markdown.milliseconds(median), markdown.number(batch / median), markdown.number(flops / median / 1e9)]
        rows.append(row)
    return markdown.table([*header, "ms/step", "images/s", "GFLOP/s"], rows)
