"""What an installed Patchlight brings along, and what it says of itself."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath

import pytest

import patchlight

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "patchlight"


def test_the_version_is_that_of_the_installed_package():
    assert patchlight.__version__ == importlib.metadata.version("patchlight")


def test_source_code_that_is_not_installed_says_so(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert patchlight.__version__ == "0+unknown"


def test_importing_loads_nothing_heavy():
    code = "import sys, patchlight; print(sorted({'torch', 'numpy', 'matplotlib', 'datasets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_types_are_marked():
    assert (PACKAGE / "py.typed").is_file()


def test_every_file_of_the_package_reaches_the_wheel():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = pyproject["tool"]["setuptools"]["package-data"]["patchlight"]
    files = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    # ** also stands for no folder at all.
    names = [PurePosixPath(pattern).name for pattern in patterns if pattern.startswith("**/")]
    names_at_top = [pattern for pattern in patterns if "/" not in pattern]
    left_out = [
        str(file)
        for file in files
        if file.suffix != ".py"
        and not any(file.match(name) for name in names)
        and not (len(file.parts) == 1 and any(file.match(name) for name in names_at_top))
    ]
    assert left_out == []


@pytest.mark.parametrize("ending", ["*.toml", "*.html"])
def test_recipes_and_pages_are_files_of_the_package(ending):
    assert list(PACKAGE.rglob(ending))
