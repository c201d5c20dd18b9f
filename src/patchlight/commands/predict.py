"""`patchlight predict`: what is on image files."""

from __future__ import annotations

import csv as table
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from patchlight.data.files import ImageFiles, find_images, read_images
from patchlight.data.remarks import Remarks
from patchlight.errors import PatchlightError, UsageError
from patchlight.evaluation import evaluate as evaluation
from patchlight.machine.device import autocast, resolve_device
from patchlight.machine.process import tune_process
from patchlight.models import ModelCard, load_classifier
from patchlight.paths import is_folder, is_there, printable, user_path
from patchlight.progress import Progress, say
from patchlight.runs import Run
from patchlight.runs.checkpoints import find_checkpoint
from patchlight.runs.codec import JSON, Record

PREDICT_BATCH = 256  # image files classified together, and all that is in memory of them
BAD_SAID = 20  # files that cannot be read, of which each has a line on standard error


@dataclass(frozen=True, kw_only=True)
class ClassProbability(Record):
    """A class and its probability, 0..1."""

    name: str = field(metadata={"key": "class"})
    probability: float


@dataclass(frozen=True, kw_only=True)
class Prediction(Record):
    """The most probable classes of an image file, best first; none of one that cannot be read, and why."""

    image: str
    classes: tuple[ClassProbability, ...]
    error: str | None = field(default=None, metadata={"brief": True})
    weights: str | None = field(default=None, metadata={"brief": True})  # a checkpoint's: "epoch 50"


