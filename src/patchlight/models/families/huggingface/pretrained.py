"""Classifiers of Hugging Face from the hub and from folders: their weights, their own input, and a new head."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from patchlight.config import ModelConfig
from patchlight.errors import PatchlightError, UsageError
from patchlight.machine.process import import_library
from patchlight.models.adapt import adapt_weights
from patchlight.models.backbone import (
    COMMON,
    Backbone,
    OwnInput,
    check_fields,
    does_not_apply,
    given_fields,
    no_revision,
    resampling_note,
)
from patchlight.models.bounds import check_size, shown, weigh
from patchlight.models.card import ModelSpec
from patchlight.models.families.hub import commit_of, of_a_description, plain_errors
from patchlight.models.families.huggingface.classifier import HuggingFaceClassifier, quiet
from patchlight.models.families.huggingface.layouts import structure
from patchlight.models.families.huggingface.processor import input_of
from patchlight.models.families.huggingface.settings import checked_settings, kinds, left_out
from patchlight.models.reference import HuggingFaceModel, read_json
from patchlight.runs import Weights

FIELDS = {  # our words for theirs
    "patch_size": "patch_size",
    "proj_drop_rate": "hidden_dropout_prob",
    "attn_drop_rate": "attention_probs_dropout_prob",
    "drop_path_rate": "drop_path_rate",
}

# Of these types the encoder's weights are those of another type's classifier.
SAME_WEIGHTS = {"vit_mae": "vit"}


def check(reference: HuggingFaceModel, config: ModelConfig) -> None:
    """Raises UsageError for a field that no model of the library has."""
    check_fields(config, (*FIELDS, *COMMON))
    if config.revision is not None and Path(reference.name).is_dir():
        raise no_revision(reference.name)


def load(reference: HuggingFaceModel, config: ModelConfig, img_size: int, num_classes: int) -> Backbone:
    """The weights are read into the model that they were made for, then carried over to the one that is asked for.

    Raises UsageError for a field that such a model does not have, PatchlightError where weights are missing, damaged or
    others.
    """
    transformers = import_library("transformers")
    where = _where(config)
    native, unused = _native_config(config, where)
    _check_place(config, native, where)
    with of_a_description(f"the config.json of {config.name}"):
        settings = with_shape(native.to_dict(), img_size, num_classes, config)
        wanted = transformers.AutoConfig.for_model(**settings)
        model = _classifier(wanted)
    own, note = OwnInput(), unused
    if config.pretrained:
        trained = _trained(type(model), config, native, where)
        table = structure(trained).position_tables
        grids = [_grid(shape) if table else None for shape in (native, wanted)]
        resampled = resampling_note(*grids, *(getattr(shape, "patch_size", None) for shape in (native, wanted)))
        model.load_state_dict(adapt_weights(trained.state_dict(), structure(model), new_head=True))
        own = input_of(config, native, where)
        note = "; ".join(filter(None, (resampled, own.note, unused)))
    source = Weights(
        library=f"transformers {transformers.__version__}",
        id=config.name,
        pretrained=config.pretrained,
        revision=config.revision,
        commit=commit_of(config.name, config.revision),
    )
    spec = ModelSpec("huggingface", wanted.model_type, wanted.to_dict(), img_size, num_classes)
    return Backbone(HuggingFaceClassifier(model), spec, own, note, source)


def own_input(reference: HuggingFaceModel, config: ModelConfig) -> OwnInput:
    """The images of the pretrained weights, by the small files beside them. Raises as `load` does where these cannot be
    read.
    """
    where = _where(config)
    return input_of(config, _native_config(config, where)[0], where)


def _where(config: ModelConfig) -> dict[str, Any]:
    """Which version of a repository the library's `from_pretrained` reads."""
    return {"revision": config.revision} if config.revision else {}


def _native_config(config: ModelConfig, where: dict[str, Any]) -> tuple[Any, str]:
    """The configuration that the weights were made with, of a type that has an image classifier; and what of its file
    is not used, in a line.
    """
    transformers = import_library("transformers")
    settings, unused = _native_settings(config, where)
    kind = SAME_WEIGHTS.get(settings["model_type"], settings["model_type"])
    if kind not in kinds():
        raise PatchlightError(f"{config.name} is of the type '{kind}', of which there is no image classifier")
    with of_a_description(f"the config.json of {config.name}"):
        native = transformers.AutoConfig.for_model(**settings)
    if kind == native.model_type:
        return native, unused
    with of_a_description(f"the config.json of {config.name}"):
        same = transformers.AutoConfig.for_model(kind).to_dict().keys() - {"model_type", "architectures"}
        same_weights = {key: value for key, value in native.to_dict().items() if key in same}
        return transformers.AutoConfig.for_model(kind, **same_weights), unused


