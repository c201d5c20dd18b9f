"""The settings of a run as the report tells them: those that one asks for first, in words."""

from __future__ import annotations

from patchlight.config import ScheduleConfig
from patchlight.reporting.facts import Facts
from patchlight.units import percent


def _warmup(schedule: ScheduleConfig) -> str:
    if schedule.warmup_share is not None:
        return f", {percent(schedule.warmup_share)} of it warm-up" if schedule.warmup_share else ""
    steps, epochs = schedule.warmup_steps, schedule.warmup_epochs
    length, unit = (epochs, "epoch") if steps is None else (steps, "step")
    return f" after {length:g} {unit}{'' if length == 1 else 's'} of warm-up" if length else ""


def _stages(facts: Facts) -> list[tuple[str, str]]:
    """What is trained for how long and how: in rows, or of several stages in a row for each."""
    stages, found = facts.config.of_stages(), []
    counts, total = facts.about("model", "trainable"), facts.number("model", "params")
    for i, c in enumerate(stages):
        optim = f"{c.optim.name}, learning rate {c.optim.lr:g}, weight decay {c.optim.weight_decay:g}"
        optim += f", falling by {c.optim.layer_decay:g} with each block" if c.optim.layer_decay < 1 else ""
        optim += f", gradient clipped at {c.optim.grad_clip:g}" if c.optim.grad_clip else ""
        length = f"{c.train.budget or f'{c.train.epochs:g} epochs'}, {c.train.batch_size:,} images a step"
        trained = f"the head and LoRA of rank {c.lora.rank}" if c.train.trainable == "lora" else c.train.trainable
        if isinstance(counts, list) and len(counts) == len(stages) and total is not None:
            trained += f", {counts[i]:,} of {total:,.0f} parameters"
        found.append(
            [
                ("Trained", trained if c.train.trainable != "all" or len(stages) > 1 else ""),
                ("Length", length),
                ("Optimizer", optim),
                ("Schedule", c.schedule.name + _warmup(c.schedule)),
            ]
        )
    if len(stages) == 1:
        return found[0]
    return [(f"Stage {i}", "; ".join(text for _, text in rows)) for i, rows in enumerate(found, 1)]


def settings(facts: Facts) -> list[tuple[str, str]]:
    """The settings that one asks for first; the rest stands in the whole recipe."""
    c = facts.config
    augment = [f"crop with {c.augment.crop_padding} pixels of padding"] if c.augment.crop_padding else []
    augment += [f"{c.augment.flip} flip"] if c.augment.flip != "none" else []
    augment += ["resized crop"] if c.augment.resized_crop_scale else []
    augment += [c.augment.policy] if c.augment.policy != "none" else []
    for name, value in (
        ("erasing", c.augment.erasing_prob),
        ("mixup", c.augment.mixup_alpha),
        ("CutMix", c.augment.cutmix_alpha),
    ):
        augment += [f"{name} {value:g}"] if value else []
    regular = [f"label smoothing {c.train.label_smoothing:g}"] if c.train.label_smoothing else []
    regular += [f"drop path {c.model.drop_path_rate:g}"] if c.model.drop_path_rate else []
    regular += [f"averaged weights (EMA {c.train.ema_decay:g})"] if c.train.ema_decay else []
    elsewhere = ("name", "drop_path_rate", "fused_attn", "pretrained", "revision")
    changes = {k: v for k, v in c.to_dict()["model"].items() if k not in elsewhere}
    weights = facts.about("model", "weights")
    has_begun = isinstance(weights, dict) and "id" in weights and weights.get("pretrained", True)
    rows = [
        ("Began with", f"the weights of {weights['id']}" if has_begun else ""),
        *_stages(facts),
        ("Engine", "Hugging Face's Trainer" if c.train.engine == "hf" else ""),
        ("Teacher", f"{c.train.teacher}, {c.train.distill}" if c.train.teacher else ""),
        ("Augmentation", ", ".join(augment) or "none"),
        ("Regularisation", ", ".join(regular)),
        ("Changed in the model", ", ".join(f"{key} {value}" for key, value in changes.items())),
        ("Kept weights", "the best by validation" if c.train.select == "best" else "the last"),
        ("Seed", str(c.train.seed)),
    ]
    return [(word, text) for word, text in rows if text]
