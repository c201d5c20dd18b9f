"""The figures of studies, in both themes: drawn, written and read back; what they show, and that names stay apart."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from made_study import LADDER, STUDIES, Planned, crowd, drawn, grid, ladder, made_run, made_study, one_seed, unfinished
from matplotlib.figure import Figure

from patchlight.figures import differences, studies
from patchlight.figures.labels import Named, name_points
from patchlight.figures.style import SERIES, STYLES, darkened, pdf, styled, svg
from patchlight.reporting.study_figures import figures_of, is_figure


def texts(figure, theme="light"):
    """The texts of the figure's SVG, which must be well-formed."""
    document = svg(figure, theme)
    assert "<script" not in document
    return ["".join(e.itertext()) for e in ET.fromstring(document).iter() if e.tag.endswith("text")]


@pytest.mark.parametrize("theme", list(STYLES))
@pytest.mark.parametrize("name", list(STUDIES))
def test_every_figure_of_every_study_is_drawn(name, theme):
    for figure in figures_of(STUDIES[name]()):
        assert texts(figure.draw(theme), theme), figure.name
        assert figure.alt.endswith(".")
        assert figure.caption
        assert is_figure(figure.name)


def test_which_figures_a_study_has():
    def names(study):
        return [figure.name for figure in figures_of(study)]

    costs = ["accuracy_time", "accuracy_flops"]
    assert names(ladder()) == ["differences", "ladder", *costs, "curves"]
    assert names(grid()) == ["differences", "over_data.train_per_class", *costs, "curves"]
    assert names(one_seed()) == ["differences", "accuracy_time", "curves"]  # all have the same FLOPs
    nothing = made_study([Planned("a"), Planned("b")], [])
    assert names(nothing) == []


def test_differences_show_the_numbers_and_what_is_seen():
    study = ladder()
    shown = texts(differences.differences(study))
    assert "Validation accuracy, difference to sgd" in shown
    assert "+8.3 (+7.7 to +9.0)" in shown
    seen = {v.name: differences.is_seen(v.gain) for v in study.variants if v.gain}
    assert seen == {name: name not in ("+ smoothing", "+ drop-path") for name in LADDER[1:]}
    with styled("light") as s:
        colours = {v.name: differences.colour_of(v.gain, s) for v in study.variants if v.gain}
    assert (colours["+ adamw"], colours["+ mixup"], colours["+ smoothing"]) == (s.green, s.orange, s.quiet)
    alone = texts(differences.differences(one_seed()))
    assert {"-1.0 (1 seed)", "points; 1 seed has no interval"} <= set(alone)


def test_an_interval_without_width_is_not_seen():
    runs = [made_run(name, seed, 0.6 + 0.1 * (name == "b")) for name in "ab" for seed in (0, 1)]
    study = made_study([Planned("a"), Planned("b")], runs, seeds=(0, 1))
    assert not differences.is_seen(study.variants[1].difference)


def test_a_step_of_a_ladder_begins_where_the_one_before_ends():
    study = ladder()
    axes = differences.ladder(study).axes[0]
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    for bar, before, v in zip(bars, study.variants, study.variants[1:], strict=False):
        assert bar == pytest.approx((before.val_mean, v.gain.mean))
    assert len(bars) == 6


def test_curves_are_over_what_the_budget_makes_equal():
    assert studies.curves(ladder()).axes[0].get_xlabel() == "epoch"
    assert studies.curves(unfinished()).axes[0].get_xlabel() == "training time in s"
    study = ladder()
    longer = replace(study.runs[0], curve=tuple(replace(p, step=p.step * 3) for p in study.runs[0].curve))
    steps = replace(study, budget_by="steps", runs=(longer, *study.runs[1:]))
    assert studies.curves(steps).axes[0].get_xlabel() == "step"


def test_the_thick_line_is_the_mean_as_far_as_all_seeds_go():
    a = (np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.2, 0.3]))
    b = (np.array([1.0, 3.0, 5.0]), np.array([0.3, 0.5, 0.9]))
    x, y = studies._mean_line([a, b])
    assert x.tolist() == [1, 2, 3]
    assert y == pytest.approx([0.2, 0.3, 0.4])  # of b at 2: 0.4
    apart = (np.array([9.0]), np.array([0.5]))
    assert studies._mean_line([a, apart])[0].tolist() == [1, 2, 3]


