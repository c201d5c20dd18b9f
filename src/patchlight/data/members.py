"""The members of zip and tar archives as one kind of thing: a path, what it is, its bytes.

Whether a file is a zip or a tar archive is told by its content; its name decides where that says neither.
"""

from __future__ import annotations

import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from patchlight.data.kinds import head_of, is_text, what_it_is
from patchlight.data.tars import DAMAGE, ZIP, blocks, damaged, is_compressed, open_stream, walk_tar
from patchlight.errors import PatchlightError

ENCRYPTED = 0x1  # bits of a zip member's flags: PKWARE, APPNOTE.TXT 4.4.4
UTF8 = 0x800

ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
# Compressed files that may hold a tar, and kinds that would need a further library.
MAYBE = re.compile(r"\.(gz|bz2|xz)$", re.IGNORECASE)
UNKNOWN = re.compile(r"\.(7z|rar|zst|tzst|lz4|lzma|cab|iso)$", re.IGNORECASE)

# Compressed files by how they begin: what packs and what unpacks them.
UNPACKED_BY = {b"\x1f\x8b": ("gzip", "gunzip"), b"BZh": ("bzip2", "bunzip2"), b"\xfd7zXZ\0": ("xz", "unxz")}

Kind = Literal["file", "folder", "link", "other"]


@dataclass(frozen=True)
class ArchiveMember:
    """One member of an archive, whatever its kind."""

    path: str  # as it is written in the archive, with "/" between folders
    kind: Kind
    position: int  # bytes of the archive that were read so far
    blocks: Callable[[], Iterator[bytes]]  # the contents, to be read before the next member is asked for
    notes: tuple[str, ...] = ()


def archive_members(path: Path, announced: Callable[[int], None]) -> Iterator[ArchiveMember]:
    """The members of a zip or tar archive, in order.

    `announced` is called before the first with the bytes that they take, where the archive says it. Raises
    PatchlightError for an archive that is damaged, cut off, encrypted or of another kind, and for what is none.
    """
    form = _form(path)
    if form is None:
        _refuse_other(path)
        form = _form_by_name(path)
    if form == "tar":
        _refuse_no_tar(path)
    return _zip_members(path, announced) if form == "zip" else _tar_members(path)


def wrong_name(path: Path) -> str | None:
    """A sentence where an archive is of another kind than its name says."""
    form = _form(path)
    if form is None or form == _form_by_name(path):
        return None
    return f"{path} is a {form} archive, which its name does not say, and is read as one"


def _form(path: Path) -> str | None:
    """What an archive is by its content: "zip" or "tar", the latter perhaps compressed; None where that tells neither.

    Only the beginning counts: a zip archive at the end of a tar is one of its members.
    """
    try:
        head = head_of(path)
        if head.startswith(ZIP):
            return "zip"
        return "tar" if head[257:262] == b"ustar" or is_compressed(path) else None
    except OSError as error:
        raise PatchlightError(f"cannot read {path}: {error.strerror}") from None


def _form_by_name(path: Path) -> str:
    if UNKNOWN.search(path.name):
        return path.suffix.lower().lstrip(".")
    return "zip" if path.suffix.lower() == ".zip" else "tar"


def _refuse_other(path: Path) -> None:
    """Raises PatchlightError for an archive of a kind that is not read, and for a file that is known to be none."""
    fix = "which is not read; pack it as .zip or .tar.gz"
    if UNKNOWN.search(path.name):
        raise PatchlightError(f"{path} is a {path.suffix} archive, {fix}")
    known = what_it_is(path)
    if known is None or not head_of(path).strip(b"\0"):  # an empty tar archive is nothing but zeros
        if not path.stat().st_size:
            raise PatchlightError(f"{path} is an empty file; get it again")
        return
    if known.endswith("archive") or "compressed by" in known:
        raise PatchlightError(f"{path} is {known}, {fix}")
    raise PatchlightError(f"{path} is no archive but {known}")


