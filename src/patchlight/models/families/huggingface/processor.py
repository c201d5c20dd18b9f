"""What an image processor of Hugging Face does to pixels, by its preprocessor_config.json; what of it is done here."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from patchlight.config import ModelConfig
from patchlight.config.sections import Interpolation
from patchlight.errors import PatchlightError
from patchlight.machine.process import import_library
from patchlight.models.backbone import OwnInput, nearest_interpolation

PREPROCESSOR = "preprocessor_config.json"
# Pillow's numbers, which the files have.
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
USUAL_FACTOR = 1 / 255  # from 0..255 to 0..1


def own_input(config: ModelConfig, native: Any, where: dict[str, Any]) -> OwnInput:
    """How the weights' own processor prepares images; `native` is the model's configuration.

    Mean and deviation are of pixels in 0..1 whatever the processor's own factor. Raises PatchlightError where the file
    is there and cannot be read, or asks for what cannot be done.
    """
    about = _read(config, where)
    interpolation, note = _interpolation(about, native)
    if about is None:
        source = "bicubic, our own" if interpolation is None else f"{interpolation}, its type's default"
        lines = [
            f"{config.name} does not say how its pixels were normalised: the training images' mean and deviation are "
            "taken (set data.mean and data.std if you know its own)",
            f"nor how they were resized: {source}, is taken",
        ]
        return OwnInput(None, None, interpolation, "; ".join(lines))
    notes = [note]
    if about.get("resample") is None:
        source = "bicubic, our own" if interpolation is None else f"{interpolation}, its processor's default"
        notes.append(f"its {PREPROCESSOR} does not name an interpolation: {source}, is taken")
    mean, std = _normalisation(about, config.name)
    if mean is None:
        notes.append(
            f"{config.name} does not say how its pixels were normalised: the training images' mean and deviation are "
            "taken (set data.mean and data.std if you know its own)"
        )
    notes.append(_left_out(about))
    return OwnInput(mean, std, interpolation, "; ".join(filter(None, notes)))


def interpolation_of(config: ModelConfig, native: Any, where: dict[str, Any]) -> Interpolation | None:
    """What `own_input` says of the interpolation; None where nothing names one. Raises as that where it is not read."""
    return _interpolation(_read(config, where), native)[0]


def _interpolation(about: dict[str, Any] | None, native: Any) -> tuple[Interpolation | None, str]:
    """What is done here for the processor's own interpolation, and a line where that is another."""
    resample = _own(about, "resample", native)
    if resample is None:
        return None, ""
    word = resample if isinstance(resample, str) else RESAMPLE.get(resample, str(resample))
    return nearest_interpolation(word)


def _read(config: ModelConfig, where: dict[str, Any]) -> dict[str, Any] | None:
    """The processor's file; None where it is known that there is none."""
    try:
        about: dict[str, Any]
        about, _ = import_library("transformers").ImageProcessingMixin.get_image_processor_dict(config.name, **where)
    except OSError:
        if not _lacks(config, PREPROCESSOR):
            raise PatchlightError(
                f"the {PREPROCESSOR} of {config.name} cannot be read, so it is not known how its pixels were "
                "normalised; mend the file, or go online once"
            ) from None
        return None
    return about


def _own(about: dict[str, Any] | None, key: str, native: Any) -> Any:
    """A setting of the file, else the default of the processor that it names, else of the model type's; or None."""
    if about is not None and about.get(key) is not None:
        return about[key]
    transformers = import_library("transformers")
    kind = str((about or {}).get("image_processor_type") or "").removesuffix("Fast")
    with contextlib.suppress(ImportError):  # of a processor that needs a library that is not here
        if (named := getattr(transformers, kind, None) if kind else None) is not None:
            return getattr(named, key, None)
        mapping = transformers.models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING
        if type(native) in mapping:
            kinds = mapping[type(native)]
            return next((getattr(cls, key, None) for cls in kinds.values() if cls is not None), None)
    return None


def _normalisation(about: dict[str, Any], name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
    """Mean and deviation of pixels in 0..1: (255 f x - m) / s is (x - m / 255 f) / (s / 255 f), f being its factor."""
    if about.get("offset") or about.get("rescale_offset"):
        raise PatchlightError(f"the processor of {name} moves pixels to -1..1 before its mean, which is not done here")
    factor = about.get("rescale_factor", USUAL_FACTOR) if about.get("do_rescale", True) else 1.0
    times = 255 * factor
    times = 1.0 if abs(times - 1) < 1e-6 else times
    if not about.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1 / times,) * 3
    mean, std = about.get("image_mean"), about.get("image_std")
    if not mean or not std:
        return None, None
    return tuple(value / times for value in mean), tuple(value / times for value in std)


def _left_out(about: dict[str, Any]) -> str:
    """What the processor does and is not done here, in a line."""
    lines = []
    size, crop = about.get("size"), about.get("crop_size")
    short = size.get("shortest_edge") if isinstance(size, dict) else None
    inner = crop.get("height") if isinstance(crop, dict) else crop
    if about.get("do_center_crop") and short and inner and inner < short:
        lines.append(f"its processor resizes to {short} and cuts out the middle {inner}; here images are kept whole")
    if about.get("do_flip_channel_order"):
        lines.append("its processor turns RGB into BGR, which is not done here")
    return "; ".join(lines)


def _lacks(config: ModelConfig, file: str) -> bool:
    """Whether it is known that the folder or the hub's repository has no such file."""
    from huggingface_hub import try_to_load_from_cache

    if Path(config.name).is_dir():
        return not (Path(config.name) / file).exists()
    cached = try_to_load_from_cache(config.name, file, revision=config.revision or "main")
    return cached is not None and not isinstance(cached, str)  # None: not asked for yet; a path: there it is
