"""Decoded pixels of sets that are too large for memory, in files whose checksums are compared before they are used.

A set is two files in the cache folder: `KEY.pixels`, nothing but its bytes, and `KEY.json`, with their shape, their
checksum and what was found when they were made, as which images are bad. KEY is a hash of everything the pixels depend
on, the content of all files among it (`hash_of_images`). Both are written under another name and moved into place when
complete, the JSON last, so that a crash leaves at most a file that is never read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchlight.errors import PatchlightError
from patchlight.machine.process import cache_folder

log = logging.getLogger(__name__)

FORMAT = 4
READ_BYTES = 2**24
STALE_S = 24 * 3600  # after which a temporary file was left by a process that was killed


def cached_pixels(
    key: str,
    shape: tuple[int, ...],
    chunks: Callable[[], Iterator[np.ndarray]],
    found: Callable[[], dict[str, Any]] = dict,
) -> tuple[Tensor, dict[str, Any]]:
    """A memory-mapped tensor of this shape, uint8, taken from the cache or written there first; and what was found.

    `key` stands for everything the pixels depend on. `chunks` gives the pixels piece by piece along the first axis. It
    is called when they are not in the cache, or, with a logged warning, when the cached file is damaged. What `found`
    gives afterwards, plain data for JSON, is kept beside them. Writing to the tensor changes nothing on disk. Raises
    PatchlightError where the cache folder is full or cannot be written to, and whatever `chunks` raises.
    """
    name = hashlib.blake2b(f"{FORMAT} {key}".encode(), digest_size=16).hexdigest()
    pixels, sidecar = cache_folder() / f"{name}.pixels", cache_folder() / f"{name}.json"
    if sidecar.is_file():
        damage = _damage(pixels, sidecar, shape)
        if damage is None:
            return _mapped(pixels, shape), json.loads(sidecar.read_text(encoding="utf-8"))["found"]
        log.warning("the cached images %s are damaged (%s) and are made again", pixels, damage)
    try:
        _write(pixels, sidecar, shape, chunks, found)
    except OSError as error:
        raise PatchlightError(
            f"cannot write decoded images to {pixels.parent}: {error.strerror or error}; PATCHLIGHT_CACHE chooses "
            "another folder, and a higher data.memory_limit_mb keeps them in memory"
        ) from error
    return _mapped(pixels, shape), found()


def _damage(pixels: Path, sidecar: Path, shape: tuple[int, ...]) -> str | None:
    """What is wrong with a cached set, or None."""
    try:
        about = json.loads(sidecar.read_text(encoding="utf-8"))
        if about["shape"] != list(shape) or about["format"] != FORMAT or not isinstance(about["found"], dict):
            return "the description does not fit"
        if pixels.stat().st_size != math.prod(shape):
            return "the size is wrong"
        return None if _checksum(pixels) == about["blake2b"] else "the checksum is wrong"
    except FileNotFoundError:
        return "the pixels are missing"
    except (OSError, ValueError, KeyError, TypeError):
        return "the description cannot be read"


def _checksum(path: Path) -> str:
    digest = hashlib.blake2b()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _write(
    pixels: Path,
    sidecar: Path,
    shape: tuple[int, ...],
    chunks: Callable[[], Iterator[np.ndarray]],
    found: Callable[[], dict[str, Any]],
) -> None:
    folder = pixels.parent
    folder.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder)
    needed, free = math.prod(shape), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"{needed / 2**20:,.0f} MB are needed and {free / 2**20:,.0f} MB are free")
    digest, written = hashlib.blake2b(), 0
    with _Temporary(pixels) as file:
        for chunk in chunks():
            data = np.ascontiguousarray(chunk).data.cast("B")
            file.write(data)
            digest.update(data)
            written += len(data)
        if written != needed:
            raise PatchlightError(f"the source gave {written} bytes of pixels where {needed} were announced")
    about = {"format": FORMAT, "shape": list(shape), "dtype": "uint8", "blake2b": digest.hexdigest(), "found": found()}
    with _Temporary(sidecar) as file:
        file.write(json.dumps(about, indent=1).encode())


class _Temporary:
    """A new file that replaces `path` when the block ends without an error, and is removed when it does not."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Any:
        self.file = tempfile.NamedTemporaryFile(
            dir=self.path.parent, prefix=f".{self.path.name}-", suffix=".tmp", delete=False
        )
        return self.file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        temporary = Path(self.file.name)
        try:
            if kind is None:
                self.file.flush()
                os.fsync(self.file.fileno())
            self.file.close()
            if kind is None:
                temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)


def _remove_stale(folder: Path) -> None:
    """Delete temporary files that a killed process has left. No process writes for a day without changing its file."""
    for path in folder.glob(".*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()
        except OSError:
            continue  # another process was faster


def _mapped(path: Path, shape: tuple[int, ...]) -> Tensor:
    # Mode "c": changes stay in memory. Torch warns of arrays that cannot be written to at all.
    return torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="c", shape=shape))
