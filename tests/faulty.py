"""Commands in processes of their own, which may be killed, starved or sent signals; and damage. No test of its own.

A `Nursery` is a process that has loaded the libraries, and nothing else; its children begin at once.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from small import SMALL
from undrawn import undrawn

from patchlight.runs.history import epochs_of

# A training of six epochs that takes about two seconds.
TRAIN = [
    *("train", "quickstart", *SMALL, "--train.epochs", "6", "--train.budget", "none", "--train.threads", "1"),
    *("--explain.snapshots_every", "2", "--model.fused_attn", "true"),
]
CLOCKS = {"wall_s", "epoch_s", "images_per_s"}  # of a line of metrics.jsonl


class Nursery:
    """Runs commands, each in a child process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PATCHLIGHT_CACHE": str(folder / "cache")}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def start(self, *words: str | Path, before: str = "", cwd: Path | None = None) -> Child:
        """`patchlight WORDS`, in a process in which the Python text `before` is run first."""
        self.count += 1
        err = self.folder / f"{self.count}.err"
        asked = {
            "words": [str(word) for word in words],
            "before": before,
            "err": str(err),
            "cwd": str(cwd or self.folder),
        }
        return Child(self._ask(asked), err, self)

    def run(self, *words: str | Path, before: str = "", cwd: Path | None = None) -> tuple[int, str]:
        """The exit code of `patchlight WORDS`, and the last line of what it said on standard error."""
        return self.start(*words, before=before, cwd=cwd).finish()

    def _ask(self, question: dict[str, object]) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()


@dataclass(frozen=True)
class Child:
    """A command that runs."""

    pid: int
    err: Path
    nursery: Nursery

    def said(self) -> str:
        return self.err.read_text(encoding="utf-8", errors="replace") if self.err.exists() else ""

    def wait_for(self, words: str, seconds: float = 60) -> None:
        """Until it has said these words."""
        end = time.monotonic() + seconds
        while words not in self.said():
            assert time.monotonic() < end, self.said()
            time.sleep(0.01)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def finish(self) -> tuple[int, str]:
        """Its exit code (that of a signal below zero) and the last line that it said, which must be of no traceback."""
        code = self.nursery._ask({"wait": self.pid})
        said = self.said()
        assert "Traceback" not in said, said
        return code, (said.strip().splitlines() or [""])[-1]


def flip(path: Path, at: float = 0.5) -> None:
    """One bit of the byte at this share of the file."""
    data = bytearray(path.read_bytes())
    data[min(int(at * len(data)), len(data) - 1)] ^= 1
    path.write_bytes(bytes(data))


def result_of(folder: Path) -> tuple[bytes, list[dict], dict]:
    """What a run ended with, without times: the kept weights, the metrics, the test result."""
    rows = epochs_of((folder / "metrics.jsonl").read_bytes(), folder / "metrics.jsonl")
    metrics = [{key: value for key, value in row.to_json().items() if key not in CLOCKS} for row in rows]
    result = json.loads((folder / "eval.json").read_text())
    return (folder / "model" / "model.safetensors").read_bytes(), metrics, result


def leftovers(folder: Path) -> list[str]:
    """Hidden files and folders that a run should not have in the end."""
    return sorted(path.name for path in folder.rglob(".*") if path.name != ".lock")


def _serve() -> None:
    """The nursery itself: a line of JSON asks for a child, or for the end of one; the answer is a number."""
    # All that a training needs sooner or later, and that is slow to load.
    for name in (
        *("patchlight.commands.train", "patchlight.commands.evaluate", "patchlight.commands.predict"),
        *("patchlight.analysis.faithfulness", "patchlight.analysis.insight", "patchlight.data.sources.digits"),
        *("patchlight.analysis.copies", "patchlight.reporting.page", "patchlight.reporting.readme", "torch._dynamo"),
        *("sklearn.datasets", "imagehash", "scipy.stats", "matplotlib.backends.backend_agg", "tomli_w", "psutil"),
    ):
        importlib.import_module(name)
    charts = undrawn()  # those of a page are made, and not drawn
    charts.__enter__()
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _child(asked)
        print(pid, flush=True)


def _child(asked: dict) -> None:
    from patchlight.cli.main import main

    nothing = os.open(os.devnull, os.O_RDWR)
    said = os.open(asked["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for mine, theirs in ((0, nothing), (1, nothing), (2, said)):
        os.dup2(theirs, mine)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 70
    try:
        os.chdir(asked["cwd"])
        exec(asked["before"], {})
        code = main(asked["words"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
