"""The parts of the page that look inside the model: relevance, attention to explore, heads, positions, faithfulness."""

from __future__ import annotations

import base64
import functools
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from patchlight.figures import galleries, inside
from patchlight.figures.style import Theme, cut
from patchlight.reporting.embed import Draw, Part, chart, data_uri, encode, overlay, picture
from patchlight.reporting.facts import Facts
from patchlight.units import percent

# The measures that the page shows: name, heading, and whether low or high is true.
MEASURES = (
    ("deletion mean", "deletion", "low"),
    ("insertion mean", "insertion", "high"),
    ("deletion tokens", "tokens deleted", "low"),
    ("insertion tokens", "tokens inserted", "high"),
    ("positive", "positive", "low"),
    ("negative", "negative", "high"),
    ("infidelity", "infidelity", "low"),
    ("sensitivity", "sensitivity", "low"),
    ("randomized", "random model", "low"),
    ("other class", "other class", ""),
    ("pointing", "pointing", "high"),
)
CONTROLS = ("random", "centre")
LAYERS_SHOWN, HEADS_SHOWN = 6, 8


def relevance(facts: Facts, tiles: list[Part]) -> list[Part]:
    """Of each mistake the picture, the relevance for what was said and that for what is true."""
    if facts.insight is None or facts.samples is None:
        return []
    images, maps = facts.samples["images"], facts.insight["relevance"]
    return [
        {**tile, "said_map": overlay(images[i], maps[i, 0]), "true_map": overlay(images[i], maps[i, 1])}
        for tile in tiles
        if tile["kind"] == "wrong" and (i := tile["index"]) is not None
    ]


def explorer(facts: Facts, tiles: list[Part]) -> Part | None:
    """Attention from patch to patch, for the page's script: base64 of (L, H, N, N) bytes for each image."""
    if facts.insight is None:
        return None
    attention = facts.insight["attention"]
    layers, heads = attention.shape[1:3]
    images = [
        {"tile": tiles[i], "data": base64.b64encode(np.ascontiguousarray(found).tobytes()).decode("ascii")}
        for i, found in zip(facts.insight["explored"].tolist(), attention, strict=True)
    ]
    rows, columns = facts.insight["relevance"].shape[2:]
    palette = galleries.heat(np.linspace(0, 1, 256)).tolist()
    pooled = facts.insight.get("pooled")
    if pooled is not None:
        for image, found in zip(images, pooled, strict=False):
            image["pooled"] = base64.b64encode(np.ascontiguousarray(found).tobytes()).decode("ascii")
    return {
        "images": images,
        "layers": layers,
        "heads": heads,
        "rows": rows,
        "columns": columns,
        "palette": palette,
        "pooled_heads": 0 if pooled is None else pooled.shape[2],
    }


def layers(facts: Facts, tiles: list[Part], slides: dict[str, Draw]) -> list[Part]:
    """What the pooled token reads in each layer, and in the last one by each head, of the first image that is explored
    and of the last: a mistake, and a right answer. The figure has heads of other layers, too.
    """
    if facts.insight is None or facts.samples is None or "pooled" not in facts.insight:
        return []
    pooled, explored = facts.insight["pooled"], facts.insight["explored"].tolist()
    found = []
    for place in sorted({0, len(explored) - 1}):
        tile, image = tiles[explored[place]], facts.samples["images"][explored[place]]
        name = f"layers_{tile['kind']}"
        if name in slides:
            continue
        said = tile["pred"] + (f"\ntrue: {tile['true']}" if tile["kind"] == "wrong" else "")
        slides[name] = functools.partial(_layer_board, image, pooled[place] / 255, said)
        maps = pooled[place] / 255
        by_layer = [{"name": f"layer {i + 1}", "map": overlay(image, maps[i].mean(axis=0))} for i in some(len(maps))]
        by_head = [
            {"name": f"head {i + 1}", "map": overlay(image, one)} for i, one in enumerate(maps[-1][:HEADS_SHOWN])
        ]
        heads = by_head if len(by_head) > 1 else []
        found.append({"tile": tile, "layers": by_layer, "heads": heads, "drawn": _drawn(*maps.shape[:2])})
    return found


def _drawn(depth: int, heads: int) -> str:
    """Of so many layers and heads those that a board has."""
    layers = f"{len(some(depth))} of {depth}" if depth > LAYERS_SHOWN else "all"
    return f"{layers} layers with {f'{HEADS_SHOWN} of {heads}' if heads > HEADS_SHOWN else 'all'} heads"


def some(depth: int) -> list[int]:
    """Of so many layers a few, evenly, the first and the last among them."""
    return np.unique(np.linspace(0, depth - 1, min(depth, LAYERS_SHOWN)).round().astype(int)).tolist()


