from __future__ import annotations

import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from patchlight.errors import UsageError
from patchlight.machine.device import autocast, resolve_device
from patchlight.machine.hardware import describe_machine
from patchlight.machine.process import cpu_threads
from patchlight.machine.seeds import STREAMS, derive_seed


def test_seeds_depend_on_their_arguments_alone():
    seeds = [
        derive_seed(seed, stream, epoch, step)
        for seed in (0, 1)
        for stream in STREAMS
        for epoch in range(3)
        for step in range(3)
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "order", 5) == derive_seed(0, "order", 5)
    # Pinned: a run must be the same after an update of NumPy.
    assert derive_seed(0, "order", 5) == 7532623731273203193


def test_devices_that_are_not_there():
    assert resolve_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(
            UsageError, match=r"the device 'cuda' .* is not one that torch finds here; use 'auto' or 'cpu'"
        ):
            resolve_device("cuda")


def test_autocast_is_in_the_precision():
    cpu = torch.device("cpu")
    with autocast("bf16", cpu):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with autocast("fp32", cpu):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with cpu_threads(1) as count:
        assert count == torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_the_description_names_versions_hardware_and_commit():
    machine = describe_machine(torch.device("cpu"))
    assert machine.versions["torch"] == torch.__version__
    assert machine.hardware.cores >= 1
    assert machine.hardware.cpu
    assert (machine.hardware.device, machine.hardware.gpu) == ("cpu", None)
    assert [*asdict(machine)] == ["patchlight", "versions", "git_commit", "hardware"]  # the keys of environment.json
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    if head.returncode == 0:
        assert machine.git_commit.startswith(head.stdout.strip())
