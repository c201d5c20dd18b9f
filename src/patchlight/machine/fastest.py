"""Which of several ways to compute is the fastest on this machine: timed once, briefly, and kept in the cache folder.

Precision and the kind of attention are chosen so, which change results by no more than rounding.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchlight.machine.device import DTYPES, autocast, multiplies, synchronize
from patchlight.machine.hardware import hardware_name
from patchlight.machine.process import cache_folder, core_waits

ROUNDS, WARM_ROUNDS = 9, 2
# Other processes have disturbed the timing where the median round takes so many times as long as the shortest, or where
# a thread waited for a core for so large a part of the time; alone on a machine it waits for a hundredth.
MOST_SPREAD, MOST_WAIT = 1.5, 0.1
LEAST_GAIN = 1.1  # bf16 is chosen where it is at least so many times as fast as fp32


@dataclass(frozen=True)
class Choice:
    """The shortest time of each way in seconds, in the order they were given.

    `steady` is False where other processes disturbed the timing; such a choice is not kept for the next process.
    """

    seconds: dict[str, float]
    steady: bool = True

    @property
    def fastest(self) -> str:
        """The way that took the shortest time."""
        return min(self.seconds, key=self.seconds.__getitem__)

    def ratio(self, way: str, other: str) -> float:
        """How many times as fast `way` is as `other`."""
        return self.seconds[other] / self.seconds[way]


def resolve_precision(name: str, device: torch.device) -> str:
    """The precision of train.precision or eval.precision: "fp32", "bf16" or "fp16".

    "auto" is what trains fastest: on GPUs bf16, or fp16 where they lack it; on CPUs bf16 where the processor has
    instructions for it, unless timing shows fp32 to be as fast.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if multiplies("bf16", device) else "fp16"
    choice = probe_precision(device)
    if choice is None:
        return "fp32"
    return "bf16" if not choice.steady or choice.ratio("bf16", "fp32") >= LEAST_GAIN else "fp32"


def probe_precision(device: torch.device) -> Choice | None:
    """Seconds of a small transformer layer and a convolution, forward and backward, in fp32 and bf16.

    None where there is nothing to choose: on other devices than CPUs, and on CPUs without bf16 instructions.
    """
    if device.type != "cpu" or not multiplies("bf16", device):
        return None

    def work(precision: str) -> Callable[[], None]:
        layer = nn.Sequential(nn.Linear(192, 768), nn.GELU(), nn.Linear(768, 192))
        kernel = nn.Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last)
        tokens = torch.rand(32, 65, 192)
        planes = torch.rand(32, 64, 16, 16).contiguous(memory_format=torch.channels_last)

        def run() -> None:
            with autocast(precision, device):
                loss = layer(tokens).float().sum() + kernel(planes).float().sum()
            loss.backward()

        return run

    return measure("precision", {p: work(p) for p in ("fp32", "bf16")}, device)


def faster_attention(
    batch: int, heads: int, tokens: int, width: int, precision: str, device: torch.device, *, training: bool = True
) -> str:
    """The faster kind of attention: "fused" (scaled_dot_product_attention) or "explicit" (two products and a softmax).

    It is timed on queries (batch, heads, tokens, width) of that precision, forward and, with `training`, backward.
    GPUs have a fused kernel, so nothing is timed there.
    """
    if device.type != "cpu":
        return "fused"
    few = min(batch, 64)

    def work(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], None]:
        shape, dtype = (few, heads, tokens, width), DTYPES[precision]
        inputs = [torch.rand(shape, dtype=dtype, requires_grad=training) for _ in range(3)]  # all three get gradients

        def run() -> None:
            answer = attend(*inputs).float().sum()
            if training:
                answer.backward()

        return run

    ways = {
        "fused": work(F.scaled_dot_product_attention),
        "explicit": work(lambda q, k, v: ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1) @ v),
    }
    question = f"attention {precision} {few}x{heads}x{tokens}x{width}" + ("" if training else " forward")
    choice = measure(question, ways, device)
    return choice.fastest if choice.steady else "explicit"


def measure(question: str, ways: Mapping[str, Callable[[], object]], device: torch.device) -> Choice:
    """Time the ways in turn, or take what an earlier process with this hardware, torch and thread count measured.

    `question` is the name under which the times are kept in `probes.json` of the cache folder; `ways` are functions
    without arguments, which are called `WARM_ROUNDS + ROUNDS` times each.
    """
    path = cache_folder() / "probes.json"
    known = _read(path)
    machine = f"{hardware_name(device)}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    before = known.get(machine, {}).get(question)
    if before is not None and list(before) == list(ways):
        return Choice(before)
    times: dict[str, list[float]] = {way: [] for way in ways}
    began, before_s = time.perf_counter(), core_waits()
    with torch.random.fork_rng():
        for _ in range(WARM_ROUNDS + ROUNDS):
            for way, run in ways.items():
                start = time.perf_counter()
                run()
                synchronize(device)
                times[way].append(time.perf_counter() - start)
    took_s = time.perf_counter() - began
    kept_waiting = any(wait - before_s.get(thread, 0.0) > MOST_WAIT * took_s for thread, wait in core_waits().items())
    shortest = {way: min(seconds[WARM_ROUNDS:]) for way, seconds in times.items()}
    uneven = any(statistics.median(times[way][WARM_ROUNDS:]) > MOST_SPREAD * least for way, least in shortest.items())
    if kept_waiting or uneven:
        return Choice(shortest, steady=False)
    known.setdefault(machine, {})[question] = shortest
    _write(path, known)
    return Choice(shortest)


def _read(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """{machine: {question: {way: seconds}}} of a file; empty where it is missing or holds something else."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {
            machine: {
                question: {way: float(seconds) for way, seconds in times.items()} for question, times in answers.items()
            }
            for machine, answers in known.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _write(path: Path, known: dict[str, dict[str, dict[str, float]]]) -> None:
    """Where the file cannot be written, the next process measures again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(known, indent=1), encoding="utf-8")
        part.replace(path)
