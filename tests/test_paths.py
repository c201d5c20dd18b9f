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


@pytest.mark.parametrize(
    "word", ["https://x.org/a.jpg", "HTTP://x.org", "s3://bucket/key", "gs://b/k", "ftp://x/a", "gopher://a"]
)
def test_addresses_are_not_read(word: str) -> None:
    with pytest.raises(UsageError, match=rf"^{word} is an address, which is not read; download it first"):
        user_path(word)


def test_what_looks_like_an_address(here) -> None:
    with pytest.raises(UsageError, match=r"^https:/x\.org/a\.jpg is an address"):
        user_path(Path("https://x.org/a.jpg"))
    with pytest.raises(UsageError, match="write the path alone, without 'file:'"):
        user_path("file:///home/me/a.jpg")
    for name in ("C:\\pets\\a.png", "C:/pets", "a:b/c", "hf:owner/name", "hf://datasets/owner/name", "x/https://y"):
        assert user_path(name) == Path(name)
    (here / "s3:").mkdir()
    assert user_path("s3:/") == Path("s3:")  # a folder of that name is there


def test_names_that_are_no_utf_8_are_escaped():
    name = os.fsdecode(b"caf\xe9.png")
    assert printable(Path("a") / name) == "a/caf\\udce9.png"
    assert printable("日本 é.png") == "日本 é.png"


def test_what_a_terminal_would_obey_is_escaped():
    assert printable("new\nline \x1b[31mred\x85") == "new\\nline \\x1b[31mred\\x85"
