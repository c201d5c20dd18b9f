"""Every figure, in both themes, from the smallest case to the crowded one: drawn, written, and read back."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from patchlight.evaluation import metrics
from patchlight.figures import charts, galleries, inside
from patchlight.figures.style import STYLES, cut, darkened, plain, png, svg
from patchlight.runs import Epoch, FirstBatch, Reliability
from patchlight.units import percent

THEMES = list(STYLES)


def written(figure, theme):
    """The texts of the figure as SVG, after checking that it is well-formed and draws without a complaint."""
    assert isinstance(figure, Figure)
    document = svg(figure, theme)
    root = ET.fromstring(document)
    assert "<script" not in document
    return [text for element in root.iter() if element.tag.endswith("text") for text in [("".join(element.itertext()))]]


def result(k, n=600):
    rng = np.random.default_rng(k)
    labels = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), labels] += 3
    return metrics.classification_metrics(logits, labels, names(k)).to_json()


def names(k):
    return [f"class {i}" if i % 2 else f"a class with a remarkably long name {i}" for i in range(k)]


def epoch(number, **values):
    """A row of metrics.jsonl; what is not given has no value."""
    always = {"epoch": number, "step": number, "lr": 1e-3 / number, "images_per_s": 1, "epoch_s": 1}
    return Epoch.from_json({**always, "train/loss": None, **values})


def rows(count):
    return [
        epoch(
            e,
            **{"train/loss": 2 / e, "train/top1": None if e % 2 else 1 - 0.8 / e},
            **{"val/loss": 2.2 / e, "val/top1": 1 - 0.9 / e},
        )
        for e in range(1, count + 1)
    ]


def pictures(count, side=8):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("count", [1, 2, 300])
def test_curves(theme, count):
    kept = max(1, count // 2)
    figure = charts.curves(rows(count), theme, kept)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Loss", "Top-1 accuracy", "Learning rate"]
    assert f"kept: epoch {kept}" in written(figure, theme)


def test_curves_show_what_there_is():
    only_train = [epoch(1, **{"train/loss": 1.0}), epoch(2, **{"train/loss": float("nan")})]
    assert list(charts.PANELS["loss"].values(only_train)) == ["train/loss"]
    assert charts.PANELS["accuracy"].values(only_train) == {}
    texts = written(charts.curves(only_train, panels=["loss"]), "light")
    assert "train" in texts
    assert "validation" not in texts
    assert not any("kept" in text for text in texts)
    assert "kept: epoch 2" in written(charts.curves(only_train, kept=2, panels=["loss"]), "light")


def test_curves_mark_stages_early_stops_and_what_was_mixed_or_smoothed():
    stop = {"stage": 1, "epoch": 4, "epochs": 10, "patience": 2, "measure": "accuracy"}
    staged = [
        epoch(
            e,
            **{
                "train/loss": 2 / e,
                "val/loss": 1.5 / e,
                "val/loss_smoothed": 1.8 / e,
                "train/top1": 0.3,
                "val/top1": 0.5,
            },
            **{"train/mixed": True, "stage": 1 if e <= 4 else 2},
            **({"early_stop": stop} if e == 4 else {}),
        )
        for e in range(1, 9)
    ]
    figure = charts.curves(staged, kept=8)
    texts = written(figure, "light")
    assert texts.count("stage 2") == texts.count("early stop: epoch 4") == 3  # in every panel
    assert texts.count("val., smoothed labels") == texts.count("train, mixed images") == 1
    loss = figure.axes[0]
    upright = [
        line.get_xdata()[0] for line in loss.lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2
    ]
    assert upright == [8, 4.5]
    (triangle,) = (line for line in loss.lines if line.get_marker() == "v")
    assert list(triangle.get_xdata()) == [4]
    (smoothed,) = (line for line in loss.lines if line.get_label() == "val., smoothed labels")
    assert list(smoothed.get_ydata()) == [1.8 / e for e in range(1, 9)]
    one = written(charts.curves(rows(5), kept=3), "light")
    assert not any("stage" in text or "early" in text or "mixed" in text or "smoothed" in text for text in one)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("k", [1, 10, 30, 100])
def test_confusion(theme, k):
    counts = np.array(result(k)["confusion"])
    texts = written(charts.confusion(counts, names(k), theme), theme)
    assert "predicted" in texts
    printed = sum(text == str(counts[0, 0]) for text in texts)
    assert printed >= 1 if k <= 12 else printed == 0
    # Of very many classes only some are named, so that the names do not run into each other.
    assert len(texts) < 80 + 144


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("k", [1, 10, 100])
def test_per_class(theme, k):
    out = result(k)
    out["per_class"]["empty"] = None
    intervals = [(max(0.0, (r or 0) - 0.1), min(1.0, (r or 0) + 0.1)) for r in out["per_class"].values()]
    figure = charts.per_class([charts.ClassRates("600 images", out["per_class"], intervals, out["top1"])], theme)
    texts = written(figure, theme)
    assert "empty" not in texts
    assert ("70 classes between" in texts) == (k == 100)
    assert figure.get_size_inches()[1] < 8
    assert not figure.legends


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("k", [2, 10, 100])
def test_per_class_of_two_sets_side_by_side(theme, k):
    whole = {name: (i + 0.5) / (k + 1) for i, name in enumerate(names(k))}
    part = {name: 1 - rate for name, rate in whole.items()}
    part[names(k)[0]] = None
    sets = [
        charts.ClassRates(words, rates, [(max(0, (r or 0) - 0.1), min(1, (r or 0) + 0.1)) for r in rates.values()], 0.5)
        for words, rates in (("10,000 test images", whole), ("5,000 of the subset", part))
    ]
    figure = charts.per_class(sets, theme)
    texts = written(figure, theme)
    assert {"10,000 test images", "5,000 of the subset"} <= set(texts)
    bars = figure.axes[0].patches
    shown = min(k, 30)
    assert len(bars) == 2 * shown - 1  # a class without images has none
    by_colour: dict = {}
    for bar in bars:
        by_colour.setdefault(bar.get_facecolor(), []).append(bar)
    (first, second) = by_colour.values()
    assert len(first) == shown
    for bar in second:  # below the other set's bar of its class, without touching it; the rates add up to 1
        own = round(bar.get_y() + bar.get_height() / 2)
        other = next(b for b in first if round(b.get_y() + b.get_height() / 2) == own)
        assert bar.get_y() + bar.get_height() < other.get_y()
        assert bar.get_width() + other.get_width() == pytest.approx(1)
    assert figure.get_size_inches()[1] < 10


def test_a_class_that_only_the_second_set_has_keeps_its_place():
    first, second = {"a": 0.9, "b": None, "c": None}, {"a": 0.8, "b": 0.5, "c": None}
    sets = [charts.ClassRates(words, rates, [(0, 1)] * 3) for words, rates in (("all", first), ("part", second))]
    axes = charts.per_class(sets).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a"]
    assert len(axes.patches) == 3


def test_per_class_is_sorted_and_may_lack_the_overall_line():
    rates = {"low": 0.2, "high": 0.9, "middle": 0.5}
    axes = charts.per_class([charts.ClassRates("", rates, [(0, 1)] * 3)]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["low", "middle", "high"]
    assert "dashes" not in axes.get_xlabel()


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("k", [1, 10])
def test_reliability(theme, k):
    out = result(k)
    title = f"Expected calibration error {percent(out['ece'], 1)}"
    table = Reliability.from_json(out["reliability"])
    assert title in written(charts.reliability(table, out["ece"], theme), theme)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("k", [1, 10, 100])
def test_class_balance(theme, k):
    counts = {"train": [50 + i for i in range(k)], "test": [10] * k}
    texts = written(charts.class_balance(counts, names(k), theme), theme)
    assert f"test: {10 * k:,} images" in texts
    assert written(charts.class_balance({"train": [1200] * k}, names(k), theme), theme)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("count", [1, 7])
def test_pictures(theme, count):
    images, labels = pictures(count), [i % 3 for i in range(count)]
    probs = np.tile([0.7, 0.2, 0.1], (count, 1))
    texts = written(galleries.gallery(images, labels, probs, ["a", "b", "c"], theme), theme)
    assert sum(text.startswith("✓ predicted a, 70") for text in texts) == labels.count(0)
    assert sum(text.startswith("✗ predicted a, 70") for text in texts) == count - labels.count(0)
    assert "true: b" in texts or count == 1
    assert "c" in written(galleries.sample_grid(images, labels, ["a", "b", "c"], theme), theme) or count == 1
    variants = pictures(count * 4).reshape(count, 4, 8, 8, 3)
    assert "original" in written(galleries.augmentation_preview(images, variants, theme), theme)


def test_a_wrong_tile_is_told_by_its_frame_too():
    figure = galleries.gallery(pictures(2), [0, 1], np.array([[0.9, 0.1], [0.9, 0.1]]), ["a", "b"])
    right, wrong = (axes.spines["left"] for axes in figure.axes)
    assert right.get_linestyle() != wrong.get_linestyle()
    assert right.get_edgecolor() != wrong.get_edgecolor()


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("shape", "size", "count"), [((8, 8), 8, 1), ((32, 32), 4, 64), ((64, 32), 2, 512)])
def test_patches_are_numbered_in_reading_order(theme, shape, size, count):
    image = np.zeros((*shape, 3), np.uint8)
    numbers = [int(t) for t in written(galleries.patches(image, size, theme), theme) if t.isdigit()]
    assert numbers == sorted(numbers)
    assert (numbers[0], numbers[-1]) == (1, count)
    assert len(numbers) == (count if count <= 100 else shape[0] // size + 1)


def test_patches_must_tile():
    with pytest.raises(ValueError, match="do not tile"):
        galleries.patches(np.zeros((10, 12, 3), np.uint8), 4)
    with pytest.raises(ValueError, match="do not tile"):
        galleries.patches(np.zeros((10, 12, 3), np.uint8), 0)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("count", [1, 5])
def test_attention(theme, count):
    maps = np.random.default_rng(0).random((count, 4, 4))
    texts = written(
        galleries.attention(pictures(count), maps, "attention of the CLS token", theme, ["x"] * count), theme
    )
    assert {"attention of the CLS token", "least", "most"} <= set(texts)
    assert texts.count("x") == count


def test_overlay_is_bright_where_the_map_is():
    weights = np.zeros((2, 2))
    weights[0, 1] = 3
    out = galleries.overlay(np.full((8, 8, 3), 128, np.uint8), weights, side=64)
    assert out.shape == (64, 64, 3)
    assert out.dtype == np.uint8
    assert out[:32, 32:].mean() > 1.3 * out[32:, :32].mean()
    flat = galleries.overlay(np.full((8, 8, 3), 128, np.uint8), np.ones((2, 2)), side=8)
    assert flat.shape == (8, 8, 3)
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize(
    "name", ["$x^2$", "cost $5", r"\$", r"\frac{", "a & b", "<script>alert(1)</script>", "line\nbreak\x00", "日本語"]
)
def test_a_class_name_is_only_text(name, recwarn):
    out = result(2)
    rates = dict(zip([name, "b"], out["per_class"].values(), strict=True))
    for figure in (
        charts.per_class([charts.ClassRates(name, rates, [(0, 1)] * 2)] * 2),
        charts.confusion(out["confusion"], [name, "b"]),
        galleries.gallery(pictures(1), [0], [[0.9, 0.1]], [name, "b"]),
    ):
        texts = written(figure, "light")
        assert cut(name, 13)[:6] in " ".join(texts)  # which may be on two lines
        assert png(figure, "light", dpi=50)
    assert not recwarn.list


def batch(count, side=8, mixed=True):
    """Every second image is mixed: with another class, or with its own."""
    shares = np.eye(3, dtype=np.float32)[np.arange(count) % 3]
    shares[2::4] = 0.7 * shares[2::4] + 0.3 * np.roll(shares[2::4], 1, axis=1)
    return FirstBatch(
        images=pictures(count, side),
        labels=np.arange(count) % 3,
        targets=shares if mixed else np.eye(3)[np.arange(count) % 3],
        mixed=(np.arange(count) % 2 == 0) & mixed,
    )


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("count", [1, 3, 32])
def test_a_batch_shows_each_label_and_its_shares(theme, count):
    figure = galleries.batch(batch(count), ["cat", "dog", "frog"], theme)
    assert len(figure.axes[0].images) == count
    texts = " ".join(written(figure, theme))
    assert "cat" in texts
    assert "+ cat" in texts
    if count > 2:
        assert "0.70 frog" in texts
        assert "+ 0.30 cat" in texts


def test_the_label_of_an_image_that_is_trained_on():
    names = ["cat", "dog", "frog"]
    assert galleries.batch_labels(batch(4), names) == ["cat\n+ cat", "dog", "0.70 frog\n+ 0.30 cat", "cat"]
    assert galleries.batch_labels(batch(3, mixed=False), names) == names


def test_cut_keeps_both_ends():
    assert cut("short", 20) == "short"
    assert cut("a class with a long name 7", 12) == "a class…e 7"
    assert cut("a class with a long name 7", 12) != cut("a class with a long name 8", 12)
    assert plain("$5") == r"\$5"


@pytest.mark.parametrize("theme", THEMES)
def test_backgrounds(theme):
    figure = charts.curves(rows(3), theme)
    clear = Image.open(io.BytesIO(png(figure, theme, dpi=40, opaque=False)))
    assert clear.getpixel((0, 0))[3] == 0
    paper = Image.open(io.BytesIO(png(figure, theme, dpi=40))).convert("RGB")
    assert paper.getpixel((0, 0)) == tuple(int(STYLES[theme].paper[i : i + 2], 16) for i in (1, 3, 5))


def test_equal_figures_give_equal_bytes():
    one, two = (svg(charts.curves(rows(5)), "light") for _ in range(2))
    assert one == two
    assert png(charts.curves(rows(5)), "light", 50) == png(charts.curves(rows(5)), "light", 50)


def test_text_can_be_read_on_its_paper():
    def luminance(colour):
        values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    for style in STYLES.values():
        for colour in (style.ink, style.quiet, style.blue, style.orange, style.green):
            dark, light = sorted([luminance(colour), luminance(style.paper)])
            assert (light + 0.05) / (dark + 0.05) >= 4.3, colour  # WCAG asks 4.5 of text and 3 of graphics


def test_nothing_stays_set_and_pyplot_stays_out(caplog):
    before = dict(mpl.rcParams)
    with caplog.at_level(logging.WARNING):
        svg(charts.curves(rows(2), "dark"), "dark")
    assert dict(mpl.rcParams) == before
    assert not caplog.records
    code = "import sys, patchlight.reporting.page; assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_svg_needs_nothing_from_outside():
    document = svg(galleries.patches(pictures(1)[0], 4), "light")
    assert not re.search(r'(?:href|src)="(?!data:|#)', document)


@pytest.mark.parametrize(
    "draw",
    [
        lambda theme: charts.curves(rows(5), theme, 3),
        lambda theme: charts.per_class(
            [charts.ClassRates("images", {"a": 0.5, "b": 0.9}, [(0.4, 0.6), (0.8, 0.95)], 0.7)] * 2, theme
        ),
        lambda theme: charts.reliability(Reliability.from_json(result(5)["reliability"]), 0.1, theme),
        lambda theme: inside.attention_entropy(np.full((4, 3), 2.0), 17, theme),
    ],
    ids=["curves", "per_class", "reliability", "entropy"],
)
def test_a_light_chart_is_darkened_without_drawing_it_again(draw):
    def named_by_place(document):
        """Marks, clips and hatches have names made of what they look like."""
        names: dict[str, str] = {}
        return re.sub(r"\b[mph][0-9a-f]{10}\b", lambda found: names.setdefault(found[0], str(len(names))), document)

    light, dark = (svg(draw(theme), theme) for theme in ("light", "dark"))
    assert named_by_place(darkened(light)) == named_by_place(dark) != named_by_place(light)
