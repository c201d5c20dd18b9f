"""Records: typed, checked when they are read, and nothing of a file is lost."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from patchlight.errors import PatchlightError
from patchlight.runs import Environment, Epoch, EvalResult, Faithfulness, Interval, Metrics, Run, Samples, Score
from patchlight.runs.codec import RecordError
from patchlight.runs.folder import FILES
from patchlight.runs.records import FORMAT, RunFile

ROW = {
    **{"epoch": 1, "step": 10, "lr": 1e-3, "train/loss": 2.0, "train/top1": None, "val/loss": 1.5, "val/top1": 0.5},
    **{"images_per_s": 100.0, "epoch_s": 2.0, "best": True, "wall_s": 3.0},
}
RESULT = {
    **{"data": "digits", "split": "test", "precision": "fp32", "n": 3, "loss": 0.5, "top1": 2 / 3, "top5": 1.0},
    **{"top1_ci95": [0.2, 0.9], "per_class": {"a": 0.5, "b": None}, "confusion": [[1, 1], [0, 1]], "ece": 0.1},
    "reliability": {"edges": [0, 0.5, 1], "confidence": [None, 0.9], "accuracy": [None, 0.7], "count": [0, 3]},
    "mistakes": [{"index": 2, "label": 0, "pred": 1, "confidence": 0.8}],
}
HARDWARE = {"os": "Linux", "cpu": "x", "cores": 2, "memory_gb": 1.5, "gpu": None, "device": "cpu"}
ENVIRONMENT = {
    **{"patchlight": "0.1.0", "versions": {"torch": "2.14.1"}, "git_commit": None, "hardware": HARDWARE, "threads": 2},
    **{"precision": "fp32", "fused_attn": True, "started": "2026-11-28T16:00:00+00:00", "command": "patchlight train"},
    "model": {"name": "vit-micro", "params": 10, "trainable": [10], "flops_per_image": 20, "img_size": 8},
    "data": {"source": "digits", "train": 6, "val": 2, "test": 2, "classes": 2, "digests": {"train": "abc"}},
}


@pytest.mark.parametrize(("kind", "data"), [(Epoch, ROW), (EvalResult, RESULT), (Environment, ENVIRONMENT)])
def test_what_is_read_is_written_again(kind, data):
    future = {**data, "of a later version": [1, {"x": None}]}
    record = kind.from_json(future)
    written = record.to_json()
    assert future.items() <= json.loads(json.dumps(written)).items() or kind is Environment
    assert written["of a later version"] == [1, {"x": None}]
    assert kind.from_json(written) == record


@pytest.mark.parametrize(
    ("kind", "data", "change", "message"),
    [
        (Epoch, ROW, {"epoch": "3"}, "epoch must be a whole number, not '3'"),
        (Epoch, ROW, {"epoch": True}, "epoch must be a whole number, not True"),
        (Epoch, ROW, {"val/top1": "good"}, "val/top1 must be a number, not 'good'"),
        (EvalResult, RESULT, {"top1_ci95": [0.1]}, "top1_ci95 must be a list of 2, not of 1"),
        (EvalResult, RESULT, {"confusion": [[1, "x"]]}, r"confusion\[0\]\[1\] must be a whole number, not 'x'"),
        (EvalResult, RESULT, {"reliability": {}}, r"reliability\.edges is missing"),
        (EvalResult, RESULT, {"per_class": 3}, "per_class must be an object of fields, not 3"),
        (Environment, ENVIRONMENT, {"hardware": None}, "hardware must be an object of fields, not None"),
        (Environment, ENVIRONMENT, {"model": {"name": "x"}}, r"model\.params is missing"),
    ],
)
def test_a_wrong_field_is_named(kind, data, change, message):
    with pytest.raises(RecordError, match=message):
        kind.from_json({**data, **change})


SCORE = {"n": 3, "loss": 0.5, "top1": 2 / 3, "top1_ci95": [0.2, 0.9]}
METRICS = {key: value for key, value in RESULT.items() if key not in ("data", "split", "precision")}


@pytest.mark.parametrize(("own", "kind"), [(METRICS, Metrics), (SCORE, Score), ({**SCORE, "later": 1}, Score)])
def test_the_subsets_own_test_is_read_in_full_or_as_the_four_numbers_of_older_folders(own, kind):
    record = EvalResult.from_json({**RESULT, "subset_test": own})
    assert type(record.subset_test) is kind
    assert record.subset_test.top1 == 2 / 3
    assert record.to_json()["subset_test"] == own
    assert EvalResult.from_json(record.to_json()) == record
    assert EvalResult.from_json(RESULT).subset_test is None
    assert record.metrics == Metrics.from_json(METRICS)


def test_the_subsets_own_test_is_of_the_same_classes():
    other = {**METRICS, "per_class": {"a": 0.5, "c": 1.0}}
    with pytest.raises(RecordError, match="subset_test must be of the classes of the test images"):
        EvalResult.from_json({**RESULT, "subset_test": other})
    with pytest.raises(RecordError, match=r"subset_test\.confusion is missing"):  # and not taken for older four numbers
        EvalResult.from_json({**RESULT, "subset_test": {k: v for k, v in METRICS.items() if k != "confusion"}})
    wrong = {**METRICS, "ece": "small"}
    with pytest.raises(RecordError, match=r"subset_test\.ece must be a number, not 'small'"):
        EvalResult.from_json({**RESULT, "subset_test": wrong})


def test_what_is_no_number_is_no_value():
    """A run that diverged wrote nan."""
    assert Epoch.from_json({**ROW, "val/loss": float("nan")}).val_loss is None


def test_a_run_folder_gives_back_what_was_written(tmp_path):
    run = Run(tmp_path)
    result, environment, row = (
        kind.from_json(data) for kind, data in ((EvalResult, RESULT), (Environment, ENVIRONMENT), (Epoch, ROW))
    )
    assert not run.has(EvalResult)
    assert run.find(EvalResult) is None
    assert run.epochs() == []
    run.write(result)
    run.write(environment)
    run.write_epochs([row, replace(row, epoch=2)])
    assert run.read(EvalResult) == replace(result, format=FORMAT)
    assert run.read(Environment) == replace(environment, format=FORMAT)
    assert run.epochs() == [row, replace(row, epoch=2)]


def test_arrays_are_checked_when_they_are_made_and_read(tmp_path):
    images = np.zeros((2, 4, 4, 3), np.uint8)
    known = {"images": images, "labels": np.array([0, 1]), "probs": np.full((2, 2), 0.5), "kind": np.array(["a", "b"])}
    run = Run(tmp_path)
    run.write(Samples(**known, map_title="attention", patch_size=2))
    samples = run.read(Samples)
    assert (samples.map_title, samples.patch_size, samples.maps) == ("attention", 2, None)
    assert np.array_equal(samples.images, images)
    with pytest.raises(RecordError, match=r"labels must be in 0\.\.1"):
        Samples(**{**known, "labels": np.array([0, 2])})
    np.savez(tmp_path / "samples.npz", images=images)
    with pytest.raises(PatchlightError, match=r"samples\.npz is damaged: it is not what was written"):
        run.read(Samples)
    (tmp_path / "manifest.jsonl").unlink()
    with pytest.raises(PatchlightError, match=r"samples\.npz is damaged: the array 'labels' is missing"):
        run.read(Samples)


@pytest.mark.parametrize("kind", [kind for kind in FILES if issubclass(kind, RunFile)])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"is damaged: it is not valid JSON \(line 1\)"),
        ("[]", "is damaged: the record must be an object of fields"),
        ("{}", "is damaged: .* is missing"),
        (f'{{"format": {FORMAT + 1}}}', "was written by a newer Patchlight"),
    ],
)
def test_a_damaged_file_is_named_with_the_way_out(tmp_path, kind, text, message):
    (tmp_path / FILES[kind]).write_text(text)
    with pytest.raises(PatchlightError, match=rf"{FILES[kind]} {message}"):
        Run(tmp_path).read(kind)


def test_a_line_that_is_no_epoch_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(ROW) + "\n{}\n")
    with pytest.raises(PatchlightError, match=r"metrics\.jsonl, line 2, .* \(epoch is missing\); remove the line"):
        Run(tmp_path).epochs()


OLD_SCORE = {"mean": 0.2, "low": 0.1, "high": 0.4}
OLD_TABLE = {"n": 500, "rows": [{"method": "rollout", "ms": 1, "scores": {"deletion mean": OLD_SCORE}}]}


def test_tables_of_faithfulness_of_older_versions():
    """They tested nothing, and had an interval for any number of images."""
    old = Faithfulness.from_json(OLD_TABLE)
    assert (old.is_older, old.has_intervals) == (True, True)
    score = old.rows[0].scores["deletion mean"]
    assert (score.low, score.high, score.against, score.fails) == (0.1, 0.4, None, False)
    few = replace(old, n=19)
    assert (few.is_older, few.has_intervals) == (False, False)
    new = replace(old, target="the predicted class")
    assert not new.is_older


def test_a_score_of_few_images_has_no_interval_in_the_file():
    score = Interval.from_json({"mean": 0.2, "low": None, "high": None})
    assert score.to_json() == {"mean": 0.2, "low": None, "high": None}
    tested = {"random": {"difference": -0.1, "p": 0.01, "better": True}}
    assert Interval.from_json({**OLD_SCORE, "against": tested}).to_json()["against"] == tested
    assert not Interval.from_json({**OLD_SCORE, "against": tested}).fails
    tested["centre"] = {"difference": 0.1, "p": 0.01, "better": False}
    assert Interval.from_json({**OLD_SCORE, "against": tested}).fails
    with pytest.raises(RecordError, match="low and high must both be numbers, or both be null"):
        Interval.from_json({"mean": 0.2, "low": 0.1, "high": None})
