"""The official CIFAR-10 and CIFAR-100 files, as a folder or as the archive they come in.

They are Python pickles, and unpickling can run any code, so a file's checksum is compared before a byte of it is
unpickled, and the unpickler knows nothing but NumPy arrays. The archive is read in memory; nothing is extracted.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchlight.data.listing import Listing, RawSplit, from_arrays
from patchlight.data.tars import walk_tar
from patchlight.errors import PatchlightError


@dataclass(frozen=True)
class Layout:
    """What one official archive holds: MD5 sums by file name, and the keys inside the pickles."""

    title: str
    folder: str
    archive: tuple[str, str]
    train: dict[str, str]
    test: dict[str, str]
    meta: dict[str, str]
    label_key: str
    names_key: str

    @property
    def files(self) -> dict[str, str]:
        """All files and their MD5 sums."""
        return self.train | self.test | self.meta


LAYOUTS = (
    Layout(
        title="CIFAR-10",
        folder="cifar-10-batches-py",
        archive=("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
        meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
        label_key="labels",
        names_key="label_names",
    ),
    Layout(
        title="CIFAR-100",
        folder="cifar-100-python",
        archive=("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
        label_key="fine_labels",
        names_key="fine_label_names",
    ),
)


def find_cifar_folder(path: Path) -> tuple[Path, Layout] | None:
    """The official folder at `path` or right below it, known by its meta file and one batch."""
    for layout in LAYOUTS:
        for folder in (path, path / layout.folder):
            if all((folder / name).is_file() for name in (*layout.meta, next(iter(layout.train)))):
                return folder, layout
    return None


def list_cifar_folder(path: Path) -> Listing:
    """The listing of an official folder. Raises PatchlightError for a file that is missing or not the official one."""
    match = find_cifar_folder(path)
    if match is None:
        raise PatchlightError(f"{path} does not hold the official CIFAR files")
    folder, layout = match

    def read(name: str) -> bytes:
        try:
            if (folder / name).exists() and not (folder / name).is_file():
                raise PatchlightError(f"cannot read {folder / name}: it is no file; get it again")
            return (folder / name).read_bytes()
        except OSError as error:
            raise PatchlightError(f"cannot read {folder / name}: {error.strerror}") from None

    return _listing(layout, read, str(folder))


def is_cifar_archive(path: Path) -> bool:
    """Whether a tar archive is CIFAR's by its name or its first member, though perhaps not the official one."""
    if not path.is_file() or not re.search(r"\.(tar|tgz|gz)$", path.name):
        return False
    if path.name in (layout.archive[0] for layout in LAYOUTS):
        return True
    try:
        first = next(walk_tar(path), None)
    except PatchlightError:
        return False  # what is wrong is said where archives are read
    return first is not None and any(layout.folder in first.header.name.split("/") for layout in LAYOUTS)


def list_cifar_archive(path: Path) -> Listing:
    """The listing of an official archive, whatever its file is called. Raises PatchlightError where it is not one."""
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    layout = next((layout for layout in LAYOUTS if layout.archive[1] == md5), None)
    if layout is None:
        known = ", ".join(f"{layout.archive[0]} has {layout.archive[1]}" for layout in LAYOUTS)
        raise PatchlightError(f"{path} is no official CIFAR archive or is damaged: its MD5 is {md5}, but {known}")
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                folder, _, name = member.name.removeprefix("./").partition("/")
                if folder == layout.folder and name in layout.files and member.isfile():
                    file_in_archive = archive.extractfile(member)
                    members[name] = file_in_archive.read() if file_in_archive else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise PatchlightError(f"{path} cannot be unpacked: {error}") from error

    def read(name: str) -> bytes:
        if name not in members:
            raise PatchlightError(f"{path} has no file {layout.folder}/{name}")
        return members[name]

    return _listing(layout, read, str(path))


def _listing(layout: Layout, read: Callable[[str], bytes], where: str) -> Listing:
    contents = {name: read(name) for name in layout.files}
    for name, md5 in layout.files.items():
        actual = hashlib.md5(contents[name], usedforsecurity=False).hexdigest()
        if actual != md5:
            raise PatchlightError(
                f"{where}: {name} is not {layout.title}'s official file or is damaged (MD5 {actual}, not {md5}); it "
                "was not opened. Get the archive again"
            )
    meta = _unpickled(contents[next(iter(layout.meta))], where)
    names = tuple(str(name) for name in meta[layout.names_key])
    splits = {
        key: _split([(name, contents[name]) for name in files], layout, where, key)
        for key, files in (("train", layout.train), ("test", layout.test))
    }
    return Listing(splits, names)


def _split(files: list[tuple[str, bytes]], layout: Layout, where: str, key: str) -> RawSplit:
    pixels, labels = [], []
    for name, data in files:
        batch = _unpickled(data, f"{where}: {name}")
        rows = np.asarray(batch["data"])
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 3072:
            raise PatchlightError(f"{where}: {name} holds {rows.dtype} {rows.shape}, not rows of 3072 uint8 pixels")
        pixels.append(rows.reshape(-1, 3, 32, 32))
        labels.append(np.asarray(batch[layout.label_key], dtype=np.int64))
    return from_arrays(np.concatenate(pixels), np.concatenate(labels), f"{where} {key}")


# What an unpickler raises for data that are damaged or not meant for it.
PICKLE_ERRORS = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ImportError,
    ArithmeticError,
    MemoryError,
)


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that builds plain containers and NumPy arrays and refuses to name anything else."""

    ALLOWED = frozenset(
        (module, name)
        for core in ("numpy.core", "numpy._core")
        for module, name in (
            (f"{core}.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),  # how Python 3 writes bytes in the protocol that Python 2 reads
        )
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        # numpy.core moved to numpy._core in NumPy 2; the files are older.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _unpickled(data: bytes, where: str) -> dict[str, Any]:
    try:
        content = _ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    except PICKLE_ERRORS as error:
        raise PatchlightError(f"{where} is no pickle of arrays: {error}") from error
    if not isinstance(content, dict):
        raise PatchlightError(f"{where} holds a {type(content).__name__}, not a dictionary")
    return content
