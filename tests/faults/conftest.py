from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import TRAIN, Nursery


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Runs commands in processes of their own, which begin at once."""
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def whole(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of TRAIN that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    code, last = nursery.run(*TRAIN, "--out", folder)
    assert code == 0, last
    return folder


@pytest.fixture
def unfinished(whole: Path, tmp_path: Path) -> Path:
    """A copy of a run whose process was killed when all was trained and nothing tested."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for name in ("eval.json", "samples.npz", "insight.npz", "report.html"):
        (folder / name).unlink()
    return folder
