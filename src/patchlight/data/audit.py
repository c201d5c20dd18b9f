"""What is in a source, and what is wrong with it: `patchlight data SOURCE`.

Loading stops at bad files; the audit goes on and lists them. The first part of the report looks at the files as they
are (sizes, modes, bad files, exact duplicates), the second at what training would see (splits, mean, one batch).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.decode import open_image, rgb_pixels
from patchlight.data.images import ImageSet, channel_stats, content_hash
from patchlight.data.listing import Listing, RawSplit, decode_listing
from patchlight.data.sources import list_source
from patchlight.data.splits import Splits, make_splits
from patchlight.errors import PatchlightError

GROUPS_LISTED = 100
BATCH = 32


@dataclass(frozen=True)
class Seen:
    """One image that could be read: where it stands, and the hash of its pixels."""

    split: str
    index: int
    name: str
    label: int
    content: bytes


@dataclass
class Scan:
    """What walking over all files found."""

    seen: list[Seen] = field(default_factory=list)
    bad: list[dict[str, Any]] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)


def audit_source(source: str, config: DataConfig | None = None, fallback_size: int | None = None) -> dict[str, Any]:
    """Everything `patchlight data` tells of a source, ready for JSON. `config` gives sizes and splits, but the source;
    images of no common size are fitted to `fallback_size`.

    - `source`, `classes` (names), `notes`
    - `splits`: name -> `images`, `per_class` {name: count}, as the source has them, bad files counted
    - `sizes` {"WIDTHxHEIGHT": count} and `modes` {Pillow's mode: count} of the files
    - `bad_files`: split, index, name, reason
    - `duplicates`: images whose pixels are exactly the same, see `find_duplicates`
    - `trained_on`: what `config` makes of it: `train`, `val`, `test` (`images`, `per_class`), `image_size`, `mean` and
      `std` of train, and `batch` (dtype, shape, min, max, labels); None where it cannot be loaded
    - `problems`: sentences; empty where all is well

    Raises as `list_source` does; bad files and settings that do not fit are reported instead.
    """
    config = replace(config or DataConfig(), source=source)
    listing = list_source(source)
    scan = Scan()
    for key, split in listing.splits.items():
        _scan_split(scan, key, split)
    duplicates = find_duplicates(scan.seen, listing.class_names)
    problems = _problems(scan, duplicates)
    trained_on, notes = None, list(listing.notes)
    if not scan.bad:
        try:
            sets = decode_listing(listing, source, config.image_size, config.memory_limit_mb, fallback_size)
            splits = make_splits(sets, config)
            trained_on, notes = _trained_on(splits), list(splits.notes)
        except PatchlightError as error:
            problems.append(str(error))
    return {
        "source": source,
        "classes": list(listing.class_names),
        "notes": notes,
        "splits": {key: _split_facts(listing, split) for key, split in listing.splits.items()},
        "sizes": dict(scan.sizes.most_common()),
        "modes": dict(scan.modes.most_common()),
        "bad_files": scan.bad,
        "duplicates": duplicates,
        "trained_on": trained_on,
        "problems": problems,
    }


def find_duplicates(seen: list[Seen], class_names: tuple[str, ...]) -> dict[str, Any]:
    """Images whose pixels are exactly the same, in groups.

    `groups`: how many; `extra`: images that could go; `across_splits` and `label_conflicts`: how many groups lie in
    several splits, and how many have several labels; `listed`: of the first GROUPS_LISTED (worst first) `images`
    (split, index, name, label), `across_splits` and `label_conflict`.
    """
    by_content: dict[bytes, list[Seen]] = {}
    for image in seen:
        by_content.setdefault(image.content, []).append(image)
    groups = [
        {
            "images": [
                {"split": i.split, "index": i.index, "name": i.name, "label": class_names[i.label]} for i in group
            ],
            "across_splits": len({i.split for i in group}) > 1,
            "label_conflict": len({i.label for i in group}) > 1,
        }
        for group in by_content.values()
        if len(group) > 1
    ]
    groups.sort(key=lambda group: (not group["label_conflict"], not group["across_splits"]))
    return {
        "groups": len(groups),
        "extra": len(seen) - len(by_content),
        "across_splits": sum(bool(group["across_splits"]) for group in groups),
        "label_conflicts": sum(bool(group["label_conflict"]) for group in groups),
        "listed": groups[:GROUPS_LISTED],
    }


def _scan_split(scan: Scan, key: str, split: RawSplit) -> None:
    for index, (name, encoded) in enumerate(split.items()):
        try:
            image = open_image(encoded, name)
            pixels = rgb_pixels(image, None, name)
        except PatchlightError as error:
            reason = str(error).removeprefix(f"{name}: ")
            scan.bad.append({"split": key, "index": index, "name": name, "reason": reason})
            continue
        scan.sizes[f"{image.width}x{image.height}"] += 1
        scan.modes[image.mode] += 1
        scan.seen.append(Seen(key, index, name, int(split.labels[index]), content_hash(pixels)))


def _split_facts(listing: Listing, split: RawSplit) -> dict[str, Any]:
    counts = np.bincount(split.labels, minlength=len(listing.class_names)).tolist()
    return {"images": len(split.labels), "per_class": dict(zip(listing.class_names, counts, strict=True))}


def _problems(scan: Scan, duplicates: dict[str, Any]) -> list[str]:
    problems = []
    if scan.bad:
        problems.append(
            f"images that cannot be read: {len(scan.bad)}; training refuses the source until they are mended"
        )
    if duplicates["across_splits"]:
        problems.append(
            f"pictures that stand in more than one split: {duplicates['across_splits']}; the test is not clean"
        )
    if duplicates["label_conflicts"]:
        problems.append(f"pictures that stand under different labels: {duplicates['label_conflicts']}")
    return problems


def _trained_on(splits: Splits) -> dict[str, Any]:
    mean, std = channel_stats(splits.train)
    pixels, labels = splits.train.gather(range(min(BATCH, len(splits.train))))
    return {
        **{key: _set_facts(getattr(splits, key)) for key in ("train", "val", "test")},
        "image_size": list(splits.train.image_size),
        "mean": list(mean),
        "std": list(std),
        "batch": {
            "dtype": str(pixels.dtype).removeprefix("torch."),
            "shape": list(pixels.shape),
            "min": int(pixels.min()),
            "max": int(pixels.max()),
            "labels": labels.tolist(),
        },
    }


def _set_facts(images: ImageSet | None) -> dict[str, Any] | None:
    if images is None:
        return None
    return {
        "images": len(images),
        "per_class": dict(zip(images.class_names, images.class_counts().tolist(), strict=True)),
    }
