"""Choices between two ways: what is measured, remembered and forgotten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from patchlight.machine import device, fastest
from patchlight.machine.process import cache_folder, core_waits

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def alone_with_a_fresh_cache(tmp_path, monkeypatch):
    """Other tests run at the same time, so the threads of this one wait for cores."""
    monkeypatch.setenv("PATCHLIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fastest, "core_waits", dict)


def counted(seconds: float = 0.001) -> tuple[list[int], object]:
    calls: list[int] = []

    def run() -> None:
        calls.append(1)
        time.sleep(seconds)

    return calls, run


def test_the_faster_way_is_found_and_remembered():
    slow_calls, slow = counted(0.004)
    quick_calls, quick = counted()
    first = fastest.measure("question", {"slow": slow, "quick": quick}, CPU)
    assert first.fastest == "quick"
    assert first.ratio("quick", "slow") > 1.5
    assert len(slow_calls) == len(quick_calls) == fastest.ROUNDS + fastest.WARM_ROUNDS
    assert fastest.measure("question", {"slow": slow, "quick": quick}, CPU) == first
    assert len(slow_calls) == fastest.ROUNDS + fastest.WARM_ROUNDS  # not tried again


def test_a_disturbed_clock_is_not_believed_for_ever():
    waits = iter([0.001, 0.02, 0.02] * 20)

    def disturbed() -> None:
        time.sleep(next(waits))

    for _ in range(2):
        assert not fastest.measure("question", {"a": disturbed}, CPU).steady
    assert not cache_folder().exists()


def test_a_timing_without_a_core_is_not_believed(monkeypatch):
    """Every round takes the same time, but one of the threads waited for a core all the while."""
    waits = iter([{"1": 5.0, "2": 7.0}, {"1": 5.0, "2": 7.2}])
    monkeypatch.setattr(fastest, "core_waits", lambda: next(waits))
    assert not fastest.measure("question", {"a": lambda: time.sleep(0.001)}, CPU).steady
    assert not cache_folder().exists()


@pytest.mark.skipif(not Path("/proc/self/schedstat").is_file(), reason="this system does not tell waits for a core")
def test_waits_for_a_core_are_counted():
    """Two busy processes on one core: each waits for about half of the time."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)  # until it runs
        before, began = max(core_waits().values()), time.monotonic()
        while time.monotonic() < began + 0.4:
            pass
        assert max(core_waits().values()) - before > 0.05
    finally:
        other.kill()
        other.wait()
        os.sched_setaffinity(0, cores)


def test_another_thread_count_is_another_machine():
    calls, run = counted()
    fastest.measure("question", {"a": run}, CPU)
    before, threads = len(calls), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        fastest.measure("question", {"a": run}, CPU)
    finally:
        torch.set_num_threads(threads)
    assert len(calls) == 2 * before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"m": 3}', '{"m": {"question": {"a": "x"}}}'])
def test_a_damaged_cache_is_measured_again(content):
    path = cache_folder() / "probes.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    calls, run = counted()
    fastest.measure("question", {"a": run}, CPU)
    assert calls
    assert "question" in str(json.loads(path.read_text()))


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PATCHLIGHT_CACHE", str(tmp_path / "file" / "below"))
    _, run = counted()
    assert fastest.measure("question", {"a": run}, CPU).fastest == "a"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, "fp32"),
        (fastest.Choice({"fp32": 1.0, "bf16": 0.5}), "bf16"),
        (fastest.Choice({"fp32": 1.0, "bf16": 0.95}), "fp32"),  # not worth it
        (fastest.Choice({"fp32": 1.0, "bf16": 1.2}, steady=False), "bf16"),  # there are instructions for it
    ],
)
def test_precision_is_what_is_asked_for_or_what_is_faster(monkeypatch, choice, expected):
    monkeypatch.setattr(fastest, "probe_precision", lambda device: choice)
    assert fastest.resolve_precision("auto", CPU) == expected
    assert fastest.resolve_precision("fp16", CPU) == "fp16"


def test_a_processor_without_bf16_is_not_asked(monkeypatch):
    monkeypatch.setattr(device, "processor_multiplies", lambda precision: False)
    assert fastest.probe_precision(CPU) is None
    assert fastest.resolve_precision("auto", CPU) == "fp32"
    assert not cache_folder().exists()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("training", [True, False])
def test_attention_is_the_faster_of_the_two(monkeypatch, precision, training):
    asked: list[str] = []
    rows = (
        (fastest.Choice({"fused": 1.0, "explicit": 2.0}), "fused"),
        (fastest.Choice({"fused": 2.0, "explicit": 1.0}), "explicit"),
        (fastest.Choice({"fused": 1.0, "explicit": 2.0}, steady=False), "explicit"),
    )

    def measured(question, ways, device):
        for way in ways.values():
            way()
        asked.append(question)
        return rows[len(asked) - 1][0]

    monkeypatch.setattr(fastest, "measure", measured)
    for _, expected in rows:
        assert fastest.faster_attention(8, 2, 17, 16, precision, CPU, training=training) == expected
    assert set(asked) == {f"attention {precision} 8x2x17x16" + ("" if training else " forward")}
