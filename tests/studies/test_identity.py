"""What makes two runs the same: their settings, images, weights and version, and neither words nor machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import make_images

import patchlight
from patchlight.config import describe_fields, load_recipe
from patchlight.data.images import digest
from patchlight.studies.identity import counts, run_key

DIGESTS = {"train": "a1", "val": "b2", "test": "c3"}


def key_of(settings=None, digests=DIGESTS) -> str:
    return run_key(load_recipe("quickstart", settings or {}), digests)


def test_a_key_is_64_bits_in_hexadecimal_and_the_same_on_every_machine():
    assert len(key_of()) == 16
    assert int(key_of(), 16) < 2**64
    assert key_of() == key_of()
    assert key_of(digests=dict(reversed(DIGESTS.items()))) == key_of()


@pytest.mark.parametrize(
    "settings",
    [
        {"about.title": "other", "about.name": "other", "about.cost": "other"},
        {"eval.test": False, "eval.gallery": 3, "eval.batch_size": 7},
        {"explain.faithfulness": 0, "explain.snapshots_every": 0},
        {"train.device": "cpu", "train.threads": 3},
        {"train.micro_batch_size": 8, "model.grad_checkpointing": True},
        {"train.checkpoint_every": 3, "data.memory_limit_mb": 500},
        {"data.source": "elsewhere"},  # its images are known by their digests
    ],
)
def test_what_does_not_change_the_numbers_does_not_count(settings):
    assert key_of(settings) == key_of()


@pytest.mark.parametrize(
    "settings",
    [
        *({"train.seed": 1}, {"optim.lr": 0.0021}, {"train.epochs": 16}, {"model.depth": 5}, {"data.split_seed": 9}),
        *({"augment.mixup_alpha": 0.2}, {"train.select": "last"}, {"train.precision": "fp32"}),
    ],
)
def test_what_changes_the_numbers_counts(settings):
    assert key_of(settings) != key_of()


def test_every_setting_counts_but_those_that_are_named():
    apart = {info.key for info in describe_fields() if not counts(info.key)}
    assert {key.partition(".")[0] for key in apart} == {"about", "eval", "explain", "data", "train", "model"}
    assert {key for key in apart if key.partition(".")[0] in ("data", "train", "model")} <= {
        *("data.source", "data.memory_limit_mb", "train.device", "train.threads", "train.checkpoint_every"),
        *(
            "train.track",
            "train.track_project",
            "train.track_name",
            "train.micro_batch_size",
            "model.grad_checkpointing",
        ),
    }
    assert counts("stages.2.optim.lr")
    assert not counts("stages.2.train.micro_batch_size")


def test_images_count_by_their_pixels_and_labels(tmp_path):
    images = make_images(12)
    changed = make_images(12)
    changed.images[3, 0, 0, 0] ^= 1
    relabelled = make_images(12)
    relabelled.labels[0], relabelled.labels[1] = images.labels[1].clone(), images.labels[0].clone()
    keys = {key_of(digests={"train": digest(each)}) for each in (images, changed, relabelled)}
    assert len(keys) == 3
    assert key_of(digests={"train": digest(make_images(12))}) in keys
    assert key_of(digests={**DIGESTS, "test": "other"}) != key_of()


def test_another_version_is_another_run(monkeypatch):
    before = key_of()
    monkeypatch.setattr(patchlight, "__version__", "99.0")
    assert key_of() != before


def folder_of_weights(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(content)
    return folder


@pytest.mark.parametrize("field", ["model.name", "train.teacher"])
def test_weights_count_by_their_bytes_wherever_they_are(field, tmp_path):
    one = folder_of_weights(tmp_path / "one", b"weights")
    same = folder_of_weights(tmp_path / "elsewhere" / "same", b"weights")
    others = folder_of_weights(tmp_path / "others", b"weightz")
    key = key_of({field: str(one)})
    assert key_of({field: str(same)}) == key
    assert key_of({field: f"local-dir:{one}"}) == key
    assert key_of({field: str(others)}) != key
    (one / "model.safetensors").write_bytes(b"longer weights")
    assert key_of({field: str(one)}) != key


def test_weights_of_a_run_are_those_that_it_kept(tmp_path):
    """Its report, or a test result that comes later, changes nothing."""
    folder_of_weights(tmp_path / "run" / "model", b"weights")
    key = key_of({"train.teacher": str(tmp_path / "run")})
    (tmp_path / "run" / "report.html").write_text("later")
    assert key_of({"train.teacher": str(tmp_path / "run")}) == key
    (tmp_path / "run" / "model" / "model.safetensors").write_bytes(b"others")
    assert key_of({"train.teacher": str(tmp_path / "run")}) != key
