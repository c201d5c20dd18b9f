"""A changed bit, a lost file, a forged state: it is named, and training goes on from what is sound."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from faulty import TRAIN, Nursery, flip, leftovers, result_of
from safetensors.torch import load_file, save_file

from patchlight.cli.main import main
from patchlight.errors import PatchlightError
from patchlight.runs import Run
from patchlight.runs.folder import CONTENTS, FILES
from patchlight.runs.manifest import Manifest
from patchlight.training.checkpoint import damage_of, list_checkpoints, read_state

STATE = "state.json"


def resumed(nursery: Nursery, folder: Path) -> str:
    """All that `--resume` said, which ended well."""
    child = nursery.start(*TRAIN, "--out", folder, "--resume")
    code, last = child.finish()
    assert code == 0, last
    return child.said()


FILES_OF_A_CHECKPOINT = ("config.json", "model.safetensors", "optimizer.safetensors", STATE, "run-metrics.jsonl")


@pytest.mark.parametrize("name", FILES_OF_A_CHECKPOINT)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_every_bit_of_a_checkpoint_counts(whole: Path, tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / "epoch-006"
    shutil.copytree(whole / "checkpoints" / "epoch-006", path)
    assert damage_of(path) is None
    flip(path / name, share)
    assert (damage_of(path) or "").startswith(f"{name}: its SHA-256 is")
    (path / name).write_bytes((path / name).read_bytes()[:-1])
    assert "bytes" in (damage_of(path) or "")
    (path / name).unlink()
    assert damage_of(path) == f"{name} is missing"


def test_lost_and_forged_manifests_and_states_are_seen(whole: Path, tmp_path: Path) -> None:
    source = whole / "checkpoints" / "epoch-006"

    def damaged(name: str, text: str | None) -> str | None:
        path = tmp_path / "epoch-006"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(source, path)
        (path / name).unlink()
        if text is not None:
            (path / name).write_text(text)
        return damage_of(path)

    lines = (source / "manifest.jsonl").read_text().splitlines(keepends=True)
    assert damaged("manifest.jsonl", None) == "manifest.jsonl is missing"
    assert damaged("manifest.jsonl", "".join(lines[:-1])) == f"{STATE} does not stand in its manifest.jsonl"
    forged = "".join(line.replace('"sha256": "', '"sha256": "0') for line in lines)
    assert "does not stand in its manifest.jsonl" in (damaged("manifest.jsonl", forged) or "")
    state = json.loads((source / STATE).read_text())
    for text in ("{}", json.dumps({**state, "epoch": "3"}), json.dumps({**state, "done": 0}), ""):
        assert (damaged(STATE, text) or "").startswith(STATE)


def test_a_damaged_checkpoint_is_kept_aside_and_the_one_before_is_used(
    nursery: Nursery, whole: Path, unfinished: Path
) -> None:
    path = unfinished / "checkpoints" / "epoch-006"
    flip(path / "optimizer.safetensors")
    said = resumed(nursery, unfinished)
    assert f"{path} is damaged (optimizer.safetensors: its SHA-256 is" in said
    assert "it is kept as epoch-006.damaged, and the one before it is used" in said
    assert "resuming from" in said
    assert "epoch-005" in said
    assert result_of(unfinished) == result_of(whole)
    assert (unfinished / "checkpoints" / "epoch-006.damaged").is_dir()


def test_no_sound_checkpoint_is_an_error_that_loses_nothing(nursery: Nursery, unfinished: Path) -> None:
    for path in list_checkpoints(unfinished / "checkpoints"):
        flip(path / "model.safetensors")
    for _ in range(2):  # the second time, too
        code, last = nursery.run(*TRAIN, "--out", unfinished, "--resume")
        assert code == 1
        assert "no checkpoint of" in last
        assert "is left that is sound" in last
        assert "train anew with --overwrite" in last
    assert len(list((unfinished / "checkpoints").glob("epoch-*.damaged"))) >= 2
    assert nursery.run(*TRAIN, "--out", unfinished, "--overwrite")[0] == 0


def test_weights_that_are_not_finite_give_way_to_the_checkpoint_before(
    nursery: Nursery, whole: Path, unfinished: Path
) -> None:
    """As an earlier version saved them, without a manifest."""
    path = unfinished / "checkpoints" / "epoch-006"
    weights = load_file(path / "model.safetensors")
    weights["head.bias"] = torch.full_like(weights["head.bias"], torch.nan)
    save_file(weights, path / "model.safetensors")
    (path / "manifest.jsonl").unlink()
    state = json.loads((path / STATE).read_text())
    (path / STATE).write_text(json.dumps({**state, "sealed": False}))
    assert damage_of(path) == "model.safetensors: the weights 'head.bias' are not finite"
    assert "epoch-006.damaged" in resumed(nursery, unfinished)
    assert result_of(unfinished) == result_of(whole)


def test_the_best_weights_are_brought_back_or_said_to_be_lost(nursery: Nursery, unfinished: Path) -> None:
    """The run's own weights and the checkpoint of the best epoch are both damaged."""
    checkpoints = list_checkpoints(unfinished / "checkpoints")
    state = read_state(checkpoints[-1])
    (best,) = [path for path in checkpoints if read_state(path).steps_done == state.best_step]
    own = (unfinished / "model" / "model.safetensors").read_bytes()
    flip(unfinished / "model" / "model.safetensors")
    if best != checkpoints[-1]:
        resumed(nursery, unfinished)
        assert (unfinished / "model" / "model.safetensors").read_bytes() == own
    flip(best / "model.safetensors")
    flip(unfinished / "model" / "model.safetensors", 0.7)
    code, last = nursery.run("predict", unfinished, unfinished / "figures" / "none.png")
    assert code == 1
    assert "model.safetensors is damaged: its SHA-256 is" in last


