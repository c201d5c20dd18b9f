"""All benchmarks: one module and one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import (
    ablation,
    accuracy,
    agreement,
    breakdown,
    data,
    explanations,
    formats,
    full,
    inference,
    memory,
    pretraining,
    roofline,
    scaling,
    startup,
    step,
    transfer,
)
from benchmarks.options import Options


@dataclass(frozen=True)
class Benchmark:
    about: str
    run: Callable[[Options], dict[str, Any]]  # plain JSON data
    table: Callable[[dict[str, Any]], str]  # the same as markdown


CATALOGUE = {
    "step": Benchmark("a training step of ViT-Ti/4, four libraries", step.run, step.table),
    "data": Benchmark("augmented batches per second, three libraries", data.run, data.table),
    "formats": Benchmark("folders, archives and shards read, three libraries", formats.run, formats.table),
    "inference": Benchmark("throughput and latency of ViT-Ti/4", inference.run, inference.table),
    "explanations": Benchmark("what a map costs: time and memory", explanations.run, explanations.table),
    "memory": Benchmark("peak memory of a training step", memory.run, memory.table),
    "scaling": Benchmark("our cost against tokens, width, depth and batch", scaling.run, scaling.table),
    "roofline": Benchmark("what the machine can do", roofline.run, roofline.table),
    "breakdown": Benchmark("where the time of a recipe's training step goes", breakdown.run, breakdown.table),
    "startup": Benchmark("help, imports, first step", startup.run, startup.table),
    "accuracy": Benchmark("validation accuracy within a wall-clock budget", accuracy.run, accuracy.table),
    "full": Benchmark("recipes at full length, as many as fit into the time", full.run, full.table),
    "pretraining": Benchmark(
        "what pre-training and a teacher are worth in equal time", pretraining.run, pretraining.table
    ),
    "transfer": Benchmark("what pretrained weights are worth, plan by plan", transfer.run, transfer.table),
    "agreement": Benchmark("conversions and engines: how far they agree", agreement.run, agreement.table),
    "ablation": Benchmark("the same without each ingredient of a recipe", ablation.run, ablation.table),
}
