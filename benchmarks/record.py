"""What stands around a result, so that it can be judged and repeated; and where it is kept."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.util
import json
import os
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.catalogue import CATALOGUE
from benchmarks.contenders import MODULES
from benchmarks.options import ROOT, Options
from patchlight.machine.hardware import describe_machine, package_version

PEERS = ("torchvision", "timm", "transformers", "vit-pytorch", "kornia")


def measure(name: str, options: Options, command: str) -> dict[str, Any]:
    """Run a benchmark; its result with hardware, versions, threads, load, date and commit."""
    load_before, started = os.getloadavg(), time.monotonic()
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    environment = dataclasses.asdict(describe_machine(options.device))
    environment["versions"] |= {peer: package_version(peer) for peer in PEERS}
    result = CATALOGUE[name].run(options)
    return {
        "benchmark": name,
        "command": command,
        "date": date,
        "quick": options.quick,
        "device": options.device.type,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "load_average": {"before": load_before[0], "after": os.getloadavg()[0]},
        "seconds": time.monotonic() - started,
        "missing": missing(),
        "environment": environment,
        "result": result,
    }


def without_own_paths(value: Any) -> Any:
    """A result without a machine's own places: an absolute path, alone or in a command, as it is seen from the root of
    the repository, where that is no further than a folder beside it; else its last part.
    """
    if isinstance(value, dict):
        return {key: without_own_paths(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_own_paths(inner) for inner in value]
    if not isinstance(value, str):
        return value
    return " ".join(_as_seen_from_root(word) for word in value.split(" "))


def _as_seen_from_root(word: str) -> str:
    if not Path(word).is_absolute() or not Path(word).name:
        return word
    inside = Path(word).is_relative_to(ROOT.parent)
    return os.path.relpath(word, ROOT) if inside else Path(word).name


def missing() -> list[str]:
    """Peers that are not installed and therefore left out."""
    modules = [*MODULES.values(), "torchvision", "kornia"]
    return [module for module in modules if importlib.util.find_spec(module) is None]


def file_name(record: dict[str, Any]) -> str:
    """`step.json` for the CPU, `step-cuda.json` for a GPU, `ablation-RECIPE.json` where a result is of one recipe; the
    stem is also the name of the markers in a document.
    """
    device = None if record["device"] == "cpu" else record["device"]
    return "-".join(part for part in (record["benchmark"], record["result"].get("recipe"), device) if part) + ".json"


def write(folder: Path, record: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(record)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(without_own_paths(record), indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    return path
