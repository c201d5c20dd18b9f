"""TensorBoard: event files in RUN/tracking/tensorboard, written by torch's SummaryWriter and read by TensorBoard's own
reader.

A process that goes on with a run reads what is there and adds a file with the rest, so each number keeps the time at
which it was measured. What came after the checkpoint is taken back as TensorBoard has it: a START event, after which
readers forget all later steps (`purge_step`).
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import FileWriter, SummaryWriter
from torch.utils.tensorboard.summary import hparams

from patchlight.training.trackers.tracker import MARK, End, Scalars, Subject, Tracker, figure_tags


class TensorBoard(Tracker):
    """A run as a folder of event files."""

    errors = (OSError,)

    def __init__(self, subject: Subject) -> None:
        self._folder = subject.folder / "tensorboard"
        self.id, self.place = "", str(self._folder)
        self.words = f"`tensorboard --logdir {shlex.quote(str(subject.run.path.parent))}` shows it"
        self._there = read(self._folder)
        self._writer = self._next_file()
        if "config/text_summary" not in self._there.Tags()[TENSORS]:
            self._writer.add_text("config", f"```toml\n{subject.recipe}\n```", 0)
            began, settings, _ = hparams(dict(subject.settings), {"val/top1": 0, "val/loss": 0, "test/top1": 0})
            self._add(began, 0)
            self._add(settings, 0)
            self._writer.flush()

    def last_step(self) -> int:
        has_epochs = MARK in self._there.Tags()[SCALARS]
        return max((event.step for event in self._there.Scalars(MARK)), default=0) if has_epochs else 0

    def take_back(self, step: int) -> bool:
        self._writer.close()
        self._writer = self._next_file(purge_step=step + 1)
        self._writer.flush()
        return True

    def log(self, step: int, scalars: Scalars) -> None:
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def conclude(self, step: int, result: Scalars, figures: list[Path], report: Path) -> None:
        tags = read(self._folder).Tags()
        self.log(step, {tag: value for tag, value in result.items() if tag not in tags[SCALARS]})
        for tag, path in figure_tags(figures).items():
            if tag not in tags["images"]:
                self._add(picture(tag, path), step)
        if "report/text_summary" not in tags[TENSORS]:
            self._writer.add_text("report", f"The report of this run: {report}", step)
            _, _, ended = hparams({}, {})
            self._add(ended, step)
        self._writer.flush()

    def _next_file(self, purge_step: int | None = None) -> SummaryWriter:
        """A file that readers take after those that are there: they sort files by name, in which the second of its
        beginning comes first, so a file that begins within the second of another one waits for the next.
        """
        began = [path.name.split(".")[3] for path in self._folder.glob("events.out.tfevents.*")]
        newest = max((int(second) for second in began if second.isdecimal()), default=0)
        if 0 <= newest - time.time() + 1 <= 1:
            time.sleep(newest - time.time() + 1)
        return SummaryWriter(str(self._folder), purge_step=purge_step)

    def _add(self, summary: Summary, step: int) -> None:
        cast(FileWriter, self._writer.file_writer).add_summary(summary, step)

    def close(self, end: End) -> None:
        self._writer.close()


def picture(tag: str, path: Path) -> Summary:
    """A PNG file as it is, which `SummaryWriter.add_image` would decode and encode again."""
    with Image.open(path) as image:
        width, height = image.size
        channels = len(image.getbands())
    held = Summary.Image(width=width, height=height, colorspace=channels, encoded_image_string=path.read_bytes())
    return Summary(value=[Summary.Value(tag=tag, image=held)])


def read(folder: Path) -> EventAccumulator:
    """What the event files of a folder hold, as TensorBoard shows it; nothing where there is no folder.

    A file whose end a killed process left half written is read up to there.
    """
    held = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    if folder.is_dir():
        with _without_remarks():
            held.Reload()
    return held


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """Without the reader's warning that a run was taken back, as it says of each time in all of its history."""
    log = logging.getLogger("tensorboard")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
