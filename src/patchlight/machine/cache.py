"""Where decoded sets and probes are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where decoded sets and probes are kept: $PATCHLIGHT_CACHE, else $XDG_CACHE_HOME/patchlight, else
    ~/.cache/patchlight.
    """
    if own := os.environ.get("PATCHLIGHT_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "patchlight"
    return Path.home() / ".cache" / "patchlight"