def _refuse_no_tar(path: Path) -> None:
    """Raises PatchlightError for a compressed file that is whole and holds no tar archive, as `labels.csv.gz`."""
    try:
        with path.open("rb") as raw, open_stream(raw) as stream:
            head = stream.read(tarfile.BLOCKSIZE)
    except DAMAGE:
        return  # which is said where it is read
    words = next((words for magic, words in UNPACKED_BY.items() if head_of(path).startswith(magic)), None)
    if words and not _is_header(head) and (is_text(head) or not ARCHIVE.search(path.name)):
        raise PatchlightError(
            f"{path} is a file compressed by {words[0]} and no tar archive; unpack it ({words[1]}) and name what is in "
            "it"
        )


def _tar_members(path: Path) -> Iterator[ArchiveMember]:
    for member in walk_tar(path):
        header, contents = member.header, member.contents
        kind: Kind = "other"
        if header.isfile():
            kind = "file"
        elif header.isdir():
            kind = "folder"
        elif header.issym() or header.islnk():
            kind = "link"
        name, notes = _readable(header.name, path)

        def read(contents: IO[bytes] | None = contents) -> Iterator[bytes]:
            return blocks(contents, path) if contents is not None else iter(())

        yield ArchiveMember(name, kind, member.position, read, notes)


def _is_header(block: bytes) -> bool:
    """Whether a block is one of a tar archive: a header with the right checksum, or nothing but zeros, its end."""
    if block and not block.strip(b"\0"):
        return True
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def _readable(name: str, path: Path) -> tuple[str, tuple[str, ...]]:
    """A member's name as text; bytes that are no UTF-8, which Python keeps as surrogates, are read as Latin-1."""
    try:
        name.encode()
    except UnicodeEncodeError:
        note = f"names in {path} that are not UTF-8 are read as Latin-1; class names may look odd"
        return name.encode("utf-8", "surrogateescape").decode("latin-1"), (note,)
    return name, ()


def _zip_members(path: Path, announced: Callable[[int], None]) -> Iterator[ArchiveMember]:
    try:
        archive = zipfile.ZipFile(path)
    except (*DAMAGE, zipfile.BadZipFile, NotImplementedError) as error:
        raise damaged(path, error) from error
    with archive:
        members = archive.infolist()
        locked = next((member.filename for member in members if member.flag_bits & ENCRYPTED), None)
        if locked is not None:
            raise PatchlightError(f"{path} is encrypted (such as '{locked}'); unpack it with its password")
        announced(sum(member.file_size for member in members))
        windows = not any("/" in member.orig_filename for member in members)
        position = 0
        for member in members:
            name, notes = _zip_name(member, path, windows)
            position += member.compress_size

            def read(member: zipfile.ZipInfo = member) -> Iterator[bytes]:
                return _zip_blocks(archive, member, path)

            yield ArchiveMember(name, _zip_kind(member), position, read, notes)


def _zip_name(member: zipfile.ZipInfo, path: Path, windows: bool) -> tuple[str, tuple[str, ...]]:
    """A member's name; where its encoding is not said, UTF-8 if it can be, else the old code page 437."""
    name, notes = member.orig_filename, []
    if not member.flag_bits & UTF8 and not name.isascii():
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            notes.append(
                f"{path} does not say how its names are encoded; they are read as code page 437, and class names may "
                "look odd"
            )
    if windows and "\\" in name:
        name = name.replace("\\", "/")
        notes.append(f"backslashes in the names of {path} are read as folders")
    return name, tuple(notes)


def _zip_kind(member: zipfile.ZipInfo) -> Kind:
    mode = member.external_attr >> 16 if member.create_system == 3 else 0  # 3: written on Unix, with its file modes
    if stat.S_ISLNK(mode):
        return "link"
    if member.orig_filename.endswith(("/", "\\")):
        return "folder"
    return "file" if stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR) else "other"


def _zip_blocks(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Iterator[bytes]:
    errors = (*DAMAGE, zipfile.BadZipFile, RuntimeError, ImportError)  # NotImplementedError: a rare compression
    try:
        with archive.open(member) as contents:
            while block := contents.read(2**20):
                yield block
    except PatchlightError:
        raise
    except NotImplementedError as error:
        raise PatchlightError(
            f"{path}: the member '{member.filename}' is compressed in a way that is not read ({error}); pack it anew"
        ) from error
    except errors as error:
        raise damaged(path, error) from error
