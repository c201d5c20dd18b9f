"""What `patchlight compare` makes of seeds, of validation and test, and of stages: runs with chosen accuracies."""

from __future__ import annotations

import csv
import io
import json
import statistics

import pytest
from compared import DIGESTS, made
from scipy.stats import binomtest, ttest_rel

import patchlight
from patchlight.cli.main import main
from patchlight.errors import PatchlightError


def groups_of(here, **accuracies):
    """Runs NAME-s0, NAME-s1 ... of one recipe each: validation and test accuracy of each seed, 0.001 apart in lr."""
    runs = []
    for i, (name, pairs) in enumerate(accuracies.items()):
        for seed, (val, test) in enumerate(pairs):
            runs.append(made(here / f"{name}-s{seed}", val, test, seed=seed, optim={"lr": 0.001 * (i + 1)}))
    return runs


def printed(capsys, *words) -> str:
    capsys.readouterr()
    assert main(["compare", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_runs_of_one_recipe_are_a_group_with_mean_and_deviation(here, capsys):
    a, b = [(0.7, 0.6), (0.8, 0.7), (0.75, 0.8)], [(0.9, 0.5), (0.86, 0.52)]
    groups_of(here, worse=a, better=b)
    names = ["worse-s0", "better-s1", "worse-s2", "better-s0", "worse-s1"]
    found = patchlight.compare(names)
    assert [run.run for run in found.runs] == names  # as they were named
    assert [group.name for group in found.groups] == ["better-s{1,0}", "worse-s{0,2,1}"]  # best validation first
    better, worse = found.groups
    assert (better.seeds, better.counted) == ((0, 1), ("better-s0", "better-s1"))
    for group, pairs in ((better, b), (worse, a)):
        for mean, deviation, values in zip(
            (group.val_mean, group.test_mean), (group.val_std, group.test_std), zip(*pairs, strict=True), strict=True
        ):
            assert mean == pytest.approx(statistics.mean(values))
            assert deviation == pytest.approx(statistics.stdev(values))
        assert (group.val_n, group.test_n, group.test_seeds) == (200, 100, len(pairs))
        assert (group.epoch_s, group.val_ci95, group.test_ci95) == (3.0, None, None)
    assert set(found.differences) == {"optim.lr", "train.seed"}
    assert found.differences["train.seed"] == (0, 1, 2, 0, 1)
    assert found.notes == ()
    lines = printed(capsys, *names).splitlines()
    assert lines[1].split()[:9] == ["better-s{1,0}", "vit-tiny", "2", "88.00", "±", "2.83", "51.00", "±", "1.41"]
    assert lines[2].split()[:9] == ["worse-s{0,2,1}", "vit-tiny", "3", "75.00", "±", "5.00", "70.00", "±", "10.00"]
    assert [line.split()[:2] for line in lines if line.startswith(("better-s0", "worse-s0"))] == [
        ["better-s0", "0"],
        ["worse-s0", "0"],
    ]
    assert lines[-3].split() == ["train.seed", "0,", "1", "0,", "1,", "2"]


@pytest.mark.parametrize(
    ("ours", "theirs", "begins"),
    [
        ([0.80, 0.82, 0.84], [0.70, 0.71, 0.75], "winner by validation: a-s{0,1,2}, 10.00 points ahead of b-s{0,1,2}"),
        (
            [0.80, 0.82, 0.84],
            [0.79, 0.85, 0.79],
            "no difference seen with 3 seeds: by validation a-s{0,1,2} is 1.00 poi",
        ),
    ],
)
def test_the_winner_is_told_by_the_paired_interval(here, capsys, ours, theirs, begins):
    groups_of(here, a=[(value, None) for value in ours], b=[(value, 0.5) for value in theirs])
    names = sorted(path.name for path in here.iterdir())
    lead = patchlight.compare(names).lead
    theirs_by_scipy = ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (lead.low, lead.high) == pytest.approx((theirs_by_scipy.low, theirs_by_scipy.high))
    assert lead.mean == pytest.approx(statistics.mean(ours) - statistics.mean(theirs))
    assert (lead.seeds, lead.seen) == ((0, 1, 2), begins.startswith("winner"))
    last = printed(capsys, *names).splitlines()[-1]
    assert last.startswith(begins)
    assert f"{100 * lead.low:.2f} to {100 * lead.high:.2f}" in last
    assert "t interval of the paired differences" in last
    assert ("holds zero" in last) != lead.seen
    assert ("3 seeds, which are few" in last) == lead.seen


def test_only_seeds_that_both_have_are_paired(here):
    """Of a alone a third seed is good, so that its mean is the better one; of the common seeds b is ahead."""
    groups_of(here, a=[(0.70, 0.5), (0.71, 0.5), (0.99, 0.5)], b=[(0.75, 0.5), (0.77, 0.5)])
    found = patchlight.compare(["a-s0", "a-s1", "a-s2", "b-s0", "b-s1"])
    assert [group.name for group in found.groups] == ["a-s{0,1,2}", "b-s{0,1}"]
    assert found.lead.ahead == "b-s{0,1}"
    assert found.lead.mean == pytest.approx((0.05 + 0.06) / 2)
    assert found.lead.seeds == (0, 1)
    assert "2 seeds that both have" in found.lead.words


def test_one_seed_each_cannot_tell(here, capsys):
    groups_of(here, a=[(0.80, 0.7)], b=[(0.79, 0.9)])
    last = printed(capsys, "a-s0", "b-s0").splitlines()[-1]
    bounds = [binomtest(round(200 * rate), 200).proportion_ci(method="wilson") for rate in (0.80, 0.79)]
    a, b = [f"{100 * each.low:.2f} to {100 * each.high:.2f}" for each in bounds]
    assert last == (
        "winner by validation: a-s0, 1.00 point ahead of b-s0; one seed each cannot tell whether that is chance "
        f"(95 % Wilson intervals of validation: {a} and {b})"
    )
    made(here / "a-s1", 0.82, seed=1, optim={"lr": 0.001})
    words = patchlight.compare(["a-s0", "a-s1", "b-s0"]).lead.words
    assert words.endswith("they have 1 seed in common, and from two on it can be told whether that is chance")
    made(here / "equal", 0.80, optim={"lr": 0.5})
    assert patchlight.compare(["a-s0", "equal"]).lead.words.startswith("no winner by validation: a-s0 and equal are")


def test_equal_differences_give_no_interval(here):
    groups_of(here, a=[(0.75, 0.5), (0.5, 0.5)], b=[(0.5, 0.5), (0.25, 0.5)], c=[(0.75, 0.5), (0.5, 0.5)])
    words = patchlight.compare(["a-s0", "a-s1", "b-s0", "b-s1"]).lead.words
    agree = "they agree exactly, so the interval has no width, which is no certainty"
    assert words.endswith(f"25.00 points ahead of b-s{{0,1}} with each of 2 seeds; {agree}")
    words = patchlight.compare(["a-s0", "a-s1", "c-s0", "c-s1"]).lead.words
    assert words == "no difference seen with 2 seeds: by validation a-s{0,1} and c-s{0,1} are equal with each"


def test_the_last_digits_of_rates_are_no_spread(here):
    """0.85 - 0.80 and 0.90 - 0.85 are not equal in floating point, and are the same number of images."""
    assert 0.85 - 0.80 != 0.90 - 0.85
    groups_of(here, a=[(0.85, 0.5), (0.90, 0.5)], b=[(0.80, 0.5), (0.85, 0.5)])
    lead = patchlight.compare(["a-s0", "a-s1", "b-s0", "b-s1"]).lead
    assert lead.low == lead.high == lead.mean == pytest.approx(0.05)
    assert not lead.seen
    assert lead.words.endswith("they agree exactly, so the interval has no width, which is no certainty")


def test_what_is_not_finished_not_tested_or_not_validated_is_shown_and_said(here, capsys):
    made(here / "whole", 0.7, 0.6)
    made(here / "half", 0.9, None, finished=False)
    made(here / "untested", 0.8, None, seed=1)
    made(here / "blind", None, 0.9, val_n=0, digests={"train": "a1", "test": "c3"})
    made(here / "empty", 0.5, None, epoch_s=())
    made(here / "masked", None, None, train={"task": "reconstruct"})
    names = ["blind", "whole", "empty", "half", "masked", "untested"]
    found = patchlight.compare(names)
    assert [group.name for group in found.groups] == ["half", "whole and 1 more", "blind"]
    assert set(found.notes) == {
        "half is not finished: its validation is that of epoch 1 so far, and it is no winner",
        "untested has no test result",
        "blind has no validation images, so it stands at the end",
        "no winner is named: fewer than two of these are finished and have a validation accuracy",
    }
    capsys.readouterr()
    out = printed(capsys, *names)
    rows = {line.split()[0]: line for line in out.splitlines()[:4]}
    assert "60.00 (of 1 seed)" in rows["whole"]
    low, high = binomtest(180, 200).proportion_ci(method="wilson")
    assert rows["half"].split()[2:7] == ["1", "90.00", f"{100 * low:.2f}-{100 * high:.2f}", "-", "-"]
    assert rows["blind"].split()[2:6] == ["1", "-", "-", "90.00"]
    main(["compare", "empty", "masked"])
    said = capsys.readouterr().err.splitlines()
    assert said[-3:] == [
        "empty has no test result and no epoch, and is left out",
        "masked is a masked autoencoder, which has no accuracy, and is left out",
        "patchlight: none of these runs has an accuracy to compare; finish one with `patchlight train ... --resume`",
    ]
    with pytest.raises(PatchlightError, match="none of these runs has an accuracy"):
        patchlight.compare(["empty"])


def test_an_order_of_other_images_means_nothing(here):
    made(here / "a", 0.7)
    made(here / "b", 0.8, seed=1, digests={**DIGESTS, "val": "other"}, data={"split_seed": 1})
    found = patchlight.compare(["a", "b"])
    assert (len(found.groups), found.lead) == (2, None)
    assert found.notes == ("these runs were validated on different images; their order means nothing",)
    made(here / "c", 0.8, digests={**DIGESTS, "test": "other"}, data={"test_per_class": 50})
    found = patchlight.compare(["a", "c"])
    assert found.notes == ("these runs were tested on different images; their accuracies cannot be compared",)
    assert found.lead is not None
    # The same settings, and yet other images: the source has changed meanwhile.
    made(here / "d", 0.8, seed=1, digests={**DIGESTS, "train": "changed"})
    assert len(patchlight.compare(["a", "d"]).groups) == 2


def test_what_digests_cannot_tell_is_said(here):
    made(here / "a", 0.7)
    made(here / "large", 0.8, digests={"train": "1", "val": "2", "test": "3"}, data={"image_size": 64})
    found = patchlight.compare(["a", "large"])
    assert found.lead.ahead == "large"
    assert (
        found.notes[0] == "that the validation images are the same but for data.image_size is known by settings alone"
    )
    made(here / "old", 0.8, digests={}, optim={"lr": 0.5})
    assert patchlight.compare(["a", "old"]).notes == (
        "that the validation images are the same is known by their source and number alone",
        "that the test images are the same is known by their source and number alone",
    )


def test_a_seed_counts_once_and_a_run_too(here, capsys):
    made(here / "first", 0.7, about="one name")
    made(here / "again", 0.9, about="another name")
    made(here / "other", 0.8, seed=1)
    (group,) = patchlight.compare(["first", "again", "other", here / "first"]).groups
    assert "first is named twice and counts once" in capsys.readouterr().err
    assert (group.seeds, group.counted, set(group.runs)) == ((0, 1), ("first", "other"), {"first", "again", "other"})
    assert group.val_mean == pytest.approx(0.75)
    (note,) = patchlight.compare(["first", "again", "other"]).notes
    assert note.endswith("of the runs with one seed the first counts, and again does not")


def test_what_stages_use_is_listed_beside_a_run_without_them(here, capsys):
    stages = ({"train": {"trainable": "head", "epochs": 3}}, {"optim": {"lr": 0.01}})
    made(here / "staged", 0.8, stages=stages)
    made(here / "plain", 0.7)
    made(here / "one", 0.6, stages=({"train": {"trainable": "head", "epochs": 3}},))
    found = patchlight.compare(["staged", "plain", "one"])
    assert found.differences["stages.1.train.trainable"] == ("head", None, "head")
    assert found.in_stages["stages.1.train.trainable"] == ("head", "all", "head")
    assert found.in_stages["stages.2.optim.lr"] == (0.01, 0.001, None)
    rows = {
        line.split()[0]: line.split()[1:] for line in printed(capsys, "staged", "plain", "one").splitlines() if line
    }
    assert rows["setting"] == ["staged", "plain", "one"]
    assert rows["stages.1.train.trainable"] == ["head", "(all)", "head"]
    assert rows["stages.1.train.epochs"] == ["3", "(10)", "3"]
    assert rows["stages.2.optim.lr"] == ["0.01", "(0.001)", "-"]


def test_the_forms_say_the_same(here, capsys):
    groups_of(here, a=[(0.8, 0.7), (0.82, 0.71)], b=[(0.7, 0.7), (0.69, 0.6)])
    made(here / "half", 0.5, None, finished=False)
    names = ["a-s0", "a-s1", "b-s0", "b-s1", "half"]
    found = patchlight.compare(names)
    assert json.loads(printed(capsys, *names, "--json")) == found.to_json()
    assert printed(capsys, *names, "--json") == printed(capsys, *names, "--format", "json")
    capsys.readouterr()
    assert main(["compare", *names, "--format", "csv"]) == 0
    captured = capsys.readouterr()
    assert [*found.notes, found.lead.words] == captured.err.splitlines()  # CSV has no place for them
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    assert [row["name"] for row in rows] == ["a-s{0,1}", "b-s{0,1}", "half"]
    assert [float(row["val_mean"]) for row in rows] == [group.val_mean for group in found.groups]
    assert [row["optim.lr"] for row in rows] == ["0.001", "0.002", "0.001"]
    assert (rows[2]["test_mean"], rows[2]["finished"], rows[0]["seeds"]) == ("", "false", "0 1")
    text = printed(capsys, *names, "--format", "md")
    assert "| a-s\\{0,1\\} | vit-tiny |     2 |        81.00 |        ± 1.41 |" in text
    assert found.lead.words.replace("{", "\\{").replace("}", "\\}") in text
    text = printed(capsys, *names, "--format", "latex")
    assert text.count("\\begin{table}") == text.count("\\end{table}") == 3
    assert "a-s\\{0,1\\} & vit-tiny & 2 & 81.00 & $\\pm$ 1.41 &" in text


def test_with_each_no_seeds_are_grouped(here, capsys):
    groups_of(here, a=[(0.8, 0.7), (0.82, 0.71)])
    lines = printed(capsys, "a-s0", "a-s1", "--each").splitlines()
    assert [line.split()[0] for line in lines if line] == ["run", "a-s1", "a-s0", "setting", "train.seed"]
    assert "±" not in "".join(lines)


def test_an_unknown_form_is_told(here, capsys):
    assert main(["compare", "nowhere", "--format", "markdown"]) == 2
    assert capsys.readouterr().err == "patchlight: no format 'markdown'; known: csv, json, latex, md, text\n"
