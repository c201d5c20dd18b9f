"""What an image processor of Hugging Face does to pixels, by its preprocessor_config.json; what of it is done here."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from patchlight.config import ModelConfig
from patchlight.config.sections import Interpolation
from patchlight.errors import PatchlightError
from patchlight.machine.process import import_library
from patchlight.models.backbone import MIDDLE, UNKNOWN_PIXELS, WHOLE, OwnInput, nearest_interpolation
from patchlight.models.bounds import check_plain, shown

PREPROCESSOR = "preprocessor_config.json"
RESAMPLE = {int(known): known.name.lower() for known in Image.Resampling}  # by Pillow's numbers, which the files have
WARPED = 384  # pixels a side from which ConvNeXT's processor, in place of its crop_pct, stretches images
USUAL_FACTOR = 1 / 255  # from 0..255 to 0..1


def input_of(config: ModelConfig, native: Any, where: dict[str, Any]) -> OwnInput:
    """The images that the weights' own processor makes; `native` is the model's configuration.

    What the file leaves out is the default of the processor that it names, or of that of the model's type. Mean and
    deviation are of pixels in 0..1 whatever the processor's own factor. Raises PatchlightError where the file is there
    and cannot be read, or asks for what cannot be done.
    """
    about = _read(config, where)
    own = functools.partial(_own, about, native)
    interpolation, note = _interpolation(own)
    size = _square(getattr(native, "image_size", None))  # of the model; what its processor makes may be another
    if about is None:
        source = "bicubic, our own" if interpolation is None else f"{interpolation}, its type's default"
        return OwnInput(
            size, None, None, interpolation, f"{UNKNOWN_PIXELS}; nor how they were resized: {source}, is taken"
        )
    notes = [note]
    if about.get("resample") is None:
        source = "bicubic, our own" if interpolation is None else f"{interpolation}, its processor's default"
        notes.append(f"its {PREPROCESSOR} does not name an interpolation: {source}, is taken")
    mean, std = _normalisation(own, config.name)
    if mean is None:
        notes.append(UNKNOWN_PIXELS)
    elif not about.get("image_mean") and own("do_normalize", True):
        notes.append(f"its {PREPROCESSOR} does not name a mean: {mean[0]:g}, ..., its processor's default, is taken")
    notes.append(_left_out(own))
    return OwnInput(_size(own) or size, mean, std, interpolation, "; ".join(filter(None, notes)))


Own = Callable[..., Any]  # a setting of a processor by its name; where it is not known None, or a second argument


def _size(own: Own) -> int | None:
    """Pixels a side of what the processor makes of a square image; None where that is no square, or not known."""
    return _square(own("crop_size") if own("do_center_crop") else own("size"))


def _square(size: Any) -> int | None:
    """A side of 224, [224, 224], {"height": 224, "width": 224} or {"shortest_edge": 224}; None of anything else."""
    if isinstance(size, int):
        return size
    if isinstance(size, (list, tuple)):
        return size[0] if len(set(size)) == 1 else None
    if not size:
        return None
    sides = dict(size)
    height = sides.get("height")
    width = sides.get("width", height)
    return sides.get("shortest_edge") if height is None else height if height == width else None


def _interpolation(own: Own) -> tuple[Interpolation | None, str]:
    """What is done here for the processor's own interpolation, and a line where that is another."""
    resample = own("resample")
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
    try:
        for key in SETTINGS:
            check_plain(about.get(key), f"'{key}'")
        _check_kinds(about)
    except PatchlightError as error:
        raise PatchlightError(f"the {PREPROCESSOR} of {config.name} describes no images: {error}") from None
    return about


# What is read of the file: numbers, yes or no, and sizes, which are a number, a list or an object of such.
NUMBERS = ("rescale_factor", "crop_pct")
FLAGS = (
    "do_center_crop",
    "do_resize",
    "do_rescale",
    "do_normalize",
    "do_flip_channel_order",
    "offset",
    "rescale_offset",
)
TRIPLES = ("image_mean", "image_std")
SIZES = ("size", "crop_size")
SETTINGS = (*NUMBERS, *FLAGS, *TRIPLES, *SIZES, "resample", "default_to_square", "image_processor_type")


