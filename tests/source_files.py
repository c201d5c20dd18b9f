"""Writers of every kind of source, with the libraries that write such files. No test of its own."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from patchlight.data.images import ImageSet
from patchlight.data.sources import cifar


def picture(seed: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def chw(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


def pixels_of(images: ImageSet) -> torch.Tensor:
    return images.gather(range(len(images)))[0]


def write_folder(root: Path, names: list[str], per_class: int = 2, suffix: str = "png", seed: int = 0) -> Path:
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            picture(seed + 100 * label + index).save(root / name / f"{index}.{suffix}")
    return root


def hub_folder(root: Path, name: str) -> Path:
    """A local copy of a hub repository, as `datasets` writes them: cifar10's or cifar100's columns."""
    import datasets

    features: dict[str, Any] = {"img": datasets.Image()}
    if name == "cifar100":
        features["coarse_label"] = datasets.ClassLabel(names=["big", "small"])
        features["fine_label"] = datasets.ClassLabel(names=["ant", "bee", "cow"])
    else:
        features["label"] = datasets.ClassLabel(names=["ant", "bee", "cow"])
    for split, seed in (("train", 0), ("test", 50)):
        columns: dict[str, Any] = {"img": [picture(seed + i) for i in range(6)]}
        if name == "cifar100":
            columns["coarse_label"] = [i % 2 for i in range(6)]
        columns["fine_label" if name == "cifar100" else "label"] = [i % 3 for i in range(6)]
        (root / "data").mkdir(parents=True, exist_ok=True)
        table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        table.to_parquet(str(root / "data" / f"{split}-00000-of-00001.parquet"))
    return root


def write_parquet(path: Path, columns: dict[str, Any], **features: Any) -> Path:
    import datasets

    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = datasets.Features(features) if features else None
    datasets.Dataset.from_dict(columns, features=kinds).to_parquet(str(path))
    return path


def encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def official(root: Path, layout: cifar.Layout, alter: dict[str, bytes] | None = None) -> cifar.Layout:
    """The official files, small, as Python 2 wrote them; returns the layout with their checksums."""
    folder = root / layout.folder
    folder.mkdir(parents=True)
    contents: dict[str, Any] = {
        name: {"data": official_pixels(name).reshape(4, 3072), layout.label_key: [2, 0, 1, 1], "filenames": ["x"] * 4}
        for name in (*layout.train, *layout.test)
    }
    contents |= {name: {layout.names_key: ["ant", "bee", "cow"]} for name in layout.meta}
    data = {name: pickled_by_python2(content) for name, content in contents.items()} | (alter or {})
    for name, content in data.items():
        (folder / name).write_bytes(content)
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in data.items()}
    return replace(
        layout,
        train={name: md5[name] for name in layout.train},
        test={name: md5[name] for name in layout.test},
        meta={name: md5[name] for name in layout.meta},
    )


def official_pixels(name: str) -> np.ndarray:
    seed = int.from_bytes(name.encode(), "little") % 2**32
    return np.random.default_rng(seed).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as the byte strings that Python 2 wrote."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, text: str | bytes) -> None:
        data = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(text)

    dispatch[str] = save_string
    dispatch[bytes] = save_string


def pickled_by_python2(content: Any) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(content)
    return buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def pack(root: Path, layout: cifar.Layout) -> cifar.Layout:
    """The archive of an official folder; returns the layout with its checksum."""
    path = root / layout.archive[0]
    with tarfile.open(path, "w:gz") as archive:
        archive.add(root / layout.folder, layout.folder)
    return replace(layout, archive=(layout.archive[0], hashlib.md5(path.read_bytes()).hexdigest()))
