"""Pretrained models of timm and of Hugging Face: their weights, their own input, and a new head.

A name says where a model comes from, and is never guessed at:

timm/NAME or timm/NAME.TAG   timm's registry; the weights come from the hub
hf-hub:OWNER/NAME            a model on the hub in timm's format
local-dir:FOLDER             a folder in that format
OWNER/NAME                   a model on the hub in Hugging Face's format
FOLDER                       a folder in either format, told apart by its config.json

No code of a repository is run; weights are read as safetensors or, where there are none, without pickled objects.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from patchlight.config import ModelConfig
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.models.adapt import POSITIONS, adapt_weights, is_head

# Our words for theirs; a field that is not here does not apply to a model of the library.
TIMM_FIELDS = {
    "patch_size": "patch_size", "drop_rate": "drop_rate", "pos_drop_rate": "pos_drop_rate",
    "proj_drop_rate": "proj_drop_rate", "attn_drop_rate": "attn_drop_rate", "drop_path_rate": "drop_path_rate",
}  # fmt: skip
HUGGING_FACE_FIELDS = {
    "patch_size": "patch_size", "proj_drop_rate": "hidden_dropout_prob",
    "attn_drop_rate": "attention_probs_dropout_prob", "drop_path_rate": "drop_path_rate",
}  # fmt: skip
ELSEWHERE = ("name", "pretrained", "revision", "fused_attn", "grad_checkpointing")  # fields that every model has

# Of these types the encoder's weights are those of another type's classifier.
SAME_WEIGHTS = {"vit_mae": "vit"}


@dataclass(frozen=True)
class Backbone:
    """A model for the task with the weights that it starts from."""

    model: nn.Module
    args: dict[str, Any]  # what builds it again, without weights
    mean: tuple[float, ...] | None = None  # of the pixels that the weights were made for, where they say it
    std: tuple[float, ...] | None = None
    note: str = ""  # what was changed of it, in a line
    source: dict[str, Any] | None = None  # where the weights come from, for the record
    name: str | None = None  # the model's own, where it is not the recipe's


class HuggingFaceClassifier(nn.Module):
    """A `...ForImageClassification` as a function of images (B, C, H, W) to logits (B, K)."""

    def __init__(self, hf: nn.Module) -> None:
        super().__init__()
        self.hf = hf

    def forward(self, x: Tensor) -> Tensor:
        return self.hf(pixel_values=x).logits


def library_of(name: str) -> str | None:
    """ "timm" or "huggingface", by what stands in the name or, of a folder, in its config.json; None for neither."""
    if name.startswith(("timm/", "hf-hub:", "local-dir:")):
        return "timm"
    if (Path(name) / "config.json").is_file():
        found = _read_json(Path(name) / "config.json")
        if "architecture" in found:
            return "timm"
        return "huggingface" if "model_type" in found else None
    return "huggingface" if name.count("/") == 1 and not name.startswith((".", "/", "~")) else None


def check_fields(config: ModelConfig, given: dict[str, Any]) -> None:
    """Raises UsageError for a field that a model of this library does not take."""
    known = TIMM_FIELDS if library_of(config.name) == "timm" else HUGGING_FACE_FIELDS
    for key in given:
        if key not in known and key not in ELSEWHERE:
            raise UsageError(f"model.{key} does not apply to {config.name}; remove it or choose another model.name")
    if library_of(config.name) == "timm" and config.name.startswith("timm/"):
        check_timm_name(config.name.removeprefix("timm/"))


def check_timm_name(name: str) -> None:
    """Raises UsageError where timm has no such model or no weights of that tag."""
    timm = import_library("timm")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = did_you_mean(architecture, timm.list_models())
        raise UsageError(f"timm has no model '{architecture}'; {near}")
    tags = [known.partition(".")[2] for known in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        raise UsageError(f"timm has no weights '{tag}' of {architecture}; {did_you_mean(tag, tags)}")


def load_backbone(config: ModelConfig, given: dict[str, Any], *, img_size: int, num_classes: int) -> Backbone:
    """The model of `config.name` with a new head, its fields `given`, for images of `img_size` pixels a side.

    Raises UsageError for a wrong name or field and PatchlightError where weights are missing, damaged or others.
    """
    load = load_timm if library_of(config.name) == "timm" else load_hugging_face
    with told_plainly(config.name):
        backbone = load(config, given, img_size, num_classes)
    if config.grad_checkpointing:
        inner: Any = getattr(backbone.model, "hf", backbone.model)
        (getattr(inner, "gradient_checkpointing_enable", None) or inner.set_grad_checkpointing)()
    return backbone


def build(args: dict[str, Any]) -> nn.Module:
    """The model that `Backbone.args` describe, its weights drawn anew."""
    if args["library"] == "timm":
        return import_library("timm").create_model(
            args["architecture"], num_classes=args["num_classes"], **args["options"]
        )
    transformers = import_library("transformers")
    config = transformers.AutoConfig.for_model(**args["config"])
    return HuggingFaceClassifier(transformers.AutoModelForImageClassification.from_config(config))


def reshaped(args: dict[str, Any], img_size: int, num_classes: int) -> dict[str, Any]:
    """`args` for another image size and number of classes."""
    args = {**args, "img_size": img_size, "num_classes": num_classes}
    if args["library"] == "timm":
        size = {"img_size": img_size} if "img_size" in args["options"] else {}
        return {**args, "options": {**args["options"], **size}}
    names = {str(i): f"LABEL_{i}" for i in range(num_classes)}
    ids = {name: int(i) for i, name in names.items()}
    return {**args, "config": {**args["config"], "image_size": img_size, "id2label": names, "label2id": ids}}


def prefix_tokens(model: Any) -> int:
    """How many tokens stand before the patches in a model's table of positions."""
    if isinstance(model, HuggingFaceClassifier):
        return sum(key.endswith(("cls_token", "distillation_token")) for key, _ in model.named_parameters())
    if getattr(model, "no_embed_class", False):
        return 0
    return int(getattr(model, "num_prefix_tokens", 0))


