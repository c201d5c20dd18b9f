"""What was trained: the settings that one asks for first in words, the command, and the whole recipe."""

from __future__ import annotations

from patchlight.config import Config, ScheduleConfig, TrainConfig
from patchlight.figures.style import cut
from patchlight.reporting.facts import NAME, Facts
from patchlight.reporting.section import Content, Section
from patchlight.runs import measure_of
from patchlight.units import counted, percent

NAMED = 10  # classes, at most, whose weights are all told
SAMPLED = "of every class equally many an epoch (data.sampler balanced)"

TEMPLATE = """
<div class="two">
<div>
{% if notes %}
<dl>
{% for word, text in notes %}
<dt>{{ word }}</dt><dd>{{ text }}</dd>
{% endfor %}
</dl>
<br>
{% endif %}
<h3>To run it again</h3>
<pre><code>{{ command }}</code></pre>
{% if again != command %}
<p class="quiet">Or, with exactly this run's settings: <code>{{ again }}</code></p>
{% endif %}
</div>
<table>
<tbody>
{% for word, text in settings %}
<tr><th scope="row">{{ word }}</th><td>{{ text }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<details>
<summary>The whole recipe (config.toml)</summary>
<pre><code>{{ toml }}</code></pre>
</details>
"""


def content(facts: Facts) -> Content:
    again = f"patchlight train {facts.recipe_file} --out NEW"
    command = facts.environment.command if facts.environment else ""
    return Content(
        {
            "notes": recipe_notes(facts),
            "settings": settings(facts),
            "toml": facts.config.to_toml(),
            "command": command or facts.config.about.command or again,
            "again": again,
        }
    )


def recipe_notes(facts: Facts) -> list[tuple[str, str]]:
    """Where the recipe is from, what it costs and what is to be expected of it."""
    about = facts.config.about
    notes = [("Recipe from", about.source), ("Its cost", about.cost), ("Its result", about.expect)]
    return [(word, text) for word, text in notes if text]


def settings(facts: Facts) -> list[tuple[str, str]]:
    """Pairs of a word and a line; all other settings stand in the whole recipe."""
    c = facts.config
    weights = facts.environment.model.weights if facts.environment else None
    told = ("name", "drop_path_rate", "fused_attn", "pretrained", "revision")  # in other lines
    changes = {key: value for key, value in c.to_dict()["model"].items() if key not in told}
    rows = [
        ("Began with", f"the weights of {weights.id}" if weights is not None and weights.pretrained else ""),
        *_stages(facts),
        ("Engine", "Hugging Face's Trainer" if c.train.engine == "hf" else ""),
        ("Teacher", f"{c.train.teacher}, {c.train.distill}" if c.train.teacher else ""),
        ("Augmentation", _augmentation(c)),
        ("Regularisation", _regularisation(c)),
        ("Changed in the model", ", ".join(f"{key} {value}" for key, value in changes.items())),
        ("Kept weights", _kept(c.train.select)),
        ("Seed", str(c.train.seed)),
    ]
    return [(word, text) for word, text in rows if text]


def _kept(select: str) -> str:
    if select == "last":
        return "the last"
    measure = measure_of(select)
    return "the best by validation" + ("" if measure.name == "top1" else f": the highest {measure.words}")


def _augmentation(config: Config) -> str:
    augment = config.augment
    words = [f"crop with {augment.crop_padding} pixels of padding"] if augment.crop_padding else []
    words += [f"{augment.flip} flip"] if augment.flip != "none" else []
    words += ["resized crop"] if augment.resized_crop_scale else []
    words += [augment.policy] if augment.policy != "none" else []
    strengths = (
        ("erasing", augment.erasing_prob),
        ("mixup", augment.mixup_alpha),
        ("CutMix", augment.cutmix_alpha),
    )
    words += [f"{name} {value:g}" for name, value in strengths if value]
    return ", ".join(words) or "none"