def _layer_board(image: np.ndarray, pooled: np.ndarray, said: str, theme: Theme) -> Figure:
    """Maps (L, H, r, c) in columns of layers, of most LAYERS_SHOWN, and rows of heads after their mean."""
    chosen, heads = some(len(pooled)), pooled.shape[1]
    rows: list[tuple[str, list[np.ndarray | None]]]
    rows = [("mean of the heads", [image, *(galleries.overlay(image, pooled[i].mean(axis=0)) for i in chosen)])]
    rows += [
        (f"head {h + 1}", [None, *(galleries.overlay(image, pooled[i, h]) for i in chosen)])
        for h in range(min(heads, HEADS_SHOWN) if heads > 1 else 0)
    ]
    captions = [said, *(f"layer {i + 1}" for i in chosen)]
    return galleries.board(rows, "What the answer read, layer by layer", captions, theme)


def movie(facts: Facts) -> Part | None:
    """Maps over the epochs, for the page's script: base64 of (E, r, c) bytes for each image, each map stretched."""
    found = facts.snapshots
    if found is None or len(found["epochs"]) < 2:
        return None
    maps = found["maps"] - found["maps"].min(axis=(2, 3), keepdims=True)
    maps = (255 * maps / np.maximum(maps.max(axis=(2, 3), keepdims=True), 1e-12)).round().astype(np.uint8)
    names = facts.class_names or [str(i) for i in range(found["probs"].shape[2])]
    images = []
    for i, label in enumerate(found["labels"].tolist()):
        images.append(
            {
                "image": picture(found["images"][i]),
                "name": cut(names[label], 18),
                "data": base64.b64encode(np.ascontiguousarray(maps[:, i]).tobytes()).decode("ascii"),
                "probs": [percent(float(p)) for p in found["probs"][:, i, label]],
            }
        )
    rows, columns = found["maps"].shape[2:]
    palette = galleries.heat(np.linspace(0, 1, 256)).tolist()
    return {
        "images": images,
        "epochs": found["epochs"].tolist(),
        "rows": rows,
        "columns": columns,
        "palette": palette,
        "method": str(found.get("method", "chefer")),
    }


def heads(facts: Facts, slides: dict[str, Draw]) -> Part | None:
    """How far and how widely heads look, what the first filters are and how alike positions are."""
    if facts.insight is None:
        return None
    insight = facts.insight
    tokens = int(facts.number("model", "tokens") or insight["attention"].shape[-1])
    slides["attention_distance"] = lambda theme: inside.attention_distance(insight["distance"], theme)
    slides["attention_entropy"] = lambda theme: inside.attention_entropy(insight["entropy"], tokens, theme)
    found: Part = {
        "distance": chart(slides["attention_distance"], "Mean attention distance of each head over the layers."),
        "entropy": chart(slides["attention_entropy"], "Attention entropy of each head over the layers."),
        "filters": [picture(filter_.repeat(4, 0).repeat(4, 1)) for filter_ in insight["filters"]],
        "positions": None,
        "stem": facts.about("model", "stem") == "conv",
    }
    if "positions" in insight:
        slides["positions"] = lambda theme: inside.position_similarity(insight["positions"], theme)
        found["positions"] = chart(slides["positions"], "Cosine similarity between position embeddings.")
    return found


def faithfulness(facts: Facts) -> Part | None:
    """The table of `patchlight explain --faithfulness`; a cell is marked where it is not better than both controls."""
    table = facts.faithfulness
    if table is None:
        return None
    rows = table["rows"]
    shown = [(key, word, better) for key, word, better in MEASURES if key in rows[0]["scores"]]
    controls = [row for row in rows if row["method"] in CONTROLS]
    return {
        "n": f"{table['n']:,}",
        "heads": [{"word": word, "better": better} for _, word, better in shown],
        "rows": [
            {
                "method": row["method"],
                "control": row["method"] in CONTROLS,
                "blind": not row.get("by_class", True),
                "cells": [_cell(row, controls, key, better) for key, _, better in shown],
                "ms": f"{row['ms']:.2f}",
            }
            for row in rows
        ],
    }


def _cell(row: dict[str, Any], controls: list[dict[str, Any]], key: str, better: str) -> Part:
    """A measure with its interval, and whether it beats the controls': their intervals do not reach its own."""
    score = row["scores"][key]
    compared = better and key not in ("sensitivity", "randomized") and row not in controls and controls
    others = [control["scores"][key] for control in controls]
    beats = all(score["high"] < o["low"] if better == "low" else score["low"] > o["high"] for o in others)
    return {
        "mean": f"{round(score['mean'], 2) + 0.0:.2f}",  # no minus sign before a zero
        "interval": f"{score['low']:.2f} to {score['high']:.2f}",
        "verdict": ("beats" if beats else "fails") if compared else "",
    }


def colour_scale() -> str:
    """The colours of all maps, from least to most, as an image."""
    return data_uri("png", encode(galleries.heat(np.linspace(0, 1, 128)[None, :].repeat(8, axis=0)), "png"))
