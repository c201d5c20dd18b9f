"""Libraries that come with an extra of the package, imported where they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from patchlight.errors import UsageError


def import_library(name: str, extra: str = "hub") -> Any:
    """An optional library. Raises UsageError, with what to install, where it is not there."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise UsageError(f"{name} is not installed; pip install 'patchlight[{extra}]'") from None
