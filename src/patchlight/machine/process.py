"""This process: its optional libraries, its cache folder, its threads and its memory."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from patchlight.errors import LibraryMissing
from patchlight.paths import user_path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def import_library(name: str, extra: str = "hub") -> Any:
    """A library that comes with an extra of the package, imported where it is needed.

    Raises LibraryMissing, which says what to install.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise LibraryMissing(f"{name} is not installed; pip install 'patchlight[{extra}]'") from None


def cache_folder() -> Path:
    """Where decoded images and measured times are kept.

    $PATCHLIGHT_CACHE, else $XDG_CACHE_HOME/patchlight, else ~/.cache/patchlight.
    """
    if own := os.environ.get("PATCHLIGHT_CACHE"):
        return user_path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return user_path(shared) / "patchlight"
    return Path.home() / ".cache" / "patchlight"


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Iterator[int]:
    """A context with `count` CPU threads (None leaves the number as it is); yields the number of threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def allocator() -> str:
    """The name of what gives CPU tensors memory: a preloaded tcmalloc, jemalloc or mimalloc, else the C library."""
    for name in ("tcmalloc", "jemalloc", "mimalloc"):
        if name in os.environ.get("LD_PRELOAD", ""):
            return name
    return platform.libc_ver()[0] or {"Linux": "musl"}.get(platform.system(), "system")


def tune_process(device: torch.device) -> None:
    """Settings of torch and the C library for a long job.

    Large blocks of memory are kept. On a GPU, cuDNN times its convolutions and takes the fastest. Convolutions in fp32
    are computed in fp32, not in TF32, so that scores are the same on all machines.
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


def peak_memory_gb(device: torch.device) -> float:
    """The most memory used so far, in GB (10^9 bytes): of a GPU by tensors, on a CPU by the process; 0 if unknown."""
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


def core_waits() -> dict[str, float]:
    """Seconds that each thread of this process was ready to run so far and had no core; on Linux alone, else empty.

    Where they grow by much, other processes use the cores, too.
    """
    waits = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, LookupError, ValueError):  # a thread that has just ended
            # The second number, after the thread's own time: Linux, Documentation/scheduler/sched-stats.rst.
            waits[path.parent.name] = int(path.read_text().split()[1]) / 1e9
    return waits


def forget_peak_memory() -> None:
    """Begin to count `peak_memory_gb` anew, after unused memory is given back; for CPUs this works on Linux alone."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if allocator() == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
