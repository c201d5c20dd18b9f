"""Image classifiers of Hugging Face: of the hub and of folders in its format.

classifier.py is the wrapper, pretrained.py reads weights, and a file for each layout says where a model's parts are;
layouts.py lists them.
"""

from __future__ import annotations

from torch import nn

from patchlight.models.families.huggingface.classifier import HuggingFaceClassifier, quiet
from patchlight.models.families.huggingface.layouts import structure
from patchlight.models.families.huggingface.pretrained import build, check, check_spec, load, own_input, reshape

__all__ = [
    "HuggingFaceClassifier",
    "build",
    "check",
    "check_spec",
    "load",
    "own_input",
    "owns",
    "quiet",
    "reshape",
    "structure",
]


def owns(model: nn.Module) -> bool:
    """A wrapped classifier, or one as the library gives it."""
    return isinstance(model, HuggingFaceClassifier) or (
        hasattr(model, "config") and hasattr(model, "base_model_prefix")
    )
