"""What a report is told from: the files of a run folder, read and checked, and numbers put into words.

A file that is not there yet (a run that was interrupted) is None or empty; one that is damaged is a PatchlightError
that names it and the way out.
"""

from __future__ import annotations

import json
import shlex
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchlight.config import Config, load_recipe
from patchlight.errors import PatchlightError
from patchlight.runs import kept_row

Result = dict[str, Any]
Samples = dict[str, np.ndarray]


@dataclass(frozen=True)
class Facts:
    """A run as its folder tells it."""

    run: Path
    config: Config
    environment: dict[str, Any]
    rows: list[dict[str, Any]]
    result: Result | None
    samples: Samples | None
    insight: Samples | None
    snapshots: Samples | None
    painted: Samples | None  # what an autoencoder made of a few images
    faithfulness: dict[str, Any] | None

    @property
    def name(self) -> str:
        """The run's own name: its folder's. Several runs may share a recipe."""
        return self.run.resolve().name

    def about(self, *keys: str) -> Any:
        """A value of environment.json such as `about("model", "params")`; None where any part of the way is missing."""
        value: Any = self.environment
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def number(self, *keys: str) -> float | None:
        value = self.about(*keys)
        return value if is_number(value) else None

    @property
    def selected(self) -> dict[str, Any] | None:
        """The row of the epoch whose weights were kept."""
        return kept_row(self.rows, self.config)

    @property
    def class_names(self) -> list[str]:
        """From the test result; numbers where there is none."""
        if self.result is not None:
            return list(self.result["per_class"])
        return [str(i) for i in range(self.samples["probs"].shape[1])] if self.samples is not None else []


def read_facts(run: Path) -> Facts:
    """Read a run folder.

    Raises PatchlightError where it is none, or where one of its files is not what it should be.
    """
    if not (run / "config.toml").is_file():
        raise PatchlightError(f"{run} is not a run folder (it has no config.toml); `patchlight train` makes one")
    result = _json(run / "eval.json", mend_by_resuming(run), _is_result)
    samples = _samples(run / "samples.npz", None if result is None else len(result["per_class"]))
    return Facts(
        run=run,
        config=load_recipe(str(run / "config.toml")),
        environment=_json(run / "environment.json", "remove it; the report does without", lambda _: True) or {},
        rows=_rows(run / "metrics.jsonl"),
        result=result,
        samples=samples,
        insight=_insight(run / "insight.npz", samples),
        snapshots=_arrays(run / "snapshots.npz", "remove it; the report does without", _are_snapshots),
        painted=_arrays(run / "reconstructions.npz", "remove it; the report does without", _are_painted),
        faithfulness=_json(run / "faithfulness.json", "remove it; the report does without", _is_faithfulness),
    )


def resume_command(run: Path) -> str:
    """What goes on with a run, and writes the result of one whose training is over."""
    return f"patchlight train {shlex.quote(str(run / 'config.toml'))} --out {shlex.quote(str(run))} --resume"


def begin_command(facts: Facts) -> str:
    """What trains on from an encoder that learned without labels, at its own size."""
    size = facts.about("model", "img_size")
    return f"patchlight train finetune --model.name {shlex.quote(str(facts.run))} --model.img_size {size}"


def mend_by_resuming(run: Path) -> str:
    # A run with a result is finished, so only without it is anything evaluated again.
    return f"write it anew with `{resume_command(run)}`, once {run / 'eval.json'} is deleted"


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise PatchlightError(f"{path} is not text in UTF-8; restore it or remove it") from None
    except OSError as error:
        raise PatchlightError(f"cannot read {path}: {error.strerror}; check its permissions") from None


