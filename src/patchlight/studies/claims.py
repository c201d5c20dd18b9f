"""Which worker has which run: a lease, kept up by a sign of life, which a worker that dies cannot keep.

The lease is filelock's: a file beside the run's folder that its holder touches every third of its length. Of a holder
on this machine whose process is gone it is taken over at once; of one on another machine, which shares the folder, when
the file has not changed for the whole length. Inside, the run folder's own lock holds off a second training as always.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from patchlight.errors import PatchlightError, UsageError

SUFFIX = ".lease"


class Claim:
    """A run that this worker has, as long as it is not `lost`."""

    def __init__(self) -> None:
        self._lost = threading.Event()

    def lose(self) -> None:
        self._lost.set()

    def check(self) -> None:
        """Raises PatchlightError where another worker has taken the run over, as this one gave no sign of life."""
        if self._lost.is_set():
            raise ClaimLost("another worker has taken this run over, as this one was silent for too long")


class ClaimLost(PatchlightError):
    """Another worker goes on with the run."""


class Claims:
    """The leases of one worker. It asks for one again and again, and so sees how long another's has been silent."""

    def __init__(self, lease_s: float) -> None:
        self.lease_s = lease_s
        self._leases: dict[Path, tuple[SoftFileLease, Claim]] = {}

    @contextlib.contextmanager
    def take(self, folder: Path) -> Iterator[Claim | None]:
        """The run of this folder inside; None where another worker has it."""
        lease, claim = self._lease_of(folder)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            lease.acquire(timeout=0)
        except Timeout:
            yield None
            return
        except LeaseSettingsMismatch:
            raise UsageError(
                f"another worker has the run {folder} with a study.lease of another length than {self.lease_s:g} s, so "
                "neither could tell when the other is dead; give all studies that share the runs the same study.lease, "
                "or wait until it has ended"
            ) from None
        except OSError as error:
            raise PatchlightError(
                f"cannot write in {folder.parent}: {error.strerror or error}; mend that, or choose another place with "
                "--runs"
            ) from None
        try:
            yield claim
        finally:
            lease.release()
            del self._leases[folder]

    def _lease_of(self, folder: Path) -> tuple[SoftFileLease, Claim]:
        if folder not in self._leases:
            claim = Claim()
            path = folder.with_name(f"{folder.name}{SUFFIX}")
            lease = SoftFileLease(path, lease_duration=self.lease_s, on_compromise=lambda _: claim.lose())
            self._leases[folder] = lease, claim
        return self._leases[folder]
