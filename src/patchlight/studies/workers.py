"""Several worker processes on this machine, each with its share of the processor's cores and one of the GPUs."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch

from patchlight.errors import Interrupted, PatchlightError, Terminated
from patchlight.progress import say
from patchlight.units import counted

PARENT = "PATCHLIGHT_PARENT"  # the process that started a worker, in the worker's environment
LOOK_S = 0.5  # between looks at what has become of the work


class ParentEnded(Interrupted):
    """A worker's parent is gone."""


def run_workers(
    words: Sequence[str],
    count: int,
    logs: Path,
    follow: Callable[[], None],
    what: str,
    *,
    is_left: Callable[[], bool] = lambda: True,
) -> None:
    """Start `count` processes with the command of `words`, call `follow` now and then, and return when all have ended.

    What they say is in `logs`/N.log. Ctrl-C and SIGTERM are passed on, so that they save their checkpoints. A process
    that ends early, or is killed, is said: others do `what` it leaves. Raises PatchlightError where all end so. With
    an exit code that is not 0 a process ends early where something `is_left` to do; else some of it has failed.
    """
    threads = max(1, _cores() // count)
    logs.mkdir(parents=True, exist_ok=True)
    given = os.environ.get("OMP_NUM_THREADS")
    each = f"OMP_NUM_THREADS = {given}" if given else f"{counted(threads, 'thread')} each"
    say(f"{counted(count, 'worker')} with {each}; what they say is in {logs}")
    children: list[subprocess.Popen[bytes]] = []
    try:
        _end_by_hangup()
        for number in range(1, count + 1):
            with (logs / f"{number}.log").open("ab") as log:
                children.append(_start(words, number, threads, log.fileno()))
        told: set[int] = set()
        while any(child.poll() is None for child in children):
            follow()
            _say_ends(children, told, logs, what, is_left)
            time.sleep(LOOK_S)
        follow()
        _say_ends(children, told, logs, what, is_left)
    except BaseException:
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for child in children:
            child.wait()
        raise
    if all(child.returncode for child in children) and is_left():
        last = (logs / "1.log").read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise PatchlightError(f"all workers have ended early; the first said: {last.removeprefix('patchlight: ')}")


def _end_by_hangup() -> None:
    """From here on, a terminal that is closed ends the command as SIGTERM does, where nobody has it ignored (nohup)."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _terminate)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def check_parent() -> None:
    """Raises ParentEnded in a process of `run_workers` whose parent is gone (kill -9): nobody would hear of its work,
    and the same command begins as many workers again.
    """
    parent = os.environ.get(PARENT)
    if parent is not None and os.name != "nt" and parent != str(os.getppid()):
        raise ParentEnded("the process that started this worker has ended; its command, given again, goes on")


def _cores() -> int:
    """Those that this process may use, which on a cluster are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(words: Sequence[str], number: int, threads: int, log: int) -> subprocess.Popen[bytes]:
    env = {"OMP_NUM_THREADS": str(threads), **os.environ, PARENT: str(os.getpid())}
    gpus = torch.cuda.device_count()
    if gpus > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
        env["CUDA_VISIBLE_DEVICES"] = str((number - 1) % gpus)
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True)


def _say_ends(
    children: Sequence[subprocess.Popen[bytes]], told: set[int], logs: Path, what: str, is_left: Callable[[], bool]
) -> None:
    """Say which processes have ended early since the last time."""
    for number, child in enumerate(children, 1):
        if child.poll() and number not in told:
            told.add(number)
            if child.returncode > 0 and not is_left():
                continue
            how = f"was ended by signal {-child.returncode}" if child.returncode < 0 else "ended early"
            say(f"worker {number} {how}; see {logs / f'{number}.log'}; the others do {what} it leaves")
