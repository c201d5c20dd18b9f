"""What pretrained weights are worth, and which way of training them is: plans in equal time on the same images.

The weights are `--model`, a folder or a name of a hub. Every plan trains for the same time, validation included; its
test images are read once. Images are of SIZES[0] pixels unless the plan is about sizes. Validation images are few, for
their time is part of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import markdown
from benchmarks.accuracy import train_into
from benchmarks.options import ROOT, Options
from patchlight.runs import Environment, EvalResult, Run, images_seen

RECIPE = str(ROOT / "benchmarks" / "transfer.toml")
SIZES = (56, 84, 112, 224)  # multiples of 14, the patch of DINOv2
VAL_PER_CLASS = 100
HEAD_SHARE = 0.2  # of the time, where the head is trained first


@dataclass(frozen=True)
class Plan:
    """A recipe and what is changed of it; `shares` of the time are those of its stages."""

    recipe: str = RECIPE
    settings: dict[str, str] = field(default_factory=dict)
    shares: tuple[float, ...] = ()
    img_size: int = SIZES[0]

    def all_settings(self, seconds: float, model: str) -> dict[str, str]:
        """The settings for so much time and these weights."""
        budgets = {"train.budget": f"{seconds:g}s"}
        if self.shares:
            budgets = {f"stages.{i}.train.budget": f"{share * seconds:g}s" for i, share in enumerate(self.shares, 1)}
        common = {"model.name": model, "model.img_size": str(self.img_size), "data.val_per_class": str(VAL_PER_CLASS)}
        return {**common, **budgets, **self.settings}


WHOLE = "all of it, lower rates for lower blocks"
SHORT_FINETUNE = {"augment.policy": "none", "stages.2.optim.lr": "3e-4"}
PLANS = {
    WHOLE: Plan(),
    "the same network from random weights": Plan(
        settings={"model.pretrained": "false", "optim.layer_decay": "1", "optim.lr": "5e-4"}
    ),
    "all of it at one rate": Plan(settings={"optim.layer_decay": "1", "optim.lr": "5e-5"}),
    "the last four blocks and the head": Plan(settings={"train.trainable": "last 4"}),
    "LoRA adapters of rank 8 and the head": Plan(settings={"train.trainable": "lora", "optim.lr": "1e-3"}),
    "the head alone": Plan(settings={"train.trainable": "head", "optim.lr": "1e-3"}),
    "`finetune`: the head, then all of it": Plan("finetune", {}, (HEAD_SHARE, 1 - HEAD_SHARE)),
    "the head, then all of it, without TrivialAugment, at 3e-4": Plan(
        "finetune", SHORT_FINETUNE, (HEAD_SHARE, 1 - HEAD_SHARE)
    ),
    "`vit-small8-two-stage` on 20,000 images": Plan(
        "vit-small8-two-stage", {"eval.precision": "auto"}, (HEAD_SHARE, 1 - HEAD_SHARE)
    ),
    **{f"{WHOLE}, {size} pixels": Plan(img_size=size) for size in SIZES[1:]},
}


def run(options: Options) -> dict[str, Any]:
    if not options.model:
        raise SystemExit("give the pretrained weights with --model")
    seconds = options.pick(60 * options.minutes, 4.0)
    quick = {"data.train_per_class": "20", "data.val_per_class": "4", "train.batch_size": "16"}
    quick |= {"data.image_size": "32"}
    folder = options.keep or ROOT / "runs" / "transfer"
    plans = options.pick(PLANS, {WHOLE: PLANS[WHOLE], "LoRA": Plan(settings={"train.trainable": "lora"})})
    rows = {}
    for number, (name, plan) in enumerate(plans.items()):
        path = folder / f"plan{number}"
        if not (path / "eval.json").is_file():
            settings = plan.all_settings(seconds, options.model) | options.pick({}, quick)
            train_into(path, options, plan.recipe, 0, settings)
        rows[name] = outcome(path)
    return {"source": options.source, "model": options.model, "budget_s": seconds, "rows": rows}


def outcome(path: Path) -> dict[str, Any]:
    """What a finished run folder says."""
    run = Run.open(path)
    epochs, result, environment = run.epochs(), run.read(EvalResult), run.read(Environment)
    images = images_seen(epochs)
    return {
        "img_size": environment.model.img_size,
        "flops_per_image": environment.model.flops_per_image,
        "trained": list(environment.model.trainable),
        "images": round(images),
        "epochs": images / environment.data.train,
        "val": max(row.val_top1 for row in epochs if row.val_top1 is not None),
        "top1": result.top1,
        "ci95": list(result.top1_ci95),
        "n": result.n,
        "wall_s": epochs[-1].wall_s,
    }


def table(result: dict[str, Any]) -> str:
    rows = [
        [
            name,
            row["img_size"],
            markdown.number(row["flops_per_image"] / 1e6),
            ", then ".join(f"{count:,}" for count in row["trained"]),
            f"{row['epochs']:.2f}",
            f"{row['val']:.1%}",
            f"{row['top1']:.2%} ({row['ci95'][0]:.1%} to {row['ci95'][1]:.1%})",
        ]
        for name, row in result["rows"].items()
    ]
    header = ["plan", "pixels", "MFLOPs an image", "parameters trained", "epochs", "validation", "test (95 % interval)"]
    intro = (
        f"`{result['model']}` on `{result['source']}`, {result['budget_s']:,.0f} s for each row, one seed, "
        f"{VAL_PER_CLASS} validation images of each class; of a plan with two parts the first has a fifth of the time."
    )
    return f"{intro}\n\n{markdown.table(header, rows)}"