def test_a_run_that_was_stopped_ends_with_a_cross_and_is_not_in_the_mean():
    axes = studies.curves(unfinished()).axes[0]
    assert [line.get_marker() for line in axes.lines].count("x") == 1
    means = {line.get_label(): line.get_ydata()[-1] for line in axes.lines if not line.get_label().startswith("_")}
    low = next(v for v in unfinished().variants if v.name == "low")
    assert means["low"] == pytest.approx(low.val_mean)


def test_costs_are_logarithmic_beyond_ten_times():
    assert studies.cost(grid(), "flops").axes[0].get_xscale() == "log"  # 20 times
    assert studies.cost(grid(), "time").axes[0].get_xscale() == "linear"  # 10 times
    assert studies.cost(grid(), "flops").axes[0].get_xlabel() == "training TFLOPs (10¹²)"
    assert studies.cost(grid(), "time").axes[0].get_xlabel() == "training time in minutes"


def test_accuracy_over_a_number_has_a_line_for_each_member_and_a_dot_for_each_seed():
    study = grid()
    assert studies.numbers_of_grid(study) == ["data.train_per_class"]
    axes = studies.over_number(study, "data.train_per_class").axes[0]
    assert axes.get_xscale() == "log"
    lines = {line.get_label(): line for line in axes.lines if line.get_label() in ("vit", "resnet18")}
    assert lines["vit"].get_xdata().tolist() == [50, 250, 1000, 4500]
    assert lines["vit"].get_ydata() == pytest.approx([v.val_mean for v in study.variants if v.member == "vit"])
    dots = sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() == "o")
    assert dots == 24
    words = made_study(
        [Planned(name, point={"optim.name": name}) for name in ("sgd", "adamw")],
        [*drawn("sgd", 0.5), *drawn("adamw", 0.6)],
    )
    assert studies.numbers_of_grid(words) == []  # no numbers


def test_more_variants_than_colours_are_grey_and_numbered():
    shown = texts(studies.curves(crowd()))
    assert {"13", "14", "15"} <= set(shown)
    assert any(text.startswith("15  variant") for text in shown)
    with styled("light") as s:
        looks = studies.looks([str(i) for i in range(15)], "light", s)
    kinds = [(look.colour, look.dash) for look in looks.values()]
    assert len(set(kinds[:12])) == 12
    assert set(kinds[12:]) == {(s.quiet, "-")}
    assert [look.number for look in looks.values()][11:] == [None, 13, 14, 15]


def test_beyond_a_number_of_variants_points_are_numbered():
    shown = texts(studies.cost(crowd(), "time"))
    assert {str(n) for n in range(1, 16)} <= set(shown)
    assert any(text.startswith("1  <script>") for text in shown)


@pytest.mark.parametrize("spread", [1.0, 0.05])
def test_names_cover_neither_each_other_nor_points(spread):
    """Eight points, close together in the second case."""
    rng = np.random.default_rng(3)
    figure = Figure(figsize=(5.2, 3.5))
    axes = figure.add_subplot()
    at = rng.uniform(0, 1, (8, 2)) * spread
    axes.plot(*at.T, "o")
    axes.set(xlim=(-0.2, 1.2), ylim=(-0.2, 1.2))
    points = [Named(x, y, 0.0, f"variant {i}", "#000000") for i, (x, y) in enumerate(at.tolist())]
    boxes = name_points(figure, axes, points, STYLES["light"])
    assert len(boxes) == 8
    assert all(a.shared(b) == 0 for a, b in combinations(boxes, 2))


def test_names_stay_apart_in_a_real_figure():
    figure = studies.cost(grid(), "flops")
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 8
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_series_have_dark_colours_of_their_own():
    document = "".join(f'<path style="stroke: {colour}"/>' for colour in SERIES["light"])
    assert darkened(document) == "".join(f'<path style="stroke: {colour}"/>' for colour in SERIES["dark"])
    assert len(set(SERIES["light"])) == len(set(SERIES["dark"])) == 6


def test_a_pdf_is_the_same_each_time():
    study = one_seed()
    first, second = (pdf(differences.differences(study), "light", "what it shows") for _ in range(2))
    assert first == second
    assert first.startswith(b"%PDF")


def test_marks_in_per_cent_have_the_decimals_that_they_need():
    rates = studies.Rates()
    assert [t.replace("\xa0", " ") for t in rates.format_ticks([0.5, 0.6])] == ["50 %", "60 %"]
    assert [t.replace("\xa0", " ") for t in rates.format_ticks([0.5, 0.505, 1.02])] == ["50.0 %", "50.5 %", ""]
