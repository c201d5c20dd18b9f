"""What `patchlight explain` reads and writes: the user's files are kept, and a record is of the pictures beside it."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from vits import images_for, ours

import patchlight
from patchlight.cli.main import main
from patchlight.commands.explain_attention import Looks
from patchlight.commands.explain_place import PICTURES, Place
from patchlight.errors import UsageError
from patchlight.models.anatomy import dissect


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
    return path


def test_only_pictures_of_its_record_are_deleted(run, tmp_path, capsys, no_slides):
    """Whatever they are called; those that an earlier call drew go, also of an older version, from a folder moved."""
    call = ["explain", str(run), "--index", "1", "--method", "rollout", "--out", str(tmp_path)]
    mine = [
        tmp_path / f"{name}.png" for name in ("maps-3", "heads-layer7", "path-of-paris", "pair-2", "notes", "masks")
    ]
    for path in mine:
        path.write_bytes(b"x")
    assert main([*call, "--pair", "1,2:0,3"]) == 0
    assert [path.read_bytes() for path in mine] == [b"x"] * 6
    record = tmp_path / "explanation.json"
    assert "pair" in json.loads(record.read_text())["figures"]
    gone = {"maps-2": "/elsewhere/maps-2.png", "old": "old.png", "mine": "notes.png", "up": "../up.png"}
    for path in (tmp_path / "maps-2.png", tmp_path / "old.png"):
        path.write_bytes(b"x")
    record.write_text(json.dumps({"figures": json.loads(record.read_text())["figures"] | gone}))
    (tmp_path.parent / "up.png").write_bytes(b"x")
    assert main(call) == 0
    assert [path.read_bytes() for path in (*mine, tmp_path.parent / "up.png")] == [b"x"] * 7
    assert not {path.name for path in tmp_path.iterdir()} & {"pair.png", "maps-2.png", "old.png"}
    for wrong in ("{", "[]", '{"figures": []}', '{"mine": 1}'):
        record.write_text(wrong)
        assert main(call) == 1
        assert "explanation.json is no record of `patchlight explain`" in capsys.readouterr().err
        assert record.read_text() == wrong


def test_files_that_were_given_are_not_replaced(run, here, capsys, no_slides):
    """By their own name, or by a link; an image, the one that images are compared with, or a mask."""
    for name in ("photos/path.png", "photos/a.jpg", "other/b.png", "masks/maps.png", "maps.jpg"):
        photo(here / name)
    (here / "link").symlink_to("photos")
    (here / "c.png").symlink_to("photos/path.png")
    before = {path: path.read_bytes() for path in here.rglob("*.*") if path.is_file()}
    for words, name in (
        (["photos", "--out", "photos"], "photos/path.png"),
        (["photos/path.png", "--out", "link"], "photos/path.png"),
        (["c.png", "--out", "photos"], "c.png"),
        (["other", "--like", "photos/path.png", "--out", "photos"], "photos/path.png"),
        (["maps.jpg", "--masks", "masks", "--out", "masks"], "masks/maps.png"),
    ):
        assert main(["explain", str(run), *words]) == 2
        assert f"{name} is one of the files that were given, and --out" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in here.rglob("*.*") if path.is_file()} == before
    assert main(["explain", str(run), "photos/a.jpg", "--method", "rollout", "--out", "photos"]) == 0


def test_every_picture_has_a_name_that_files_are_kept_from(run, here, no_slides):
    photo(here / "photos/a.png"), photo(here / "masks/a.png")
    found = patchlight.explain(run, ["photos"], masks="masks", method="rollout", pair="1,2:0,3", out="1")
    by_class = patchlight.explain(run, classes=[3, 8], method="rollout", layers=[0, 1], out="2")
    names = {Path(path).name for each in (found, by_class) for path in each.figures.values()}
    assert {"masks.png", "class_means.png", "pair.png", "heads-layer1.png"} <= names
    assert not [name for name in names if not PICTURES.fullmatch(name)]


def test_the_folder_is_tried_before_anything_is_computed(run, here, monkeypatch, capsys):
    (here / "file").write_text("mine")
    monkeypatch.setattr("patchlight.commands.explain_images.load_classifier", None)  # not even called
    for words in ([], ["--faithfulness"]):
        call = ["explain", str(run), "--out", "file", *words]
        assert main(call) == 2
        assert "--out file is a file; name a folder" in capsys.readouterr().err
        assert main([*call[:2], "--out", "file/below", *words]) == 1
        assert (
            "cannot write into file/below: Not a directory; mend its permissions, or choose" in capsys.readouterr().err
        )
        with monkeypatch.context() as patch:
            patch.setattr("tempfile.TemporaryFile", refused)
            assert main([*call[:2], "--out", "new", *words]) == 1
        assert "cannot write into new: Permission denied" in capsys.readouterr().err
    assert (here / "file").read_text() == "mine"


def refused(**_):
    raise PermissionError(13, "Permission denied")


def test_what_is_there_stays_until_all_is_computed(run, tmp_path, monkeypatch, capsys, no_slides):
    """An interrupt, a full disk or a number that is none change nothing, and leave no files of their own."""
    call = ["explain", str(run), "--index", "1", "--method", "rollout", "--out", str(tmp_path)]
    assert main([*call, "--pair", "1,2:0,3"]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    for where, error, code, said_of in (
        ("patchlight.commands.explain.assess", KeyboardInterrupt(), 130, "stopped by SIGINT; repeat the command"),
        ("patchlight.commands.explain.array_file", KeyboardInterrupt(), 130, "stopped by SIGINT; repeat the command"),
        ("pathlib.Path.chmod", OSError(28, "No space left on device"), 1, "No space left on device; free some space"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, mock.Mock(side_effect=error))
            assert main(call) == code
        assert said_of in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with monkeypatch.context() as patch:
        patch.setattr("patchlight.commands.explain.positions_of", lambda *_: float("nan"))
        assert main(call) == 1
    assert "is NaN or infinite, so nothing was written" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_no_record_describes_pictures_of_another_call(tmp_path, monkeypatch):
    """Wherever writing stops: the record goes before new pictures come, and comes back after them."""
    (tmp_path / "explanation.json").write_text('{"figures": {"maps": "maps.png", "pair": "pair.png"}}')
    (tmp_path / "maps.png").write_bytes(b"old")
    (tmp_path / "pair.png").write_bytes(b"old")
    place, moved, replace = Place.of(tmp_path), [], Path.replace

    def watched(part: Path, path: Path) -> Path:
        assert not (tmp_path / "explanation.json").exists()
        assert not (tmp_path / "pair.png").exists()
        moved.append(path.name)
        if moved == ["maps.png", "maps.npz"]:
            raise KeyboardInterrupt
        return replace(part, path)

    monkeypatch.setattr(Path, "replace", watched)
    with pytest.raises(KeyboardInterrupt):
        place.write({"maps.png": b"new"}, b"arrays", "{}")
    assert {path.name for path in tmp_path.iterdir()} == {"maps.png"}
    moved.append("again")
    place.write({"maps.png": b"newer"}, b"arrays", "{}")
    assert moved[3:] == ["maps.png", "maps.npz", "explanation.json"]
    assert (tmp_path / "maps.png").read_bytes() == b"newer"


def test_what_a_model_lacks_is_told_before_maps_are_made():
    anatomy = dissect(ours(reg_tokens=2))
    Looks(token="register0", pair="registers:cls").check(anatomy, anatomy.grid(images_for("")))
    for looks, message in (
        (Looks(token="registers"), "'registers' are several tokens; a path begins at one, such as register0"),
        (Looks(token=""), "there is no token ''"),
    ):
        with pytest.raises(UsageError, match=message):
            looks.check(anatomy, anatomy.grid(images_for("")))
    with pytest.raises(UsageError, match="a pair of tokens is QUERY:KEY"):
        Looks(pair="").check_words()


def test_a_file_named_twice_is_one_image(run, here, capsys, no_slides):
    """Else intervals would be those of images that there are not."""
    for name in "abc":
        photo(here / f"photos/{name}.png")
    (here / "link.png").symlink_to("photos/a.png")
    words = ["photos", "photos/*.png", "link.png", str(here / "photos" / "b.png")]
    assert main(["explain", str(run), *words, "--method", "rollout", "--out", "out", "--json"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert [image["image"] for image in result["images"]] == [f"photos/{name}.png" for name in "abc"]
    assert result["faithfulness"]["n"] == 3
    said_of = "files that were named before, taken once: named 5 times more, such as photos/a.png"
    assert said_of in result["notes"]
    assert said_of in shown.err


def test_masks_beside_their_images_are_not_explained(run, here, capsys, no_slides):
    for name in ("a.png", "b.jpg", "sub/c.png", "d_mask.png"):  # the last is a mask of none of the images
        photo(here / "photos" / name)
    for name in ("a_mask.png", "b_seg.png", "sub/c_gt_1.png"):
        mask(here / "photos" / name)
    call = ["explain", str(run), "photos", "--masks", "photos", "--method", "rollout", "--out", "out", "--json"]
    assert main(call) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    named = [image["image"] for image in result["images"]]
    assert named == ["photos/a.png", "photos/b.jpg", "photos/d_mask.png", "photos/sub/c.png"]
    note = "left out, being masks of other images by their names: 3, such as photos/a_mask.png"
    assert note in result["notes"]
    assert note in shown.err
    assert result["masks"]["images"] == 3
    mask(here / "photos/b.png")
    assert main(call) == 1
    assert "photos/b.jpg has 2 masks" in capsys.readouterr().err
    (here / "photos/b_seg.png").unlink()
    assert main(call) == 1
    assert "photos/b.jpg are by their names masks of each other; lay masks into a folder of" in capsys.readouterr().err
    assert main(["explain", str(run), "photos/b.jpg", *call[3:]]) == 0  # of the one alone it is known
    assert json.loads(capsys.readouterr().out)["masks"]["images"] == 1


def mask(path: Path) -> None:
    inside = np.zeros((20, 20), dtype=np.uint8)
    inside[5:15, 5:15] = 255
    Image.fromarray(inside).save(path)