def _regularisation(config: Config) -> str:
    words = [f"label smoothing {config.train.label_smoothing:g}"] if config.train.label_smoothing else []
    words += [f"drop path {config.model.drop_path_rate:g}"] if config.model.drop_path_rate else []
    words += [f"averaged weights (EMA {config.train.ema_decay:g})"] if config.train.ema_decay else []
    return ", ".join(words)


def _stages(facts: Facts) -> list[tuple[str, str]]:
    """What is trained, for how long and how: four rows, or of several stages a row for each."""
    stages, described = facts.config.of_stages(), []
    model = facts.environment.model if facts.environment else None
    for i, c in enumerate(stages):
        trained = f"the head and LoRA of rank {c.lora.rank}" if c.train.trainable == "lora" else c.train.trainable
        if model is not None and len(model.trainable) == len(stages):
            trained += f", {model.trainable[i]:,} of {model.params:,} parameters"
        described.append(
            [
                ("Trained", trained if c.train.trainable != "all" or len(stages) > 1 else ""),
                ("Length", f"{_length(c.train)}, {counted(c.train.batch_size, 'image')} a step"),
                ("Images", SAMPLED if c.data.sampler == "balanced" else ""),
                ("Loss", _loss(facts, c.train, i)),
                ("Optimizer", _optimizer(c)),
                ("Schedule", c.schedule.name + _warmup(c.schedule) + _momentum(c.schedule)),
            ]
        )
    if len(stages) == 1:
        return described[0]
    return [(f"Stage {i}", "; ".join(text for _, text in rows if text)) for i, rows in enumerate(described, 1)]


def _loss(facts: Facts, train: TrainConfig, stage: int) -> str:
    """The loss where it weighs classes, with the weights as far as they are recorded."""
    if train.class_weights == "none":
        return ""
    kind = "balanced" if train.class_weights == "balanced" else "as given"
    recorded = facts.environment.class_weights if facts.environment is not None else None
    weights = recorded[stage] if recorded is not None and stage < len(recorded) else None
    counts = facts.environment.data.train_per_class if facts.environment is not None else None
    if weights is None or counts is None or len(weights) != len(counts):
        return f"cross entropy, weighted by class ({kind})"
    named = sorted(zip(counts, weights, strict=True), key=lambda pair: pair[1])
    told = named if len(named) <= NAMED else [named[0], named[-1]]
    between = ", " if len(named) <= NAMED else " to "
    return f"cross entropy, weighted by class ({kind}): " + between.join(
        f"{weight:.3g} for {cut(name, NAME)}" for name, weight in told
    )


def _length(train: TrainConfig) -> str:
    if train.debug:
        return f"{counted(train.epochs, 'epoch')} of at most two steps (train.debug)"
    return train.budget or counted(train.epochs, "epoch")


def _optimizer(config: Config) -> str:
    optim = config.optim
    per = f" for batches of {optim.lr_base_size}, scaled to these" if optim.lr_base_size else ""
    decay = f"weight decay {optim.weight_decay:g}{' on all parameters' if optim.decay_all else ''}"
    words = [optim.name, f"learning rate {optim.lr:g}{per}", decay]
    words += [f"falling by {optim.layer_decay:g} with each block"] if optim.layer_decay < 1 else []
    words += [f"gradient clipped at {optim.grad_clip:g}"] if optim.grad_clip else []
    return ", ".join(words)


def _momentum(schedule: ScheduleConfig) -> str:
    return ", with a cycle of momentum" if schedule.cycle_momentum else ""


def _warmup(schedule: ScheduleConfig) -> str:
    cycles = schedule.cycles if schedule.name == "cosine_restarts" and schedule.restart_warmup else 1
    each = f" in each of {cycles} cycles" if cycles > 1 else ""
    if schedule.warmup_share is not None:
        return f", {percent(schedule.warmup_share)} of it warm-up{each}" if schedule.warmup_share else ""
    steps, epochs = schedule.warmup_steps, schedule.warmup_epochs
    length, unit = (epochs, "epoch") if steps is None else (steps, "step")
    return f" after {counted(length, unit)} of warm-up{each}" if length else ""


SECTION = Section(title="What was trained", content=content, template=TEMPLATE)
