"""What the page and the README say of a run before any picture: its result, what was trained, where and how long."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from patchlight.evaluation.metrics import balanced_accuracy
from patchlight.reporting.facts import Facts
from patchlight.runs import Environment, EvalResult, Metrics, Score, measure_of, tells_more
from patchlight.units import SPACE, counted, duration, percent, short

EN = "\N{EN DASH}"
DOT = " · "


@dataclass(frozen=True)
class ScoreWords:
    """The test result in words."""

    top1: str
    interval: str
    images: str  # how many: "2,000 images"
    split: str
    commonest: str  # what always naming the commonest class scores
    balanced: str | None  # mean accuracy of the classes, where they are uneven
    top5: str | None
    mirrored: str | None
    subset: str | None  # the score on the subset's own test images, beside the full test set
    loss: str


@dataclass(frozen=True)
class Headline:
    """The head of the page."""

    score: ScoreWords | None
    reconstruction: str | None  # of masked autoencoding, which has no accuracy
    untested: str | None  # of a run that was to read no test image
    validation: str | None
    facts: list[tuple[str, str]]  # a word and a line
    # What was odd about the images, as copies of training images among those of the test, and what the page lacks.
    notes: list[str]


def headline(facts: Facts) -> Headline:
    notes = facts.environment.data.notes if facts.environment else ()
    notes += facts.result.unexplained or () if facts.result else ()
    notes += facts.left_out
    return Headline(
        score=None if facts.result is None else score_words(facts.result),
        reconstruction=_reconstruction(facts),
        untested=_untested(facts),
        validation=_validation(facts),
        facts=key_facts(facts),
        notes=[f"{note[0].upper()}{note[1:]}." for note in notes if note],
    )


def score_words(result: EvalResult) -> ScoreWords:
    low, high = result.top1_ci95
    sizes = np.sum(result.confusion, axis=1)
    classes = len(sizes)
    return ScoreWords(
        top1=percent(result.top1, 1 if result.n < 10000 else 2),
        interval=f"{100 * low:.1f} {EN} {percent(high, 1)}",
        images=counted(result.n, "image"),
        split=result.split,
        commonest=percent(sizes.max() / max(sizes.sum(), 1), 0 if classes < 50 else 1),
        balanced=percent(balanced_accuracy(result.confusion), 1) if tells_more(result.confusion) else None,
        top5=percent(result.top5, 1) if classes > 5 else None,
        mirrored=percent(result.mirrored.top1, 1) if result.mirrored else None,
        subset=_subset(result.subset_test) if result.subset_test else None,
        loss=f"{result.loss:.3f}",
    )


def _subset(score: Metrics | Score) -> str:
    low, high = score.top1_ci95
    images = f", {counted(score.n, 'image')}" if score.n is not None else ""
    return f"{percent(score.top1, 1)} (95 % interval {100 * low:.1f} {EN} {percent(high, 1)}{images})"


def _reconstruction(facts: Facts) -> str | None:
    if facts.config.train.task != "reconstruct" or facts.kept is None:
        return None
    hidden, loss = percent(facts.config.mae.mask_ratio), facts.kept.val_loss
    error = (
        "" if loss is None else f" The mean squared error of their pixels, normalised patch by patch, is {loss:.3f}."
    )
    task = f"by reconstructing the {hidden} of each image's patches that were hidden"
    return f"An encoder that learned without labels, {task}.{error}"


def _untested(facts: Facts) -> str | None:
    if facts.validated is None:
        return None
    unread = "The test images were not read (eval.test = false)."
    result = facts.validated
    if result.top1 is None or result.top1_ci95 is None or result.n is None:
        return f"There are no validation images. {unread}"
    low, high = result.top1_ci95
    return (
        f"{percent(result.top1, 1)} validation accuracy on {counted(result.n, 'image')} (95 % interval "
        f"{100 * low:.1f} {EN} {percent(high, 1)}), which chose the weights. {unread}"
    )


def _validation(facts: Facts) -> str | None:
    kept, train = facts.kept, facts.config.train
    if kept is None:
        return None
    ended = {row.early_stop.stage or 1: row.early_stop.epoch for row in facts.epochs if row.early_stop is not None}
    stages = facts.config.of_stages()
    planned = sum(ended.get(number, math.ceil(stage.train.epochs)) for number, stage in enumerate(stages, 1))
    timed = train.debug or any(stage.train.budget for stage in stages)
    words = f"epoch {kept.epoch} of {len(facts.epochs) if timed else planned}"
    if kept.val_top1 is None:
        return f"{words} was kept"
    measure, score = measure_of(train.select), percent(kept.val_top1, 1)
    selected = measure.of(kept)
    if measure.name != "top1" and selected is not None:
        score = f"{measure.words} {percent(selected, 1)}, accuracy {score}"
    return f"{score} at {words}, the one kept"


def early_stops(facts: Facts) -> list[str]:
    """Of the training or of its stages, which of them ended early, and why."""
    words = [row.early_stop.in_words for row in facts.epochs if row.early_stop is not None]
    return [f"{text[0].upper()}{text[1:]}" for text in words]


def key_facts(facts: Facts) -> list[tuple[str, str]]:
    """What was trained, on what, how long and where: pairs of a word and a line."""
    environment = facts.environment
    if environment is None:
        classes = [f"{len(facts.class_names):,}{SPACE}classes"] if facts.class_names else []
        return [("Model", facts.config.model.name), ("Data", DOT.join([facts.config.data.source, *classes]))]
    lines = [("Model", _model(environment)), ("Data", _data(environment))]
    if (time := environment.time) is not None:
        speed = f"{short(time.images_per_s)}{SPACE}images/s"
        words = [duration(time.train_wall_s), f"{duration(time.train_cpu_s)} of CPU time", speed]
        lines.append(("Training", DOT.join(words)))
    lines += [("Early stop", text) for text in early_stops(facts)]
    return [*lines, ("Hardware", DOT.join(hardware(environment)))]


def _model(environment: Environment) -> str:
    model = environment.model
    words = [
        model.name,
        f"{short(model.params)}{SPACE}parameters",
        f"{short(model.flops_per_image)}{SPACE}FLOPs per image",
    ]
    words += [f"{model.tokens:,}{SPACE}tokens"] if model.tokens is not None else []
    if model.stem == "conv" and model.stem_flops and model.flops_per_image:
        words += [f"{percent(model.stem_flops / model.flops_per_image)} of the FLOPs are its convolutional stem"]
    return DOT.join(words)


def _data(environment: Environment) -> str:
    data = environment.data
    counts = (
        (data.train, "training"),
        (data.val, "validation"),
        (data.subset_test, "subset test"),
        (data.test, "test"),
        (data.classes, "classes"),
    )
    return DOT.join([data.source, *(f"{count:,}{SPACE}{word}" for count, word in counts if count)])


def hardware(environment: Environment) -> list[str]:
    """Processors, cores, memory and precision."""
    machine = environment.hardware
    words = [name for name in (machine.gpu, machine.cpu) if name]
    words += [f"{machine.cores:,}{SPACE}cores"] if machine.cores is not None else []
    words += [f"{machine.memory_gb:,.0f}{SPACE}GB"] if machine.memory_gb is not None else []
    return [*words, f"on {machine.device}", f"{environment.precision} precision"]
