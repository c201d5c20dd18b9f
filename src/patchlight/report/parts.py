"""The parts of the page: small functions from `Facts` to what the template shows, or None where there is nothing.

A part that draws also puts its figure into `slides`, by name, for `figures/*.png`.
"""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from patchlight.evaluation.metrics import wilson_interval
from patchlight.report import figures, galleries
from patchlight.report.facts import Facts, resume_command
from patchlight.report.settings import settings
from patchlight.report.style import STYLES, Theme, cut, svg
from patchlight.units import SPACE, duration, percent, short

BY = "\N{MULTIPLICATION SIGN}"
EN = "\N{EN DASH}"
TILE = 128  # pixels a side of a picture in the page; smaller ones are enlarged by the browser, crisply
NAME = 36  # signs of a class name under a picture
PAINTED_ROWS = (("image", "images"), ("shown", "hidden"), ("painted", "painted"))
Draw = Callable[[Theme], Figure]
Part = dict[str, Any]


def headline(facts: Facts) -> Part:
    part: Part = {
        "top1": None,
        "validation": _validation(facts),
        "facts": key_facts(facts),
        "resume": resume_command(facts.run),
        "painting": _painting(facts),
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


def _painting(facts: Facts) -> str | None:
    """Of masked autoencoding, which has no accuracy."""
    if facts.config.train.task != "reconstruct" or facts.selected is None:
        return None
    share, loss = facts.config.mae.mask_ratio, facts.selected.get("val/loss")
    error = (
        f": their pixels, normalised patch by patch, are missed by {loss:.3f} (mean square)" if loss is not None else ""
    )
    return f"An encoder that learned without labels, by painting {percent(share)} of each image's patches{error}."


def painted(facts: Facts, slides: dict[str, Draw]) -> Part | None:
    """Images, what was shown of them, and what the model painted."""
    if facts.painted is None:
        return None
    rows = [(word, list(facts.painted[key])) for word, key in PAINTED_ROWS]
    slides["painted"] = lambda theme: galleries.board(rows, "What the model painted", theme=theme, scale=False)
    words = "Validation images, the same with hidden patches grey, and with what the model painted there."
    return {"figure": chart(slides["painted"], words)}


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
    epochs = sum(stage.train.epochs for stage in facts.config.of_stages())
    words = f"epoch {row['epoch']} of {len(facts.rows) if train.budget else f'{epochs:g}'}"
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


def curves(facts: Facts, slides: dict[str, Draw]) -> Part | None:
    panels = [panel for panel in figures.PANELS if figures.has_panel(facts.rows, panel)]
    if not panels or facts.selected is None:
        return None
    epoch = facts.selected["epoch"]
    slides["curves"] = lambda theme: figures.curves(facts.rows, theme, epoch, panels)
    charts = [
        chart(lambda theme, p=panel: figures.curves(facts.rows, theme, epoch, [p]), _curve_words(facts, panel))  # type: ignore[misc]
        for panel in panels
    ]
    mixed = facts.config.augment.mixup_alpha > 0 or facts.config.augment.cutmix_alpha > 0
    return {
        "charts": charts,
        "kept": epoch,
        "validated": any(row.get("val/loss") is not None for row in facts.rows),
        "harder": mixed or facts.config.augment.policy != "none" or facts.config.augment.crop_padding > 0,
    }


def _curve_words(facts: Facts, panel: str) -> str:
    """A curve for who cannot see it: where it began and where it ended."""
    title, keys = figures.PANELS[panel]
    said = []
    for key in keys:
        values = [row[key] for row in facts.rows if row.get(key) is not None]
        if values:
            said.append(f"{key} from {values[0]:.3g} to {values[-1]:.3g}")
    return f"{title} over {len(facts.rows)} epochs: {', '.join(said)}."


def _sharing(rates: dict[str, float], rate: float) -> str:
    """The classes with just this rate, by name or, of many, by their number."""
    names = [name for name, own in rates.items() if own == rate]
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} classes"


