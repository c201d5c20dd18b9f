"""Reading a set of images from the formats that people have: seconds and peak memory, each in a fresh process.

The same pictures as class folders of small PNG files, as a zip of class folders of JPEG photos, and as WebDataset's
shards of these. Every contender gives all images once as uint8 of one size: Patchlight as it does before training
(in memory, or in its cache file where they are many), the others as their users would walk them. The last set is five
times as many shards, read once by a process that may have 2 GiB of memory of its own (`ulimit -d`), libraries included.
"""

from __future__ import annotations

import gc
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import markdown
from benchmarks.options import ROOT, Options
from benchmarks.timing import ratios, spread

OURS = "Patchlight"
CLASSES = [f"class_{number}" for number in range(10)]
DIFFERENT = 100  # photos that are drawn; files repeat them, since drawing takes longer than what is measured
SMALL, PHOTO = (32, 32), (500, 375)
PNGS, ZIP, SHARDS, MANY = "folders of small PNG", "zip of JPEG photos", "shards of JPEG photos", "five times the shards"
SIZE = {PNGS: 32, ZIP: 64, SHARDS: 64, MANY: 64}
ALLOWED = {MANY: 2 * 2**30}  # bytes


def run(options: Options) -> dict[str, Any]:
    small, photos = options.pick(50_000, 60), options.pick(14_000, 40)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for name, (path, count) in write_all(Path(place), small, photos).items():
            found[name] = measure(options, name, path) | {"images": count, "bytes": size_of(path)}
    return {"formats": found}


def measure(options: Options, name: str, path: Path) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, list[float]] = {}
    for _ in range(1 if name in ALLOWED else options.rounds_or(3, 1)):
        for contender, (library, kinds, _) in CONTENDERS.items():
            if name not in kinds or not importlib.util.find_spec(library):
                continue
            with tempfile.TemporaryDirectory() as caches:
                answer = in_a_process(contender, path, name, Path(caches))
            seconds.setdefault(contender, []).append(answer["seconds"])
            peaks.setdefault(contender, []).append(answer["peak_bytes"])
    return {
        "ratios": {OURS: ratios(seconds, OURS)},
        "seconds": {key: {**spread(own), "rounds": own} for key, own in seconds.items()},
        "peak_bytes": {key: {**spread(own), "rounds": own} for key, own in peaks.items()},
    }


def in_a_process(contender: str, path: Path, name: str, caches: Path) -> dict[str, float]:
    """Seconds and peak memory beyond the imports, with empty caches."""
    own = {"PATCHLIGHT_CACHE": str(caches / "ours"), "HF_DATASETS_CACHE": str(caches / "theirs")}
    command = [sys.executable, "-m", "benchmarks.formats", contender, str(path), str(SIZE[name])]
    if name in ALLOWED:
        command = ["sh", "-c", f'ulimit -d {ALLOWED[name] // 1024}; exec "$@"', "sh", *command]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | own, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


# --- the sets ---


def write_all(root: Path, small: int, photos: int) -> dict[str, tuple[Path, int]]:
    """Each format's path and how many images it has."""
    pngs, jpegs = pictures(SMALL, "PNG"), pictures(PHOTO, "JPEG")
    for index in range(small):
        file = root / "png" / CLASSES[index % 10] / f"{index:06}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pngs[index % DIFFERENT])
    with zipfile.ZipFile(root / "photos.zip", "w") as archive:
        for index in range(photos):
            archive.writestr(f"photos/{CLASSES[index % 10]}/{index:06}.jpg", jpegs[index % DIFFERENT])
    write_shards(root / "shards", photos, jpegs)
    write_shards(root / "many shards", 5 * photos, jpegs)
    paths = (root / "png", root / "photos.zip", root / "shards", root / "many shards")
    return dict(zip(SIZE, zip(paths, (small, photos, photos, 5 * photos), strict=True), strict=True))