@dataclass
class Answers:
    """The predictions of many files as they come: walk them once, then `bad`, `notes` and `count` are whole."""

    model: nn.Module
    card: ModelCard
    files: ImageFiles
    top: int
    device: torch.device
    precision: str
    weights: str | None
    notes: tuple[str, ...] = ()  # sentences on the files
    bad: list[Prediction] = field(default_factory=list)
    count: int = 0  # of files with an answer
    csv: str | None = None  # where they were written

    def __iter__(self) -> Iterator[Prediction]:
        """All files in order. What cannot be read, and the notes, are also said on standard error."""
        remarks, paths = Remarks(), self.files.paths
        card = self.card
        images = read_images(paths, card.fit_size, card.fit_interpolation, card.pixel_max, remarks)
        with Progress(len(paths), "predicting") as progress:
            for start in range(0, len(paths), PREDICT_BATCH):
                batch = [(path, next(images)) for path in paths[start : start + PREDICT_BATCH]]
                yield from self._answer(batch)
                progress.advance(len(batch))
                if progress.due():
                    progress.show(f"{len(self.bad)} cannot be read" if self.bad else "")
        self.notes = (*self.files.notes, *remarks.sentences(card.pixel_max, trained=True))
        if len(self.bad) > 1:
            more = f", the first {BAD_SAID} of which are named here and all by --json" * (len(self.bad) > BAD_SAID)
            say(f"{len(self.bad):,} of {len(paths):,} images cannot be read{more}")
        for note in self.notes:
            say(note)

    def _answer(self, batch: list[tuple[Path, Tensor | PatchlightError]]) -> Iterator[Prediction]:
        good = [read for _, read in batch if isinstance(read, Tensor)]
        best = iter(self._classify(torch.stack(good)) if good else ())
        for path, read in batch:
            image = printable(path)
            if isinstance(read, Tensor):
                self.count += 1
                yield Prediction(image=image, classes=next(best), weights=self.weights)
                continue
            reason = str(read).removeprefix(f"{image}: ")
            self.bad.append(Prediction(image=image, classes=(), error=reason, weights=self.weights))
            if len(self.bad) <= BAD_SAID:
                say(f"{image}: {reason}")
            yield self.bad[-1]

    def _classify(self, pixels: Tensor) -> list[tuple[ClassProbability, ...]]:
        """The best classes of images (B, 3, h, w) uint8."""
        names = self.card.class_names
        with torch.inference_mode(), autocast(self.precision, self.device):
            probs = self.model(self.card.to_input(pixels.to(self.device))).float().softmax(dim=1)
        best = probs.topk(min(self.top, len(names)))
        return [
            tuple(ClassProbability(name=names[i], probability=value) for value, i in zip(values, indices, strict=True))
            for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def to_json(self) -> dict[str, JSON]:
        """What `--json` prints, after all files were walked: those with an answer, unless they are in a CSV file."""
        good: list[JSON] = [] if self.csv else [each.to_json() for each in self if not each.error]
        bad: list[JSON] = [{"image": each.image, "error": each.error} for each in self.bad]
        where: dict[str, JSON] = {"csv": self.csv, "count": self.count} if self.csv else {"predictions": good}
        return {**where, "bad": bad, "notes": list(self.notes)}


def predict(
    run: str | Path | Run,
    images: str | Path | Sequence[str | Path],
    *,
    top: int = 5,
    device: str = "auto",
    precision: str = "auto",
) -> list[Prediction]:
    """The `top` most probable classes of each image file, of any size and mode, in the order of `images`.

    `run` is a run's folder, or a checkpoint of one: RUN/checkpoints/epoch-050, or RUN/checkpoints/last for the newest.
    `images` are one or several files, folders (all images in them and below, sorted) and patterns. Of a file that is no
    image the prediction has no classes and an `error`, which is also said on standard error. `device` is as
    train.device and `precision` as eval.precision; the fastest here is exact enough for an answer (docs/results.md).
    Raises UsageError where `top` is less than 1, and PatchlightError where the run has no classifier, or a folder or
    pattern no images.
    """
    images = [images] if isinstance(images, str | Path) else images
    return list(answers(run, images, top=top, device=device, precision=precision))


def predict_files(
    run: str | Path | Run,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    csv: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> Answers:
    """`patchlight predict`: the answers, to be walked; with `csv` they are in that file already, whole."""
    place = None if csv is None else csv_place(csv)
    found = answers(run, images, top=top, device=device, precision=precision)
    if place is not None:
        write_csv(place, found)
    return found


def answers(run: str | Path | Run, images: Sequence[str | Path], *, top: int, device: str, precision: str) -> Answers:
    """The model loaded and the files found, nothing read yet. Raises as `predict` does."""
    if top < 1:
        raise UsageError(f"--top must be at least 1, not {top}")
    on = resolve_device(device)
    files = find_images(images)
    tune_process(on)
    place = run.path if isinstance(run, Run) else user_path(run)
    if (checkpoint := find_checkpoint(place)) is not None:
        say(checkpoint.line)
    model, card = load_classifier(checkpoint.path if checkpoint else place, on)
    precision = evaluation.choose_speed(model, precision, PREDICT_BATCH)
    return Answers(model, card, files, top, on, precision, checkpoint.weights if checkpoint else None)


def csv_place(path: str | Path) -> Path:
    """The file to write. Raises UsageError where it cannot be one, or is there and no CSV file: perhaps an image."""
    place = user_path(path)
    if is_folder(place):
        raise UsageError(f"--csv {printable(place)} is a folder; name a file")
    if not is_folder(place.parent):
        raise UsageError(f"--csv {printable(place)}: there is no folder {printable(place.parent)}; make it first")
    if is_there(place) and place.suffix.lower() != ".csv":
        raise UsageError(f"--csv {printable(place)} is there and not called .csv; choose another name, or remove it")
    return place


def write_csv(place: Path, found: Answers) -> None:
    """A row for each file, in order: image, class, probability, class_2, probability_2 and so on, error; whole or not
    at all. Of a file that cannot be read only the name and the error are there.
    """
    ranks = min(found.top, len(found.card.class_names))
    after = ("", *(f"_{rank}" for rank in range(2, ranks + 1)))
    header = ["image", *(word + rank for rank in after for word in ("class", "probability")), "error"]
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=place.parent, prefix=f".{place.name}-", suffix=".part", delete=False
    ) as file:
        part = Path(file.name)
        try:
            rows = table.writer(file)
            rows.writerow(header)
            for each in found:
                pairs = [(answer.name, f"{answer.probability:.6f}") for answer in each.classes] or [("", "")] * ranks
                rows.writerow([each.image, *(cell for pair in pairs for cell in pair), each.error or ""])
            file.flush()
            os.fsync(file.fileno())
            file.close()
            part.chmod(0o666 & ~_umask())
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)
    found.csv = printable(place)


def _umask() -> int:
    """What new files may not be; temporary ones are their owner's alone."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
