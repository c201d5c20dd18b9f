"""Pretrained image classifiers of Hugging Face: of the hub and of folders in its format."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from patchlight.config import ModelConfig
from patchlight.errors import PatchlightError, UsageError
from patchlight.machine.libraries import import_library
from patchlight.models.adapt import POSITIONS, adapt_weights, is_head
from patchlight.models.backbone import Backbone, commit_of, does_not_apply, resampled

HUGGING_FACE_FIELDS = {  # our words for theirs
    "patch_size": "patch_size",
    "proj_drop_rate": "hidden_dropout_prob",
    "attn_drop_rate": "attention_probs_dropout_prob",
    "drop_path_rate": "drop_path_rate",
}

PREPROCESSOR = "preprocessor_config.json"

# Of these types the encoder's weights are those of another type's classifier.
SAME_WEIGHTS = {"vit_mae": "vit"}


class HuggingFaceClassifier(nn.Module):
    """A `...ForImageClassification` as a function of images (B, C, H, W) to logits (B, K)."""

    def __init__(self, hf: nn.Module) -> None:
        super().__init__()
        self.hf = hf

    def forward(self, x: Tensor) -> Tensor:
        return self.hf(pixel_values=x).logits


def load_hugging_face(config: ModelConfig, given: dict[str, Any], img_size: int, num_classes: int) -> Backbone:
    """The weights are read into the model that they were made for, then carried over to the one that is asked for."""
    transformers = import_library("transformers")
    where: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    native = transformers.AutoConfig.from_pretrained(config.name, trust_remote_code=False, **where)
    if native.model_type == "timm_wrapper":
        raise UsageError(f"{config.name} is in timm's format; write hf-hub:{config.name}")
    kind = SAME_WEIGHTS.get(native.model_type, native.model_type)
    classifiers = transformers.AutoModelForImageClassification
    known = {supported.model_type for supported in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING}
    if kind not in known:
        raise PatchlightError(f"{config.name} is of the type '{kind}', of which there is no image classifier")
    if kind != native.model_type:
        shared = transformers.AutoConfig.for_model(kind).to_dict().keys() - {"model_type", "architectures"}
        native = transformers.AutoConfig.for_model(kind, **{k: v for k, v in native.to_dict().items() if k in shared})
    wanted = transformers.AutoConfig.for_model(**with_shape(native.to_dict(), img_size, num_classes, given))
    model = classifiers.from_config(wanted, dtype=torch.float32)  # whatever the file is in: autocast does the rest
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
        note = resampled(*grids, *sizes)
        model.load_state_dict(adapt_weights(found.state_dict(), model, prefix_of(found), new_head=True))
    mean, std = _hugging_face_input(config, where) if config.pretrained else (None, None)
    if config.pretrained and mean is None:
        note += "; " if note else ""
        note += f"{config.name} does not say how its pixels were normalised: the training images' mean and deviation "
        note += "are taken (set data.mean and data.std if you know its own)"
    return Backbone(
        HuggingFaceClassifier(model),
        {"library": "huggingface", "config": wanted.to_dict(), "img_size": img_size, "num_classes": num_classes},
        mean,
        std,
        note,
        {
            "library": f"transformers {transformers.__version__}",
            "id": config.name,
            "pretrained": config.pretrained,
            **commit_of(config.name, config.revision),
        },
    )


def with_shape(config: dict[str, Any], img_size: int, num_classes: int, given: dict[str, Any]) -> dict[str, Any]:
    """A configuration for images of another size, where it has one, and other classes, our fields laid over it.

    Raises UsageError for a field that such a model does not have.
    """
    fields = {HUGGING_FACE_FIELDS[key]: key for key in given if key in HUGGING_FACE_FIELDS}
    for theirs, key in fields.items():
        if theirs not in config:
            raise does_not_apply(key, f"a '{config['model_type']}'")
    changed = {theirs: given[key] for theirs, key in fields.items()}
    if "image_size" in config:
        changed["image_size"] = img_size
    names = {i: f"LABEL_{i}" for i in range(num_classes)}
    return {**config, **changed, "id2label": names, "label2id": {name: i for i, name in names.items()}}


def prefix_of(model: nn.Module) -> int:
    """How many tokens stand before the patches."""
    return sum(key.endswith(("cls_token", "distillation_token")) for key, _ in model.named_parameters())


def _check_loaded(name: str, about: dict[str, Any]) -> None:
    """Raises PatchlightError where anything was not found in the weights, but for a head, which may be missing."""
    lacking = [key for key in about["missing_keys"] if not is_head(key)]
    lacking += [key for key, *_ in about["mismatched_keys"]]
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
    """Mean and deviation by the preprocessor's own file; None where there is none or it does not tell them."""
    try:
        found, _ = import_library("transformers").ImageProcessingMixin.get_image_processor_dict(config.name, **where)
    except OSError:
        if not _lacks(config, PREPROCESSOR):
            raise PatchlightError(
                f"the {PREPROCESSOR} of {config.name} cannot be read, so it is not known how its pixels were "
                "normalised; mend the file, or go online once"
            ) from None
        return None, None
    if not found.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    mean, std = found.get("image_mean"), found.get("image_std")
    return (tuple(mean), tuple(std)) if mean and std else (None, None)


def _lacks(config: ModelConfig, file: str) -> bool:
    """Whether it is known that the folder or the hub's repository has no such file."""
    from huggingface_hub import try_to_load_from_cache

    if Path(config.name).is_dir():
        return not (Path(config.name) / file).exists()
    found = try_to_load_from_cache(config.name, file, revision=config.revision or "main")
    return found is not None and not isinstance(found, str)  # None: not asked for yet; a path: there it is


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