def _native_settings(config: ModelConfig, where: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What the config.json of a folder or repository says of the network, checked, of which nothing is followed; and
    what is not used, in a line.
    """
    transformers = import_library("transformers")
    if Path(config.name).is_dir():
        settings: Any = read_json(Path(config.name) / "config.json")
    else:
        with plain_errors(config.name):
            settings, _ = transformers.PreTrainedConfig.get_config_dict(config.name, **where)
    if isinstance(settings, dict) and ("architecture" in settings or settings.get("model_type") == "timm_wrapper"):
        raise UsageError(f"{config.name} is in timm's format; write hf-hub:{config.name}")
    try:
        kept = checked_settings(settings)
        return kept, left_out(settings, kept)
    except PatchlightError as error:
        raise PatchlightError(
            f"the config.json of {config.name} describes no model that can be loaded: {error}"
        ) from None


def _check_place(config: ModelConfig, native: Any, where: dict[str, Any]) -> None:
    """Raises PatchlightError where the weights' place points to other files, or its config.json describes more than its
    files can hold.
    """
    transformers = import_library("transformers")
    with plain_errors(config.name):
        adapter = transformers.utils.find_adapter_config_file(config.name, **where)
    if adapter is not None:
        raise PatchlightError(
            f"{config.name} has an adapter_config.json, so its weights are changes to another model that it names; "
            "merge them into that model (`merge_and_unload` of peft), and name the folder of the result"
        )
    folder = Path(config.name) if Path(config.name).is_dir() else None
    if folder is not None and (index := folder / "model.safetensors.index.json").is_file():
        files = read_json(index).get("weight_map")
        if not isinstance(files, dict) or any(Path(str(file)).name != file for file in files.values()):
            raise PatchlightError(f"{index} must name files of its own folder alone under 'weight_map'")
    model = weigh(lambda: HuggingFaceClassifier(_classifier(native)), _side(native), config.name)
    check_size(model, folder, config.name)


def _classifier(config: Any) -> nn.Module:
    """With weights that are drawn, in float32, whatever a file is in: autocast does the rest."""
    auto = import_library("transformers").AutoModelForImageClassification
    model: nn.Module = auto.from_config(config, dtype=torch.float32)
    return model


def _side(config: Any) -> int:
    """Pixels a side of the images that a configuration names; 224 where it names none, or not square ones."""
    size = getattr(getattr(config, "vision_config", config), "image_size", None)
    return size if isinstance(size, int) else 224


def _trained(cls: Any, config: ModelConfig, native: Any, where: dict[str, Any]) -> nn.Module:
    """The model with its own weights. Raises PatchlightError where one is missing, but for the head's."""
    with quiet(import_library("transformers")), plain_errors(config.name):  # that the head is new is no news
        model, about = cls.from_pretrained(
            config.name, config=native, ignore_mismatched_sizes=True, output_loading_info=True, **where
        )
    heads = structure(model).heads
    lacking = [key for key in about["missing_keys"] if key not in heads]
    lacking += [key for key, *_ in about["mismatched_keys"]]
    if lacking:
        raise PatchlightError(
            f"the weights of {config.name} lack '{sorted(lacking)[0]}' or have it in another shape ({len(lacking)} "
            "such tensors); its config.json belongs to other weights"
        )
    trained: nn.Module = model
    return trained


def with_shape(
    settings: dict[str, Any], img_size: int, num_classes: int, config: ModelConfig | None = None
) -> dict[str, Any]:
    """A configuration of the library for another image size, where it has one, and other classes, with our fields laid
    over it.

    Raises UsageError for a field that such a model does not have.
    """
    changed: dict[str, Any] = {}
    for key, value in given_fields(config).items() if config else ():
        if key in FIELDS and FIELDS[key] not in settings:
            raise does_not_apply(key, f"a '{settings['model_type']}'")
        if key in FIELDS:
            changed[FIELDS[key]] = value
    if "image_size" in settings:
        changed["image_size"] = img_size
    names = {i: f"LABEL_{i}" for i in range(num_classes)}
    return {**settings, **changed, "id2label": names, "label2id": {name: i for i, name in names.items()}}


def check_spec(spec: ModelSpec) -> None:
    """Raises PatchlightError where a spec that was read describes no image classifier by plain settings."""
    settings = checked_settings(spec.arguments)
    if settings["model_type"] not in kinds():
        raise PatchlightError(f"it is of the type '{settings['model_type']}', of which there is no image classifier")
    side = settings.get("image_size", spec.img_size)
    if side not in (spec.img_size, [spec.img_size] * 2):
        raise PatchlightError(
            f"its image_size is {shown(side)}, and its img_size {spec.img_size}; they must be the same"
        )


def build(spec: ModelSpec) -> nn.Module:
    """In float32, whatever the configuration says, as the weights are saved in it."""
    transformers = import_library("transformers")
    settings = with_shape(checked_settings(spec.arguments), spec.img_size, spec.num_classes)
    return HuggingFaceClassifier(_classifier(transformers.AutoConfig.for_model(**settings)))


def reshape(spec: ModelSpec, img_size: int, num_classes: int, config: ModelConfig | None = None) -> ModelSpec:
    """For another image size and number of classes, a recipe's fields laid over its configuration.

    Raises UsageError for a field that such a model does not have.
    """
    if config is not None:
        check_fields(config, (*FIELDS, *COMMON))
    settings = with_shape(spec.arguments, img_size, num_classes, config)
    return dataclasses.replace(spec, arguments=settings, img_size=img_size, num_classes=num_classes)


def _grid(config: Any) -> tuple[int, int] | None:
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    return (size // patch, size // patch) if isinstance(size, int) and isinstance(patch, int) else None
