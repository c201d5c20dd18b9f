"""Shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from undrawn import undrawn

torch.set_num_threads(1)  # the models are small, and threads of several processes would wait for each other


@pytest.fixture(scope="session")
def cifar10_parquet() -> Path:
    """The folder of the real CIFAR-10 beside the checkout, where a machine has it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar10"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_slides() -> Iterator[None]:
    """For a test of something other than PNG files, of a report or of `explain`: they are empty."""
    with undrawn(charts=False):
        yield


@pytest.fixture
def no_charts() -> Iterator[None]:
    """For a test that trains and is not about the charts of its page: they are made, and not drawn."""
    with undrawn():
        yield
