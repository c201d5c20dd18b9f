"""Memory that was not there: what a library's error says of it, and how much there is."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import torch

# What torch, its libraries and the C++ library say when they get no memory, in errors that have no type of their own.
WORDS = re.compile(
    r"out of memory|not enough memory|can't allocate memory|cannot allocate memory|bad_alloc|ALLOC_FAILED"
    r"|could not create a memory|unable to allocate|failed to allocate",
    re.IGNORECASE,
)
ASKED = re.compile(r"allocate ([\d.]+) ?(bytes|[KMGT]i?B)", re.IGNORECASE)
UNITS = {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there was too little memory, of the machine or of a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and bool(WORDS.search(str(error)))


def asked_bytes(error: BaseException) -> int | None:
    """How much was asked for in vain, where the error says it."""
    found = ASKED.search(str(error))
    return None if found is None else int(float(found[1]) * UNITS[found[2][0].lower()])


def memory_limit(device: torch.device) -> int | None:
    """Bytes that this process may have: of a GPU all of it, else what the machine, its group and its limits allow."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    limits = []
    with contextlib.suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in CGROUPS:
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(Path(path).read_text()))
    with contextlib.suppress(ImportError):
        import resource

        limits += [limit for limit in resource.getrlimit(resource.RLIMIT_AS) if limit != resource.RLIM_INFINITY]
    return min(limits, default=None)
