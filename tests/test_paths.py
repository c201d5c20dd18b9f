"""Paths as users give them: home folders, files with odd names, and what is no path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from patchlight.errors import UsageError
from patchlight.paths import printable, user_path


def test_home_folders_and_files_with_a_tilde(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    assert user_path("~") == here / "home"
    assert user_path("~/a.png") == here / "home" / "a.png"
    assert user_path(Path("~/a.png")) == here / "home" / "a.png"
    assert user_path("~root/a.png") == Path("~root").expanduser() / "a.png"
    assert user_path("~nobody-has-this-name/a.png") == Path("~nobody-has-this-name/a.png")
    (here / "~root").mkdir()
    (here / "~tmp.png").write_bytes(b"")
    assert user_path("~tmp.png").is_file()
    assert user_path("~root/a.png") == Path("~root/a.png")  # what stands here is meant
    (here / "~").mkdir()
    assert user_path("~/a.png") == here / "home" / "a.png"  # as in a shell
    assert user_path("a/~/b") == Path("a/~/b")
    assert user_path("C:\\pets\\a.png") == Path("C:\\pets\\a.png")


def test_what_is_no_path():
    with pytest.raises(UsageError, match="a path is empty"):
        user_path("")
    with pytest.raises(UsageError, match=r"'a\\x00b' does"):
        user_path("a\0b")


def test_names_that_are_no_utf_8_are_escaped():
    name = os.fsdecode(b"caf\xe9.png")
    assert printable(Path("a") / name) == "a/caf\\udce9.png"
    assert printable("日本 é.png") == "日本 é.png"
