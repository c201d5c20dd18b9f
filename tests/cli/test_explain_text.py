"""The table of faithfulness in a terminal."""

from __future__ import annotations

import pytest

from patchlight.cli.explain_text import FURTHER, LEGENDS, REMOVAL, WIDTH, faithfulness_table
from patchlight.runs import Against, Faithfulness, Interval, MethodScores

TESTED = "each method against each control"


def cell(mean: float, low: float | None = None, high: float | None = None, **better: bool) -> Interval:
    against = {name: Against(difference=0.1, p=0.01, better=value) for name, value in better.items()}
    return Interval(mean=mean, low=low, high=high, against=against or None)


def row(method: str, by_class: bool = True, **scores: Interval) -> MethodScores:
    named = {name.replace("_", " "): score for name, score in scores.items()}
    return MethodScores(method=method, by_class=by_class, ms=1.234, ratio=2.0, scores=named)


def made(n: int = 500, **fields) -> Faithfulness:
    rows = (
        row("random", False, deletion_mean=cell(0.4, 0.35, 0.46), randomized=cell(1, 1, 1)),
        row(
            "chefer",
            deletion_mean=cell(0.35, 0.31, 0.38, random=True, centre=True),
            randomized=cell(-0.004, -0.12, 0.034),
        ),
        row(
            "rollout:heads=max",
            False,
            deletion_mean=cell(0.45, 0.41, 0.499, random=True, centre=False),
            randomized=cell(0.105, 0.1, 0.11),
        ),
        row("centre", False, deletion_mean=cell(10.2, 9.96, 10.4), randomized=cell(1, 1, 1)),
    )
    return Faithfulness(n=n, rows=rows, **fields)


def line(text: str, start: str, after: str = "") -> str:
    return next(each for each in text[text.index(after) :].split("\n") if each.startswith(start))


def test_intervals_and_marks():
    text = faithfulness_table(made(target="the class 'cat'", tested=TESTED))
    assert text.startswith("500 images, for the class 'cat'\n")
    assert line(text, "chefer") == "chefer                          .35 .31-.38"
    assert line(text, "rollout") == "rollout:heads=max (blind)      x.45 .41-.50"  # it does not beat the centre
    assert line(text, "random") == "random                          .40 .35-.46"
    assert line(text, "centre") == "centre                     10.20 9.96-10.40"
    further = "What else"
    assert line(text, "chefer", further).split() == ["chefer", ".00", "-.12", "to", ".03", "1.23", "2.0"]
    assert line(text, "rollout", further).split()[2:5] == [".10", ".10-.11", "1.23"]
    assert line(text, "random", further).split()[1:3] == ["1.00", "±0"]
    assert line(text, "better is", further).split() == ["better", "is", "near", "0"]  # low would be -1
    assert "x: not shown to be better than both controls" in text
    assert f"Tested was {TESTED}" in " ".join(text.split())


@pytest.mark.parametrize(
    ("mean", "low", "high", "shown"),
    [
        (0.35, 0.346, 0.354, ".35 .346-.354"),
        (0.35, 0.34991, 0.35012, ".35 .3499-.3501"),
        (0.35, 0.34999, 0.35001, ".35 ±<.0001"),
        (0.35, 0.35, 0.35, ".35 ±0"),
        (1 - 1e-16, 1.0, 1.0, "1.00 ±0"),
        (0.0, -0.004, 0.004, ".00 -.004 to .004"),
        (0.352, 0.35, 0.35, ".35 ±<.0001"),  # no mean of these ends, but not to be hidden
    ],
)
def test_an_interval_is_nothing_only_where_its_ends_are_the_mean(mean, low, high, shown):
    scores = made(tested=TESTED)
    scores.rows[1].scores["deletion mean"] = cell(mean, low, high)
    assert line(faithfulness_table(scores), "chefer").split(maxsplit=1)[1] == shown


def test_what_curves_follow_is_said_of_each_kind_of_target():
    for kind, title, strength in (
        (None, "What is left of the answer as patches go, from 0 to 1", "mean probability while the most"),
        ("class", "What is left of the answer as patches go, from 0 to 1", "mean probability while the most"),
        ("difference", "from 0 to 1", "mean probability, were there only the two classes, while the most"),
        ("likeness", "What is left of the likeness as patches go, from -1 to 1", "mean cosine while the most"),
    ):
        text = faithfulness_table(made(), kind=kind)
        assert title in text
        assert f"deletion: {strength}" in " ".join(text.split())


def test_controls_stand_apart_below():
    lines = faithfulness_table(made(target="the predicted class", tested=TESTED)).split("\n")
    first = [each.split()[0] for each in lines[3:9]]
    assert first == ["method", "better", "chefer", "rollout:heads=max", "controls,", "random"]


def test_of_few_images_there_are_means_alone():
    """Though an older version wrote their intervals."""
    text = faithfulness_table(made(n=1, target="the predicted class"))
    assert text.startswith("1 image, for the predicted class\n")
    assert line(text, "chefer").split() == ["chefer", ".35"]
    assert "of 20 images or more they have intervals" in text
    assert "x:" not in text
    assert line(faithfulness_table(made(n=19)), "chefer").split() == ["chefer", ".35"]


def test_an_older_table_says_why_nothing_is_marked():
    old = made()
    for each in old.rows:
        each.scores["deletion mean"] = Interval(mean=0.3, low=0.2, high=0.4)
    text = " ".join(faithfulness_table(old).split())
    assert text.startswith("500 images, for the predicted class")
    assert "an older version measured this, which tested nothing: `patchlight explain RUN --faithfulness`" in text
    assert "x:" not in text
    assert "chefer .30 .20-.40" in text


def test_what_the_maps_beside_it_are_of():
    text = faithfulness_table(made(tested=TESTED), chosen=True)
    assert text.startswith("500 images, for the predicted class, chosen to be looked at")
    assert faithfulness_table(made(target="the class 'cat'")).startswith("500 images, for the class 'cat'\n")


@pytest.mark.parametrize("n", [5, 500])
def test_all_methods_and_measures_fit_a_terminal(n):
    from patchlight.analysis.faithfulness import MEASURES
    from patchlight.explanation.methods import CONTROLS, METHODS

    assert {*REMOVAL, *FURTHER} <= set(MEASURES)
    assert {key: better for key, (_, better) in (REMOVAL | FURTHER).items()} == {
        key: MEASURES[key].better for key in (*REMOVAL, *FURTHER)
    }
    assert set(LEGENDS) <= set(MEASURES)
    rows = []
    for name, method in METHODS.items():
        scores = {}
        for key in MEASURES:
            low = -0.42 if key in ("randomized", "other class") else 0.48
            scores[key] = cell(low + 0.1, low, low + 0.2, **({} if name in CONTROLS else {"random": False}))
        rows.append(MethodScores(method=name, by_class=method.by_class, ms=1234.5, ratio=123.4, scores=scores))
    text = faithfulness_table(Faithfulness(n=n, rows=tuple(rows), target="the predicted class", tested=TESTED))
    assert max(map(len, text.split("\n"))) <= WIDTH
    assert len(rows) == 14
