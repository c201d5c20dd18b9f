"""Leases of runs: one worker has a run, a dead one's is taken over, and a lost one ends the training."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchlight.errors import PatchlightError, UsageError
from patchlight.studies.claims import ClaimLost, Claims

HOLDER = """
import socket, sys, time
from pathlib import Path
if host := sys.argv[3]:
    socket.gethostname = lambda: host
from patchlight.studies.claims import Claims
with Claims(float(sys.argv[2])).take(Path(sys.argv[1])) as claim:
    print("taken" if claim else "refused", flush=True)
    time.sleep(60)
"""
ENOUGH_S = 60


@contextlib.contextmanager
def held_elsewhere(folder: Path, lease_s: float, host: str = "") -> Iterator[subprocess.Popen]:
    """Another process has the lease of `folder`, on a machine of that name."""
    words = [sys.executable, "-c", HOLDER, str(folder), str(lease_s), host]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "taken\n"
            yield child
        finally:
            child.kill()


def killed(child: subprocess.Popen) -> None:
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def is_free(claims: Claims, folder: Path) -> bool:
    with claims.take(folder) as claim:
        return claim is not None


def until(condition) -> None:
    end = time.monotonic() + ENOUGH_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_run_has_one_worker_at_a_time(tmp_path):
    one, other = Claims(60), Claims(60)
    with one.take(tmp_path / "runs" / "a") as claim:
        assert claim is not None
        claim.check()
        assert not is_free(other, tmp_path / "runs" / "a")
        assert is_free(other, tmp_path / "runs" / "b")
        assert not (tmp_path / "runs" / "a").exists(), "the lease is beside the run's folder"
    assert is_free(other, tmp_path / "runs" / "a")
    assert list((tmp_path / "runs").iterdir()) == [], "nothing is left of a lease that was given back"


def test_a_lease_is_given_back_after_an_error(tmp_path):
    claims = Claims(60)
    with pytest.raises(ZeroDivisionError), claims.take(tmp_path / "a"):
        raise ZeroDivisionError
    assert is_free(Claims(60), tmp_path / "a")
    assert is_free(claims, tmp_path / "a")


def test_a_dead_process_of_this_machine_is_followed_at_once(tmp_path):
    claims = Claims(3600)
    with held_elsewhere(tmp_path / "a", 3600) as child:
        assert not is_free(claims, tmp_path / "a")
        killed(child)
        assert (tmp_path / "a.lease").exists()
        assert is_free(claims, tmp_path / "a")


def test_a_dead_process_of_another_machine_is_followed_after_its_lease(tmp_path):
    """That the file is old counts for nothing, as clocks differ: this worker itself has to see it unchanged so long."""
    with held_elsewhere(tmp_path / "a", 1.0, host="elsewhere") as child:
        killed(child)
    assert "elsewhere" in (tmp_path / "a.lease").read_text()
    os.utime(tmp_path / "a.lease", (1, 1))
    claims = Claims(1.0)
    began = time.monotonic()
    assert not is_free(claims, tmp_path / "a")
    until(lambda: is_free(claims, tmp_path / "a"))
    assert time.monotonic() - began >= 1.0


def test_a_living_process_of_another_machine_is_never_followed(tmp_path):
    claims = Claims(2.0)
    with held_elsewhere(tmp_path / "a", 2.0, host="elsewhere"):
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            assert not is_free(claims, tmp_path / "a")
            time.sleep(0.1)


def test_who_loses_a_claim_is_told_and_leaves_the_others_alone(tmp_path):
    claims = Claims(0.3)
    with claims.take(tmp_path / "a") as claim:
        assert claim is not None
        (tmp_path / "a.lease").unlink()  # as another worker takes it over
        with held_elsewhere(tmp_path / "a", 60):
            until(lambda: claim._lost.is_set())
            with pytest.raises(ClaimLost, match="another worker has taken this run over"):
                claim.check()
            theirs = (tmp_path / "a.lease").read_text()
            claims._leases[tmp_path / "a"][0].release()
            assert (tmp_path / "a.lease").read_text() == theirs
    assert is_free(claims, tmp_path / "a"), "it may ask again"


def test_leases_of_two_lengths_are_a_sentence(tmp_path):
    with held_elsewhere(tmp_path / "a", 30, host="elsewhere"), pytest.raises(UsageError) as caught:
        is_free(Claims(60), tmp_path / "a")
    assert "study.lease of another length than 60 s" in str(caught.value)


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PatchlightError, match=r"cannot write in .*file: .*; mend that, or choose another place"):
        is_free(Claims(60), tmp_path / "file" / "a")