def test_a_damaged_model_is_an_error(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("model.safetensors", "config.json"):
        run = tmp_path / name
        shutil.copytree(whole, run)
        flip(run / "model" / name, 0.95)
        for verb in ("eval", "predict", "explain", "export"):
            assert main([verb, str(run), *([str(run / "x.png")] if verb == "predict" else [])]) == 1
            assert f"{name} is damaged: its SHA-256 is" in capsys.readouterr().err.splitlines()[-1]


def test_every_bit_of_a_record_counts(whole: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(whole, run.path)
    there = [kind for kind in FILES if run.has(kind)]
    assert len(there) >= 7
    for kind in there:
        for share in (0.1, 0.5, 0.97):
            flip(run.path / FILES[kind], share)
            with pytest.raises(PatchlightError, match=rf"{FILES[kind]} is damaged: it is not what was written"):
                run.read(kind)
            flip(run.path / FILES[kind], share)
        run.read(kind)
    for name, read in (("config.toml", run.config), ("metrics.jsonl", run.epochs)):
        flip(run.path / name)
        with pytest.raises(PatchlightError, match=f"{name} is not what"):
            read()


def test_lost_records_of_a_run_come_back_from_its_checkpoint(nursery: Nursery, whole: Path, unfinished: Path) -> None:
    """Its recipe, its environment and its metrics; of its pictures it is said that they are lost."""
    recipe = (unfinished / "config.toml").read_bytes()
    for name in ("config.toml", "environment.json", "metrics.jsonl", "snapshots.npz"):
        flip(unfinished / name)
    (unfinished / "checkpoints" / "epoch-006").rename(unfinished / "epoch-006")  # so that it trains on
    said = resumed(nursery, unfinished)
    for name in ("config.toml", "environment.json", "metrics.jsonl"):
        assert f"; it is kept as {name}.damaged; it is brought back from {unfinished}/checkpoints/epoch-005/" in said
    assert "snapshots.npz is damaged" in said
    assert result_of(unfinished) == result_of(whole)
    assert (unfinished / "config.toml").read_bytes() == recipe


def test_an_environment_that_is_lost_for_good_is_said_and_marked(nursery: Nursery, unfinished: Path) -> None:
    """As of a run of an earlier version, whose checkpoints have no copy."""
    for path in list_checkpoints(unfinished / "checkpoints"):
        for name in ("manifest.jsonl", *(copy.name for copy in path.glob("run-*"))):
            (path / name).unlink()
        state = json.loads((path / STATE).read_text())
        (path / STATE).write_text(json.dumps({**state, "sealed": False}))
    (unfinished / "environment.json").write_text("{")
    assert "whether the images are those that the run was started with cannot be told" in resumed(nursery, unfinished)
    environment = json.loads((unfinished / "environment.json").read_text())
    assert environment["not_exact"] == ["its environment.json was lost"]


def test_a_damaged_result_is_made_again_and_trained_no_more(nursery: Nursery, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    flip(folder / "eval.json")
    flip(folder / "samples.npz")
    said = resumed(nursery, folder)
    assert "eval.json is damaged" in said
    assert "it is kept as eval.json.damaged, and made again" in said
    assert "epoch 6/6" not in said
    assert result_of(folder) == result_of(whole)


def test_pictures_that_are_lost_do_not_keep_a_report_from_being_made(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_charts: None
) -> None:
    for name in ("samples.npz", "insight.npz", "snapshots.npz", "first_batch.npz", "near_copies.npz"):
        run = tmp_path / name
        shutil.copytree(whole, run)
        flip(run / name)
        assert main(["report", str(run)]) == 0
        assert f"{name} is damaged" in capsys.readouterr().err
        assert f"{name} is damaged" in (run / "report.html").read_text(encoding="utf-8")


def test_the_newest_checkpoint_is_the_one_of_the_highest_number(tmp_path: Path) -> None:
    names = [
        "step-7",
        "step-00000100",
        "epoch-9",
        "epoch-010",
        "epoch-99",
        "epoch-100-step-7",
        "epoch-1000",
        "epoch-20000",
    ]
    for name in np.random.default_rng(0).permutation(names):
        (tmp_path / str(name)).mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == names


def test_all_that_a_run_reads_back_stands_in_a_manifest(whole: Path) -> None:
    read = {name for name in CONTENTS if (whole / name).is_file()} - {"report.html", "README.md"}
    assert read == Manifest.read(whole).seals.keys()
    for folder in (whole / "model", *list_checkpoints(whole / "checkpoints")):
        assert Manifest.read(folder).damage_of_all(lambda name: name != "manifest.jsonl") is None
    assert leftovers(whole) == []
