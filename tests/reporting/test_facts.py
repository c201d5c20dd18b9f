"""What a report reads of a run folder: whole, in part, and damaged."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from made_run import ENVIRONMENT, add_first_batch, add_subset, make_run

from patchlight.errors import PatchlightError
from patchlight.figures import galleries, overlays
from patchlight.reporting.facts import read_facts
from patchlight.reporting.page import build_report
from patchlight.reporting.readme import build_readme


def left_out(run, message):
    """The facts of a run of which just one file is left out, for this reason; its hashes are not asked."""
    (run / "manifest.jsonl").unlink(missing_ok=True)
    facts = read_facts(run)
    (line,) = facts.left_out
    assert re.match(f"left out: .*{message}", line), line
    assert "\n" not in line
    return facts


def test_damaged_pictures_are_left_out_and_said(tmp_path, capsys):
    run = make_run(tmp_path / "run", epochs=1)
    for content in (b"not a zip", b"PK\x03\x04 cut off"):
        (run / "samples.npz").write_bytes(content)
        text = build_report(run).read_text(encoding="utf-8")
        build_readme(run)
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out: ")]
        assert len(said) == 1
        assert "samples.npz is damaged" in said[0]
        assert "samples.npz is damaged" in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", np.array([1, 2])),
        ("labels", np.array([0, 1, 99])),
        ("maps", np.full((3, 3, 8, 8), np.inf)),
        ("images", np.zeros((3, 8, 8))),
    ],
)
def test_snapshots_that_do_not_fit_are_refused(tmp_path, key, value):
    copy = make_run(tmp_path / "run", epochs=1)
    with np.load(copy / "snapshots.npz") as file:
        snapshots = dict(file)
    np.savez(copy / "snapshots.npz", **{**snapshots, key: value})
    assert left_out(copy, r"snapshots\.npz .* remove it").snapshots is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("relevance", np.zeros((8, 8, 8))),
        ("relevance", np.full((8, 2, 8, 8), np.nan)),
        ("attention", np.zeros((2, 2, 3, 9, 9), np.uint8)),
        ("explored", np.array([0, 99])),
        ("positions", np.zeros((3, 8, 8))),
        ("distance", np.zeros((5, 5))),
        ("pooled", np.zeros((2, 2, 3, 9, 9), np.uint8)),
    ],
)
def test_insight_that_does_not_fit_is_refused(tmp_path, key, value):
    copy = make_run(tmp_path / "run", epochs=1)
    with np.load(copy / "insight.npz") as file:
        insight = dict(file)
    np.savez(copy / "insight.npz", **{**insight, key: value})
    assert left_out(copy, r"insight\.npz .* remove it").insight is None


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("eval.json", b"{", "it is not valid JSON (line 1); mend it, or write it anew with `patchlight train"),
        ("eval.json", b"[]", "is damaged: the record must be an object of fields"),
        ("eval.json", b'{"n": 3}', "is damaged: loss is missing"),
        ("eval.json", b"\xff\xfe", "is not text in UTF-8"),
        ("environment.json", b"nonsense", "it is not valid JSON (line 1); mend it, or restore it from a copy"),
        ("metrics.jsonl", b'{"loss": 1}\n{"epo', "line 1, is not the record of an epoch"),
        ("metrics.jsonl", b'{"loss": 1}\n', "line 1, is not the record of an epoch"),
        ("config.toml", b"[train", "is not valid TOML"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, words):
    run = make_run(tmp_path / "run", epochs=1)
    (run / name).write_bytes(content)
    for build in (build_report, build_readme):
        with pytest.raises(PatchlightError) as caught:
            build(run)
        assert name in str(caught.value)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("key", ["per_class", "confusion", "reliability", "top1_ci95", "ece", "n"])
def test_a_result_that_lacks_a_part_is_refused(tmp_path, key):
    copy = make_run(tmp_path / "run", epochs=1)
    result = json.loads((copy / "eval.json").read_text())
    for broken in (None, "text", [1], {"a": [1]}):
        (copy / "eval.json").write_text(json.dumps({**result, key: broken}))
        with pytest.raises(PatchlightError, match=rf"eval\.json is damaged: {key}\b"):
            build_report(copy)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("images", np.zeros((8, 4, 4), np.uint8)),
        ("images", np.zeros((8, 4, 4, 3))),
        ("labels", np.full(8, 10)),
        ("labels", np.zeros(3, int)),
        ("probs", np.ones((8, 3))),
        ("maps", np.zeros((2, 4, 4))),
        ("images", np.array([{}] * 8, dtype=object)),
    ],
)
def test_samples_that_do_not_fit_are_refused(tmp_path, key, value):
    copy = make_run(tmp_path / "run", epochs=1)
    with np.load(copy / "samples.npz") as file:
        samples = dict(file)
    np.savez(copy / "samples.npz", **{**samples, key: value})
    assert left_out(copy, r"samples\.npz .* write it anew with").samples is None


def test_no_run_folder(tmp_path):
    for build in (build_report, build_readme):
        with pytest.raises(PatchlightError, match="is not a run folder"):
            build(tmp_path)


def test_an_environment_that_lacks_a_field_is_refused(tmp_path, no_charts):
    run = make_run(tmp_path / "run", epochs=1)
    environments = (
        ({"model": None}, "model must be an object of fields"),
        ({"hardware": {"gpu": "H200", "cores": "many"}}, "hardware.os is missing"),
        ({"versions": []}, "versions must be an object of fields"),
    )
    for change, message in environments:
        (run / "environment.json").write_text(json.dumps({**ENVIRONMENT, **change}))
        with pytest.raises(PatchlightError, match=rf"environment\.json is damaged: {message}.* or remove it"):
            build_report(run)
    (run / "environment.json").unlink()
    assert read_facts(run).environment is None
    assert "vit-tiny" in build_report(run).read_text(encoding="utf-8")


def test_records_of_other_images_or_classes_are_refused(tmp_path):
    """Each file is right in itself, but two of them do not belong together."""
    run, other = make_run(tmp_path / "run", epochs=1), make_run(tmp_path / "other", names=tuple("abc"), epochs=1)
    result = (run / "eval.json").read_bytes()
    (run / "eval.json").write_bytes((other / "eval.json").read_bytes())
    assert left_out(run, r"samples\.npz is damaged: probs are of 10 classes").tiles == []
    (run / "eval.json").write_bytes(result)
    for name, message in (("subset_samples", "probs are of 3 classes"), ("first_batch", "targets are of 3 classes")):
        add_first_batch(add_subset(run))
        with np.load(run / f"{name}.npz") as file:
            arrays = dict(file)
        arrays["labels"] = np.zeros_like(arrays["labels"])
        key = "probs" if name == "subset_samples" else "targets"
        np.savez(run / f"{name}.npz", **{**arrays, key: arrays[key][:, :3]})
        left_out(run, rf"{name}\.npz is damaged: {message}")
        (run / f"{name}.npz").unlink()
    with np.load(run / "samples.npz") as file:
        samples = {name: array if array.ndim == 0 else array[:-1] for name, array in file.items()}
    np.savez(run / "samples.npz", **samples)
    assert left_out(run, r"insight\.npz is damaged: relevance is of 8 images").insight is None


def test_the_kept_epoch_is_the_last_that_was_best(tmp_path):
    run = make_run(tmp_path / "run", epochs=4)
    assert read_facts(run).kept.epoch == 2
    rows = (run / "metrics.jsonl").read_text().replace('"best": true', '"best": false')
    (run / "metrics.jsonl").write_text(rows)
    assert read_facts(run).kept.epoch == 4
    (run / "metrics.jsonl").write_text("")
    assert read_facts(run).kept is None


def test_the_last_epoch_where_the_recipe_says_so(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "config.toml").write_text('[train]\nselect = "last"\nepochs = 3\n')
    assert read_facts(run).kept.epoch == 3


@pytest.mark.parametrize(
    ("pixels", "share"),
    [
        (34, 32 / 34),
        (30, 32 / 30),
        pytest.param(32, 1.0, marks=pytest.mark.slow),
        pytest.param(48, 1.0, marks=pytest.mark.slow),
    ],
)
def test_maps_of_the_page_lie_where_patches_are(tmp_path, monkeypatch, pixels, share):
    """8 patches of 4 pixels cover 32: fewer than 34, and more than 30. Of 48 pixels the grid is another one."""
    run, told = make_run(tmp_path / "run", epochs=1), []
    model = {**ENVIRONMENT["model"], "img_size": pixels}
    (run / "environment.json").write_text(json.dumps({**ENVIRONMENT, "model": model}))
    facts = read_facts(run)
    assert facts.covered((8, 8)) == (share, share)
    assert facts.covered((3, 3)) == (1, 1)
    drawn = overlays.overlay

    def overlay(*args, **options):
        told.append(options["covered"])
        return drawn(*args, **options)

    monkeypatch.setattr(overlays, "overlay", overlay)
    monkeypatch.setattr(galleries, "overlay", overlay)
    text = build_report(run).read_text(encoding="utf-8")
    assert len(told) > 30
    assert set(told) == {(share, share)}
    assert text.count(f'data-down="{share}" data-across="{share}"') == 2  # for the scripts: the explorer, the film


def test_the_page_says_where_a_map_has_no_evidence(tmp_path, no_charts):
    run = make_run(tmp_path / "run", epochs=1)
    assert "no evidence" not in build_report(run).read_text(encoding="utf-8")
    for name, key in (("insight.npz", "relevance"), ("samples.npz", "maps")):
        with np.load(run / name) as file:
            arrays = dict(file)
        arrays[key][0] = 0
        np.savez(run / name, **arrays)
    text = build_report(run).read_text(encoding="utf-8")
    assert text.count("(no evidence)") == 2  # for the predicted class, and for the true one
    assert text.count("<br>no evidence") == 1
