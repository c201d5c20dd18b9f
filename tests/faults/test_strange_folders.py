"""What a run says of its damaged files, by the commands that read them: one line, whatever stands there."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzz import ROUNDS, damaged_versions
from hypothesis import strategies as st
from made_run import make_run
from strangers import tried

from patchlight.cli.main import main
from patchlight.runs import EvalResult, Run, Samples


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("strange") / "run", epochs=2, side=8)


@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_command_says_what_is_wrong_with_a_run_in_one_line(whole, tmp_path, capsys, command):
    run = shutil.copytree(whole, tmp_path / "run")
    text = (whole / "eval.json").read_text()
    for damage, reason in (
        ("[" * 100_000, "nested more than 100 deep"),
        ('{"n": ' + "1" * 5000 + "}", "a number of thousands of digits"),
        (text.replace('"n": 400', '"n": -1', 1), "n must be 1 or more, not -1"),
        (text.replace('"top1": 0', '"top1": 7', 1), "top1 must be a share from 0 to 1"),
    ):
        (run / "eval.json").write_text(damage)
        capsys.readouterr()
        assert main([command, str(run)]) == 1
        lines = capsys.readouterr().err.strip().splitlines()
        assert reason in lines[-1]
        assert [line for line in lines[:-1] if "damage would not be noticed" not in line] == []


@ROUNDS
def test_runs_with_damaged_bytes_are_read_or_refused(whole, tmp_path, seed, times):
    run = Run(shutil.copytree(whole, tmp_path / "run"))
    readers = {"eval.json": lambda: run.read(EvalResult), "samples.npz": lambda: run.read(Samples)}
    readers["metrics.jsonl"] = run.epochs
    for name, read in readers.items():
        versions = damaged_versions((whole / name).read_bytes(), 60 * times, seed, front=400)

        def use(number, name=name, read=read, versions=versions):
            (run.path / name).write_bytes(versions[number])
            read()

        tried(st.integers(0, len(versions) - 1), len(versions), seed, use)


def test_a_run_whose_arrays_claim_too_much_is_told(whole, tmp_path, capsys):
    run, member, file = shutil.copytree(whole, tmp_path / "run"), io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 8, 8, 3)})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images.npy", member.getvalue())
    (run / "samples.npz").write_bytes(file.getvalue())
    assert main(["report", str(run)]) == 0
    assert "left out: " in (said := capsys.readouterr().err)
    assert "samples.npz is damaged: the array 'images' is of uint8 and 1099511627776 x 8" in said


def test_lines_of_metrics_end_where_they_were_written(whole, tmp_path):
    """A sign inside a text that other programs take for the end of a line is none."""
    run = Run(shutil.copytree(whole, tmp_path / "run"))
    before = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    rows = [{**row, "best_by": "val/top1\x85\u2028"} for row in before]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (run.path / "metrics.jsonl").write_text(lines, encoding="utf-8")
    assert [row.best_by for row in run.epochs()] == ["val/top1\x85\u2028"] * 2
