"""`patchlight data`: a folder with its faults."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import picture
from PIL import Image

from patchlight.cli.main import main


def test_data_shows_a_folder_with_its_faults(here, capsys):
    for name in ("cat", "dog"):
        (here / "pets" / name).mkdir(parents=True)
        for i in range(12):
            picture(here / "pets" / name / f"{i}.png", size=(20 + i, 30))
    (here / "pets" / "dog" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    assert main(["data", "pets", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert [Path(bad["name"]).name for bad in result["bad_files"]] == ["broken.jpg"]
    assert result["duplicates"]["label_conflicts"] == 12
    assert result["figures"] == []
    (here / "pets" / "dog" / "broken.jpg").unlink()
    assert main(["data", "pets", "--augment.policy", "randaugment"]) == 1  # pictures under several labels
    captured = capsys.readouterr()
    figures = sorted(Path("previews/pets").glob("*.png"))
    names = ["augmentation", "class_balance", "first_batch", "near_copies", "samples"]
    assert [f.stem for f in figures] == names
    assert "the first batch, as it is trained on" in captured.out
    assert all(str(figure) in captured.out for figure in figures)
    assert main(["data", "pets"]) == 2
    assert "replace its pictures with --overwrite" in capsys.readouterr().err
    assert main(["data", "pets", "--overwrite"]) == 1


@pytest.mark.slow
def test_data_shows_what_a_recipe_makes_of_it(here, capsys):
    """The splits of `vit-small8-two-stage`, the subset's own test among them, and its first batch, which is mixed."""
    sizes = ["--data.train_per_class", "20", "--data.val_per_class", "5", "--data.subset_test_per_class", "6"]
    words = ["digits", "--recipe", "vit-small8-two-stage", *sizes, "--out", "seen"]
    assert main(["data", *words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["trained_on"]["subset_test"] == {"images": 60, "per_class": {str(i): 6 for i in range(10)}}
    batch = report["first_batch"]
    assert batch["shape"] == [128, 3, 32, 32]
    assert batch["lam"][0] == pytest.approx(batch["lam"][2])  # one lambda for the whole batch
    assert sum(batch["per_class"].values()) == 128
    assert main(["data", *words, "--overwrite"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"class +train +val +subset test +test\n", out)
    assert re.search(r"all +200 +50 +60 +359\n", out)
    assert re.search(r"mixing +\d+ of 128 images are mixed, lambda 0\.\d\d\n", out)
    assert re.search(r"label sums +1\n", out)
    with Image.open(here / "seen" / "first_batch.png") as picture:
        assert picture.width > 1000


def test_data_of_a_recipe_alone_and_of_neither(here, capsys, no_slides):
    assert main(["data", "--recipe", "quickstart", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == "digits"
    assert main(["data"]) == 2
    assert "give a data source, or a recipe with --recipe" in capsys.readouterr().err
    assert main(["data", "vit-tiny"]) == 2
    assert (
        "vit-tiny is a recipe, not a data source; write `patchlight data --recipe vit-tiny`" in capsys.readouterr().err
    )


def test_a_batch_that_is_not_as_it_should_be_is_a_problem(here, capsys, no_slides):
    assert main(["data", "digits", "--data.mean", "0,0,0", "--data.std", "1,1,1"]) == 1
    assert "problem: the values of the first batch lie between 0.00 and 1.00" in capsys.readouterr().out


def test_what_the_terminal_cannot_write_is_no_traceback(here):
    """Names of an old archive that are no UTF-8."""
    for name in (b"caf\xe9", b"the"):
        folder = here / "drinks" / os.fsdecode(name)
        folder.mkdir(parents=True)
        for i in range(3):
            picture(folder / f"{i}.png", size=(16, 16))
    command = [sys.executable, "-m", "patchlight", "data", "drinks", "--data.val_fraction", "0"]
    done = subprocess.run(command, capture_output=True, cwd=here, env={**os.environ, "PYTHONUTF8": "1"})
    assert done.returncode == 1, done.stderr  # the pictures are the same
    assert rb"caf\udce9" in done.stdout


@pytest.mark.parametrize("words", [["planted"], ["--recipe", "planted"]])
def test_a_source_with_the_name_of_a_recipe(here, capsys, words, no_slides):
    assert main(["data", *words, "--out", "seen"]) == 0
    assert "mark 0" in capsys.readouterr().out


def folder_of(root: Path, classes: int, images: int = 3) -> Path:
    """Class folders c000, c001 and so on with images that all differ."""
    for number in range(classes):
        (root / f"c{number:03}").mkdir(parents=True)
        for index in range(images):
            pixels = np.random.default_rng([number, index]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"c{number:03}" / f"{index}.png")
    return root


def test_many_classes_and_bad_files_are_counted_and_all_in_json(here, capsys):
    folder_of(here / "many", 300, 2)
    for number in range(25):
        (here / "many" / f"c{number:03}" / "bad.png").write_bytes(b"nothing")
    assert main(["data", "many"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^280 more \(--json\) +565$", out, flags=re.MULTILINE)  # five of them bad
    assert re.search(r"^all +625$", out, flags=re.MULTILINE)
    assert out.count("bad: ") == 20
    assert "and 5 more bad files, which --json lists" in out
    assert main(["data", "many", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert len(report["bad_files"]) == 25
    assert len(report["splits"]["train"]["per_class"]) == len(report["classes"]) == 300


def test_groups_of_duplicates_are_all_in_json(here, capsys, no_slides):
    for name in ("cat", "dog"):
        (here / "pets" / name).mkdir(parents=True)
        for index in range(130):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(here / "pets" / name / f"{index}.png")
    assert main(["data", "pets"]) == 1
    out = capsys.readouterr().out
    assert out.count("same pixels: ") == 20
    assert "and 110 more groups of the same pixels, which --json lists" in out
    assert main(["data", "pets", "--json", "--out", "again"]) == 1
    assert len(json.loads(capsys.readouterr().out)["duplicates"]["listed"]) == 130


def test_where_previews_cannot_be_written_they_are_elsewhere(here, capsys):
    folder_of(here / "pets", 3, 4)
    (here / "previews").write_text("a file in the way")
    assert main(["data", "pets", "--data.val_fraction", "0", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (note,) = (note for note in report["notes"] if note.startswith("nothing can be written to previews/pets ("))
    assert str(Path(report["figures"][0]).parent) in note
    assert all(Path(figure).is_file() for figure in report["figures"])
    assert not Path(report["figures"][0]).is_relative_to(here)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_is_read_only(here, capsys):
    folder_of(here / "pets", 3, 4)
    here.chmod(0o500)
    try:
        assert main(["data", "pets", "--data.val_fraction", "0"]) == 0
    finally:
        here.chmod(0o700)
    assert "so the pictures are in" in capsys.readouterr().out


def test_bad_files_that_are_skipped_are_no_problem(here, capsys, no_slides):
    folder_of(here / "pets", 3, 6)
    (here / "pets" / "c000" / "bad.png").write_bytes(b"nothing")
    assert main(["data", "pets", "--data.on_bad", "skip"]) == 0
    out = capsys.readouterr().out
    assert "bad: pets/c000/bad.png: it is not an image" in out
    assert "left out, as data.on_bad is 'skip': 1 image that cannot be read" in out


@pytest.mark.parametrize("source", ["", "~nobody-at-all/pets", "C:\\pets", "x" * 5000, "pets\0"])
def test_sources_that_are_none(here, capsys, source):
    folder_of(here / "pets", 2)
    assert main(["data", source]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert not (here / "previews").exists()
