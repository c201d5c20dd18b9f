"""How long one waits: for help, for an import, and from `patchlight train` until the first steps are done."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import markdown
from benchmarks.options import ROOT, Options
from benchmarks.timing import Sampler, compare, interleave

FLOOR = "import torch"
IMPORTS = {
    FLOOR: ("torch", "import torch"),
    "import patchlight": ("patchlight", "import patchlight"),
    "import patchlight.verbs (all of it)": ("patchlight", "import patchlight.verbs"),
    "import timm": ("timm", "import timm"),
    "from transformers import ViTForImageClassification": (
        "transformers",
        "from transformers import ViTForImageClassification",
    ),
}
# Lines of `patchlight train` on standard error. In debug runs an epoch is two steps and a validation.
READY, FIRST_EPOCH = "parameters,", "epoch 1/"
# Another source is trained on by this recipe, which whitens, and times its steps before the first.
BUDGETED, REHEARSED = "cifar10-cpu-10min", "the budget of"


def run(options: Options) -> dict[str, Any]:
    samplers = {
        name: until_exit([sys.executable, "-c", code])
        for name, (module, code) in IMPORTS.items()
        if importlib.util.find_spec(module)
    }
    samplers["patchlight --help"] = until_exit([sys.executable, "-m", "patchlight", "--help"])
    quick = ["quickstart", "--train.debug", "true"]
    samplers["patchlight train quickstart: data and model ready"] = until_line(options, quick, READY)
    samplers["patchlight train quickstart: two steps and a validation done"] = until_line(options, quick, FIRST_EPOCH)
    if options.source != "digits":
        budgeted = [BUDGETED, "--data.source", options.source]
        samplers[f"patchlight train {BUDGETED}: data and model ready"] = until_line(options, budgeted, READY)
        few = [*budgeted, "--train.debug", "true", "--data.val_per_class", "1"]
        samplers[f"patchlight train {BUDGETED}: two steps and a small validation done"] = until_line(
            options, few, FIRST_EPOCH
        )
        samplers[f"patchlight train {BUDGETED}: steps and validation timed"] = until_line(options, budgeted, REHEARSED)
    return compare(interleave(samplers, rounds=options.rounds_or(7, 1), warmup=options.pick(1, 0)), [FLOOR])


def until_exit(command: list[str]) -> Sampler:
    def sample() -> float:
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    return sample


def until_line(options: Options, words: list[str], sign: str) -> Sampler:
    """Seconds from the start of `patchlight train` with these words until a line with `sign`; then it is ended."""
    command = [sys.executable, "-m", "patchlight", "train", *words, "--train.device", options.device.type]

    def sample() -> float:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            process = subprocess.Popen(
                [*command, "--out", f"{folder}/run"],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if sign in line:
                    seen = time.perf_counter() - started
                    process.kill()
                    process.communicate()
                    return seen
            raise RuntimeError(f"`{' '.join(command)}` said no '{sign}' but:\n{''.join(lines)}")

    return sample


def table(result: dict[str, Any]) -> str:
    rows = [
        [name, markdown.times(result["ratios"][FLOOR][name]), markdown.number(seconds["median"])]
        for name, seconds in result["seconds"].items()
    ]
    return markdown.table(["a fresh process each time", f"over `{FLOOR}`", "s"], rows)
