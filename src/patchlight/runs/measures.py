"""The measures of validation by which weights are kept and training stops early. MEASURES is `train.select`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchlight.runs.records import Epoch


@dataclass(frozen=True)
class Measure:
    """A score of the validation images in 0..1, the higher the better."""

    name: str  # "top1": in `metrics.jsonl` it is "val/top1", in an Epoch `val_top1`
    words: str

    @property
    def key(self) -> str:
        """Its name in `metrics.jsonl`."""
        return f"val/{self.name}"

    def of(self, row: Epoch) -> float | None:
        """Its value in an epoch; None without validation images, where there are no labels, and in older runs."""
        value: float | None = getattr(row, f"val_{self.name}")
        return value


MEASURES = {
    "best": Measure("top1", "accuracy"),
    "best_balanced": Measure("balanced_accuracy", "balanced accuracy"),
    "best_f1": Measure("macro_f1", "macro F1"),
}


def measure_of(select: str) -> Measure:
    """By which an epoch is the best where `train.select` is this; "last" keeps other weights and marks the best all the
    same.
    """
    return MEASURES.get(select, MEASURES["best"])


def tells_more(confusion: Sequence[Sequence[int]]) -> bool:
    """Whether balanced accuracy is told beside accuracy: where the largest class has more than 1.5 times the images of
    the smallest. Of more even ones the two are nearly the same number.
    """
    sizes = [sum(row) for row in confusion if sum(row)]
    return bool(sizes) and max(sizes) > 1.5 * min(sizes)
