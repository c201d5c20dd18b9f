"""What a configuration of Hugging Face may say when it comes from somebody else: plain data that describe a network.

The library's own class for the model's type says which keys there are. Keys that load, download or name a file, a
repository or code are refused where they are set; keys that such a class does not have mean nothing, and are left out.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from patchlight.errors import PatchlightError, first_of
from patchlight.machine.process import import_library
from patchlight.models.bounds import MOST_CLASSES, MOST_NUMBER, MOST_VOCABULARY, VOCABULARY, check_plain, shown, word

# What the library follows to other files, repositories, libraries or code, wherever it stands. `auto_map` is not among
# them, as published models of known types have it: it is left out.
DOORS = (
    *("quantization_config", "use_timm_backbone", "use_pretrained_backbone", "backbone", "backbone_config"),
    *("backbone_kwargs", "transformers_weights", "fusion_config", "use_kernels", "kernel_config", "adapter_config"),
    *("gguf_file", "base_model_name_or_path", "pretrained_model_name_or_path", "experts_implementation"),
)
ATTENTION = ("attn_implementation", "_attn_implementation")
KERNELS = ("eager", "sdpa")  # of attention, which torch has; others are downloaded or are libraries of their own
DTYPE = ("dtype", "torch_dtype")
DTYPES = ("float32", "float16", "bfloat16", "float64")
OF_THE_FILE = ("model_type", "transformers_version", "_name_or_path", "auto_map", *ATTENTION)
LABELS = ("id2label", "label2id")
NOT_ALONE = ("timm_wrapper", "shieldgemma2")  # the one is built by timm's options, the other needs words


def kinds() -> set[str]:
    """The types of which the library has an image classifier that is described by its configuration alone."""
    mapping = import_library("transformers").MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    return {supported.model_type for supported in mapping} - set(NOT_ALONE)


def checked_settings(settings: Any) -> dict[str, Any]:
    """The settings that the class of the model's type has, with labels as they are.

    Raises PatchlightError, naming the key, for one that loads something, or is of another kind or beyond its bounds.
    """
    if not isinstance(settings, Mapping) or not isinstance(settings.get("model_type"), str):
        raise PatchlightError("'model_type' is missing; it must name a type of model")
    kind = settings["model_type"]
    configs = import_library("transformers").CONFIG_MAPPING
    if kind not in configs:
        raise PatchlightError(
            f"'model_type' is {shown(kind)}, which this version of transformers does not have; code of a "
            "repository is never run"
        )
    return {"model_type": kind, **_of_class(settings, configs[kind], "")}


def left_out(settings: Mapping[str, Any], kept: Mapping[str, Any]) -> str:
    """What a configuration sets and such a model does not have, in a line; empty where that is nothing."""
    known = {*kept, *OF_THE_FILE, *DOORS, *DTYPE} - {"auto_map"}
    keys = sorted(word(key) for key, value in settings.items() if key not in known and value is not None)
    return f"of its config.json, {first_of(keys, 6)} is not used, as such a model has no such setting" if keys else ""


def _of_class(settings: Mapping[str, Any], cls: Any, where: str) -> dict[str, Any]:
    """The settings that a configuration's class has, checked; those of its parts likewise."""
    known = {field.name for field in dataclasses.fields(cls)} | set(cls.attribute_map) | {"num_labels", "out_features"}
    known |= set(inspect.signature(cls.__init__).parameters)  # of a class that was registered by somebody else
    known |= {"out_indices", "output_attentions"} | {f"{part}_dict" for part in cls.sub_configs}
    kept = {}
    for key, value in settings.items():
        name = f"{where}{word(key)}"
        if key in DOORS and value not in (None, False, "", [], {}):
            raise PatchlightError(
                f"'{name}' is {shown(value)}, which would load or download something else; a network is described by "
                "plain settings alone"
            )
        if key in ATTENTION and value not in (None, *KERNELS):
            raise PatchlightError(f"'{name}' is {shown(value)}; it must be {' or '.join(KERNELS)}")
        if key in OF_THE_FILE or key in DOORS or key not in known:
            continue
        part = cls.sub_configs.get(key.removesuffix("_dict"))  # older files of CLIP have "vision_config_dict", too
        if part is not None and isinstance(value, Mapping):
            kept[key] = _of_class(value, part, f"{name}.")
        elif key in LABELS:
            kept[key] = _checked_labels(value, name)
        elif key in DTYPE:  # read into float32 whatever it is
            if value not in (None, *DTYPES):
                raise PatchlightError(f"'{name}' is {shown(value)}; it must be one of {', '.join(DTYPES)}")
        else:
            most = MOST_VOCABULARY if any(word in key for word in VOCABULARY) else MOST_NUMBER
            check_plain(value, f"'{name}'", MOST_CLASSES if key == "num_labels" else most)
            kept[key] = value
    return kept


def _checked_labels(value: Any, name: str) -> Any:
    """Names of classes by their number, or the way back; null is none."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or len(value) > MOST_CLASSES:
        raise PatchlightError(f"'{name}' must be an object of at most {MOST_CLASSES:,} classes, not {shown(value)}")
    if name.endswith("id2label") and not all(str(number).isdecimal() and len(str(number)) < 9 for number in value):
        raise PatchlightError(f"'{name}' must have a name for each number of a class, from 0 on")
    return dict(value)
