"""`patchlight compare` and `patchlight report` of trained runs. What `compare` makes of seeds is in test_seeds.py."""

from __future__ import annotations

import json
import shutil

import pytest
from small import SMALL

from patchlight.cli.main import main


def test_compare_shows_results_and_what_differs(run, tmp_path, capsys, no_charts):
    other = tmp_path / "other"
    assert main(["train", "quickstart", *SMALL, "--out", str(other), "--optim.lr", "0.01"]) == 0
    capsys.readouterr()
    assert main(["compare", str(run), str(other), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["run"] for row in result["runs"]] == [str(run), str(other)]
    assert result["differences"] == {"optim.lr": [0.002, 0.01]}
    wanted = {"top1", "top1_ci95", "params", "flops_per_image", "images_per_s", "train_wall_s"}
    assert wanted <= set(result["runs"][0])
    kept = max(row["val/top1"] for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()))
    assert result["runs"][0]["val_top1"] == kept
    assert main(["compare", str(run), str(other)]) == 0
    out = capsys.readouterr().out
    assert "optim.lr" in out
    assert "95 % interval" in out
    assert "validation %" in out
    assert "one seed each cannot tell" in out.splitlines()[-1]


def test_the_report_is_rebuilt_without_the_model(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    before = (copy / "report.html").read_text()
    shutil.rmtree(copy / "model")
    shutil.rmtree(copy / "checkpoints")
    shutil.rmtree(copy / "figures")
    (copy / "report.html").unlink()
    assert main(["report", str(copy)]) == 0
    assert capsys.readouterr().out.strip() == str(copy / "report.html")
    assert len((copy / "report.html").read_text()) == pytest.approx(len(before), rel=0.05)
    assert list((copy / "figures").glob("*.png"))
