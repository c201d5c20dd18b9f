"""The answer of a study: numbers against scipy and by hand, the choice, and words that follow the numbers."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_study import LADDER, STUDIES, Planned, crowd, drawn, grid, ladder, made_run, made_study, one_seed, unfinished
from scipy import stats

from patchlight.errors import UsageError
from patchlight.evaluation.paired import paired_difference
from patchlight.runs.study import FAILED, PRUNED, StudyResult
from patchlight.studies.answer import answer
from patchlight.studies.wording import difference_words

AB = [Planned("a"), Planned("b", {"optim.lr": 0.1})]


def two(a, b, **values):
    """A study of two variants with these validation accuracies; None is a seed that waits."""
    runs = [
        made_run(name, seed, val)
        for name, own in (("a", a), ("b", b))
        for seed, val in enumerate(own)
        if val is not None
    ]
    return made_study(AB, runs, seeds=range(len(a)), **values)


def words(each, left_out=()):
    paired = paired_difference(each)
    return difference_words(each, paired.mean, paired.low, paired.high, left_out)


def test_three_seeds_by_hand():
    """Differences 0.02, 0.01, 0.03: mean 0.02, s = 0.01, t(2) = 4.3027, so 0.02 -+ 4.3027 * 0.01 / 1.7321."""
    study = two((0.60, 0.62, 0.61), (0.62, 0.63, 0.64))
    b = study.variants[1]
    assert (b.n, b.val_mean, b.val_std) == (3, pytest.approx(0.63), pytest.approx(0.01))
    assert b.difference.each == pytest.approx((0.02, 0.01, 0.03))
    assert (b.difference.mean, b.difference.low, b.difference.high) == pytest.approx(
        (0.02, -0.004841, 0.044841), abs=1e-6
    )
    assert b.difference.words == "no difference seen with 3 seeds (-0.5 to +4.5 points)"
    assert study.chosen == "b"
    assert study.variants[0].difference is None
    assert b.gain is None  # of a ladder alone


@pytest.mark.parametrize("seeds", [2, 3, 5, 12])
def test_intervals_are_scipys(seeds):
    rng = np.random.default_rng(seeds)
    a, b = rng.uniform(0.5, 0.6, seeds), rng.uniform(0.55, 0.65, seeds)
    found = two(a.tolist(), b.tolist()).variants[1]
    expected = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((expected.low, expected.high))
    assert found.val_std == pytest.approx(np.std(b, ddof=1))


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        ((0.008, 0.006, 0.010), "0.8 points better (0.3 to 1.3; 3 seeds)"),
        ((-0.008, -0.006, -0.010), "0.8 points worse (0.3 to 1.3; 3 seeds)"),
        ((0.01, -0.01, 0.004), "no difference seen with 3 seeds (-2.4 to +2.7 points)"),
        ((0.0004, 0.0003, 0.0005), "0.04 points better (0.02 to 0.06; 3 seeds)"),  # not 0.0
        ((0.008,), "0.8 points better with 1 seed: no interval, so nothing can be said of chance"),
        ((-0.008,), "0.8 points worse with 1 seed: no interval, so nothing can be said of chance"),
        ((0.0,), "the same number with 1 seed: no interval, so nothing can be said of chance"),
        ((0.0, 0.0, 0.0), "the same numbers with all 3 seeds"),
        (
            (0.61 - 0.6, 0.71 - 0.7),  # equal but for rounding
            "1.0 points better with each of 2 seeds: they agree exactly, so the interval has no width, which is no "
            "certainty",
        ),
    ],
)
def test_words_of_a_difference(each, expected):
    assert words(each) == expected


@given(st.lists(st.integers(-300, 300), min_size=2, max_size=8))
def test_a_difference_is_called_better_or_worse_only_where_scipys_interval_leaves_out_zero(counts):
    """Differences of accuracies of 5,000 images."""
    each = [count / 5000 for count in counts]
    said = words(each)
    if len(set(counts)) == 1:
        assert "agree exactly" in said or "the same numbers" in said
        return
    low, high = stats.ttest_1samp(each, 0).confidence_interval(0.95)
    if min(abs(low), abs(high)) > 1e-7:
        assert ("better (" in said) == (low > 0)
        assert ("worse (" in said) == (high < 0)
        assert ("no difference seen" in said) == (low < 0 < high)


def test_an_interval_that_ends_at_zero_holds_it():
    assert difference_words((0.1, 0.3), 0.2, 0.0, 0.4).startswith("no difference seen with 2 seeds (0.0 to +40.0")
    assert "better" in difference_words((0.1, 0.3), 0.2, 0.001, 0.399)


def test_seeds_that_are_not_common_are_left_out_and_said():
    study = two((0.60, 0.62, 0.61), (0.62, None, 0.64))
    b = study.variants[1]
    assert b.difference.seeds == (0, 2)
    assert b.difference.mean == pytest.approx(0.025)
    assert b.difference.words.endswith("; seed 1 is left out, as not both have finished it")
    assert b.note == "seed 1: waiting"
    assert words((0.1, 0.2), (3, 4)).endswith("; seeds 3, 4 are left out, as not both have finished them")
    assert study.chosen is None
    assert study.answer == ("Not all seeds are finished (5 of 6 runs), so there is no answer yet.",)


def test_without_a_common_seed_there_is_no_difference():
    assert two((0.6, None), (None, 0.7)).variants[1].difference is None


def test_pruned_and_failed_runs_are_told_and_their_variants_cannot_be_chosen():
    why = "stopped at epoch 3 because its accuracy was 9 points behind."
    runs = [
        *(made_run("a", seed, 0.6) for seed in (0, 1)),
        made_run("b", 0, 0.9),
        made_run("b", 1, state=PRUNED, reason=why),
    ]
    study = made_study([*AB, Planned("c")], [*runs, *(made_run("c", s, state=FAILED) for s in (0, 1))], seeds=(0, 1))
    _, b, c = study.variants
    assert study.chosen == "a"
    assert (b.n, b.pruned, b.failed) == (1, 1, 0)
    assert b.note == "seed 1: pruned, stopped at epoch 3 because its accuracy was 9 points behind"
    assert (c.val_mean, c.failed, c.note) == (None, 2, "seeds 0, 1: failed")
    assert study.answer[0].startswith("Of 3 variants only 'a' has finished all seeds")
    assert any("1 run was stopped early" in note and "too high" in note for note in study.notes)
    assert any(note.startswith("2 runs failed") for note in study.notes)


def test_of_equal_means_the_cheaper_is_chosen_and_it_is_said():
    runs = [made_run("a", 0, 0.6, train_flops=2e12), made_run("b", 0, 0.6, train_flops=1e12)]
    study = made_study(AB, runs, seeds=(0,))
    assert study.chosen == "b"
    assert study.notes[0].startswith("'a', 'b' have the same validation mean; 'b' is chosen, as it costs least")
    assert "the same number with 1 seed" in study.answer[1]
    unknown = [made_run("a", 0, 0.6, train_flops=None, train_wall_s=None), made_run("b", 0, 0.6, train_flops=None)]
    assert made_study(AB, unknown, seeds=(0,)).chosen == "b"  # its time is known


def test_a_sum_in_another_order_is_a_tie():
    study = two((0.1, 0.2, 0.3), (0.3, 0.1, 0.2))
    assert study.chosen == "a"
    assert "have the same validation mean" in study.notes[0]


def test_a_ladder_is_compared_step_by_step():
    study = ladder()
    assert [v.gain.to if v.gain else None for v in study.variants] == [None, *LADDER[:-1]]
    assert all(v.difference.to == "sgd" for v in study.variants[1:])
    means = [v.val_mean for v in study.variants]
    assert [v.gain.mean for v in study.variants[1:]] == pytest.approx(np.diff(means))
    assert study.answer[0].startswith(
        "Of 7 variants, 'all' has the best validation accuracy: 63.5 % ± 0.4".replace(" %", "\xa0%")
    )
    assert study.answer[1] == "Against the baseline 'sgd': 8.3 points better (7.7 to 9.0; 3 seeds)."
    assert study.answer[2].startswith("Against the second best, '+ cosine and warm-up': ")
    assert study.answer[3].endswith("the test images were read once, after the choice.")
    assert study.variants[-1].test_n == 3
    assert study.variants[0].test_mean is None


def test_in_a_grid_the_baseline_is_the_member_at_the_same_point():
    study = grid()
    assert {v.name: v.difference.to for v in study.variants if v.difference} == {
        f"resnet18, {n}": f"vit, {n}" for n in (50, 250, 1000, 4500)
    }
    assert (
        "By data.train_per_class: 'resnet18' is better than the second at 50, 250, 1,000; no difference is seen "
        in (study.answer[-1])
    )
    assert "the test images were read for all variants and chose none" in study.answer[3]
    assert any(note.startswith("The test images were read for all variants.") for note in study.notes)


def test_an_unknown_baseline_names_the_nearest():
    with pytest.raises(UsageError, match="baseline 'sdg' is none of its variants; did you mean 'sgd'"):
        answer([], [Planned("sgd"), Planned("adamw")], seeds=(0,), baseline="sdg")
    at = [Planned("vit, 1", point={"n": 1}, member="vit"), Planned("cnn, 2", point={"n": 2}, member="cnn")]
    with pytest.raises(UsageError, match="variants at n 2; "):
        answer([], at, seeds=(0,), baseline="vit")


def test_test_results_of_others_than_the_chosen_one_are_told():
    """Of an earlier choice, or of another study's runs."""
    runs = [made_run(name, 0, val, test_top1=val, test_n=10000) for name, val in (("a", 0.6), ("b", 0.7))]
    study = made_study(AB, runs, seeds=(0,))
    assert study.answer[-1].endswith("; the test images were read for 2 variants and chose none.")
    assert any(
        note.startswith("The test images were read for 'a', too, which validation has not") for note in study.notes
    )
    assert not any("too, which validation" in note for note in grid().notes)