def classes(facts: Facts, slides: dict[str, Draw]) -> Part | None:
    if facts.result is None:
        return None
    result, names, matrix = facts.result, facts.class_names, np.array(facts.result["confusion"])
    intervals = [wilson_interval(int(matrix[i, i]), int(matrix[i].sum())) for i in range(len(names))]
    slides["per_class"] = lambda theme: figures.per_class(result["per_class"], intervals, theme, result["top1"])
    slides["confusion"] = lambda theme: figures.confusion(matrix, names, theme)
    known = {name: rate for name, rate in result["per_class"].items() if rate is not None}
    low, high = min(known.values()), max(known.values())  # a test set has at least one image
    worst, best = _sharing(known, low), _sharing(known, high)
    words = f"Accuracy of each class, from {best} ({percent(high)}) to {worst} ({percent(low)})."
    return {
        "bars": chart(slides["per_class"], words),
        "matrix": chart(slides["confusion"], "Confusion matrix: true classes in rows, predicted ones in columns."),
        "worst": (worst, percent(low)) if low < high else None,
        "best": (best, percent(high)) if low < high else None,
        "confused": _most_confused(matrix, names),
        "empty": len(names) - len(known),
    }


def _most_confused(matrix: np.ndarray, names: list[str]) -> list[Part]:
    off = matrix * (1 - np.eye(len(matrix), dtype=int))
    order = np.argsort(-off, axis=None, kind="stable")[:5]
    pairs = [divmod(int(i), len(matrix)) for i in order]
    return [
        {"true": cut(names[r], NAME), "pred": cut(names[c], NAME), "times": int(off[r, c]), "of": int(matrix[r].sum())}
        for r, c in pairs
        if off[r, c]
    ]


def calibration(facts: Facts, slides: dict[str, Draw]) -> Part | None:
    if facts.result is None:
        return None
    table, ece, top1 = facts.result["reliability"], facts.result["ece"], facts.result["top1"]
    bins = [b for b in zip(table["count"], table["confidence"], table["accuracy"], strict=True) if b[0]]
    if not bins or any(value is None for b in bins for value in b):
        return None
    slides["reliability"] = lambda theme: figures.reliability(table, ece, theme)
    mean = sum(n * confidence for n, confidence, _ in bins) / sum(n for n, _, _ in bins)
    # The example is a bin in the middle: nearly sure answers are most of them, and tell least about doubt.
    doubtful = [b for b in bins if b[1] < 0.95 and b[0] >= 5]
    example = max(doubtful or bins, key=lambda b: b[0])
    low, high = facts.result["top1_ci95"]
    verdict = f"{abs(100 * (mean - top1)):.1f} points {'over' if mean > top1 else 'under'}confident"
    if low <= mean <= high:
        verdict = "a difference that chance can explain"
    return {
        "chart": chart(slides["reliability"], f"Reliability diagram; expected calibration error {percent(ece, 1)}."),
        "example": {"says": percent(example[1]), "is": percent(example[2]), "n": f"{example[0]:,}"},
        "mean": percent(mean, 1),
        "top1": percent(top1, 1),
        "verdict": verdict,
        "ece": f"{100 * ece:.1f}",
    }


def answers(facts: Facts, tiles: list[Part], slides: dict[str, Draw]) -> list[Part]:
    """The most confident mistakes, then right answers."""
    parts: list[Part] = []
    for kind in ("wrong", "right"):
        shown = [tile for tile in tiles if tile["kind"] == kind]
        if facts.samples is not None and shown:
            chosen = np.array([tile["index"] for tile in shown])
            images, labels, probs = (facts.samples[key][chosen] for key in ("images", "labels", "probs"))
            slides[f"gallery_{kind}"] = _gallery(images, labels, probs, facts.class_names)
            parts.append({"kind": kind, "tiles": shown})
    return parts


def _gallery(images: np.ndarray, labels: np.ndarray, probs: np.ndarray, names: list[str]) -> Draw:
    return lambda theme: galleries.gallery(images, labels.tolist(), probs, names, theme)


def tiles(facts: Facts) -> list[Part]:
    """Every sample as the galleries show it: the picture, what was said and how surely, and what is true."""
    if facts.samples is None:
        return []
    found = []
    for i, (image, label, probs) in enumerate(
        zip(facts.samples["images"], facts.samples["labels"], facts.samples["probs"], strict=True)
    ):
        pred = int(probs.argmax())
        found.append(
            {
                "index": i,
                "kind": "right" if pred == label else "wrong",
                "image": picture(image),
                "pred": cut(facts.class_names[pred], NAME),
                "confidence": percent(float(probs[pred])),
                "true": cut(facts.class_names[label], NAME),
                "true_confidence": percent(float(probs[label])),
            }
        )
    return found


