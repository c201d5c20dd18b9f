"""What is cached is of the files as they are: other pixels of the same size and time are noticed in all sources."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from source_files import picture, pixels_of

from patchlight.config import DataConfig
from patchlight.data import unpack
from patchlight.data.decode import Encoded
from patchlight.data.decoding import decode_listing
from patchlight.data.listing import Listing, RawSplit
from patchlight.data.sources import load_source, read_given
from patchlight.errors import PatchlightError
from patchlight.machine.process import cache_folder

COUNT = 8


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHLIGHT_CACHE", str(tmp_path / "cache"))


def bmp(seed: int) -> bytes:
    """A picture whose file has the same size whatever it shows."""
    buffer = io.BytesIO()
    picture(seed).save(buffer, "BMP")
    return buffer.getvalue()


def arrays(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)


LABELS = np.arange(COUNT) % 2


def folders(root: Path, seed: int) -> Path:
    for index in range(COUNT):
        (root / "set" / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        (root / "set" / "ab"[index % 2] / f"{index}.bmp").write_bytes(bmp(seed + index))
    return root / "set"


def listed(root: Path, seed: int) -> Path:
    folders(root, seed)
    rows = [f"set/{'ab'[index % 2]}/{index}.bmp,{index % 2}" for index in range(COUNT)]
    (root / "list.csv").write_text("\n".join(["image,label", *rows]))
    return root / "list.csv"


def table(root: Path, seed: int) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    root.mkdir(parents=True, exist_ok=True)
    columns = pa.table({"image": [bmp(seed + index) for index in range(COUNT)], "label": LABELS})
    pq.write_table(columns, root / "t.parquet", compression="none", use_dictionary=False, write_statistics=False)
    return root / "t.parquet"


def table_of_paths(root: Path, seed: int) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folders(root, seed)
    names = [f"set/{'ab'[index % 2]}/{index}.bmp" for index in range(COUNT)]
    cells = [{"bytes": None, "path": name} for name in names]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(cells, kind), "label": LABELS}), root / "t.parquet")
    return root / "t.parquet"


def saved_dataset(root: Path, seed: int) -> Path:
    import datasets

    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    cells = [{"bytes": bmp(seed + index), "path": None} for index in range(COUNT)]
    datasets.Dataset.from_dict({"image": cells, "label": LABELS}, features=kinds).save_to_disk(str(root / "saved"))
    return root / "saved"


def npz(root: Path, seed: int) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / "set.npz", images=arrays(seed), labels=LABELS)
    return root / "set.npz"


def npy(root: Path, seed: int) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    np.save(root / "images.npy", arrays(seed))
    np.save(root / "labels.npy", LABELS)
    return root


def idx(root: Path, seed: int) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    grey = arrays(seed)[..., 0]
    for name, values in (("images-idx3-ubyte", grey), ("labels-idx1-ubyte", LABELS.astype(np.uint8))):
        header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
        (root / f"train-{name}").write_bytes(header + values.tobytes())
    return root


def mat(root: Path, seed: int) -> Path:
    savemat = pytest.importorskip("scipy.io").savemat
    root.mkdir(parents=True, exist_ok=True)
    content = {"X": arrays(seed).transpose(1, 2, 3, 0), "y": LABELS[:, None].astype(np.uint8)}
    savemat(root / "train_32x32.mat", content, do_compression=False)
    return root


def shards(root: Path, seed: int) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / "train-000000.tar", "w") as tar:
        for index in range(COUNT):
            for suffix, data in (("bmp", bmp(seed + index)), ("cls", str(index % 2).encode())):
                header = tarfile.TarInfo(f"{index:04}.{suffix}")
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    return root


def zipped(root: Path, seed: int) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / "set.zip", "w") as archive:
        for index in range(COUNT):
            member = zipfile.ZipInfo(f"{'ab'[index % 2]}/{index}.bmp", (2020, 1, 1, 0, 0, 0))
            archive.writestr(member, bmp(seed + index))
    return root / "set.zip"


def tarred(root: Path, seed: int) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for index in range(COUNT):
            header = tarfile.TarInfo(f"{'ab'[index % 2]}/{index}.bmp")
            header.size = len(bmp(0))
            tar.addfile(header, io.BytesIO(bmp(seed + index)))
    (root / "set.tar.gz").write_bytes(gzip.compress(buffer.getvalue(), 0, mtime=0))
    return root / "set.tar.gz"


KINDS = (folders, listed, table, table_of_paths, saved_dataset, npz, npy, idx, mat, shards, zipped, tarred)


def facts(root: Path) -> dict[str, tuple[int, int, int]]:
    there = ((str(path.relative_to(root)), path.stat()) for path in sorted(root.rglob("*")) if path.is_file())
    return {name: (each.st_size, each.st_atime_ns, each.st_mtime_ns) for name, each in there}


def as_before(root: Path, before: dict[str, tuple[int, int, int]]) -> None:
    """Give the files the times that they had. They have the size that they had."""
    assert {name: size for name, (size, *_) in facts(root).items()} == {n: size for n, (size, *_) in before.items()}
    for name, (_, read, written) in before.items():
        os.utime(root / name, ns=(read, written))
    assert {name: own[2] for name, own in facts(root).items()} == {name: own[2] for name, own in before.items()}


def loaded(source: Path, cached: bool = True) -> torch.Tensor:
    return pixels_of(load_source(str(source), memory_limit_mb=0 if cached else 64)["train"])


def kept() -> int:
    return len(list(cache_folder().glob("*.pixels")))


@pytest.mark.parametrize("write", KINDS, ids=lambda write: write.__name__)
def test_other_pixels_of_the_same_size_and_time_are_noticed(write: Callable[[Path, int], Path], tmp_path: Path) -> None:
    root = tmp_path / "data"
    source = write(root, 0)
    first = loaded(source)
    assert torch.equal(first, loaded(source, cached=False))
    assert torch.equal(first, loaded(source))
    assert kept() == 1  # the second time it was found

    before = facts(root)
    written = write(tmp_path / "other", 1000)
    for name in before:  # in the same file, so that not even its number on the disk is another
        with (root / name).open("r+b") as file:
            file.write((tmp_path / "other" / name).read_bytes())
    as_before(root, before)
    second = loaded(source)
    assert not torch.equal(first, second)
    assert torch.equal(second, loaded(written, cached=False))
    assert torch.equal(second, loaded(source, cached=False))
    assert kept() == 2


def test_pictures_with_another_palette_are_other_pictures() -> None:
    """Images that are given in Python may differ in what their values mean alone."""

    def given(colour: int) -> torch.Tensor:
        image = Image.new("P", (8, 8), 1)
        image.putpalette([0, 0, 0, colour, colour, colour])
        config = DataConfig(source="given", memory_limit_mb=0)
        return pixels_of(read_given({"train": ([image] * 4, [0, 1, 0, 1])}, config)["train"])

    assert (int(given(10).max()), int(given(200).max())) == (10, 200)


def test_files_that_change_while_they_are_read_are_not_cached(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    paths = [tmp_path / "set" / f"{index}.bmp" for index in range(200)]
    for index, path in enumerate(paths):
        path.write_bytes(bmp(index))
    changing = True

    def items() -> Iterator[tuple[str, Encoded]]:
        for index, path in enumerate(paths):
            if index == 190 and changing:  # the first images are decoded already, or hashed
                time = paths[0].stat().st_mtime_ns
                paths[0].write_bytes(bmp(int(np.random.default_rng().integers(1000, 10**6))))
                os.utime(paths[0], ns=(time, time))
            yield str(path), path

    listing = Listing({"train": RawSplit(np.arange(200) % 2, items)}, ("a", "b"))
    config = DataConfig(source="set", memory_limit_mb=0)
    with pytest.raises(PatchlightError, match="changed while they were read, and nothing of them is kept; wait until"):
        decode_listing(listing, config)
    assert list(cache_folder().iterdir()) == []
    changing = False
    assert torch.equal(
        pixels_of(decode_listing(listing, config)["train"])[0],
        torch.from_numpy(np.asarray(Image.open(paths[0])).transpose(2, 0, 1).copy()),
    )


def test_an_archive_that_changes_while_it_is_unpacked_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tarred(tmp_path, 0)
    unpacked = unpack._unpack

    def and_change(archive: Path, folder: Path) -> None:
        unpacked(archive, folder)
        tarred(tmp_path, 1000)

    monkeypatch.setattr(unpack, "_unpack", and_change)
    with pytest.raises(PatchlightError, match="changed while it was unpacked, and nothing of it is kept"):
        loaded(source)
    assert list((cache_folder() / "unpacked").iterdir()) == []


@pytest.mark.parametrize("cached", [True, False])
def test_unpacked_files_that_were_changed_are_unpacked_again(
    cached: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = zipped(tmp_path, 0)
    first = loaded(source, cached)
    content = next((cache_folder() / "unpacked").glob("set-*/content"))
    before = facts(content)
    (content / "a" / "0.bmp").write_bytes(bmp(5000))
    as_before(content, before)
    assert torch.equal(loaded(source, cached), first)
    assert "not as they were and are unpacked again" in caplog.text
    (content / "a" / "0.bmp").unlink()
    (content / "a" / "0.bmp").symlink_to(source)
    assert torch.equal(loaded(source, cached), first)
