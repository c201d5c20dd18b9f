"""Models of timm, of its registry, of the hub and of folders in its format; and any network with timm's names.

pretrained.py reads weights, layout.py says where a model's parts are.
"""

from __future__ import annotations

from torch import nn

from patchlight.models.families.timm.layout import structure
from patchlight.models.families.timm.pretrained import build, check, check_spec, load, own_input, reshape

__all__ = ["build", "check", "check_spec", "load", "own_input", "owns", "reshape", "structure"]


def owns(model: nn.Module) -> bool:
    """Every network: parts that have none of timm's names are left out of its structure."""
    return True
