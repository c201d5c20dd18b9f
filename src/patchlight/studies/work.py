"""What a worker does: it takes the next run that nobody has, trains it, and takes the next one, until none is left.

Any number of workers, on this machine and on others that share the folders, may do so at the same time.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from patchlight.errors import Interrupted, PatchlightError, first_of
from patchlight.progress import say
from patchlight.runs import Epoch
from patchlight.runs.lock import InUse
from patchlight.runs.study import FAILED, FINISHED, PRUNED, WAITING
from patchlight.studies.claims import Claim, ClaimLost, Claims
from patchlight.studies.folder import StudyFolder, is_finished
from patchlight.studies.plan import Plan, PlannedRun
from patchlight.studies.prune import Pruned, check_behind
from patchlight.studies.workers import check_parent

MOST_DEATHS = 2  # of processes, one after the other, after which a run is taken for what killed them
POLL_S = 1.0  # between looks at runs that other workers have
# Trains a run in its folder, goes on where it was begun, and calls the function after each epoch.
Train = Callable[[PlannedRun, Callable[[Epoch], None]], object]


@dataclass(frozen=True)
class Worker:
    """A process that works on a study."""

    plan: Plan
    folder: StudyFolder
    train: Train
    claims: Claims
    refused: dict[str, str] = field(default_factory=dict)  # of a run that a training by hand has: what was said of it

    @property
    def prunes(self) -> bool:
        return self.plan.study.options.prune_after < 1

    def work(self, *, wait: bool) -> list[PlannedRun]:
        """Train what is left. Returns the runs that are in other hands where `wait` is false; else waits for them and
        takes over those of workers that die, so that none is left.
        """
        told: frozenset[str] = frozenset()
        while left := [run for run in self.plan.distinct if self.state_of(run) == WAITING]:
            others = [run for run in left if not self.take(run)]
            if len(others) < len(left):
                told = frozenset()
                continue
            if not wait:
                return others
            if told != (names := frozenset(run.name for run in others)):
                told = names
                say(f"other workers have {first_of(sorted(names), 4)}; waiting for them")
            time.sleep(POLL_S)
        return []

    def state_of(self, run: PlannedRun) -> str:
        return self.folder.state_of(run, prunes=self.prunes)

    def take(self, run: PlannedRun) -> bool:
        """Train a run, if no other worker has it. Whether it was free."""
        check_parent()
        with self.claims.take(run.folder) as claim:
            if claim is None:
                return False
            if self.state_of(run) != WAITING:  # another worker ended it a moment ago
                return True
            if self._deaths(run) >= MOST_DEATHS:
                reason = (
                    f"{MOST_DEATHS} processes have ended in it without a word, as where memory is short; the next "
                    "call tries it again"
                )
                say(f"{run.name} failed: {reason}")
                self.folder.write_note(run, FAILED, reason)
                return True
            try:
                self._train(run, claim)
            except (InUse, ClaimLost) as error:
                if self.refused.get(run.key) != str(error):  # it is asked for again and again
                    self.refused[run.key] = str(error)
                    say(f"{run.name}: {error}")
                return False
            return True

    def _deaths(self, run: PlannedRun) -> int:
        note = self.folder.note(run)
        return note.deaths if note is not None and note.state == WAITING else 0

    def _train(self, run: PlannedRun, claim: Claim) -> None:
        """Train a run and note how it ended. What is wrong with one recipe does not end the study, nor does one whose
        processes are killed: each notes before its first epoch that it would be one more death.
        """
        done = sum(map(is_finished, self.plan.distinct))
        if run.key not in self.refused:
            say(f"study {self.plan.study.name}: {run.name} ({done} of {len(self.plan.distinct)} runs are finished)")
        rows: list[Epoch] = []
        note, deaths = self.folder.note(run), self._deaths(run)
        self.folder.write_note(run, WAITING, deaths=deaths + 1)

        def on_epoch(row: Epoch) -> None:
            rows.append(row)
            claim.check()
            check_parent()
            if len(rows) == 1:
                self.folder.write_note(run, WAITING)
            if self.prunes:
                check_behind(rows, run, self.plan)

        try:
            self.train(run, on_epoch)
            self.folder.write_note(run, FINISHED)
        except InUse:
            self.folder.restore(run, note)
            raise
        except Pruned as reason:
            say(f"{run.name}: {reason}")
            self.folder.write_note(run, PRUNED, str(reason))
        except ClaimLost:  # the note is the other worker's
            raise
        except (Interrupted, KeyboardInterrupt, OSError):  # it ends with a word
            self.folder.write_note(run, WAITING, deaths=deaths)
            raise
        except PatchlightError as error:
            say(f"{run.name} failed: {error}")
            self.folder.write_note(run, FAILED, str(error))
        finally:
            gc.collect()  # a model of the last run, before the next one is built
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
