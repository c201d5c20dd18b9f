"""The cache of decoded pixels: right, atomic, checked before use, and streaming."""

from __future__ import annotations

import json
import logging
import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from patchlight.data.cache import cache_folder, cached_pixels
from patchlight.errors import PatchlightError

SHAPE = (10, 3, 4, 4)
PIXELS = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)


class Source:
    """Walks PIXELS in two chunks and counts how often it was asked to."""

    def __init__(self) -> None:
        self.walks = 0

    def __call__(self) -> Iterator[np.ndarray]:
        self.walks += 1
        yield PIXELS[:7]
        yield PIXELS[7:]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATCHLIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_made_once_and_read_again(folder: Path) -> None:
    source = Source()
    for _ in range(2):
        assert torch.equal(cached_pixels("key", SHAPE, source)[0], torch.from_numpy(PIXELS))
    assert source.walks == 1
    assert files(folder) == [".json", ".pixels"]
    about = json.loads(next(folder.glob("*.json")).read_text())
    assert about["shape"] == list(SHAPE)
    cached_pixels("other key", SHAPE, source)
    assert source.walks == 2


def test_writing_to_the_tensor_leaves_the_file_alone() -> None:
    source = Source()
    cached_pixels("key", SHAPE, source)[0].zero_()
    assert torch.equal(cached_pixels("key", SHAPE, source)[0], torch.from_numpy(PIXELS))
    assert source.walks == 1


def flip_a_byte(folder: Path) -> None:
    path = next(folder.glob("*.pixels"))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def cut_short(folder: Path) -> None:
    path = next(folder.glob("*.pixels"))
    path.write_bytes(path.read_bytes()[:-1])


def lose_pixels(folder: Path) -> None:
    next(folder.glob("*.pixels")).unlink()


def scribble(folder: Path) -> None:
    next(folder.glob("*.json")).write_text('{"shape": ')


def other_description(folder: Path) -> None:
    next(folder.glob("*.json")).write_text("[]")


@pytest.mark.parametrize("damage", [flip_a_byte, cut_short, lose_pixels, scribble, other_description])
def test_damage_is_noticed_warned_of_and_repaired(
    damage: object, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source()
    cached_pixels("key", SHAPE, source)
    damage(folder)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert torch.equal(cached_pixels("key", SHAPE, source)[0], torch.from_numpy(PIXELS))
    assert source.walks == 2
    assert "damaged" in caplog.text
    caplog.clear()
    cached_pixels("key", SHAPE, source)
    assert source.walks == 2
    assert caplog.text == ""


def test_a_lost_description_means_not_there() -> None:
    source = Source()
    cached_pixels("key", SHAPE, source)
    next(cache_folder().glob("*.json")).unlink()
    cached_pixels("key", SHAPE, source)
    assert source.walks == 2


def test_a_crash_while_writing_leaves_nothing(folder: Path) -> None:
    def crash() -> Iterator[np.ndarray]:
        yield PIXELS[:7]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_pixels("key", SHAPE, crash)
    assert files(folder) == []
    assert torch.equal(cached_pixels("key", SHAPE, Source())[0], torch.from_numpy(PIXELS))


def test_a_crash_while_repairing_keeps_what_was_there(folder: Path) -> None:
    cached_pixels("key", SHAPE, Source())
    before = next(folder.glob("*.pixels")).read_bytes()
    next(folder.glob("*.json")).unlink()

    def crash() -> Iterator[np.ndarray]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        cached_pixels("key", SHAPE, crash)
    assert next(folder.glob("*.pixels")).read_bytes() == before
    assert files(folder) == [".pixels"]


def test_leftovers_of_a_killed_process_go_after_a_day(folder: Path) -> None:
    folder.mkdir()
    old, new = folder / ".a.pixels-1.tmp", folder / ".b.pixels-2.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    cached_pixels("key", SHAPE, Source())
    assert not old.exists()
    assert new.exists()


def test_too_few_pixels_are_refused(folder: Path) -> None:
    with pytest.raises(PatchlightError, match="announced"):
        cached_pixels("key", SHAPE, lambda: iter([PIXELS[:9]]))
    assert files(folder) == []


def test_a_folder_that_cannot_be_written_to(folder: Path) -> None:
    folder.write_text("a file is in the way")
    with pytest.raises(PatchlightError, match="PATCHLIGHT_CACHE chooses another folder"):
        cached_pixels("key", SHAPE, Source())


def test_a_full_disk_is_told_before_writing() -> None:
    source = Source()
    with pytest.raises(PatchlightError, match=r"MB are needed .* are free"):
        cached_pixels("key", (10**12, 3, 100, 100), source)
    assert source.walks == 0


def test_memory_stays_bounded() -> None:
    chunk = np.zeros((100, 3, 64, 64), dtype=np.uint8)

    def chunks() -> Iterator[np.ndarray]:
        for _ in range(40):
            yield chunk

    tracemalloc.start()
    pixels = cached_pixels("key", (4000, 3, 64, 64), chunks)[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pixels.numel() == 49_152_000
    assert peak < 5_000_000


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("PATCHLIGHT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "patchlight"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "patchlight"
