"""Inference with ViT-Ti/4: images per second in large batches, and how long one image takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks import markdown
from benchmarks.contenders import (
    CLASSES,
    CONTENDERS,
    OURS,
    QUICK,
    Contender,
    Shape,
    build,
    choose_attention,
    in_layout_of,
    installed,
    make_batch,
    precision_of,
)
from benchmarks.options import Options
from benchmarks.timing import Seconds, compare, grouped, interleave, sampler
from patchlight.data.images import ImageSet
from patchlight.evaluation.evaluate import choose_speed, predict_logits
from patchlight.machine.device import autocast
from patchlight.models import ModelCard, ModelSpec

FORWARD = [
    "timm fp32",
    "timm bf16",
    "Hugging Face fp32",
    "Hugging Face bf16",
    "vit-pytorch fp32",
    "vit-pytorch bf16",
    "Patchlight fp32",
    "Patchlight fp32, plain attention",
    "Patchlight bf16",
    "Patchlight bf16, plain attention",
    OURS,
]
PREDICT = {  # eval.precision: what `patchlight eval` does with it
    "fp32": "Patchlight predict_logits, from uint8 pixels, fp32",
    "auto": "Patchlight predict_logits, from uint8 pixels, as chosen",
}
GROUP = 20  # single images whose median counts as a round of the ratio


def run(options: Options) -> dict[str, Any]:
    large = dataclasses.replace(options.pick(Shape(), QUICK), batch=options.pick(500, 4))
    single = dataclasses.replace(large, batch=1)
    rounds = options.rounds_or(9)
    many = samplers(options, large, calls=options.calls(cpu=1, cuda=10))
    throughput = interleave(many, rounds=rounds, warmup=options.pick(2, 1))
    calls = interleave(samplers(options, single), rounds=options.pick(GROUP * rounds, GROUP), warmup=10)
    return {
        "shape": dataclasses.asdict(large),
        "precision_of_patchlight": precision_of(CONTENDERS[OURS], options.device),
        "throughput": compare(throughput, [OURS]),
        "latency": {**compare(grouped(calls, GROUP), [OURS]), "calls": percentiles(calls)},
    }


def samplers(options: Options, shape: Shape, calls: int = 1) -> dict[str, Callable[[], float]]:
    """Seconds per image."""
    device = options.device
    work = {name: forward(contender, shape, device) for name, contender in installed(FORWARD).items()}
    work |= {name: prediction(shape, device, precision) for precision, name in PREDICT.items()}
    return {name: sampler(call, device, calls=calls, items=shape.batch) for name, call in work.items()}


def forward(contender: Contender, shape: Shape, device: torch.device) -> Callable[[], object]:
    """A pass through the model in evaluation mode, from float images on the device to logits there."""
    model = build(contender, shape, device).eval()
    choose_attention(model, contender, shape.batch, device, training=False)
    images = in_layout_of(contender, make_batch(shape, device)[0])
    precision = precision_of(contender, device)

    @torch.inference_mode()
    def call() -> object:
        with autocast(precision, device):
            return model(images)

    return call


def prediction(shape: Shape, device: torch.device, asked: str) -> Callable[[], object]:
    """The whole way that `patchlight eval` goes: gather, move, normalise, model, logits back on the CPU."""
    model = build(CONTENDERS[OURS], shape, device).eval()
    precision = choose_speed(model, asked, shape.batch)
    names = tuple(str(label) for label in range(CLASSES))
    pixels = torch.randint(256, (shape.batch, 3, shape.img_size, shape.img_size), dtype=torch.uint8)
    images = ImageSet(pixels, torch.zeros(shape.batch, dtype=torch.int64), names)
    card = ModelCard(
        "deit-tiny", ModelSpec("patchlight", "deit-tiny", {}, shape.img_size, CLASSES), names, (0.5,) * 3, (0.25,) * 3
    )
    return lambda: predict_logits(model, card, images, batch_size=shape.batch, precision=precision)


def percentiles(seconds: Seconds) -> dict[str, dict[str, float]]:
    """Of single calls, in seconds."""
    return {
        name: {"median": float(np.median(times)), "p95": float(np.percentile(times, 95)), "calls": len(times)}
        for name, times in seconds.items()
    }


def table(result: dict[str, Any]) -> str:
    throughput, latency = result["throughput"], result["latency"]
    rows = [
        [
            name,
            markdown.times(throughput["ratios"][OURS][name]),
            markdown.number(1 / seconds["median"]),
            markdown.times(latency["ratios"][OURS][name]),
            markdown.milliseconds(latency["calls"][name]["median"]),
            markdown.milliseconds(latency["calls"][name]["p95"]),
        ]
        for name, seconds in throughput["seconds"].items()
    ]
    header = [
        "contender",
        f"batch {result['shape']['batch']}: time over Patchlight's",
        "images/s",
        "one image: time over Patchlight's",
        "ms, median",
        "ms, 95th percentile",
    ]
    return f"Patchlight chose {result['precision_of_patchlight']}.\n\n{markdown.table(header, rows)}"
