"""Patchlight trains, evaluates and looks inside Vision Transformers on small-image data sets.

Names are loaded when they are first used, so that `import patchlight` and the command line's help are instant.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

# Libraries that report their use to their makers if nobody says no: ONNX Runtime from its import on, the hub's client
# with each download. They read this when they are imported, which is later; what a user has set counts more.
for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")

# name: the module that defines it. First the commands, each with its file.
_EXPORTS = {
    "train": "patchlight.commands.train",
    "sweep": "patchlight.commands.sweep",
    "evaluate": "patchlight.commands.evaluate",
    "predict": "patchlight.commands.predict",
    "explain": "patchlight.commands.explain",
    "probe": "patchlight.commands.probe",
    "export": "patchlight.commands.export",
    "push": "patchlight.commands.push",
    "study": "patchlight.commands.study",
    "compare": "patchlight.commands.compare",
    "audit": "patchlight.commands.audit",
    "doctor": "patchlight.commands.doctor",
    "report": "patchlight.commands.report",
    "Config": "patchlight.config",
    "load_recipe": "patchlight.config",
    "recipe_names": "patchlight.config",
    "recipes": "patchlight.config",
    "PatchlightError": "patchlight.errors",
    "UsageError": "patchlight.errors",
    "Run": "patchlight.runs",
    "ImageSet": "patchlight.data.images",
    "load_source": "patchlight.data.sources",
    "load_splits": "patchlight.data.splits",
    "MODELS": "patchlight.models",
    "VisionTransformer": "patchlight.models",
    "create_model": "patchlight.models",
    "load_model": "patchlight.models",
    "save_model": "patchlight.models",
    "record_attention": "patchlight.explanation.capture",
    "METHODS": "patchlight.explanation.methods",
}

__all__ = sorted([*_EXPORTS, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _installed_version()
    if name not in _EXPORTS:
        raise AttributeError(f"module 'patchlight' has no attribute '{name}'")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__


def _installed_version() -> str:
    """What pyproject.toml said when the package was installed; "0+unknown" for source code that was not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("patchlight")
    except PackageNotFoundError:
        return "0+unknown"
