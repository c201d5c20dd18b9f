"""Shared by the tests of commands: one finished run."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import SMALL

from patchlight.cli.main import main


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """A finished run; tests read it and change copies."""
    path = tmp_path_factory.mktemp("runs") / "small"
    assert main(["train", "quickstart", *SMALL, "--out", str(path)]) == 0
    return path
