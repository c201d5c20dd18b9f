"""A contender's training step in a process of its own: `Worker` here, `main` there, a line of JSON each way.

The process is started with the library's own defaults; only Patchlight's calls `reuse_memory`, as `patchlight train`
does. It then waits to be asked, so that several take turns and only one works at a time.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import os
import subprocess
import sys
from types import TracebackType
from typing import Any

import torch

from benchmarks.contenders import CONTENDERS, MODULES, Shape, training_step
from benchmarks.options import ROOT
from benchmarks.timing import sampler
from patchlight.machine.device import synchronize
from patchlight.machine.process import forget_peak_memory, peak_memory_gb, reuse_memory

TINY = Shape(img_size=8, dim=12, depth=1, batch=1)


class Worker:
    """A process that trains contender `name`; leave the `with` block to end it."""

    def __init__(self, name: str, shape: Shape, device: torch.device) -> None:
        job = json.dumps({"name": name, "shape": dataclasses.asdict(shape), "device": str(device)})
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", job],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.communicate()  # closes its input, at which it ends

    def ask(self, calls: int) -> dict[str, Any]:
        """Do that many steps: `seconds` per step, and `peak_bytes` so far beyond the imports."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{calls}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"the process of '{self.name}' ended; its error stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not stand between the answers
    job = json.loads(sys.argv[1])
    contender, device = CONTENDERS[job["name"]], torch.device(job["device"])
    importlib.import_module(MODULES[contender.library])
    if contender.library == "Patchlight":
        reuse_memory()
    training_step(contender, TINY, device)()  # the optimizer's first step imports more, and a GPU starts
    gc.collect()
    synchronize(device)
    forget_peak_memory()
    before = peak_memory_gb(device)
    step = training_step(contender, Shape(**job["shape"]), device)
    for line in sys.stdin:
        seconds = sampler(step, device, calls=int(line))()
        peak = round(1e9 * (peak_memory_gb(device) - before))
        answers.write(json.dumps({"seconds": seconds, "peak_bytes": peak}) + "\n")


if __name__ == "__main__":
    main()
