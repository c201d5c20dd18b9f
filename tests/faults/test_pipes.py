"""Pipes, devices and sockets in the place of any file of a data set: reading them would never end."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from source_files import picture, write_folder

from patchlight.data.files import find_images
from patchlight.data.sources import load_source
from patchlight.errors import PatchlightError

HANGS_S = 300  # after which a case has hung; a slow machine takes seconds


@pytest.fixture(autouse=True)
def _ending() -> Iterator[None]:
    faulthandler.dump_traceback_later(HANGS_S, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def class_folders(root: Path) -> list[str]:
    """With what stands in a folder that Patchlight wrote, and in other people's sets."""
    write_folder(root, ["a", "b"], per_class=3)
    (root / "environment.json").write_text("{}")
    return ["config.toml", "classes.txt", "metadata.csv", "train.parquet", "a/0.png", "a/x.heic", "a/unknown"]


def tiny_imagenet(root: Path) -> list[str]:
    write_folder(root / "train", ["a", "b"], per_class=3)
    write_folder(root / "val", ["images"], per_class=2)
    (root / "val" / "val_annotations.txt").write_text("0.png\ta\n1.png\tb\n")
    return ["val/val_annotations.txt", "wnids.txt", "words.txt"]


def tables(root: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = [(write_folder(root, ["pictures"], per_class=1) / "pictures" / "0.png").read_bytes()] * 4
    shutil.rmtree(root / "pictures")
    pq.write_table(pa.table({"image": data, "label": [0, 1, 0, 1]}), root / "train.parquet")
    return ["train.parquet", "test.parquet"]


def saved_dataset(root: Path) -> list[str]:
    import datasets

    pictures = [picture(index) for index in range(4)]
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    datasets.Dataset.from_dict({"image": pictures, "label": [0, 1, 0, 1]}, features=kinds).save_to_disk(str(root))
    return sorted(path.name for path in root.iterdir())


def arrays(root: Path) -> list[str]:
    np.save(root / "images.npy", np.zeros((4, 8, 8), np.uint8))
    np.save(root / "labels.npy", np.array([0, 1, 0, 1]))
    return ["images.npy", "labels.npy", "test_images.npy"]


def idx(root: Path) -> list[str]:
    (root / "train-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 4]) + bytes(32))
    (root / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 0, 1]))
    return ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"]


def cifar(root: Path) -> list[str]:
    for name in ("batches.meta", "data_batch_1"):
        (root / name).write_bytes(b"x")
    return ["batches.meta", "data_batch_1", "data_batch_2", "test_batch"]


@pytest.mark.parametrize("write", [class_folders, tiny_imagenet, tables, saved_dataset, arrays, idx, cifar])
@pytest.mark.parametrize("way", ["pipe", "device"])
def test_no_file_of_a_data_set_may_be_a_pipe(write: Callable[[Path], list[str]], way: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for name in write(tmp_path / "set"):
        root = tmp_path / name.replace("/", "-")
        shutil.copytree(tmp_path / "set", root)
        (root / name).unlink(missing_ok=True)
        if way == "pipe":
            os.mkfifo(root / name)
        else:
            (root / name).symlink_to("/dev/zero")
        with contextlib.suppress(PatchlightError):  # where it is needed; else it is no image and left out
            load_source(str(root), max_left_out=1, outside_paths=True)
        if write is class_folders:
            assert len(find_images([root]).paths) in (5, 6)
