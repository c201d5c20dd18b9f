"""What is in a source, and what is wrong with it: `patchlight data SOURCE`.

Loading stops at bad files, or leaves them out; the audit lists them. Its first part looks at the files as they are
(sizes, modes, bad files, exact duplicates), the second at what training would see (splits, image size, mean and
deviation).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.decode import open_image, pixels_and_facts
from patchlight.data.decoding import decode_listing
from patchlight.data.heard import hearing, listening
from patchlight.data.images import BadFile, channel_stats, content_hash
from patchlight.data.listing import LeftOut, RawSplit
from patchlight.data.remarks import Remarks
from patchlight.data.sources import list_source
from patchlight.data.splits import Splits, make_splits
from patchlight.errors import PatchlightError
from patchlight.paths import printable
from patchlight.progress import Progress


@dataclass(frozen=True)
class SplitCounts:
    """How many images a split has, and how many of each class by name."""

    images: int
    per_class: dict[str, int]


@dataclass(frozen=True)
class ListedImage:
    """An image by its split, its place in the split, its name and the name of its class."""

    split: str
    index: int
    name: str
    label: str


@dataclass(frozen=True)
class DuplicateGroup:
    """Images whose pixels are exactly the same."""

    images: tuple[ListedImage, ...]
    across_splits: bool  # they are in several splits
    label_conflict: bool  # they have several labels


@dataclass(frozen=True)
class Duplicates:
    """How many groups of equal images there are, and the worst of them."""

    groups: int
    extra: int  # images that could go
    across_splits: int  # groups
    label_conflicts: int  # groups
    listed: tuple[DuplicateGroup, ...]  # all: first those with several labels, then those in several splits


@dataclass(frozen=True)
class TrainedOn:
    """What a recipe makes of the source."""

    train: SplitCounts
    val: SplitCounts | None
    subset_test: SplitCounts | None  # of the second test set, which data.subset_test_per_class cuts off train
    test: SplitCounts
    image_size: tuple[int, int]  # height and width in pixels
    mean: tuple[float, ...]  # of each channel of train, of pixels in 0..1
    std: tuple[float, ...]  # the population standard deviation, likewise

    @property
    def sets(self) -> dict[str, SplitCounts]:
        """Those that there are, by name, in the order of `Splits.sets`."""
        named = {"train": self.train, "val": self.val, "subset_test": self.subset_test, "test": self.test}
        return {name: counts for name, counts in named.items() if counts is not None}


@dataclass(frozen=True)
class Audit:
    """What a source holds, and what a recipe would make of it."""

    source: str
    classes: tuple[str, ...]
    notes: tuple[str, ...]  # sentences on what was done to the source
    left_out: tuple[LeftOut, ...]  # what the source has and training does not get
    splits: dict[str, SplitCounts]  # as the source has them, bad files counted
    sizes: dict[str, int]  # "WIDTHxHEIGHT" of the files, and how many have it, the most frequent first
    modes: dict[str, int]  # Pillow's modes of the files, likewise
    bad_files: tuple[BadFile, ...]
    duplicates: Duplicates
    trained_on: TrainedOn | None  # None where the source cannot be trained on as it is
    problems: tuple[str, ...]  # sentences; empty where all is well

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON, by these names."""
        return _plain(self)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class ReadImage:
    """One image that could be read: where it stands, and the hash of its pixels."""

    split: str
    index: int
    name: str
    label: int
    content: bytes


@dataclass
class Scan:
    """What a walk over all files has met so far."""

    images: list[ReadImage] = field(default_factory=list)
    bad: list[BadFile] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    remarks: Remarks = field(default_factory=Remarks)