def test_one_seed_claims_nothing():
    study = one_seed()
    assert all(v.val_std is None and (v.difference is None or v.difference.low is None) for v in study.variants)
    assert study.answer[1] == (
        "Against the baseline 'patch 4': 1.0 points better with 1 seed: no interval, so nothing can be said of chance."
    )
    assert not any("Student" in note for note in study.notes)
    assert any(note.startswith("With one seed there is no interval") for note in study.notes)


def test_one_variant_is_its_mean_and_nothing_else():
    """What `train --seeds 0,1,2` reports."""
    study = made_study([Planned("vit")], drawn("vit", 0.6, test_top1=0.59, test_n=10000))
    assert study.answer[0].startswith("'vit' has a validation accuracy of 59.9")
    assert len(study.answer) == 2
    assert "baseline" not in " ".join(study.answer)
    assert not any("best of several" in note or "compared" in note for note in study.notes)


def test_without_validation_nothing_is_chosen():
    study = two((None,), (None,))
    assert study.chosen is None
    runs = [made_run(name, 0, None) for name in "ab"]
    assert made_study(AB, runs, seeds=(0,)).answer == ("There are no validation images, so no variant can be chosen.",)


def test_where_every_variant_lost_a_seed_none_is_chosen():
    runs = [
        *(made_run(name, 0, 0.6) for name in "ab"),
        *(made_run(name, 1, state=FAILED, reason="no") for name in "ab"),
    ]
    assert made_study(AB, runs, seeds=(0, 1)).answer == (
        "No variant has finished all of its 2 seeds (2 of 4 runs finished, 2 failed), so none is chosen.",
    )