def _json(path: Path, mend: str, is_right: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    text = _text(path)
    if text is None:
        return None
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise PatchlightError(f"{path} is not valid JSON (line {error.lineno}); {mend}") from None
    if not isinstance(data, dict) or not is_right(data):
        raise PatchlightError(f"{path} does not hold what docs/design.md says it should; {mend}")
    return data


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate((_text(path) or "").splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict) or not is_number(row.get("epoch")):
            raise PatchlightError(f"{path}, line {number}, is not the record of an epoch; remove the line")
        # What is no number (null under mixing, nan of a diverged run) is no value.
        rows.append({key: value if is_number(value) or value is True else None for key, value in row.items()})
    return rows


def _is_result(data: dict[str, Any]) -> bool:
    """Whether everything that the page shows of eval.json has its shape."""
    rates, table = data.get("per_class"), data.get("reliability")
    if not isinstance(rates, dict) or not isinstance(table, dict) or not isinstance(data.get("confusion"), list):
        return False
    k, interval, mistakes = len(rates), data.get("top1_ci95"), data.get("mistakes", [])
    numbers = all(is_number(data.get(key)) for key in ("n", "loss", "top1", "top5", "ece"))
    interval_fits = isinstance(interval, list) and len(interval) == 2 and all(map(is_number, interval))
    rates_fit = k > 0 and all(rate is None or is_number(rate) for rate in rates.values())
    confusion_fits = len(data["confusion"]) == k and all(
        isinstance(row, list) and len(row) == k and all(isinstance(n, int) and n >= 0 for n in row)
        for row in data["confusion"]
    )
    for key in ("mirrored", "subset_test"):
        extra = data.get(key, {"top1": 0})
        if not isinstance(extra, dict) or not is_number(extra.get("top1")):
            return False
    columns = [table.get(key) for key in ("edges", "confidence", "accuracy", "count")]
    if not all(isinstance(column, list) for column in columns):
        return False
    bins = len(columns[3])  # type: ignore[arg-type]
    table_fits = [len(column) for column in columns] == [bins + 1, bins, bins, bins] and all(  # type: ignore[arg-type]
        value is None or is_number(value) for column in columns for value in column or []
    )
    return numbers and interval_fits and rates_fit and confusion_fits and table_fits and isinstance(mistakes, list)


def _samples(path: Path, classes: int | None) -> Samples | None:
    return _arrays(path, mend_by_resuming(path.parent), lambda data: _are_samples(data, classes))


def _insight(path: Path, samples: Samples | None) -> Samples | None:
    """It is about the samples: without these it has nothing to say."""
    if samples is None:
        return None
    return _arrays(path, "remove it; the report does without", lambda data: _is_insight(data, len(samples["images"])))


def _arrays(path: Path, mend: str, is_right: Callable[[Samples], bool]) -> Samples | None:
    if not path.exists():
        return None
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            data = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError):
        raise PatchlightError(f"{path} cannot be read as an .npz of plain arrays; {mend}") from None
    if not is_right(data):
        raise PatchlightError(f"{path} does not hold what docs/design.md says it should; {mend}")
    return data


def _is_insight(data: Samples, count: int) -> bool:
    needed = {"relevance": 4, "explored": 1, "attention": 5, "distance": 2, "entropy": 2, "filters": 4}
    if any(key not in data or data[key].ndim != dims for key, dims in needed.items()):
        return False
    relevance, explored, attention = data["relevance"], data["explored"], data["attention"]
    patches = relevance.shape[2] * relevance.shape[3]
    return bool(
        relevance.shape[:2] == (count, 2)
        and np.isfinite(relevance).all()
        and attention.dtype == data["filters"].dtype == np.uint8
        and attention.shape[0] == len(explored)
        and attention.shape[3:] == (patches, patches)
        and np.all((explored >= 0) & (explored < count))
        and data["distance"].shape == data["entropy"].shape
        and np.isfinite(data["distance"]).all()
        and ("pooled" not in data or _are_pooled(data["pooled"], len(explored), relevance.shape[2:]))
        and ("positions" not in data or data["positions"].shape == (patches, *relevance.shape[2:]))
    )


def _are_pooled(maps: np.ndarray, least: int, grid: tuple[int, ...]) -> bool:
    return maps.ndim == 5 and maps.dtype == np.uint8 and len(maps) >= least and maps.shape[3:] == grid


def _are_painted(data: Samples) -> bool:
    shapes = {data[key].shape for key in ("images", "hidden", "painted") if key in data and data[key].dtype == np.uint8}
    return len(shapes) == 1 and len(data) == 3 and len(next(iter(shapes))) == 4


def _are_snapshots(data: Samples) -> bool:
    needed = {"images": 4, "labels": 1, "epochs": 1, "maps": 4, "probs": 3}
    if any(key not in data or data[key].ndim != dims for key, dims in needed.items()):
        return False
    epochs, count = len(data["epochs"]), len(data["images"])
    return bool(
        data["images"].dtype == np.uint8
        and data["labels"].shape == (count,)
        and data["maps"].shape[:2] == data["probs"].shape[:2] == (epochs, count)
        and epochs > 0
        and np.isfinite(data["maps"]).all()
        and np.all((data["labels"] >= 0) & (data["labels"] < data["probs"].shape[2]))
    )


def _is_faithfulness(data: dict[str, Any]) -> bool:
    rows = data.get("rows")
    if not isinstance(rows, list) or not rows or not isinstance(data.get("n"), int):
        return False
    return all(
        isinstance(row, dict)
        and isinstance(row.get("method"), str)
        and is_number(row.get("ms"))
        and isinstance(row.get("scores"), dict)
        and all(
            isinstance(score, dict) and all(is_number(score.get(key)) for key in ("mean", "low", "high"))
            for score in row["scores"].values()
        )
        for row in rows
    )


def _are_samples(data: Samples, classes: int | None) -> bool:
    if not {"images", "labels", "probs", "kind"} <= set(data):
        return False
    images, labels, probs, maps = data["images"], data["labels"], data["probs"], data.get("maps")
    count = len(images) if images.ndim else -1
    return bool(
        images.ndim == 4
        and images.shape[3] == 3
        and images.dtype == np.uint8
        and labels.shape == data["kind"].shape == (count,)
        and probs.ndim == 2
        and probs.shape[0] == count
        and probs.shape[1] == (classes or probs.shape[1])
        and np.issubdtype(labels.dtype, np.integer)
        and np.all((labels >= 0) & (labels < probs.shape[1]))
        and (maps is None or (maps.ndim == 3 and len(maps) == count and np.isfinite(maps).all()))
    )