def load_timm(config: ModelConfig, given: dict[str, Any], img_size: int, num_classes: int) -> Backbone:
    """timm resamples positions and patch kernels itself; the head is made anew."""
    timm = import_library("timm")
    source, architecture, saved, weights = _timm_source(config)
    options = {TIMM_FIELDS[key]: value for key, value in given.items() if key in TIMM_FIELDS}
    if weights.get("fixed_input_size", False):
        options["img_size"] = img_size
    saved = {key: value for key, value in saved.items() if key != "num_classes"}
    options = {**saved, **options}
    # With all of its own classes, so that every weight must be there; then with ours.
    model = timm.create_model(source, pretrained=config.pretrained, **options)
    model.reset_classifier(num_classes)
    size, patch = weights.get("input_size", (3, 0, 0))[-1], options.get("patch_size")
    note = ""
    if (grid := _grid_of(model)) and config.pretrained:
        kernel = model.patch_embed.proj.weight.shape[-1]
        with torch.device("meta"):  # only to ask for its shape
            native = timm.create_model(architecture, pretrained=False, **{**saved, "img_size": size})
        note = _resized(_grid_of(native), grid, native.patch_embed.proj.weight.shape[-1] if patch else kernel, kernel)
    return Backbone(
        model,
        {"library": "timm", "architecture": architecture, "options": options, "img_size": img_size,
         "num_classes": num_classes},
        tuple(weights["mean"]) if config.pretrained else None,
        tuple(weights["std"]) if config.pretrained else None,
        note=note,
        source={"library": f"timm {timm.__version__}", "id": source, "pretrained": config.pretrained,
                **_revision(weights.get("hf_hub_id"), config.revision)},
    )  # fmt: skip


def _timm_source(config: ModelConfig) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """What timm calls the model, its architecture, the arguments it was saved with, and what it says of its weights."""
    timm = import_library("timm")
    at = f"@{config.revision}" if config.revision else ""
    if config.name.startswith("timm/"):
        name = config.name.removeprefix("timm/")
        found = timm.get_pretrained_cfg(name)
        weights = {} if found is None else found.to_dict()
        if config.pretrained and not (found and found.has_weights):
            raise UsageError(f"timm has no weights of {name}; set model.pretrained = false, or choose another model")
        if at and not weights.get("hf_hub_id"):
            raise UsageError(f"the weights of {name} are in no repository of the hub; leave out model.revision")
        if at:
            return f"hf-hub:{weights['hf_hub_id'].partition('@')[0]}{at}", name.partition(".")[0], {}, weights
        return name, name.partition(".")[0], {}, weights
    if config.name.startswith("hf-hub:"):
        source = config.name + at
        weights, architecture, saved = timm.models.load_model_config_from_hf(source.removeprefix("hf-hub:"))
        return source, architecture, saved or {}, weights
    folder = Path(config.name.removeprefix("local-dir:"))
    found = _read_json(folder / "config.json")
    if "architecture" not in found:
        raise PatchlightError(f"{folder / 'config.json'} names no 'architecture', so it is not in timm's format")
    return f"local-dir:{folder}", found["architecture"], found.get("model_args", {}), found.get("pretrained_cfg", found)


