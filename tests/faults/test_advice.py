"""What is advised can be done: less memory, more room on the disk that is meant; and damage that work goes on with."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faulty import flip
from small import run_fit, small_config, small_splits

from patchlight.cli.main import sentence_and_code
from patchlight.cli.parser import VERBS
from patchlight.commands.export import export
from patchlight.config import Config, load_recipe
from patchlight.errors import PatchlightError
from patchlight.runs import Run, Snapshots
from patchlight.training.fit import fit
from patchlight.training.room import check_disk, disk_needed, out_of_memory
from patchlight.training.setup import prepare

SETTING = re.compile(r"([\w.]+\.[a-z_]+) = ('?)([\w.]+)\2")


def advised(text: str) -> dict[str, Any]:
    """The settings in an advice, by name."""
    words = {"true": True, "false": False}
    return {
        key: words.get(value, int(value) if value.isdecimal() else value) for key, _, value in SETTING.findall(text)
    }


def with_settings(config: Config, settings: dict[str, Any], folder: Path) -> Config:
    """The recipe with these, as a command line lays them over it."""
    path = folder / "recipe.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    return load_recipe(str(path), settings)


STAGES = [{"train": {"micro_batch_size": 32}}, {"train": {"micro_batch_size": 16}}]
RECIPES: dict[str, tuple[dict[str, Any], int, dict[str, Any]]] = {
    # sections; the stage that gets too little memory; what is advised
    "loop": ({}, 0, {"train.micro_batch_size": 8, "model.grad_checkpointing": True}),
    "hf": (
        {"train": {"engine": "hf"}},
        0,
        {"train.micro_batch_size": 8, "model.grad_checkpointing": True, "train.engine": "loop"},
    ),
    "a stage's own": (
        {"stages": STAGES},
        1,
        {"stages.2.train.micro_batch_size": 4, "model.grad_checkpointing": True},
    ),
    "convolutions": (
        {"model": {"name": "resnet18", "embed_dim": None, "depth": None, "num_heads": None, "fused_attn": None}},
        0,
        {},
    ),
}


@pytest.mark.parametrize("which", RECIPES)
def test_advice_on_memory_is_taken(which: str, tmp_path: Path) -> None:
    """By the checks of the recipe and the model, and it makes parts smaller."""
    sections, number, expected = RECIPES[which]
    config = small_config(**sections)
    stage = prepare(config, small_splits()).stages[number]
    text = out_of_memory(MemoryError(), stage)
    settings = advised(text)
    if which == "convolutions":
        assert set(settings) == {"train.micro_batch_size"}  # such a network computes nothing again
    else:
        assert settings == expected
    changed = prepare(with_settings(config, settings, tmp_path), small_splits()).stages[number]
    assert 0 < (changed.config.train.micro_batch_size or 0) < (config.of_stages()[number].train.micro_batch_size or 32)
    anew = "with train.engine = 'loop', train.micro_batch_size = 8 takes the images of a step in parts, in a new run"
    assert (anew in text) == (which == "hf")


def test_advice_on_memory_counts_the_images_that_there_are() -> None:
    stage = prepare(small_config(train={"batch_size": 1000}), small_splits()).stages[0]
    assert "with 48 images at a time" in out_of_memory(MemoryError(), stage)


@pytest.mark.parametrize("verb", VERBS)
def test_advice_on_memory_is_for_the_command(verb: str) -> None:
    """A setting that is named is one that the command takes, and so is an option."""
    said, code = sentence_and_code(MemoryError(), verb)
    assert code == 1
    assert said.startswith("out of memory (MemoryError); ")
    row = VERBS[verb]
    for section in re.findall(r"(\w+)\.[a-z_]+", said.partition("; ")[2]):
        assert (row.settings or "").partition(".")[0] in ("section", section)
    flags = {flag for each in row.options for flag in each.names}
    assert set(re.findall(r"--[a-z]+", said)) <= flags
    assert ("images at a time" in said or "images or methods" in said) == (verb in ("predict", "explain"))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "free space on that disk and repeat"),
        (errno.EDQUOT, "delete files of yours on that disk and repeat"),
        (errno.EROFS, "choose another place with --out"),
        (errno.EIO, "look into the system's log"),
    ],
)
def test_errors_of_a_disk_come_with_advice(number: int, words: str) -> None:
    said, code = sentence_and_code(OSError(number, os.strerror(number), "/there/model"))
    assert said.startswith(f"/there/model: {os.strerror(number)}; ")
    assert words in said
    assert code == 1


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than that of the tests."""
    place = Path("/dev/shm")
    if not place.is_dir() or place.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system here")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