def audit_source(source: str, config: DataConfig | None = None, fallback_size: int | None = None) -> Audit:
    """Read every image of a source once, and try what a recipe would make of it.

    `config` gives sizes and splits (its own `source` is not used); images of no common size are fitted to
    `fallback_size` pixels a side. Raises as `list_source` does; bad files and settings that do not fit are reported in
    the audit instead.
    """
    config = replace(config or DataConfig(), source=source)
    listing = list_source(config)
    scan = Scan()
    with Progress(sum(len(split.labels) for split in listing.splits.values()), "looking at images") as progress:
        for key, split in listing.splits.items():
            _scan_split(scan, key, split, config.pixel_max, progress)
    duplicates = find_duplicates(scan.images, listing.class_names)
    problems = _problems(scan, duplicates, config)
    if sentence := listing.too_much_left_out(config.max_left_out):
        problems.append(sentence)
    said = scan.remarks.sentences(config.pixel_max)
    trained_on, notes = None, (*listing.notes, *listing.left_out_sentences(), *said)
    if not scan.bad or config.on_bad == "skip":
        try:
            splits = make_splits(decode_listing(listing, config, fallback_size), config)
            trained_on, notes = _trained_on(splits), splits.notes
        except PatchlightError as error:
            problems.append(str(error))
    return Audit(
        source=source,
        classes=listing.class_names,
        notes=notes,
        left_out=listing.left_out,
        splits={key: _counts(split.labels, listing.class_names) for key, split in listing.splits.items()},
        sizes=dict(scan.sizes.most_common()),
        modes=dict(scan.modes.most_common()),
        bad_files=tuple(scan.bad),
        duplicates=duplicates,
        trained_on=trained_on,
        problems=tuple(problems),
    )


def find_duplicates(images: list[ReadImage], class_names: tuple[str, ...]) -> Duplicates:
    """Groups of images whose pixels are exactly the same."""
    by_content: dict[bytes, list[ReadImage]] = {}
    for image in images:
        by_content.setdefault(image.content, []).append(image)
    groups = [
        DuplicateGroup(
            tuple(ListedImage(i.split, i.index, i.name, class_names[i.label]) for i in same),
            across_splits=len({i.split for i in same}) > 1,
            label_conflict=len({i.label for i in same}) > 1,
        )
        for same in by_content.values()
        if len(same) > 1
    ]
    groups.sort(key=lambda group: (not group.label_conflict, not group.across_splits))
    return Duplicates(
        groups=len(groups),
        extra=len(images) - len(by_content),
        across_splits=sum(group.across_splits for group in groups),
        label_conflicts=sum(group.label_conflict for group in groups),
        listed=tuple(groups),
    )


def _scan_split(scan: Scan, key: str, split: RawSplit, pixel_max: int, progress: Progress) -> None:
    for index, (raw_name, encoded) in enumerate(split.items()):
        progress.advance()
        if progress.due():
            progress.show(f"{len(scan.bad):,} bad" if scan.bad else "")
        name = printable(raw_name)
        try:
            with listening(), hearing() as warnings:
                image = open_image(encoded, name)
                pixels, facts = pixels_and_facts(image, None, name, pixel_max=pixel_max)
        except PatchlightError as error:
            scan.bad.append(BadFile(key, index, name, str(error).removeprefix(f"{name}: ")))
            continue
        scan.remarks.add(name, facts, tuple(warnings))
        scan.sizes[f"{image.width}x{image.height}"] += 1
        scan.modes[image.mode] += 1
        scan.images.append(ReadImage(key, index, name, int(split.labels[index]), content_hash(pixels)))


def _counts(labels: np.ndarray, class_names: tuple[str, ...]) -> SplitCounts:
    counts = np.bincount(labels, minlength=len(class_names)).tolist()
    return SplitCounts(len(labels), dict(zip(class_names, counts, strict=True)))


def _problems(scan: Scan, duplicates: Duplicates, config: DataConfig) -> list[str]:
    problems = []
    if scan.bad and config.on_bad == "error":
        problems.append(
            f"images that cannot be read: {len(scan.bad)}; training refuses the source until they are mended, or left "
            "out by data.on_bad = 'skip'"
        )
    if duplicates.across_splits:
        problems.append(
            f"pictures that stand in more than one split: {duplicates.across_splits}; the test is not clean"
        )
    if duplicates.label_conflicts:
        problems.append(f"pictures that stand under different labels: {duplicates.label_conflicts}")
    return problems


def _trained_on(splits: Splits) -> TrainedOn:
    counts = {name: _counts(images.labels.numpy(), images.class_names) for name, images in splits.sets.items()}
    mean, std = channel_stats(splits.train)
    return TrainedOn(
        train=counts["train"],
        val=counts.get("val"),
        subset_test=counts.get("subset_test"),
        test=counts["test"],
        image_size=splits.train.image_size,
        mean=mean,
        std=std,
    )