def write_shards(folder: Path, count: int, jpegs: list[bytes], per_shard: int = 1400) -> None:
    folder.mkdir()
    for first in range(0, count, per_shard):
        with tarfile.open(folder / f"train-{first // per_shard:06}.tar", "w") as tar:
            for index in range(first, min(count, first + per_shard)):
                for field, data in (("jpg", jpegs[index % DIFFERENT]), ("cls", str(index % 10).encode())):
                    info = tarfile.TarInfo(f"{index:06}.{field}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def pictures(size: tuple[int, int], kind: str) -> list[bytes]:
    """Encoded pictures with as much detail as photos have: noise, enlarged."""
    draw, made = np.random.default_rng(0), []
    for _ in range(DIFFERENT):
        noise = draw.integers(0, 256, (size[1] // 2, size[0] // 2, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(buffer, kind, quality=90)
        made.append(buffer.getvalue())
    return made


def size_of(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


# --- the contenders; each gives its images, one by one or many at a time ---


def ours(path: Path, size: int) -> Iterator[int]:
    from patchlight.data.sources import load_source

    yield from (len(images) for images in load_source(str(path), image_size=size).values())


def torchvision(path: Path, size: int) -> Iterator[int]:
    """A zip is unpacked by Python's own library first."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])
    if path.is_file():
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            archive.extractall(folder)
            yield from torchvision(Path(folder) / "photos", size)
        return
    for pixels, _ in ImageFolder(str(path), steps):
        assert pixels.shape == (3, size, size)
        yield 1


def datasets(path: Path, size: int) -> Iterator[int]:
    """Hugging Face's builders of image folders and of WebDataset's shards."""
    import datasets as library

    library.disable_progress_bars()
    if path.name.endswith("shards"):
        loaded = library.load_dataset("webdataset", data_files=[str(f) for f in sorted(path.glob("*.tar"))])
    else:
        loaded = library.load_dataset("imagefolder", data_dir=str(path))
    for row in loaded["train"]:
        image = (row["jpg"] if "jpg" in row else row["image"]).convert("RGB")
        scale = size / min(image.size)
        image = image.resize((max(size, int(image.width * scale)), max(size, int(image.height * scale))))
        assert np.asarray(image).shape[2] == 3
        yield 1


CONTENDERS: dict[str, tuple[str, tuple[str, ...], Callable[[Path, int], Iterator[int]]]] = {
    OURS: ("patchlight", tuple(SIZE), ours),
    "torchvision ImageFolder": ("torchvision", (PNGS, ZIP), torchvision),
    # Not the zip: datasets 5.2.0 takes the folder that the zip is in for a class, and ends with an error.
    "Hugging Face datasets": ("datasets", (PNGS, SHARDS, MANY), datasets),
}


def main() -> None:
    import torch

    from patchlight.machine.process import forget_peak_memory, peak_memory_gb

    contender, path, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    library, _, read = CONTENDERS[contender]
    importlib.import_module("patchlight.data.sources" if contender == OURS else library)
    cpu = torch.device("cpu")
    gc.collect()
    forget_peak_memory()
    before, started = peak_memory_gb(cpu), time.perf_counter()
    count = sum(read(path, size))
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak_bytes": 1e9 * (peak_memory_gb(cpu) - before), "images": count}))


def table(result: dict[str, Any]) -> str:
    parts = ["Each in a fresh process with empty caches; memory is the most in use beyond that after the imports."]
    for name, found in result["formats"].items():
        allowed = f", {ALLOWED[name] / 2**30:.0f} GiB allowed" if name in ALLOWED else ""
        head = f"{name} ({found['images']:,} images, {found['bytes'] / 1e6:,.0f} MB{allowed})"
        rows = [
            [
                contender,
                markdown.times(found["ratios"][OURS][contender]),
                markdown.number(seconds["median"]),
                markdown.number(found["peak_bytes"][contender]["median"] / 2**20),
            ]
            for contender, seconds in found["seconds"].items()
        ]
        parts.append(markdown.table([head, "time over Patchlight's", "s", "MiB"], rows))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
