"""Ranges of a sweep: what is understood, and what is refused before anything is trained."""

from __future__ import annotations

import pytest

from patchlight.config import load_recipe
from patchlight.errors import UsageError
from patchlight.studies.ranges import Axis, grid_of, read_ranges

BASE = load_recipe("quickstart")


def axis(word: str) -> Axis:
    (one,) = read_ranges(BASE, [word])
    return one


def test_numbers_between_two():
    assert axis("optim.lr=1e-4..1e-2") == Axis("optim.lr", "1e-4..1e-2", low=1e-4, high=1e-2)
    assert axis("optim.lr=1e-4..1e-2:log").log
    assert axis("augment.mixup_alpha=0..0.4:0.1").step == 0.1
    depth = axis("model.depth=2..6")
    assert depth.is_whole
    assert (depth.low, depth.high, depth.step, depth.log) == (2, 6, None, False)
    assert axis("model.embed_dim=48..192:48").points() == (48, 96, 144, 192)
    assert axis("train.batch_size=16..256:log").log


def test_values():
    assert axis("train.batch_size=32,64,128").choices == (32, 64, 128)
    assert axis("optim.name=adamw, muon").choices == ("adamw", "muon")
    assert axis("train.drop_last=true,false").choices == (True, False)
    assert axis("optim.lr_base_size=none,256").choices == (None, 256)
    assert axis("train.class_weights=none,balanced").choices == ("none", "balanced")
    assert axis("--optim.lr=1e-3,3e-3").choices == (1e-3, 3e-3)


def test_lists_of_python_are_values():
    axes = read_ranges(BASE, {"optim.lr": "1e-4..1e-2:log", "model.depth": [2, 4], "optim.lr_base_size": [None, 128]})
    assert [one.choices for one in axes] == [(), (2, 4), (None, 128)]
    assert axes[2].text == "none,128"  # as a command line would have it


def test_settings_of_a_stage():
    two = load_recipe("vit-small8-two-stage")
    (rate,) = read_ranges(two, ["stages.2.optim.lr=1e-5..1e-3:log"])
    assert (rate.field, rate.low) == ("stages.2.optim.lr", 1e-5)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("optim.lr", "'optim.lr' says no range; write FIELD=RANGE, as in optim.lr=1e-4..1e-2:log"),
        ("optim.lrr=1..2", "unknown setting 'optim.lrr'; did you mean 'optim.lr'.*"),
        ("nothing=1..2", "unknown setting 'nothing'; .*"),
        ("optim.lr=-1..1", "optim.lr=-1..1: optim.lr must be above 0, not -1.0"),
        ("optim.lr=0..1:log", "optim.lr=0..1:log: optim.lr must be above 0, not 0.0"),
        ("optim.weight_decay=0..0.1:log", "optim.weight_decay=0..0.1:log: a log range begins above 0; .*"),
        ("train.label_smoothing=0..2", "train.label_smoothing=0..2: .* must be at least 0 and at most 0.999, not 2.*"),
        ("model.depth=2..6.5", "model.depth=2..6.5: model.depth must be a whole number, not 6.5"),
        ("model.depth=2..6:0.5", "model.depth=2..6:0.5: ':0.5' is neither ':log' nor a step that is a whole number"),
        ("model.depth=6..2", "model.depth=6..2: 6 is not below 2; write the lower one first"),
        ("model.depth=2..", "model.depth=2.. lacks a value; write LOW..HIGH, .*"),
        ("model.depth=4", "model.depth=4 is one value and no range; .* with --model.depth 4"),
        ("model.depth=4,4", "model.depth=4,4 has a value twice; leave one of them out"),
        ("augment.mixup_alpha=0..0.45:0.1", ".* steps of 0.1 from 0 do not end at 0.45; write 0..0.4:0.1"),
        ("augment.mixup_alpha=0..0.4:1", ".*the step must be above 0 and at most 0.4"),
        ("optim.name=adamw,adam", "optim.name=adamw,adam: optim.name cannot be 'adam'; did you mean 'adamw'.*"),
        ("optim.name=a..b", "optim.name=a..b is one value and no range; .*|optim.name=a..b: .*"),
        ("train.drop_last=0..1", "train.drop_last=0..1: train.drop_last takes no numbers between two; .*"),
        ("train.seed=0..9", "train.seed cannot be swept: it is luck and no setting, .*"),
        ("data.val_fraction=0.1..0.2", "data.val_fraction cannot be swept: it decides which images are used, .*"),
        ("eval.mirror=true,false", "eval.mirror cannot be swept: it changes nothing that validation measures; .*"),
        ("train.threads=1,2", "train.threads cannot be swept: it changes nothing that validation measures; .*"),
        ("train.class_weights=1,2", "train.class_weights is a list of numbers, .*"),
        ("stages.1.optim.lr=1e-4..1e-3", "stages.1.optim.lr=1e-4..1e-3: 'stages.1.optim.lr': this recipe has 0 .*"),
    ],
)
def test_one_sentence_names_the_field_and_the_fix(word, sentence):
    with pytest.raises(UsageError, match=f"^(?:{sentence.replace('[', '.')})$"):
        axis(word)


def test_two_ranges_of_a_field():
    with pytest.raises(UsageError, match=r"optim.lr has two ranges"):
        read_ranges(BASE, ["optim.lr=1e-4..1e-2", "optim.lr=1,2"])
    with pytest.raises(UsageError, match=r"a sweep needs a range"):
        read_ranges(BASE, [])


def test_a_grid_is_every_combination():
    axes = read_ranges(BASE, ["model.depth=2..3", "augment.mixup_alpha=0..0.3:0.1"])
    points = grid_of(axes)
    # Whole numbers stay whole, and 3 steps of 0.1 are 0.3.
    assert [point["augment.mixup_alpha"] for point in points[:4]] == [0.0, 0.1, 0.2, 0.3]
    assert [point["model.depth"] for point in points] == [2] * 4 + [3] * 4
    with pytest.raises(UsageError, match=r"optim.lr=1e-4..1e-2 has no end of values, .* optim.lr=0.0001,0.01, or"):
        grid_of(read_ranges(BASE, ["optim.lr=1e-4..1e-2"]))
    with pytest.raises(UsageError, match=r"the grid has 40,000 points"):
        grid_of(read_ranges(BASE, ["model.depth=1..200", "model.num_heads=1..200"]))
