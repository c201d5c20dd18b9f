"""Shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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
def no_slides(monkeypatch):
    """For a test of something other than PNG files, of a report or of `explain`, which are half of its time: empty."""
    for where in ("patchlight.reporting.page.png", "patchlight.figures.style.png"):
        monkeypatch.setattr(where, lambda figure, theme, description=None: b"")


@pytest.fixture
def no_charts(no_slides, monkeypatch):
    """For a test that trains and is not about the charts of its page: they are made, and not drawn."""
    monkeypatch.setattr(
        "patchlight.reporting.embed.svg", lambda figure, theme: "<svg xmlns='http://www.w3.org/2000/svg'/>"
    )
