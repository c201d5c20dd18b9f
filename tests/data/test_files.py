"""Files, folders and patterns that a user names, and how they are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pictures import picture

from patchlight.data.files import find_images, read_images
from patchlight.data.remarks import Remarks
from patchlight.errors import PatchlightError, UsageError


@pytest.fixture
def photos(here: Path) -> Path:
    for name in ("b.png", "a.jpg", "sub/deep/d.png", "sub/c.bmp", ".hidden.png", ".cache/x.png"):
        (here / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        picture(here / "photos" / name)
    (here / "photos" / "notes.txt").write_text("no image")
    return here / "photos"


def found(*words: str | Path) -> list[str]:
    return [str(path) for path in find_images(words).paths]


def test_folders_are_walked_and_sorted(photos: Path) -> None:
    below = ["photos/a.jpg", "photos/b.png", "photos/sub/c.bmp", "photos/sub/deep/d.png"]
    assert found("photos") == below
    assert found("photos/b.png", "photos", "photos/b.png") == ["photos/b.png", *below, "photos/b.png"]
    assert find_images(["photos"]).notes == (
        "left out of photos: files that are no images: 1, such as photos/notes.txt",
        "left out of photos: hidden images, or images that a system made: 2, such as photos/.cache/x.png",
    )
    (photos / "sub" / "loop").symlink_to(photos)
    (photos / "link").symlink_to(photos / "sub" / "deep")
    assert sorted(map(os.path.realpath, found("photos"))) == sorted(map(os.path.realpath, below))


def test_patterns_that_no_shell_took_up(photos: Path) -> None:
    assert found("photos/*.png") == ["photos/b.png"]
    assert found(photos / "?.*g") == [str(photos / "a.jpg"), str(photos / "b.png")]
    assert found("photos/**/*.png") == ["photos/b.png", "photos/sub/deep/d.png"]
    assert found("photos/s*") == ["photos/sub/c.bmp", "photos/sub/deep/d.png"]  # as a shell gives the folder
    picture(photos / "[1].png")
    assert found("photos/[1].png") == ["photos/[1].png"]  # a file of that name


def test_what_cannot_be_found(here: Path) -> None:
    (here / "empty").mkdir()
    with pytest.raises(PatchlightError, match="empty is an empty folder"):
        find_images(["empty"])
    with pytest.raises(PatchlightError, match=r"nothing matches \*\.png"):
        find_images(["*.png"])
    with pytest.raises(UsageError, match="a path is empty"):
        find_images([""])
    assert found("missing.png", "C:\\a.png", "~nobody-at-all/a.png", "x" * 5000) == [
        *("missing.png", "C:\\a.png", "~nobody-at-all/a.png", "x" * 5000)
    ]


def test_files_are_read_in_order_and_bad_ones_say_why(here: Path) -> None:
    names = [f"{index}.png" for index in range(70)]
    for name in names:
        picture(here / name)
    (here / "3.png").write_bytes(b"nothing")
    names += ["missing.png", ".", "x" * 5000 + ".png"]
    remarks = Remarks()
    read = list(read_images([Path(name) for name in names], 8, remarks=remarks))
    bad = {names[index]: str(each) for index, each in enumerate(read) if isinstance(each, PatchlightError)}
    assert bad.keys() == {"3.png", *names[-3:]}
    assert bad["missing.png"] == "missing.png: there is no such file"
    assert bad["."] == ".: it cannot be read: it is a folder"
    assert "File name too long" in bad[names[-1]]
    assert all(tuple(each.shape) == (3, 8, 8) for each in read if not isinstance(each, PatchlightError))
