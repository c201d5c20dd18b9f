"""The trackers of a run from its set-up to its page: what is sent when, and what happens where one fails.

A tracker that cannot begin is an error before the run's folder is made, or another run replaced. One that began once
and fails later never ends a training: it is said once, noted in `environment.json`, and the next `--resume` sends what
is missing.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType

from patchlight.config import Config
from patchlight.errors import Interrupted, PatchlightError, UsageError
from patchlight.progress import say
from patchlight.runs import Epoch, Run
from patchlight.runs.folder import FILES
from patchlight.runs.tracking import Tracked, TrackedIn
from patchlight.training.record import note
from patchlight.training.trackers import tracker_class
from patchlight.training.trackers.tracker import (
    End,
    Subject,
    Tracker,
    epoch_scalars,
    result_scalars,
    settings_of,
)


class Trackers:
    """The trackers of `train.track`. As a context it lets go of all of them at its end, however that comes."""

    def __init__(self, run: Run, config: Config) -> None:
        """Nothing is loaded or asked yet; `config` says which trackers."""
        self._run, self._wanted = run, config
        self._open: dict[str, Tracker] = {}
        self._last: dict[str, int] = {}  # the step of the last epoch that each has
        self._end: End = "failed"

    def begin(self, config: Config) -> None:
        """Begin the run in each tracker, or go on with it. They are told the recipe that it was started with: what is
        trained is one run, though a resource may be another now. No file of the run is written but of a tracker's own.

        Raises UsageError for one that cannot begin and never did, LibraryMissing where its client is not installed;
        those that began before it are closed then.
        """
        names = self._wanted.train.track
        tracked = (self._run.shown(Tracked) if names else None) or Tracked(trackers={})
        try:
            for name in names:
                before = tracked.trackers.get(name)
                if before is not None and before.complete and self._has(before):
                    say(f"{name} has all of this run: {before.place}")
                else:
                    self._begin(name, before, config)
        except BaseException:
            for tracker in self._open.values():
                with contextlib.suppress(PatchlightError, *tracker.errors):  # the first error is the one to tell
                    tracker.close("failed")
            self._open.clear()
            raise

    def go_on(self, epochs_done: int) -> None:
        """Write down what the run is called in each, and send what they lack of so many epochs."""
        for name in list(self._open):
            self._write(name)
            say(f"{name}: {self._open[name].words}")
            self._try(name, functools.partial(self._go_on, name, epochs_done))

    @contextlib.contextmanager
    def stopping(self) -> Iterator[None]:
        """What is raised inside stops the run on purpose, and is no failure of it."""
        try:
            yield
        except BaseException:
            self._end = "stopped"
            raise

    def epoch(self, row: Epoch) -> None:
        """Send an epoch, after those before it that a tracker lacks."""
        for name in list(self._open):
            self._try(name, functools.partial(self._send, name, row.epoch))

    def conclude(self) -> None:
        """Send the result, the figures and the page of a run that is finished."""
        if not self._open:
            return
        ended = self._run.result()
        result = result_scalars(ended)
        step = max((row.step for row in self._run.epochs()), default=0)  # 0: metrics.jsonl was lost
        folder = self._run.path.resolve()  # in full, as what is sent later may be sent from elsewhere
        figures, report = sorted((folder / "figures").glob("*.png")), folder / "report.html"
        self._end = "finished"
        for name in list(self._open):
            self._try(name, lambda tracker: tracker.conclude(step, result, figures, report))
        for name in list(self._open):  # closed first: what a client still had to send has arrived
            if self._try(name, lambda tracker: tracker.close("finished")):
                self._write(name, result=FILES[type(ended)])
                del self._open[name]

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None and issubclass(kind, Interrupted | KeyboardInterrupt):
            self._end = "stopped"
        for name in list(self._open):
            if self._try(name, lambda tracker: tracker.close(self._end)):
                del self._open[name]

    def _has(self, there: TrackedIn) -> bool:
        """Whether a tracker has the result with which the run ends: that of the test images may come later."""
        return self._run.has_result_of(self._wanted) and there.result == FILES[type(self._run.result())]

    def _begin(self, name: str, before: TrackedIn | None, config: Config) -> None:
        kind = tracker_class(name)
        subject = Subject(
            run=self._run,
            project=self._wanted.train.track_project,
            named=self._wanted.train.track_name,
            settings=settings_of(config.flat()),
            recipe=config.to_toml(),
            id=None if before is None else before.id or None,
        )
        failures: tuple[type[Exception], ...] = (PatchlightError, *kind.errors)
        try:
            tracker = kind(subject)
        except failures as error:
            reason = f"train.track: {name} cannot {'begin' if before is None else 'go on'}: {in_a_line(error)}"
            if before is None:
                raise UsageError(
                    f"{reason}; nothing is lost: mend that, or leave {name} out of train.track, and repeat the command"
                ) from None
            note(self._run, [f"{reason}; training goes on without it, and the next --resume sends what is missing"])
            return
        self._open[name] = tracker

    def _go_on(self, name: str, epochs_done: int, tracker: Tracker) -> None:
        """Bring a tracker to where training goes on."""
        done = [row for row in self._run.epochs() if row.epoch <= epochs_done]
        here, there = done[-1].step if done else 0, tracker.last_step()
        self._last[name] = there
        if there > here and not self._run.finished:
            if tracker.take_back(here):
                say(f"{name}: what it had of later steps than {here} is taken back, as these are trained again")
                self._last[name] = here
            else:
                line = (
                    f"{name} has epochs up to step {there}, and training goes on from step {here}; it keeps what it "
                    "has of the steps between, which are trained again, and gets the later ones"
                )
                note(self._run, [line])
        self._send(name, epochs_done, tracker)

    def _send(self, name: str, epoch: int, tracker: Tracker) -> None:
        """Send the epochs up to this one that the tracker lacks."""
        for row in self._run.epochs():
            if row.epoch <= epoch and row.step > self._last[name]:
                tracker.log(row.step, epoch_scalars(row))
                self._last[name] = row.step

    def _try(self, name: str, act: Callable[[Tracker], None]) -> bool:
        """Whether a tracker did what it was asked to. One that did not is let go of."""
        tracker = self._open[name]
        failures: tuple[type[Exception], ...] = (PatchlightError, *tracker.errors)
        try:
            act(tracker)
        except failures as error:
            del self._open[name]
            line = f"{name} failed: {in_a_line(error)}; the run goes on without it, and --resume sends what is missing"
            note(self._run, [line])
            try:
                tracker.close("failed")
            except tracker.errors as again:
                if str(again) != str(error):
                    say(f"{name} could not be closed either: {in_a_line(again)}")
            return False
        return True

    def _write(self, name: str, *, result: str = "") -> None:
        """Write down what the run is called in a tracker, for the process that goes on with it."""
        tracker = self._open[name]
        if not tracker.place:
            return
        tracked = self._run.shown(Tracked) or Tracked(trackers={})
        entry = TrackedIn(id=tracker.id, place=tracker.place, complete=bool(result), result=result)
        self._run.write(replace(tracked, trackers={**tracked.trackers, name: entry}))


def in_a_line(error: BaseException) -> str:
    """What an error says, without its line breaks and its last point; of somebody else's also its kind."""
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, PatchlightError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
