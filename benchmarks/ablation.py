"""What each ingredient of a recipe is worth: validation accuracy without it, in the same time.

The same time is as many steps as it holds: the steps of all variants are timed in turns, so that a machine that is slow
for a while does not look like an ingredient. One table serves all recipes: an ingredient that a recipe does not have is
left out of its rows. What seems to be worth little is asked again: with one seed, a point can be chance.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import markdown
from benchmarks.accuracy import train_ours
from benchmarks.breakdown import trainer_of
from benchmarks.options import Options
from benchmarks.timing import Sampler, Seconds, interleave, sampler, spread
from patchlight.config import ModelConfig, load_recipe
from patchlight.data.batches import steps_per_epoch
from patchlight.data.splits import load_splits
from patchlight.errors import UsageError
from patchlight.machine.process import reuse_memory
from patchlight.models import create_model, new_spec
from patchlight.models.registry import all_arguments

WHOLE = "the whole recipe"
CLOSE = 0.01  # of accuracy: a difference that one seed does not settle

# what is taken away: the settings that do so
INGREDIENTS: dict[str, dict[str, str]] = {
    "transformer blocks (the stem alone)": {"model.depth": "0"},
    "whitening": {"model.stem_whitening": "0"},
    "LayerScale": {"model.init_values": "0"},
    "mean pooling (a CLS token)": {"model.global_pool": "token"},
    "fixed 2-d positions (learned ones)": {"model.pos_embed": "learn"},
    "stochastic depth": {"model.drop_path_rate": "0"},
    "patches left out (all of them)": {"model.patch_drop_rate": "0"},
    "Muon (AdamW for all)": {"optim.name": "adamw"},
    "Muon on the stem's kernels (AdamW)": {"optim.muon_conv_lr": "0"},
    "momentum of 0.85 (0.95)": {"optim.momentum": "0.95"},
    "weight decay": {"optim.weight_decay": "0"},
    "linear decay (cosine)": {"schedule.name": "cosine"},
    "warm-up": {"schedule.warmup_share": "0"},
    "label smoothing": {"train.label_smoothing": "0"},
    "translation": {"augment.crop_padding": "0"},
    "reflected border (black)": {"augment.crop_mode": "zero"},
    "alternating flip (random)": {"augment.flip": "random"},
    "erasing": {"augment.erasing_prob": "0"},
    "a short memory of squares, 0.95 (0.999)": {"optim.beta2": "0.999"},
    "the convolutional stem (a patch embedding)": {
        "model.stem": "patch",
        "model.stem_channels": "none",
        "model.stem_whitening": "none",
    },
    "policy": {"augment.policy": "none"},
}


def applies(recipe: str, settings: dict[str, str]) -> bool:
    """Whether they change anything of the recipe, and leave a model."""
    before, after = load_recipe(recipe), load_recipe(recipe, settings)
    shapes = [
        all_arguments(config.model.name, new_spec(config.model, img_size=32, num_classes=10).arguments)
        for config in (before, after)
    ]
    if shapes[1].get("depth") == 0 and shapes[1].get("stem") != "conv":
        return False
    try:
        create_model(after.model)
    except UsageError:
        return False
    return shapes[0] != shapes[1] or replace(before, model=ModelConfig()) != replace(after, model=ModelConfig())


def run(options: Options) -> dict[str, Any]:
    """Each variant with one seed, and with more where the first left it `CLOSE`. Only validation images are scored."""
    seconds = options.pick(60 * options.minutes, 4.0)
    recipe = (options.recipes or ("quickstart" if options.source == "digits" else "cifar10-cpu-10min",))[0]
    variants = {WHOLE: {}, **{name: found for name, found in INGREDIENTS.items() if applies(recipe, found)}}
    if options.quick:
        variants = dict(list(variants.items())[:2])
    step_s = steps_in_turns(options, recipe, variants)
    costs = {name: cost(times, step_s[WHOLE]) for name, times in step_s.items()}
    epochs = epochs_in(seconds, statistics.median(step_s[WHOLE]), options, recipe)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    asked = list(variants)
    for seed in range(options.rounds_or(2, 1)):
        for name in asked:
            length = {"train.budget": "none", "train.epochs": f"{epochs / costs[name]:.4f}", "eval.precision": "auto"}
            runs[name].append(train_ours(options, recipe, seed, variants[name] | length))
        asked = [name for name in variants if name == WHOLE or abs(gains(runs, name)[0]) <= CLOSE]
    return {
        "source": options.source,
        "recipe": recipe,
        "budget_s": seconds,
        "variants": variants,
        "step_s": step_s,
        "summary": {
            name: {
                "last": spread([accuracy(run) for run in found]),
                "gain": spread(gains(runs, name)),
                "images": spread([run["images"] for run in found]),
            }
            for name, found in runs.items()
        },
        "runs": runs,
    }


def steps_in_turns(options: Options, recipe: str, variants: dict[str, dict[str, str]]) -> Seconds:
    """Seconds of a training step of each variant, in rounds."""
    reuse_memory()
    with tempfile.TemporaryDirectory() as folder:
        samplers = {
            name: step_sampler(options, recipe, Path(folder) / str(place), settings)
            for place, (name, settings) in enumerate(variants.items())
        }
        return interleave(samplers, rounds=options.pick(15, 2))


def step_sampler(options: Options, recipe: str, path: Path, settings: dict[str, str]) -> Sampler:
    trainer, steps = trainer_of(options, recipe, path, settings), itertools.count()
    trainer.stage.train_mode()
    return sampler(
        lambda: trainer.train_step(1, next(steps) % trainer.stage.steps_per_epoch),
        options.device,
        calls=options.calls(1, 20),
    )


def cost(times: list[float], whole: list[float]) -> float:
    """How many times as long as the whole recipe's a variant's step takes: 1 unless the quartiles agree that it does
    not, for on a noisy machine two equal steps never take the same time.
    """
    found = statistics.quantiles([a / b for a, b in zip(times, whole, strict=True)], n=4, method="inclusive")
    return found[1] if found[0] > 1 or found[2] < 1 else 1.0


def epochs_in(seconds: float, step_s: float, options: Options, recipe: str) -> float:
    """Of the images of `options`; validation comes on top."""
    config = load_recipe(recipe, {"data.source": options.source})
    images = len(load_splits(config.data, config.model.img_size).train)
    return seconds / step_s / max(1, steps_per_epoch(images, config.train.batch_size, config.train.drop_last))


def accuracy(run: dict[str, Any]) -> float:
    """On the validation images, when the time was up."""
    return float(run["rows"][-1]["val_top1"])


def gains(runs: dict[str, list[dict[str, Any]]], name: str) -> list[float]:
    """Of accuracy over the whole recipe's with the same seed."""
    return [accuracy(run) - accuracy(whole) for run, whole in zip(runs[name], runs[WHOLE], strict=False)]


def table(result: dict[str, Any]) -> str:
    summary, variants = result["summary"], result["variants"]
    rows = [
        [
            name if name == WHOLE else f"without {name}",
            " ".join(f"`--{key} {value}`" for key, value in variants[name].items()),
            len(result["runs"][name]),
            markdown.percent(found["last"]),
            "" if name == WHOLE else markdown.points(found["gain"]),
            markdown.number(found["images"]["median"]),
        ]
        for name, found in sorted(summary.items(), key=lambda item: (item[0] != WHOLE, item[1]["gain"]["median"]))
    ]
    header = ["", "by", "seeds", "validation accuracy", "points", "images seen"]
    intro = f"`{result['recipe']}` on `{result['source']}`, {result['budget_s']:,.0f} s each; points are seed by seed."
    return f"{intro}\n\n{markdown.table(header, rows)}"