def free_space(patch: pytest.MonkeyPatch, free: dict[int, int]) -> None:
    """Let disks, by number, have so many bytes free."""
    patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free[Path(path).stat().st_dev]))


def test_the_disk_behind_a_link_is_asked(tmp_path: Path, other_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config()
    run = Run.create(tmp_path / "run", config)
    setup = prepare(config, small_splits())
    (run.path / "checkpoints").symlink_to(other_disk)
    mine, theirs, much = tmp_path.stat().st_dev, other_disk.stat().st_dev, 10**12
    free_space(monkeypatch, {mine: much, theirs: 1000})
    with pytest.raises(PatchlightError, match=r"run/checkpoints: training writes up to .* has room for 0 MB"):
        check_disk(run, setup)
    check_disk(run, setup, overwrite=True)  # the link goes with the old run
    free_space(monkeypatch, {mine: 1000, theirs: much})
    with pytest.raises(PatchlightError, match=r"run: training writes up to .* has room for 0 MB"):
        check_disk(run, setup)
    free_space(monkeypatch, {mine: disk_needed(setup) - 1000, theirs: disk_needed(setup) - 1000})
    check_disk(run, setup)  # neither disk takes all
    (run.path / "checkpoints").unlink()
    (run.path / "checkpoints").symlink_to(tmp_path / "gone")
    with pytest.raises(PatchlightError, match=r"is a link to .*gone, and no folder is there; make that folder, or"):
        check_disk(run, setup)


def test_only_what_goes_counts_as_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = run_fit(tmp_path)
    setup = prepare(run.config(), small_splits())
    stays = ["export/onnx/model.onnx", "explain/a.npz", "checkpoints/epoch-001.damaged/model.safetensors"]
    for name in stays:
        path = run.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(10**9)  # a hole, of no real size
    free_space(monkeypatch, {tmp_path.stat().st_dev: 1000})
    with pytest.raises(PatchlightError, match="training writes up to"):
        check_disk(run, setup)
    check_disk(run, setup, overwrite=True)
    there = sum(path.stat().st_size for path in run.path.rglob("*.safetensors") if "damaged" not in str(path))
    free_space(monkeypatch, {tmp_path.stat().st_dev: disk_needed(setup) - there})
    check_disk(run, setup)


def test_damaged_samples_do_not_keep_a_model_from_being_exported(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    flip(folder / "samples.npz")
    result = export(folder)
    assert "model.safetensors" in result.files
    assert re.search(r"left out: .*samples\.npz is damaged", capsys.readouterr().err)


def test_damaged_snapshots_are_kept_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_config(train={"batch_size": 16, "epochs": 3}, explain={"snapshots_every": 1})
    run, damaged = Run.create(tmp_path / "run", config), []

    def damage(row) -> None:
        if row.epoch == 1:
            flip(run.path / "snapshots.npz")
            damaged.append((run.path / "snapshots.npz").read_bytes())

    fit(prepare(config, small_splits()), run, on_epoch=damage)
    assert (run.path / "snapshots.npz.damaged").read_bytes() == damaged[0]
    assert "snapshots.npz is damaged" in (said := capsys.readouterr().err)
    assert "it is kept as snapshots.npz.damaged, and the maps of earlier epochs are left out" in said
    assert run.read(Snapshots).epochs.tolist() == [2, 3]
