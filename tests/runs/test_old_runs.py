"""Run folders that version 0.1.0 wrote (format1/README.md) are read, measured, reported and trained on by this one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from patchlight.cli.main import main
from patchlight.runs import (
    Environment,
    EvalResult,
    Faithfulness,
    Insight,
    ReconstructionResult,
    Reconstructions,
    Run,
    Samples,
    Snapshots,
)

FORMAT1 = Path(__file__).parent / "format1"
EXPECTED = json.loads((FORMAT1 / "made-by" / "expected.json").read_text())


@pytest.fixture
def old(tmp_path, monkeypatch) -> Path:
    """A copy of the folders, in which the commands are given."""
    shutil.copytree(FORMAT1, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def test_every_file_is_read_as_its_record():
    run = Run.open(FORMAT1 / "classify")
    for kind in (Environment, EvalResult, Samples, Insight, Snapshots, Faithfulness):
        assert run.find(kind) is not None
    assert run.read(Environment).model.name == "vit-micro"
    assert [row.epoch for row in run.epochs()] == [1, 2, 3, 4, 5, 6]
    assert Run.open(FORMAT1 / "reconstruct").read(ReconstructionResult).epoch == 2
    assert Run.open(FORMAT1 / "reconstruct").has(Reconstructions)
    environment = Run.open(FORMAT1 / "stages").read(Environment)
    assert environment.time is None
    assert environment.resumed is not None
    assert environment.model.weights is not None
    assert environment.model.weights.id == "local-dir:stages-weights"


@pytest.mark.parametrize("name", ["classify", "reconstruct", "stages"])
def test_its_report_is_built_again(old, name):
    assert main(["report", name]) == 0
    page = (old / name / "report.html").read_text()
    assert f"<title>{name}" in page
    assert ("76.7" in page) == (name == "classify")
    # Of the subset's own test images there were four numbers then.
    assert ("own test images 70.0" in page) == (name == "classify")
    assert "own test images</h2>" not in page
    assert (old / name / "README.md").read_text().startswith(f"# {name}")


def test_it_is_measured_and_compared_as_then(old, capsys, no_charts):
    assert main(["eval", "classify", "--device", "cpu", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    then = EXPECTED["classify: eval --split test"]
    assert (result["n"], result["top1"]) == (then["n"], then["top1"])
    assert result["loss"] == pytest.approx(then["loss"], abs=1e-4)
    assert main(["compare", "classify", "stages", "reconstruct", "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert [(run["run"], run["n"]) for run in found["runs"]] == [("classify", then["n"]), ("stages", None)]
    assert any(note.startswith("stages is not finished") for note in found["notes"])
    assert "reconstruct is a masked autoencoder" in captured.err


def test_it_goes_on_from_its_checkpoint_to_the_same_end(old, capsys, no_charts):
    assert main(["train", "made-by/stages.toml", "--out", "stages", "--resume"]) == 0
    rows = [json.loads(line) for line in (old / "stages" / "metrics.jsonl").read_text().splitlines()]
    for row, then in zip(rows, EXPECTED["stages: resumed to the end, metrics.jsonl"], strict=True):
        assert {key: row[key] for key in then} == pytest.approx(then, abs=1e-4)
    result = json.loads((old / "stages" / "eval.json").read_text())
    then = EXPECTED["stages: resumed to the end, eval.json"]
    assert {key: result[key] for key in then} == pytest.approx(then, abs=1e-4)


def test_a_lost_result_is_written_again_from_the_checkpoint(old, no_charts):
    before = json.loads((old / "classify" / "eval.json").read_text())
    (old / "classify" / "eval.json").unlink()
    config = str(old / "classify" / "config.toml")
    assert main(["train", config, "--out", "classify", "--resume"]) == 0
    after = json.loads((old / "classify" / "eval.json").read_text())
    assert after["loss"] == pytest.approx(before["loss"], abs=1e-4)
    assert after["confusion"] == before["confusion"]


def test_an_old_encoder_is_a_beginning(old, no_charts):
    words = ["--model.name", "reconstruct", "--model.img_size", "16", "--data.source", "digits", "--train.debug"]
    assert main(["train", "finetune", *words, "--eval.gallery", "2", "--train.device", "cpu", "--out", "new"]) == 0
    weights = Run.open(old / "new").read(Environment).model.weights
    assert weights is not None
    assert weights.id == "reconstruct"
