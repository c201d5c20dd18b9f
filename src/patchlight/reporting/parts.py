"""The parts of the page: small functions from `Facts` to what the template shows, or None where there is nothing.

A part that draws also puts its figure into `slides`, by name, for `figures/*.png`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from patchlight.config import AugmentConfig
from patchlight.evaluation.metrics import wilson_interval
from patchlight.figures import charts, galleries
from patchlight.figures.style import cut
from patchlight.reporting.embed import Draw, Part, chart, data_uri, encode, overlay, picture
from patchlight.reporting.facts import Facts
from patchlight.units import percent

BY = "\N{MULTIPLICATION SIGN}"
NAME = 36  # signs of a class name under a picture
PAINTED_ROWS = (("image", "images"), ("shown", "hidden"), ("painted", "painted"))


def painted(facts: Facts, slides: dict[str, Draw]) -> Part | None:
    """Images, what was shown of them, and what the model painted."""
    if facts.painted is None:
        return None
    rows = [(word, list(facts.painted[key])) for word, key in PAINTED_ROWS]
    slides["painted"] = lambda theme: galleries.board(rows, "What the model painted", theme=theme, scale=False)
    words = "Validation images, the same with hidden patches grey, and with what the model painted there."
    return {"figure": chart(slides["painted"], words)}


def curves(facts: Facts, slides: dict[str, Draw]) -> Part | None:
    panels = [panel for panel in charts.PANELS if charts.has_panel(facts.rows, panel)]
    if not panels or facts.selected is None:
        return None
    epoch = facts.selected["epoch"]
    slides["curves"] = lambda theme: charts.curves(facts.rows, theme, epoch, panels)
    drawn = [
        chart(lambda theme, p=panel: charts.curves(facts.rows, theme, epoch, [p]), _curve_words(facts, panel))  # type: ignore[misc]
        for panel in panels
    ]
    stages = facts.config.of_stages()
    counted = ["label smoothing"] if any(stage.train.label_smoothing for stage in stages) else []
    counted += ["what the teacher says"] if facts.config.train.teacher else []
    return {
        "charts": drawn,
        "kept": epoch,
        "validated": any(row.get("val/loss") is not None for row in facts.rows),
        "harder": any(replace(stage.augment, flip="none") != AugmentConfig() for stage in stages),
        "other_loss": " and ".join(counted),
    }


def _curve_words(facts: Facts, panel: str) -> str:
    """A curve for who cannot see it: where it began and where it ended."""
    title, keys = charts.PANELS[panel]
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
    slides["per_class"] = lambda theme: charts.per_class(result["per_class"], intervals, theme, result["top1"])
    slides["confusion"] = lambda theme: charts.confusion(matrix, names, theme)
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
    slides["reliability"] = lambda theme: charts.reliability(table, ece, theme)
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
