"""How a trained model is scored and explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from patchlight.config.fields import COUNT, NOT_NEGATIVE, Section
from patchlight.config.names import DEFAULT_METHOD, METHOD_NAMES
from patchlight.config.sections.training import Precision


@dataclass(frozen=True)
class EvalConfig(Section):
    """How a trained model is scored."""

    test: Annotated[
        bool, "read the test images at the end of training; false leaves them unread, as where runs are still compared"
    ] = True
    batch_size: Annotated[int, "images at a time", COUNT] = 500
    precision: Annotated[
        Precision, "number format of the computation; fp32 gives one score on all machines; auto: the fastest here"
    ] = "fp32"
    mirror: Annotated[bool, "report a second score, of probabilities averaged over each image and its mirror image"] = (
        False
    )
    gallery: Annotated[int, "right predictions, and as many wrong ones, that the report shows", COUNT] = 12


@dataclass(frozen=True)
class ExplainConfig(Section):
    """Which explanations a training run makes by itself."""

    snapshots_every: Annotated[
        int, "epochs between snapshots of explanation maps of a few validation images; 0 is off", NOT_NEGATIVE
    ] = 0
    faithfulness: Annotated[
        int, "test images on which the report's maps are tested for faithfulness at the end; 0 is off", NOT_NEGATIVE
    ] = 0
    snapshots_images: Annotated[int, "images of the snapshots, from as many classes as there are", COUNT] = 6
    method: Annotated[str, "the method of explanation that the snapshots show", METHOD_NAMES] = DEFAULT_METHOD