def _check_kinds(about: dict[str, Any]) -> None:
    """Raises PatchlightError, naming the key, for a value that is of another kind."""
    kinds: dict[str, tuple[tuple[type, ...], str]] = {
        **dict.fromkeys(NUMBERS, ((int, float), "a number above 0")),
        **dict.fromkeys(FLAGS, ((bool,), "true or false")),
        **dict.fromkeys(SIZES, ((int, list, dict), "a number of pixels, two of them, or an object of them")),
        **dict.fromkeys(TRIPLES, ((list,), "three numbers")),
        "resample": ((int, str), "the number or name of an interpolation"),
    }
    for key, (types, words) in kinds.items():
        value = about.get(key)
        if value is None:
            continue
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        good = type(value) in types and all(type(item) in (int, float) for item in inside)
        if key in TRIPLES:
            good = good and len(value) in (0, 3)
        if key in NUMBERS:
            good = good and value > 0
        if not good:
            raise PatchlightError(f"'{key}' is {shown(value)}; it must be {words}")


def _own(about: dict[str, Any] | None, native: Any, key: str, unknown: Any = None) -> Any:
    """A setting of the file, else the default of the processor that it names, else of the model type's; `unknown` where
    there is no such processor.
    """
    if about is not None and about.get(key) is not None:
        return about[key]
    transformers = import_library("transformers")
    kind = str((about or {}).get("image_processor_type") or "").removesuffix("Fast")
    with contextlib.suppress(ImportError):  # of a processor that needs a library that is not here
        if (named := getattr(transformers, kind, None) if kind else None) is not None:
            return getattr(named, key, unknown)
        mapping = transformers.models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING
        if type(native) in mapping:
            kinds = mapping[type(native)]
            return next((getattr(cls, key, unknown) for cls in kinds.values() if cls is not None), unknown)
    return unknown


def _normalisation(own: Own, name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
    """Mean and deviation of pixels in 0..1: (255 f x - m) / s is (x - m / 255 f) / (s / 255 f), f being its factor."""
    if own("offset") or own("rescale_offset"):
        raise PatchlightError(f"the processor of {name} moves pixels to -1..1 before its mean, which is not done here")
    factor = (own("rescale_factor") or USUAL_FACTOR) if own("do_rescale", True) else 1.0
    times = 255 * factor
    times = 1.0 if abs(times - 1) < 1e-6 else times
    if not own("do_normalize", True):
        return (0.0, 0.0, 0.0), (1 / times,) * 3
    mean, std = own("image_mean"), own("image_std")
    if not mean or not std:
        return None, None
    return tuple(value / times for value in mean), tuple(value / times for value in std)


def _keeps_shape(own: Own) -> bool:
    """Whether the processor resizes the shorter side, and the longer one with it."""
    size = own("size")
    if isinstance(size, int):
        return own("default_to_square") is False
    return not isinstance(size, (list, tuple)) and "shortest_edge" in (size or {})


def _left_out(own: Own) -> str:
    """What the processor does and is not done here, in a line."""
    lines = []
    size, pct = own("size"), own("crop_pct")
    resized, inner = _square(size), _square(own("crop_size"))
    if own("do_center_crop") and resized and inner and inner < resized:
        lines.append(f"its processor resizes to {resized} and cuts out the middle {inner}; {WHOLE}")
    elif pct and pct < 1 and resized and resized < WARPED:
        lines.append(f"its processor cuts out the middle {pct:.1%} of an image; {WHOLE}")
    if size and (not _keeps_shape(own) or (pct and resized and resized >= WARPED)):
        lines.append(f"its processor stretches an image that is not square; {MIDDLE}")
    if own("do_flip_channel_order"):
        lines.append("its processor turns RGB into BGR, which is not done here")
    return "; ".join(lines)


def _lacks(config: ModelConfig, file: str) -> bool:
    """Whether it is known that the folder or the hub's repository has no such file."""
    from huggingface_hub import try_to_load_from_cache

    if Path(config.name).is_dir():
        return not (Path(config.name) / file).exists()
    cached = try_to_load_from_cache(config.name, file, revision=config.revision or "main")
    return cached is not None and not isinstance(cached, str)  # None: not asked for yet; a path: there it is
