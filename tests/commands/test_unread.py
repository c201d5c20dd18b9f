"""A run that kept its test images unread: `eval` and `explain` take its validation images, and say so."""

from __future__ import annotations

import json
import shutil

import pytest
from small import small_config

import patchlight
from patchlight.cli.main import main
from patchlight.commands.explain import faithfulness
from patchlight.runs import Environment, Faithfulness, Run, ValidationResult

KEPT = "this run kept its test images unread (eval.test = false)"


@pytest.fixture(scope="module")
def unread(tmp_path_factory) -> Run:
    config = small_config(train={"epochs": 1}, eval={"test": False}, explain={"faithfulness": 0, "snapshots_every": 0})
    return patchlight.train(config, out=tmp_path_factory.mktemp("unread") / "run")


def test_eval_takes_the_validation_images(unread, capsys):
    counts = unread.read(Environment).data
    assert main(["eval", str(unread.path), "--json"]) == 0
    out, said = capsys.readouterr()
    found = json.loads(out)
    assert (found["split"], found["n"]) == ("val", counts.val)
    assert found["top1"] == pytest.approx(unread.read(ValidationResult).top1)
    assert f"{KEPT}, so its validation images are taken; --split test takes its test images" in said
    result = patchlight.evaluate(unread, split="test")
    assert (result.split, result.n) == ("test", counts.test)
    assert f"{KEPT}; they are read now, as --split test asks" in capsys.readouterr().err
    assert patchlight.evaluate(unread, split="val").split == "val"
    assert KEPT not in capsys.readouterr().err


def test_another_source_is_as_before(unread, capsys):
    assert patchlight.evaluate(unread, data="digits", split="test").split == "test"  # its own source by name
    assert KEPT in capsys.readouterr().err


def test_explain_takes_the_validation_images(unread, tmp_path, capsys):
    found = patchlight.explain(unread, count=2, out=tmp_path / "maps")
    assert found.split == "val"
    assert f"{KEPT}, so its validation" in capsys.readouterr().err


def test_faithfulness_says_which_images(unread, tmp_path, capsys):
    run = Run(tmp_path / "run")
    shutil.copytree(unread.path, run.path)
    assert main(["explain", str(run.path), "--faithfulness", "--method", "gradcam", "--count", "4"]) == 0
    out, said = capsys.readouterr()
    assert f"{KEPT}, so its validation" in said
    assert "4 images of 'val'" in " ".join(out.split())
    assert run.read(Faithfulness).split == "val"
    assert "On 4 validation images" in " ".join((run.path / "report.html").read_text().split())
    assert faithfulness(run, method="gradcam", count=2, split="test", out=tmp_path / "other").split is None


def test_its_readme_offers_no_second_measurement(unread):
    text = (unread.path / "README.md").read_text()
    assert "measure it again" not in text
    assert "measure it on its validation images; --split test reads the test images" in text
