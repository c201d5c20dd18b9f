"""The audit finds what was planted: damage, duplicates, conflicts, odd sizes and modes; and it is JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from patchlight.config import DataConfig
from patchlight.data.audit import Audit, audit_source
from patchlight.data.images import channel_stats
from patchlight.data.splits import load_splits
from patchlight.errors import UsageError


def picture(seed: int, size: int = 8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train: 12 a, 12 b; test: 5 a, 5 b; all different."""
    for split, count, seed in (("train", 12, 0), ("test", 5, 1000)):
        for label, name in enumerate(("a", "b")):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                picture(seed + 100 * label + index).save(tmp_path / split / name / f"{index:02}.png")
    return tmp_path


def audit(*arguments: Any) -> dict[str, Any]:
    """The audit as `patchlight data --json` prints it, without the pictures, which are the command's."""
    made = audit_source(*arguments)
    assert isinstance(made, Audit)
    report = made.to_json()
    assert json.loads(json.dumps(report)) == report
    return report


def test_a_clean_source(folder: Path) -> None:
    report = audit(str(folder))
    assert list(report) == [
        "source",
        "classes",
        "notes",
        "left_out",
        "splits",
        "sizes",
        "modes",
        "bad_files",
        "duplicates",
        "trained_on",
        "problems",
    ]
    assert report["problems"] == []
    assert report["bad_files"] == []
    assert report["classes"] == ["a", "b"]
    assert report["splits"] == {
        "train": {"images": 24, "per_class": {"a": 12, "b": 12}},
        "test": {"images": 10, "per_class": {"a": 5, "b": 5}},
    }
    assert report["sizes"] == {"8x8": 34}
    assert report["modes"] == {"RGB": 34}
    assert report["duplicates"] == {"groups": 0, "extra": 0, "across_splits": 0, "label_conflicts": 0, "listed": []}


def test_what_training_would_see(folder: Path) -> None:
    config = DataConfig(source=str(folder), train_per_class=6, val_per_class=2, image_size=4)
    report = audit(str(folder), DataConfig(train_per_class=6, val_per_class=2, image_size=4))
    splits = load_splits(config)
    trained_on = report["trained_on"]
    assert trained_on["train"] == {"images": 12, "per_class": {"a": 6, "b": 6}}
    assert trained_on["val"] == {"images": 4, "per_class": {"a": 2, "b": 2}}
    assert trained_on["test"] == {"images": 10, "per_class": {"a": 5, "b": 5}}
    assert trained_on["image_size"] == [4, 4]
    assert (tuple(trained_on["mean"]), tuple(trained_on["std"])) == channel_stats(splits.train)
    assert trained_on["subset_test"] is None


def test_the_subsets_own_test_is_a_split(folder: Path) -> None:
    made = audit_source(str(folder), DataConfig(train_per_class=6, val_per_class=2, subset_test_per_class=3))
    assert made.trained_on is not None
    assert {name: counts.images for name, counts in made.trained_on.sets.items()} == {
        "train": 12,
        "val": 4,
        "subset_test": 6,
        "test": 10,
    }
    assert made.to_json()["trained_on"]["subset_test"] == {"images": 6, "per_class": {"a": 3, "b": 3}}


def test_it_goes_on_past_bad_files(folder: Path) -> None:
    (folder / "train" / "a" / "03.png").write_bytes(b"nothing")
    cut = folder / "test" / "b" / "01.png"
    cut.write_bytes(cut.read_bytes()[:70])
    report = audit(str(folder))
    found = {(bad["split"], bad["index"], Path(bad["name"]).name) for bad in report["bad_files"]}
    assert found == {("train", 3, "03.png"), ("test", 6, "01.png")}
    assert report["bad_files"][0]["reason"] == "it is not an image file that Pillow can read but a text file"
    assert report["sizes"] == {"8x8": 32}
    assert report["trained_on"] is None
    assert "images that cannot be read: 2" in report["problems"][0]


def test_duplicates_within_and_across_splits_and_with_other_labels(folder: Path) -> None:
    picture(0).save(folder / "train" / "a" / "within.bmp")  # other bytes, same pixels
    picture(105).save(folder / "test" / "b" / "across.png")
    picture(1003).save(folder / "test" / "b" / "conflict.png")
    report = audit(str(folder))
    duplicates = report["duplicates"]
    assert {key: duplicates[key] for key in ("groups", "extra", "across_splits", "label_conflicts")} == {
        "groups": 3,
        "extra": 3,
        "across_splits": 1,
        "label_conflicts": 1,
    }
    conflict, across, within = duplicates["listed"]
    assert conflict["label_conflict"]
    assert [image["label"] for image in conflict["images"]] == ["a", "b"]
    assert across["across_splits"]
    assert [image["split"] for image in across["images"]] == ["train", "test"]
    assert [Path(image["name"]).name for image in within["images"]] == ["00.png", "within.bmp"]
    assert len(report["problems"]) == 2
    assert report["trained_on"] is not None


def test_sizes_and_modes(folder: Path) -> None:
    picture(1, 9).convert("L").save(folder / "train" / "a" / "odd.png")
    report = audit(str(folder))
    assert report["sizes"] == {"8x8": 34, "9x9": 1}
    assert report["modes"] == {"RGB": 34, "L": 1}
    assert report["trained_on"]["image_size"] == [32, 32]
    assert any("fitted to 32 x 32" in note for note in report["notes"])


def test_settings_that_do_not_fit_are_a_problem_not_an_error(folder: Path) -> None:
    report = audit(str(folder), DataConfig(val_per_class=50))
    assert report["trained_on"] is None
    assert "data.val_per_class = 50" in report["problems"][0]


def test_digits() -> None:
    report = audit("digits")
    assert report["sizes"] == {"8x8": 1797}
    assert report["trained_on"]["image_size"] == [32, 32]
    assert report["problems"] == []


def test_an_unknown_source() -> None:
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        audit_source("digitz")