def test_notes_say_what_was_not_alike():
    runs = [
        made_run("a", 0, 0.6, git_commit="aaaa"),
        made_run("b", 0, 0.7, machine="cuda H100, bf16", git_commit="bbbb", images=16000, val_n=4000, reused=True),
    ]
    notes = " ".join(made_study(AB, runs, seeds=(0,), budget_by="time").notes)
    assert "on 2 different machines" in notes
    assert "times and memory cannot be compared" in notes
    assert "2 versions of the code (aaaa, bbbb)" in notes
    assert "in the same time, which is meant by this budget: from 8,000 ('a') to 16\xa0k ('b')" in notes
    assert "different numbers of images (4000, 5000)" in notes
    assert "1 run was finished before this study" in notes
    alike = " ".join(two((0.6,), (0.7,)).notes)
    assert not any(word in alike for word in ("machines", "versions", "different numbers", "before this study"))


def test_the_error_of_the_validation_images_is_told():
    """1.96 * sqrt(0.5 * 0.5 / 5000) = 0.01386."""
    notes = two((0.5, 0.5), (0.5, 0.5)).notes
    assert any("5,000 validation images" in note and "about 1.4 points" in note for note in notes)


def test_the_order_of_runs_and_what_is_read_back_change_nothing():
    for make in STUDIES.values():
        study = make()
        runs = list(study.runs)
        random.Random(0).shuffle(runs)
        members = [Planned(v.name, v.changes, v.point, v.member) for v in study.variants]
        again = answer(
            runs,
            members,
            seeds=study.seeds,
            baseline=study.baseline,
            plan=study.plan,
            test=study.test,
            budget_by=study.budget_by,
        )
        assert (again.chosen, again.answer) == (study.chosen, study.answer)
        assert [v.difference for v in again.variants] == [v.difference for v in study.variants]
        assert StudyResult.from_json(study.to_json()) == study


def test_hidden_signs_of_a_name_are_written_out_in_sentences():
    study = crowd()
    assert "'right\\u202eleft\\u2069 and \\u200bhidden'" in study.answer[0]


def test_only_variants_with_all_seeds_compete_and_it_is_said():
    study = unfinished(waiting=False)
    assert study.chosen == "base"
    assert study.answer[0].startswith("Of 4 variants, 2 have finished all seeds; of these 'base' has the best")
