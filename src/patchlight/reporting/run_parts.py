"""What the page and the README say of a run before any picture: its result, what was trained, where, and how again."""

from __future__ import annotations

import math
import shlex
from typing import Any

import numpy as np

from patchlight.reporting.embed import Part
from patchlight.reporting.facts import Facts, begin_command, resume_command
from patchlight.reporting.settings import settings
from patchlight.units import SPACE, duration, percent, short

EN = "\N{EN DASH}"


def headline(facts: Facts) -> Part:
    part: Part = {
        "top1": None,
        "validation": _validation(facts),
        "facts": key_facts(facts),
        "resume": resume_command(facts.run),
        "begin": begin_command(facts),
        "painting": _painting(facts),
        "notes": _notes(facts),
    }
    if facts.result is None:
        return part
    result = facts.result
    low, high = result["top1_ci95"]
    sizes = np.sum(result["confusion"], axis=1)
    k = len(sizes)
    return part | {
        "top1": percent(result["top1"], 1 if result["n"] < 10000 else 2),
        "interval": f"{100 * low:.1f} {EN} {percent(high, 1)}",
        "n": f"{result['n']:,}",
        "split": str(result.get("split") or "test"),
        "chance": percent(sizes.max() / max(sizes.sum(), 1), 0 if k < 50 else 1),
        "top5": percent(result["top5"], 1) if k > 5 else None,
        "mirrored": percent(mirrored["top1"], 1) if (mirrored := result.get("mirrored")) else None,
        "subset": _subset(result.get("subset_test")),
        "loss": f"{result['loss']:.3f}",
    }


def _notes(facts: Facts) -> list[str]:
    """What was odd about the images, as copies of training images among those of the test."""
    found = facts.about("data", "notes")
    return [f"{note[0].upper()}{note[1:]}." for note in found or () if isinstance(note, str) and note]


def _painting(facts: Facts) -> str | None:
    """Of masked autoencoding, which has no accuracy."""
    if facts.config.train.task != "reconstruct" or facts.selected is None:
        return None
    share, loss = facts.config.mae.mask_ratio, facts.selected.get("val/loss")
    error = (
        f": their pixels, normalised patch by patch, are missed by {loss:.3f} (mean square)" if loss is not None else ""
    )
    return f"An encoder that learned without labels, by painting {percent(share)} of each image's patches{error}."


def _subset(own: dict[str, Any] | None) -> str | None:
    """The score on the subset's own test images, which stand beside the full test set."""
    if own is None:
        return None
    low, high = own["top1_ci95"]
    return f"{percent(own['top1'], 1)} (95 % interval {100 * low:.1f} {EN} {percent(high, 1)}, {own['n']:,} images)"


def _validation(facts: Facts) -> str | None:
    row = facts.selected
    if row is None:
        return None
    score = row.get("val/top1")
    train = facts.config.train
    epochs = sum(math.ceil(stage.train.epochs) for stage in facts.config.of_stages())
    words = f"epoch {row['epoch']} of {len(facts.rows) if train.budget or train.debug else epochs}"
    return f"{percent(score, 1)} at {words}, the one kept" if score is not None else f"{words} was kept"


def key_facts(facts: Facts) -> list[tuple[str, str]]:
    """What was trained, on what, how long and where: pairs of a word and a line."""
    model = [str(facts.about("model", "name") or facts.config.model.name)]
    for key, word in (("params", "parameters"), ("flops_per_image", "FLOPs per image"), ("tokens", "tokens")):
        value = facts.number("model", key)
        model += [f"{short(value)}{SPACE}{word}"] if value is not None else []
    stem, flops = facts.number("model", "stem_flops"), facts.number("model", "flops_per_image")
    if facts.about("model", "stem") == "conv" and stem and flops:
        model += [f"{percent(stem / flops)} of the FLOPs are its convolutional stem"]
    data = [str(facts.about("data", "source") or facts.config.data.source)]
    for key, word in (("train", "training"), ("val", "validation"), ("test", "test")):
        value = facts.number("data", key)
        data += [f"{value:,.0f}{SPACE}{word}"] if value else []
    classes = facts.number("data", "classes") or len(facts.class_names)
    data += [f"{classes:,.0f}{SPACE}classes"] if classes else []
    wall, cpu, speed = (facts.number("time", key) for key in ("train_wall_s", "train_cpu_s", "images_per_s"))
    time = [duration(wall)] if wall is not None else []
    time += [f"{duration(cpu)} of CPU time"] if cpu is not None else []
    time += [f"{short(speed)}{SPACE}images/s"] if speed is not None else []
    lines = {"Model": model, "Data": data, "Training": time, "Hardware": hardware(facts)}
    return [(word, " · ".join(line)) for word, line in lines.items() if line]


def hardware(facts: Facts) -> list[str]:
    words = []
    for key in ("gpu", "cpu"):
        if name := facts.about("hardware", key):
            words.append(str(name))
    cores, memory = facts.number("hardware", "cores"), facts.number("hardware", "memory_gb")
    words += [f"{cores:,.0f}{SPACE}cores"] if cores is not None else []
    words += [f"{memory:,.0f}{SPACE}GB"] if memory is not None else []
    words += [f"on {facts.about('hardware', 'device')}"] if facts.about("hardware", "device") else []
    words += [f"{facts.about('precision')} precision"] if facts.about("precision") else []
    return words


def recipe(facts: Facts) -> Part:
    about = facts.config.about
    again = f"patchlight train {shlex.quote(str(facts.run / 'config.toml'))} --out NEW"
    return {
        "notes": [
            (word, text)
            for word, text in (("Recipe from", about.source), ("Its cost", about.cost), ("Its result", about.expect))
            if text
        ],
        "settings": settings(facts),
        "toml": facts.config.to_toml(),
        "command": str(facts.about("command") or about.command or again),
        "again": again,
    }


def environment(facts: Facts) -> list[tuple[str, str]]:
    rows = [("Patchlight", facts.about("patchlight")), ("Started", facts.about("started"))]
    rows += [("Git commit", facts.about("git_commit")), ("Threads", facts.about("threads"))]
    rows += [("Hardware", ", ".join(hardware(facts)))]
    versions = facts.about("versions")
    rows += list(versions.items()) if isinstance(versions, dict) else []
    return [(str(word), str(value)) for word, value in rows if value]