def patches(facts: Facts, tiles: list[Part], slides: dict[str, Draw]) -> Part | None:
    if facts.samples is None or not len(facts.samples["images"]):
        return None
    given = facts.samples.get("patch_size", np.zeros(0)).ravel()
    p = int(given[0]) if len(given) else int(facts.number("model", "patch_size") or 0)
    if p < 1:
        return None
    # A right one, if there is: the least odd of the pictures.
    first = next((t["index"] for t in tiles if t["kind"] == "right"), 0)
    size = int(facts.number("model", "img_size") or 0)
    image = facts.samples["images"][first]
    if size and image.shape[:2] != (size, size):  # the model takes them at another size
        image = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
    height, width = image.shape[:2]
    if height % p or width % p:
        return None
    slides["patches"] = lambda theme: galleries.patches(image, p, theme)
    count = (height // p) * (width // p)
    tokens = facts.number("model", "tokens")
    return {
        "chart": chart(slides["patches"], f"An image of {height} {BY} {width} pixels and its {count} patches."),
        "sum": f"{height} {BY} {width} / {p}² = {count:,}",
        "numbers": f"{p} {BY} {p} {BY} 3 = {3 * p * p:,}",
        "tokens": f"{tokens:,.0f}" if tokens else None,
        "more": int(tokens - count) if tokens and tokens > count else 0,
        "stem": facts.about("model", "stem") == "conv",
    }


def attention(facts: Facts, tiles: list[Part], slides: dict[str, Draw]) -> Part | None:
    if facts.samples is None or "maps" not in facts.samples or not len(facts.samples["maps"]):
        return None
    images, maps = facts.samples["images"], facts.samples["maps"]
    title = str(facts.samples.get("map_title", "attention")).strip() or "attention"
    title = title[0].upper() + title[1:]
    captions = [f"{'✓' if t['kind'] == 'right' else '✗'} {t['pred']} · {t['confidence']}" for t in tiles]
    slides["attention"] = lambda theme: galleries.attention(images, maps, title, theme, captions)
    pairs = [{**tile, "map": overlay(image, weights)} for tile, image, weights in zip(tiles, images, maps, strict=True)]
    scale = galleries.heat(np.linspace(0, 1, 128)[None, :].repeat(8, axis=0))
    return {
        "title": title,
        "tiles": pairs,
        "scale": data_uri("png", encode(scale, "png")),
        "layer": "layer" in title.lower(),
    }


def environment(facts: Facts) -> list[tuple[str, str]]:
    rows = [("Patchlight", facts.about("patchlight")), ("Started", facts.about("started"))]
    rows += [("Git commit", facts.about("git_commit")), ("Threads", facts.about("threads"))]
    rows += [("Hardware", ", ".join(hardware(facts)))]
    versions = facts.about("versions")
    rows += list(versions.items()) if isinstance(versions, dict) else []
    return [(str(word), str(value)) for word, value in rows if value]


def chart(draw: Draw, words: str) -> Part:
    """A chart for the page: the same figure for light and for dark, its width in CSS pixels, and a text for the ear."""
    uris: Part = {theme: data_uri("svg+xml", svg(draw(theme), theme).encode()) for theme in STYLES}
    width, height = draw("light").get_size_inches() * 96
    return {**uris, "alt": words, "width": round(width), "height": round(height)}


def picture(image: np.ndarray) -> Part:
    """An image for the page. A small one keeps its pixels; a large one is made small, as nobody sees more of it."""
    small = _small(image)
    crisp = small is image
    uri = data_uri("png", encode(image, "png")) if crisp else data_uri("jpeg", encode(small, "jpeg"))
    return {"uri": uri, "crisp": crisp, "width": small.shape[1], "height": small.shape[0]}


def overlay(image: np.ndarray, weights: np.ndarray) -> Part:
    mixed = galleries.overlay(_small(image), weights, side=96)
    kind = "png" if max(image.shape[:2]) <= TILE // 2 else "jpeg"
    return {
        "uri": data_uri(kind, encode(mixed, kind)),
        "crisp": False,
        "width": mixed.shape[1],
        "height": mixed.shape[0],
    }


def _small(image: np.ndarray) -> np.ndarray:
    if max(image.shape[:2]) <= TILE:
        return image
    smaller = Image.fromarray(image)
    smaller.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    return np.asarray(smaller)


def encode(image: np.ndarray, kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, format=kind, optimize=True, quality=88)
    return out.getvalue()


def data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
