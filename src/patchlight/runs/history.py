"""The epochs of a run: the lines of `metrics.jsonl`, and what they tell together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from patchlight.config import Config
from patchlight.errors import PatchlightError
from patchlight.runs.codec import RecordError, parse_json
from patchlight.runs.records import Epoch


def epochs_of(content: bytes, path: Path) -> list[Epoch]:
    """The lines of a `metrics.jsonl` that was read from `path`. Raises PatchlightError, naming the line."""
    try:
        # By the ends of lines that are written here alone: others may stand inside a text.
        lines = content.decode().removesuffix("\n").split("\n") if content else []
    except UnicodeDecodeError:
        raise PatchlightError(f"{path} is not text in UTF-8; restore it or remove it") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(Epoch.from_json(parse_json(line)))
        except RecordError as error:
            raise PatchlightError(
                f"{path}, line {number}, is not the record of an epoch ({error}); remove the line"
            ) from None
    return rows


def images_seen(rows: Sequence[Epoch]) -> float:
    """Training images of all epochs."""
    return sum(row.images_per_s * row.epoch_s for row in rows)


def images_per_s(rows: Sequence[Epoch]) -> float | None:
    """Training images per second over all epochs, without validation; None where there are no epochs."""
    seconds = sum(row.epoch_s for row in rows)
    return images_seen(rows) / seconds if seconds else None


def kept_epoch(rows: Sequence[Epoch], config: Config) -> Epoch | None:
    """Of the lines of `metrics.jsonl` that of the epoch whose weights were kept; None before the first."""
    best = [row for row in rows if row.best] if config.train.select != "last" else []
    return next(reversed(best or rows), None)
