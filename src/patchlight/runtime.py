"""The machine under a run: device, precision, threads, seeds, and their description for the record."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from patchlight.errors import UsageError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h

# What is drawn for a purpose never changes what is drawn for another.
STREAMS = {
    "init": 0,
    "order": 1,
    "augment": 2,
    "dropout": 3,
    "samples": 4,
    "input": 5,
    "faithfulness": 6,
    "snapshots": 7,
    "decoder": 8,
    "mix": 9,
}


def derive_seed(seed: int, stream: str, *counts: int) -> int:
    """A 63-bit seed that depends on nothing but its arguments: `derive_seed(0, "augment", epoch, step)`."""
    words = np.random.SeedSequence([seed, STREAMS[stream], *counts]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def generator(seed: int, stream: str, *counts: int) -> torch.Generator:
    """A CPU generator with that derived seed."""
    return torch.Generator().manual_seed(derive_seed(seed, stream, *counts))


def resolve_device(name: str = "auto") -> torch.device:
    """auto: cuda, else mps, else cpu. Raises UsageError for a device that this machine lacks."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, here in present.items() if here)
    if not present[name]:
        raise UsageError(
            f"the device '{name}' (train.device, --device) is not one that torch finds here; use 'auto' or 'cpu'"
        )
    return torch.device(name)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Forward passes inside run in `precision`: torch.autocast, or nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def has_compiler() -> bool:
    """A C++ compiler, which torch.compile needs on a CPU."""
    return any(shutil.which(compiler) for compiler in (os.environ.get("CXX", "g++"), "clang++"))


def check_compile(device: torch.device) -> None:
    """Raises UsageError where torch.compile cannot work: on a CPU it needs a C++ compiler."""
    if device.type == "cpu" and not has_compiler():
        raise UsageError("train.compile needs a C++ compiler on a CPU; install g++, or set train.compile = false")


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[int]:
    """That many CPU threads inside, as before outside; yields the number in force."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def allocator() -> str:
    """What gives a CPU tensor its memory: a preloaded tcmalloc, jemalloc or mimalloc, else the C library's."""
    for name in ("tcmalloc", "jemalloc", "mimalloc"):
        if name in os.environ.get("LD_PRELOAD", ""):
            return name
    return platform.libc_ver()[0] or {"Linux": "musl"}.get(platform.system(), "system")


def tune_process(device: torch.device) -> None:
    """For a long job: keep large blocks of memory; on a GPU let cuDNN try its convolutions, and fp32 be fp32 in them as
    in matrix products, for scores that are the same on all machines.
    """
    reuse_memory()
    torch.backends.cudnn.benchmark = device.type == "cuda"
    torch.backends.cudnn.allow_tf32 = False


def reuse_memory() -> None:
    """Have glibc keep large freed blocks for the next step instead of returning them to the kernel.

    By default every tensor above 32 MiB, and many below, is a fresh mapping whose pages must be faulted in again, which
    costs a CPU training step a good part of its time. For the whole process; does nothing on other C libraries.
    """
    if allocator() == "glibc":
        libc = ctypes.CDLL(None)
        # Older ones refuse more than 32 MiB, and would then map every larger block than 128 KiB anew.
        if not libc.mallopt(M_MMAP_THRESHOLD, 1 << 30):
            libc.mallopt(M_MMAP_THRESHOLD, 1 << 25)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def cache_folder() -> Path:
    """Where decoded sets and probes are kept: $PATCHLIGHT_CACHE, else $XDG_CACHE_HOME/patchlight, else
    ~/.cache/patchlight.
    """
    if own := os.environ.get("PATCHLIGHT_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "patchlight"
    return Path.home() / ".cache" / "patchlight"


def hardware_name(device: torch.device) -> str:
    """The GPU's or the processor's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()


def move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On the device, without waiting where that is safe: an Apple GPU may read memory that was given back meanwhile."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory_gb(device: torch.device) -> float:
    """The most memory used so far: the GPU's by tensors, or the process's on a CPU; 0 where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / 1e9
    status = Path("/proc/self/status")
    if status.is_file():
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM")), "VmHWM: 0 kB")
        return int(line.split()[1]) * 1024 / 1e9
    try:
        import resource
    except ModuleNotFoundError:  # on Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


def forget_peak_memory() -> None:
    """Give unused memory back and count the most that is used from now on. On a CPU other than Linux's: nothing."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if allocator() == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def describe(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, for `environment.json`."""
    packages = ["numpy", "pillow", "scikit-learn", "datasets", "safetensors", "matplotlib"]
    return {
        "patchlight": _version("patchlight"),
        # torch's own word tells which build it is.
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: _version(name) for name in packages},
        },
        "git_commit": git_commit(),
        "hardware": {
            "os": f"{platform.system()} {platform.release()}",
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "memory_gb": _memory_gb(),
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            "device": device.type,
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of an editable install, "-dirty" behind it where files were changed; None for an installed wheel."""
    root = Path(__file__).resolve().parents[2]
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
