"""Which of two ways is the faster on this machine: tried once, for a moment, and remembered in the cache folder."""

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

from patchlight.machine.cache import cache_folder
from patchlight.machine.compat import has_bf16_instructions
from patchlight.machine.device import DTYPES, autocast, synchronize
from patchlight.machine.hardware import hardware_name

ROUNDS, WARM_ROUNDS = 9, 2
STEADY = 1.5  # the median round over the shortest: more, and other processes were in the way
WORTH = 1.1  # a lower precision must be so much faster to be taken


@dataclass(frozen=True)
class Choice:
    """What was found: the least seconds of each way, in the order they were given.

    `steady` is False where other processes disturbed the clock: then it was not remembered.
    """

    seconds: dict[str, float]
    steady: bool = True

    @property
    def fastest(self) -> str:
        return min(self.seconds, key=self.seconds.__getitem__)

    def ratio(self, way: str, other: str) -> float:
        """How many times as fast `way` is as `other`."""
        return self.seconds[other] / self.seconds[way]


def resolve_precision(name: str, device: torch.device) -> str:
    """`name`, or for "auto" what trains fastest: on GPUs bf16, or fp16 where they lack it; on CPUs bf16 where the
    processor has instructions for it, unless a probe finds fp32 as fast.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    choice = probe_precision(device)
    if choice is None:
        return "fp32"
    return "bf16" if not choice.steady or choice.ratio("bf16", "fp32") >= WORTH else "fp32"


def probe_precision(device: torch.device) -> Choice | None:
    """Seconds of a small transformer layer and a convolution, forward and backward, in fp32 and bf16.

    None where there is nothing to choose: on other devices than CPUs, and on CPUs without bf16 instructions.
    """
    if device.type != "cpu" or not has_bf16_instructions():
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
    """ "fused" (scaled_dot_product_attention) or "explicit" (two products and a softmax), forward and in `training`
    backward, of queries (batch, heads, tokens, width). GPUs have a kernel for it, so they are not asked.
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
    """Time the ways in turn, or take what an earlier process with this hardware, torch and thread count found."""
    path = cache_folder() / "probes.json"
    known = _read(path)
    machine = f"{hardware_name(device)}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    before = known.get(machine, {}).get(question)
    if before is not None and list(before) == list(ways):
        return Choice(before)
    times: dict[str, list[float]] = {way: [] for way in ways}
    with torch.random.fork_rng():
        for _ in range(WARM_ROUNDS + ROUNDS):
            for way, run in ways.items():
                start = time.perf_counter()
                run()
                synchronize(device)
                times[way].append(time.perf_counter() - start)
    found = {way: min(seconds[WARM_ROUNDS:]) for way, seconds in times.items()}
    if any(statistics.median(times[way][WARM_ROUNDS:]) > STEADY * least for way, least in found.items()):
        return Choice(found, steady=False)
    known.setdefault(machine, {})[question] = found
    _write(path, known)
    return Choice(found)


def _read(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """What is known; nothing where the file is missing or is not one of ours."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {
            machine: {
                question: {way: float(seconds) for way, seconds in found.items()} for question, found in answers.items()
            }
            for machine, answers in known.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _write(path: Path, known: dict[str, dict[str, dict[str, float]]]) -> None:
    """A cache that cannot be written only means that the probe is made again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(known, indent=1), encoding="utf-8")
        part.replace(path)
