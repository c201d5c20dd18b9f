"""How far what should be the same is the same: logits after a conversion, losses and results of the two engines."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import markdown
from benchmarks.options import ROOT, Options
from patchlight.models.convert import from_hugging_face, from_timm, to_hugging_face, to_timm

SHAPE = {"img_size": 32, "patch_size": 8, "embed_dim": 384, "depth": 12, "num_heads": 6, "num_classes": 10}
QUICK = {**SHAPE, "embed_dim": 24, "depth": 2, "num_heads": 3}
IMAGES = 64
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
ENGINES = ("loop", "hf")
SETTINGS = {"optim.name": "adamw", "train.precision": "fp32", "train.epochs": "5"}  # what both engines can do
FEW = {"data.train_per_class": "12", "data.val_per_class": "4", "data.test_per_class": "5", "train.epochs": "2"}


def run(options: Options) -> dict[str, Any]:
    shape = options.pick(SHAPE, QUICK)
    settings = {**SETTINGS, **options.pick({}, FEW), "train.device": options.device.type}
    trained = {engine: train(settings, engine) for engine in ENGINES}
    ours, theirs = (trained[engine]["losses"] for engine in ENGINES)
    return {
        "shape": shape,
        "conversions": {name: conversions(shape, dtype) for name, dtype in PRECISIONS.items()},
        "settings": settings,
        "engines": trained,
        "loss_difference": max(abs(a / b - 1) for a, b in zip(theirs, ours, strict=True)),
    }


@torch.inference_mode()
def conversions(shape: dict[str, int], dtype: torch.dtype) -> dict[str, float]:
    """Greatest difference from the logits of a timm ViT, over its greatest logit, after one step more each."""
    import timm

    torch.manual_seed(0)
    images = torch.randn(IMAGES, 3, shape["img_size"], shape["img_size"], dtype=dtype)
    first = timm.models.VisionTransformer(**shape)
    for p in first.parameters():
        p.add_(0.1 * torch.randn_like(p))  # or the head would be zero, and norms the identity
    expected = answer(first, images)

    def difference(model: nn.Module) -> float:
        return float((answer(model, images) - expected).abs().max() / expected.abs().max())

    ours = from_timm(first)
    hugging_face = to_hugging_face(ours, tuple(map(str, range(shape["num_classes"]))))
    again = from_hugging_face(hugging_face)
    return {
        "timm to Patchlight": difference(ours),
        "to Hugging Face": difference(hugging_face),
        "back to Patchlight": difference(again),
        "back to timm": difference(to_timm(again)[0]),
    }


def answer(model: nn.Module, images: Tensor) -> Tensor:
    found = model.to(images.dtype).eval()(images)
    logits: Tensor = getattr(found, "logits", found)
    return logits


def train(settings: dict[str, str], engine: str) -> dict[str, Any]:
    """What `patchlight train quickstart` gives with this engine: each epoch's loss, test accuracy and pace."""
    words = [word for key, value in {**settings, "train.engine": engine}.items() for word in (f"--{key}", value)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        subprocess.run(
            [sys.executable, "-m", "patchlight", "train", "quickstart", *words, "--out", str(path)],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        top1 = json.loads((path / "eval.json").read_text())["top1"]
        time = json.loads((path / "environment.json").read_text())["time"]
    return {"losses": [line["train/loss"] for line in lines], "top1": top1, "images_per_s": time["images_per_s"]}


def table(result: dict[str, Any]) -> str:
    shape, found = result["shape"], result["conversions"]
    rows = [[step, *(_difference(found[name][step]) for name in PRECISIONS)] for step in found["float64"]]
    epochs = len(result["engines"]["loop"]["losses"])
    words = " ".join(f"--{key} {value}" for key, value in result["settings"].items())
    engines = [
        [f"`{engine}`", f"{run['losses'][-1]:.6f}", f"{run['top1']:.2%}", markdown.number(run["images_per_s"])]
        for engine, run in result["engines"].items()
    ]
    return "\n\n".join(
        [
            f"A timm ViT of {shape['depth']} blocks of {shape['embed_dim']}, random weights, from library to library: "
            f"the greatest difference of its logits for {IMAGES} images, over the greatest logit:",
            markdown.table(["step", *PRECISIONS], rows),
            f"`patchlight train quickstart {words}` with `--train.engine loop` and `hf`. The losses of the "
            f"{epochs} epochs differ by {result['loss_difference']:.1e} of their value at most:",
            markdown.table(["engine", "last epoch's loss", "test accuracy", "images/s"], engines),
        ]
    )


def _difference(value: float) -> str:
    return f"{value:.1e}" if value else "none, to the bit"