def load_hugging_face(config: ModelConfig, given: dict[str, Any], img_size: int, num_classes: int) -> Backbone:
    """The weights are read into the model that they were made for, then carried over to the one that is asked for."""
    transformers = import_library("transformers")
    where: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    native = transformers.AutoConfig.from_pretrained(config.name, **where)
    kind = SAME_WEIGHTS.get(native.model_type, native.model_type)
    classifiers = transformers.AutoModelForImageClassification
    known = {supported.model_type for supported in classifiers._model_mapping}
    if kind not in known:
        raise PatchlightError(f"{config.name} is of the type '{kind}', of which there is no image classifier")
    if kind != native.model_type:
        shared = transformers.AutoConfig.for_model(kind).to_dict().keys() - {"model_type", "architectures"}
        native = transformers.AutoConfig.for_model(kind, **{k: v for k, v in native.to_dict().items() if k in shared})
    native.num_labels = num_classes
    wanted = transformers.AutoConfig.for_model(**native.to_dict())
    for key, value in {**given, "img_size": img_size}.items():
        theirs = "image_size" if key == "img_size" else HUGGING_FACE_FIELDS.get(key)
        if theirs is not None and (hasattr(native, theirs) or key != "img_size"):
            if not hasattr(native, theirs):
                raise UsageError(f"model.{key} does not apply to {config.name}, a '{kind}'; remove it")
            setattr(wanted, theirs, value)
    model = classifiers.from_config(wanted)
    note = ""
    if config.pretrained:
        with quiet(transformers):  # that the head is new is no news
            found, about = type(model).from_pretrained(
                config.name, config=native, ignore_mismatched_sizes=True, output_loading_info=True, **where
            )
        _check_loaded(config.name, about)
        sizes = [getattr(shape, "patch_size", None) for shape in (native, wanted)]
        positions = any(key.endswith(POSITIONS) for key in found.state_dict())
        grids = [_hugging_face_grid(shape) if positions else None for shape in (native, wanted)]
        note = _resized(*grids, *sizes)
        prefix = prefix_tokens(HuggingFaceClassifier(found))
        model.load_state_dict(adapt_weights(found.state_dict(), model, prefix, new_head=True))
    mean, std = _hugging_face_input(config, where) if config.pretrained else (None, None)
    return Backbone(
        HuggingFaceClassifier(model),
        {"library": "huggingface", "config": wanted.to_dict(), "img_size": img_size, "num_classes": num_classes},
        mean,
        std,
        note,
        {"library": f"transformers {transformers.__version__}", "id": config.name, "pretrained": config.pretrained,
         **_revision(config.name, config.revision)},
    )  # fmt: skip


def _check_loaded(name: str, about: dict[str, Any]) -> None:
    """Raises PatchlightError where anything but the head was not found in the weights."""
    lacking = [key for key in about["missing_keys"] if not is_head(key)]
    lacking += [key for key, *_ in about["mismatched_keys"] if not is_head(key)]
    if lacking:
        raise PatchlightError(
            f"the weights of {name} lack '{sorted(lacking)[0]}' or have it in another shape ({len(lacking)} such "
            "tensors); its config.json belongs to other weights"
        )


def _hugging_face_grid(config: Any) -> tuple[int, int] | None:
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    return (size // patch, size // patch) if isinstance(size, int) and isinstance(patch, int) else None


def _hugging_face_input(
    config: ModelConfig, where: dict[str, Any]
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and deviation by the preprocessor's own file; None where there is no such file."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        found, _ = ImageProcessingMixin.get_image_processor_dict(config.name, **where)
    except OSError:
        return None, None
    return tuple(found["image_mean"]), tuple(found["image_std"])


def _grid_of(model: Any) -> tuple[int, int] | None:
    """The grid of patches of a timm ViT that has a table of positions."""
    embed = getattr(model, "patch_embed", None)
    return getattr(embed, "grid_size", None) if getattr(model, "pos_embed", None) is not None else None


def _resized(old: Any, new: Any, old_patch: Any, new_patch: Any) -> str:
    """What was resampled, in a line; empty where nothing was."""
    changes = []
    if old and new and tuple(old) != tuple(new):
        changes.append(f"positions resampled from {old[0]}x{old[1]} to {new[0]}x{new[1]} patches")
    if old_patch != new_patch:
        changes.append(f"patch kernels from {old_patch} to {new_patch} pixels a side")
    return ", ".join(changes)


def _revision(repository: str | None, revision: str | None) -> dict[str, Any]:
    """The commit of a repository of the hub that was read, as its cache knows it."""
    if not repository or Path(repository).exists():
        return {}
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository.partition("@")[0], "config.json", revision=revision or "main")
    return {"revision": revision, "commit": Path(found).parent.name if isinstance(found, str) else None}


@contextlib.contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Without the library's warnings and progress bars."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def told_plainly(name: str) -> Iterator[None]:
    """What the libraries raise, as one sentence that names the model."""
    try:
        yield
    except PatchlightError:
        raise
    except (SafetensorError, pickle.UnpicklingError) as error:
        raise PatchlightError(f"the weights of {name} are damaged or no safetensors: {_first_line(error)}") from None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise PatchlightError(f"cannot load {name}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def import_library(name: str, extra: str = "hub") -> Any:
    """An optional library. Raises UsageError, with what to install, where it is not there."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise UsageError(f"{name} is not installed; pip install 'patchlight[{extra}]'") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PatchlightError(f"no {path}; give a folder with a model's config.json") from None
    except (OSError, ValueError) as error:
        raise PatchlightError(f"{path} cannot be read as JSON: {_first_line(error)}") from None
    if not isinstance(found, dict):
        raise PatchlightError(f"{path} is no model's config: it holds no object")
    return found
