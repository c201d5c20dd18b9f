"""The tests of data keep their caches to themselves."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    folder = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("PATCHLIGHT_CACHE", str(folder / "pixels"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder / "datasets"))
    datasets.disable_progress_bars()
