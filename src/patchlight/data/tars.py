"""Tar archives read from front to back, compressed or not, and to their very end.

Python's tarfile takes a damaged header in the middle, or a file that was cut off between two members, for the end of
the archive. Here the walk ends well only at tar's end mark, two blocks of zeros, and only after the rest of a
compressed stream, with its checksum, was read.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from patchlight.errors import PatchlightError
from patchlight.machine.compat import forget_members

# What Python's archive modules raise for a file that is damaged, cut off or not theirs.
DAMAGE = (
    tarfile.TarError,
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    LookupError,
    ArithmeticError,
    MemoryError,  # a damaged header that asks for more than there is
    struct.error,
)

MAGIC: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)

ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")  # how a zip archive begins

EXTRA_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
MAX_EXTRA_HEADER = 2**20  # bytes of a header that only holds a long name or other facts about the next member
READ_BYTES = 2**20


@dataclass(frozen=True)
class Member:
    """One member of a tar archive."""

    header: tarfile.TarInfo
    contents: IO[bytes] | None  # of a file, to be read before the next member is asked for
    position: int  # bytes of the archive's own file that were read so far


def open_stream(raw: IO[bytes]) -> IO[bytes]:
    """The bytes of an open file, decompressed where it begins as gzip, bzip2 or xz do."""
    head = raw.read(8)
    raw.seek(0)
    opener = next((opener for magic, opener in MAGIC if head.startswith(magic)), None)
    return opener(raw) if opener else raw


def is_compressed(path: Path) -> bool:
    """Whether a file begins as gzip, bzip2 or xz do."""
    with path.open("rb") as file:
        head = file.read(8)
    return any(head.startswith(magic) for magic, _ in MAGIC)


def walk_tar(path: Path) -> Iterator[Member]:
    """The members of a tar archive, compressed or not, in order; only one is in memory at a time.

    Raises PatchlightError where the archive cannot be read, is damaged, or does not reach its end mark.
    """
    last = b""

    class Header(tarfile.TarInfo):
        """Remembers the last block that was read as a header, and refuses sizes that no member has."""

        @classmethod
        def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
            nonlocal last
            last = bytes(buf)
            header = super().frombuf(buf, encoding, errors)
            if header.size < 0 or (header.type in EXTRA_HEADERS and header.size > MAX_EXTRA_HEADER):
                raise tarfile.HeaderError(f"a header gives a size of {header.size:,} bytes")
            return header

    try:
        before = -1
        with (
            path.open("rb") as raw,
            open_stream(raw) as stream,
            tarfile.open(fileobj=stream, mode="r:", tarinfo=Header) as archive,
        ):
            while (member := archive.next()) is not None:
                forget_members(archive)  # or all headers of a large archive would stay in memory
                if member.offset <= before or member.size < 0:
                    raise tarfile.ReadError("a header leads backwards")
                before = member.offset
                yield Member(member, archive.extractfile(member) if member.isfile() else None, raw.tell())
            if last != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("a header cannot be read" if last else "the end mark is missing")
            while stream.read(READ_BYTES):
                pass
    except DAMAGE as error:
        if _begins(path, ZIP):
            raise PatchlightError(f"{path} is a zip archive and no tar; give it a name that ends in .zip") from error
        raise damaged(path, error) from error


def _begins(path: Path, magic: tuple[bytes, ...]) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(8).startswith(magic)
    except OSError:
        return False


def blocks(contents: IO[bytes], path: Path) -> Iterator[bytes]:
    """The contents of a member of the archive at `path`, piece by piece. Raises PatchlightError where it is damaged."""
    try:
        while block := contents.read(READ_BYTES):
            yield block
    except DAMAGE as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: BaseException) -> PatchlightError:
    """The sentence for an archive that cannot be read to its end."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror and error.filename:
        return PatchlightError(f"cannot read {error.filename}: {error.strerror}")
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return PatchlightError(f"{path} is damaged or cut off ({text}); get it again")
