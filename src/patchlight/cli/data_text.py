"""What `patchlight data` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from patchlight.cli.text import table
from patchlight.errors import first_of
from patchlight.units import counted, printable

if TYPE_CHECKING:
    from patchlight.commands.audit import DataReport
    from patchlight.data.audit import DuplicateGroup, SplitCounts

LINES = 20  # of a kind; what is more is counted, and --json has all


def data_text(report: DataReport) -> str:
    """Images of each class and split, what was found about the files, the first batch, and the pictures' paths."""
    trained = report.trained_on
    shown: dict[str, SplitCounts] = trained.sets if trained else report.splits
    rows = [(cls, *(str(counts.per_class[cls]) for counts in shown.values())) for cls in report.classes[:LINES]]
    if (more := len(report.classes) - LINES) > 0:
        rest = [sum(counts.per_class[cls] for cls in report.classes[LINES:]) for counts in shown.values()]
        rows.append((f"{more:,} more (--json)", *(f"{count:,}" for count in rest)))
    rows.append(("all", *(f"{counts.images:,}" for counts in shown.values())))
    blocks = [table(rows, ("class", *(name.replace("_", " ") for name in shown)))]
    facts = [
        ("sizes", _counts(report.sizes)),
        ("modes", _counts(report.modes)),
        ("bad files", str(len(report.bad_files))),
        ("duplicates", f"{report.duplicates.extra} in {counted(report.duplicates.groups, 'group')}"),
    ]
    if trained:
        facts += [(name, ", ".join(f"{v:.4f}" for v in getattr(trained, name))) for name in ("mean", "std")]
    blocks.append(table(facts, left=2))
    if report.first_batch is not None:
        blocks.append(f"the first batch, as it is trained on\n\n{table(report.first_batch.rows(), left=2)}")
    blocks += [_first([f"bad: {bad.name}: {bad.reason}" for bad in report.bad_files], "bad files")]
    groups = [group for group in report.duplicates.listed if group.across_splits or group.label_conflict]
    blocks += [_first([_group(group) for group in groups], "groups of the same pixels")]
    said = [*report.notes, *(f"problem: {problem}" for problem in report.problems)]
    blocks += ["\n".join(map(printable, said))]
    blocks += ["\n".join(map(printable, report.figures)) or "no pictures: the source cannot be trained on as it is"]
    return "\n\n".join(block for block in blocks if block)


def _counts(counts: dict[str, int]) -> str:
    most = sorted(counts.items(), key=lambda item: -item[1])
    return first_of((f"{name} ({n:,})" for name, n in most), 5)


def _first(lines: Sequence[str], what: str) -> str:
    """The first of the lines, and how many more there are."""
    more = len(lines) - LINES
    return "\n".join(
        [*map(printable, lines[:LINES]), *([f"and {more:,} more {what}, which --json lists"] if more > 0 else [])]
    )


def _group(group: DuplicateGroup) -> str:
    more = f" and {len(group.images) - 5:,} more" if len(group.images) > 5 else ""
    return "same pixels: " + ", ".join(f"{i.name} ({i.split}, {i.label})" for i in group.images[:5]) + more


def has_problems(report: DataReport) -> bool:
    """Whether the exit code is 1."""
    return bool(report.problems)
