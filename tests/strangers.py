"""What strangers may write into JSON: values of a wrong kind, impossible numbers, paths, and deep nesting. No test.

`tried` gives such files to a function and wants success or a PatchlightError of one line, in bounded time and memory.
`no_network` is a fixture in which no other machine can be reached.
"""

from __future__ import annotations

import contextlib
import copy
import json
import resource
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from patchlight.errors import PatchlightError

SECONDS = 20  # for one case on a machine that others use, too; most take a hundredth of one
GIB = 3  # of address space beside what the process has

NUMBERS = (0, 1, -1, 2, 3, 7, 100, 65536, 65537, 10**9, 10**12, 2**31, 2**63, -(2**63), 10**400)
FLOATS = (0.0, -1.5, 0.5, 1e-300, 1e300, float("nan"), float("inf"), float("-inf"))
TEXTS = ("", "a", "x" * 5000, "../../etc/passwd", "/etc/passwd", "http://127.0.0.1:9/x", "hf-hub:a/b", "local-dir:/")
ODD_TEXTS = ("\x00\x1b[31m", "\ud800", "two\nlines", "kernels-community/flash-attn", "None", "{}")
OTHERS = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [1] * 2000,
    [1, 2],
    [0.5, 0.5, 0.5],
    ["a", "a"],
    {"a": {"b": []}},
    [None] * 3,
)


def _deep() -> Any:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    return deep


odd = st.sampled_from([*NUMBERS, *FLOATS, *TEXTS, *ODD_TEXTS, *OTHERS, _deep()]).map(copy.deepcopy)


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values inside, the first three of each list."""
    if path:
        yield path
    if isinstance(data, dict):
        for key in data:
            yield from places(data[key], (*path, key))
    elif isinstance(data, list):
        for number, item in enumerate(data[:3]):
            yield from places(item, (*path, number))


@st.composite
def damaged(draw: Any, wholes: list[Any], keys: tuple[str, ...] = ()) -> Any:
    """One of the wholes with one to three values replaced, taken out, doubled, or put beside others under a key."""
    data = copy.deepcopy(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(1, 3))):
        there = list(places(data))
        if not there:
            return data
        *way, last = draw(st.sampled_from(there))
        parent = data
        for step in way:
            parent = parent[step]
        kind = draw(st.integers(0, 9))
        if kind == 0:
            del parent[last]
        elif kind == 1 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[last]))
        elif kind <= 3 and isinstance(parent, dict):
            parent[draw(st.sampled_from(keys)) if keys else "of no version"] = draw(odd)
        elif kind == 4 and isinstance(parent[last], (int, float)) and not isinstance(parent[last], bool):
            parent[last] = draw(
                st.sampled_from([-parent[last], parent[last] * 1000, str(parent[last]), parent[last] + 1])
            )
        else:
            parent[last] = draw(odd)
    return data


def as_json(data: Any) -> str:
    """Python's own writer refuses no value of `odd`, but for numbers of thousands of digits."""
    return json.dumps(data)


class TooSlow(BaseException):
    """A case took longer than SECONDS."""


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    """TooSlow is raised inside after SECONDS."""

    def ring(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Inside, the process gets no more than GIB beside the memory that it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:  # noqa: PTH123 (no file of ours)
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + GIB * 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every attempt to reach another machine fails, and fails the test."""
    tried = []

    def refuse(*args: Any, **options: Any) -> Any:
        tried.append(args[-1] if args else options)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert tried == []


def tried(cases: st.SearchStrategy[Any], count: int, number: int, use: Callable[[Any], object]) -> Counter[str]:
    """How many of `count` cases `use` takes, and how many it refuses by a PatchlightError of one line."""
    found = Counter[str]()

    @seed(number)
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(cases)
    def each(case: Any) -> None:
        with alarm():
            try:
                use(case)
            except PatchlightError as error:
                text = str(error)
                assert text.isprintable(), text  # on one line, and nothing for a terminal to obey
                assert len(text) < 1500, text
                found["refused"] += 1
            else:
                found["taken"] += 1

    with little_memory():
        each()
    return found
