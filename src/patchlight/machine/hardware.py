"""What this machine and its software are, for the record."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a process ran on."""

    os: str
    cpu: str
    cores: int | None
    memory_gb: float | None  # GiB
    gpu: str | None = None  # the one that was used
    device: str  # "cpu", "cuda" or "mps"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Hardware and software of a process, as results are recorded with them."""

    patchlight: str | None  # versions; None where a package is not installed
    versions: dict[str, str | None]
    git_commit: str | None  # see `git_commit`
    hardware: Hardware


PACKAGES = ("numpy", "pillow", "scikit-learn", "datasets", "safetensors", "matplotlib")  # whose versions are recorded


def hardware_name(device: torch.device) -> str:
    """The GPU's or the processor's own name."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()


def describe_machine(device: torch.device) -> Machine:
    """What this process runs on, with `device` as the one it computes on."""
    import torch

    # torch's own word tells which build it is.
    versions: dict[str, str | None] = {"python": platform.python_version(), "torch": torch.__version__}
    return Machine(
        patchlight=package_version("patchlight"),
        versions=versions | {name: package_version(name) for name in PACKAGES},
        git_commit=git_commit(),
        hardware=Hardware(
            os=f"{platform.system()} {platform.release()}",
            cpu=_cpu_name(),
            cores=os.cpu_count(),
            memory_gb=_memory_gb(),
            gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            device=device.type,
        ),
    )


def package_version(package: str) -> str | None:
    """The version of an installed package by its name on PyPI; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of an editable install, "-dirty" behind it where files were changed; None for an installed wheel."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        words = ["git", "-C", str(root)]
        commit = subprocess.run([*words, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        changed = subprocess.run(
            [*words, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


CPU_FACTS = ("model name", "cpu family", "model")  # of /proc/cpuinfo


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = (line.partition(":") for line in info.read_text().splitlines())
        facts = {key.strip(): value.strip() for key, _, value in lines if key.strip() in CPU_FACTS}
        if "model name" in facts:  # clouds give processors of many years one name
            return f"{facts['model name']} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
