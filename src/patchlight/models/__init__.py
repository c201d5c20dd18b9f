"""The models: one table, one way to build, describe, save and load them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from patchlight.config import ModelConfig
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.models import hub
from patchlight.models.adapt import adapt_weights
from patchlight.models.hub import Backbone
from patchlight.models.lora import merged
from patchlight.models.resnet import ResNet
from patchlight.models.vit import VisionTransformer

__all__ = [
    "MODELS", "Backbone", "ModelCard", "ResNet", "VisionTransformer", "build_model", "check_model", "create_model",
    "load_backbone", "load_classifier", "load_model", "model_args", "pixels_to_input", "resize_model", "save_model",
]  # fmt: skip

FORMAT = "patchlight-model-1"  # of a saved model's config.json

# name: (class, its arguments). The shapes and where they come from: docs of the recipes of the same names.
MODELS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "vit-micro": (VisionTransformer, {"patch_size": 4, "embed_dim": 96, "depth": 4, "num_heads": 3, "mlp_ratio": 2.0}),
    "vit-tiny": (VisionTransformer, {"patch_size": 4, "embed_dim": 192, "depth": 6, "num_heads": 3}),
    "vit-small": (VisionTransformer, {"patch_size": 4, "embed_dim": 288, "depth": 6, "num_heads": 6}),
    "vit-base": (VisionTransformer, {"patch_size": 4, "embed_dim": 512, "depth": 8, "num_heads": 8}),
    "deit-tiny": (VisionTransformer, {"patch_size": 4, "embed_dim": 192, "depth": 12, "num_heads": 3}),
    "vit-compact": (
        VisionTransformer,
        {"patch_size": 4, "embed_dim": 128, "depth": 4, "num_heads": 4, "mlp_ratio": 2.0, "stem": "conv",
         "global_pool": "seq"},
    ),
    "vit-hybrid": (
        VisionTransformer,
        {"patch_size": 8, "embed_dim": 256, "depth": 1, "num_heads": 4, "mlp_ratio": 2.0, "init_values": 0.1,
         "stem": "conv", "stem_channels": (64, 256, 256), "stem_whitening": 24, "global_pool": "avg"},
    ),
    "resnet18": (ResNet, {"layers": (2, 2, 2, 2)}),
}  # fmt: skip


@dataclass(frozen=True)
class ModelCard:
    """What must be known to use the weights: the architecture and the input that it was trained on."""

    name: str
    args: dict[str, Any]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: dict[str, Any] | None = None  # where the weights came from that training began with

    @property
    def img_size(self) -> int:
        return int(self.args["img_size"])

    def to_input(self, images: Tensor) -> Tensor:
        """uint8 pixels (B, C, h, w) of any size -> what the model takes, (B, C, img_size, img_size), normalised."""
        return pixels_to_input(self.resized(images), self.mean, self.std)

    def resized(self, images: Tensor) -> Tensor:
        """Pixels (B, C, h, w) of 0..255 at the model's size, bicubic with antialiasing."""
        size = (self.img_size, self.img_size)
        if images.shape[-2:] == size:
            return images
        return F.interpolate(images.float(), size=size, mode="bicubic", antialias=True).clamp(0, 255)


def model_args(config: ModelConfig, *, img_size: int, num_classes: int) -> dict[str, Any]:
    """The arguments of a row of MODELS with the config's fields laid over them.

    Raises UsageError for an unknown model and for a field that the model does not have.
    """
    if config.name not in MODELS and Path(config.name).is_dir():
        raise UsageError(f"{config.name} has no config.json of a model of Patchlight, timm or Hugging Face")
    if config.name not in MODELS:
        raise UsageError(
            f"no model '{config.name}'; {did_you_mean(config.name, MODELS)} Pretrained ones are timm/NAME, OWNER/NAME "
            "on the Hugging Face hub, or a folder"
        )
    if config.revision is not None:
        raise UsageError(f"model.revision is of weights on a hub, and {config.name} has none; leave it out")
    return _with_fields(config.name, MODELS[config.name][1], config, img_size, num_classes)


def _with_fields(
    name: str, args: dict[str, Any], config: ModelConfig, img_size: int, num_classes: int
) -> dict[str, Any]:
    given, known = _given(config), _arguments(name)
    for key in given:
        if key not in known:
            raise UsageError(f"model.{key} does not apply to {config.name}; remove it or choose another model.name")
    return {**args, **given, "img_size": img_size, "num_classes": num_classes}


def _given(config: ModelConfig) -> dict[str, Any]:
    """The fields that are set, but for those that say which weights."""
    apart = ("name", "pretrained", "revision", "img_size")
    return {k: v for k, v in dataclasses.asdict(config).items() if v is not None and k not in apart}


def check_model(config: ModelConfig) -> None:
    """Raises UsageError where `load_backbone` would, as far as can be told without weights."""
    if not is_model_folder(config.name) and hub.library_of(config.name):
        hub.check_fields(config, _given(config))
    elif not is_model_folder(config.name):
        model_args(config, img_size=32, num_classes=2)


def is_model_folder(name: str) -> bool:
    """Whether it is the folder of a run or of a model that Patchlight saved."""
    folder = _model_folder(Path(name))
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, LookupError, TypeError):
        return False


def load_backbone(
    config: ModelConfig, *, img_size: int, num_classes: int, class_names: tuple[str, ...] | None = None
) -> Backbone:
    """The model that a recipe begins with: new, of a hub, or of another run, with a head for `num_classes`.

    The head of a run that knows just these `class_names` is kept. Random weights are drawn from torch's generator.
    Raises UsageError for a wrong name or field, PatchlightError where weights are missing, damaged or do not fit.
    """
    if is_model_folder(config.name):
        return _from_run(config, img_size, num_classes, class_names)
    if config.name not in MODELS and hub.library_of(config.name):
        hub.check_fields(config, _given(config))
        backbone = hub.load_backbone(config, _given(config), img_size=img_size, num_classes=num_classes)
        return dataclasses.replace(backbone, model=backbone.model.to(memory_format=torch.channels_last))
    args = model_args(config, img_size=img_size, num_classes=num_classes)
    return Backbone(build_model(config.name, args), args)


def _from_run(config: ModelConfig, img_size: int, num_classes: int, class_names: tuple[str, ...] | None) -> Backbone:
    """The weights of another run's model, for another size or other classes if need be."""
    trained, card = load_model(config.name)
    if "library" in card.args:
        args = hub.reshaped(card.args, img_size, num_classes)
        hub.check_fields(config, _given(config))
    else:
        args = _with_fields(card.name, card.args, config, img_size, num_classes)
    model = build_model(card.name, args)
    new_head = card.class_names != class_names
    model.load_state_dict(adapt_weights(trained.state_dict(), model, hub.prefix_tokens(trained), new_head))
    note = f"{card.name} with the weights of {config.name}, {'a new head' if new_head else 'its head kept'}"
    if card.img_size != img_size:
        note += f", made for {card.img_size} pixels a side and resampled for {img_size}"
    return Backbone(model, args, card.mean, card.std, note, {"library": "patchlight", "id": config.name}, card.name)


def _arguments(name: str) -> set[str]:
    return set(inspect.signature(MODELS[name][0]).parameters)


def resize_model(model: nn.Module, card: ModelCard, img_size: int) -> tuple[nn.Module, ModelCard]:
    """The same weights for images of another size, positions resampled."""
    args = {**card.args, "img_size": img_size}
    if "library" in args:
        args = hub.reshaped(args, img_size, len(card.class_names))
    other = build_model(card.name, args)
    other.load_state_dict(adapt_weights(model.state_dict(), other, hub.prefix_tokens(model), new_head=False))
    return other.to(next(model.parameters()).device), dataclasses.replace(card, args=args)


def create_model(name: str | ModelConfig, *, img_size: int = 32, num_classes: int = 10, **overrides: Any) -> nn.Module:
    """A new model with random weights: `create_model("vit-tiny", patch_size=8)`. Its convolutions are channels-last.

    Raises UsageError for an unknown name or argument, or shapes that do not fit together.
    """
    config = name if isinstance(name, ModelConfig) else _as_config(name, overrides)
    return load_backbone(config, img_size=img_size, num_classes=num_classes).model


def build_model(name: str, args: dict[str, Any]) -> nn.Module:
    """The model with exactly these arguments; convolutions are channels-last, which CPUs and GPUs do faster."""
    model = hub.build(args) if "library" in args else MODELS[name][0](**args)
    return model.to(memory_format=torch.channels_last)


def _as_config(name: str, overrides: dict[str, Any]) -> ModelConfig:
    known = {f.name for f in dataclasses.fields(ModelConfig)}
    for key in overrides:
        if key not in known:
            raise UsageError(f"no model argument '{key}'; {did_you_mean(key, known)}")
    return ModelConfig(name=name, **overrides)


def pixels_to_input(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Pixels of 0..255 (B, C, H, W) -> what a model takes: float32 of zero mean and unit deviation, channels-last."""
    scale, shift = _scale_and_shift(mean, std, images.device)
    return torch.addcmul(shift, images, scale).contiguous(memory_format=torch.channels_last)


@functools.lru_cache(maxsize=16)  # made once, so that a GPU is not waited for at every step
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """(x / 255 - mean) / std as x * scale + shift, both (C, 1, 1)."""
    with torch.inference_mode(False):  # evaluation may be the first to ask
        scale = 1 / (255 * torch.tensor(std))
        shift = -torch.tensor(mean) / torch.tensor(std)
        return scale[:, None, None].to(device), shift[:, None, None].to(device)


def save_model(folder: Path, model: nn.Module, card: ModelCard) -> None:
    """Write `model.safetensors` and `config.json` into `folder`, each in one step, weights last; adapters merged."""
    folder.mkdir(parents=True, exist_ok=True)
    model, config = merged(model), {"format": FORMAT, **dataclasses.asdict(card)}
    part = folder / ".config.json.part"
    part.write_text(json.dumps(config, indent=1), encoding="utf-8")
    part.replace(folder / "config.json")
    part = folder / ".model.safetensors.part"
    save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, part)
    part.replace(folder / "model.safetensors")


def load_model(folder: Path | str, device: str | torch.device = "cpu") -> tuple[nn.Module, ModelCard]:
    """The model of a run folder or of its `model/` folder, in evaluation mode, and its card.

    Raises PatchlightError, naming the file, where one is missing, damaged or does not fit the architecture.
    """
    folder = _model_folder(Path(folder))
    card = _read_card(folder / "config.json")
    model = build_model(card.name, card.args)
    weights = folder / "model.safetensors"
    try:
        model.load_state_dict(load_file(weights))
    except FileNotFoundError:
        raise PatchlightError(f"no {weights}; give the folder of a finished run") from None
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise PatchlightError(f"{weights} is damaged or not of {card.name}: {reason}") from None
    return model.to(device).eval(), card


def load_classifier(folder: Path | str, device: str | torch.device = "cpu") -> tuple[nn.Module, ModelCard]:
    """As `load_model`; raises PatchlightError, too, for a model that learned without labels."""
    model, card = load_model(folder, device)
    if not card.class_names:
        raise PatchlightError(
            f"{folder} learned without labels and knows no classes; train on from it with "
            f"`patchlight train finetune --model.name {folder}`"
        )
    return model, card


def _model_folder(folder: Path) -> Path:
    """Of a run its `model/`, else the folder itself."""
    return folder / "model" if (folder / "model").is_dir() or (folder / "config.toml").is_file() else folder


def _read_card(path: Path) -> ModelCard:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        name = data["name"]
        if "library" not in data["args"]:
            if name not in MODELS:
                raise PatchlightError(f"{path} names the model '{name}', which this version does not have")
            unknown = set(data["args"]) - _arguments(name)
            if unknown:
                raise PatchlightError(f"{path} has unknown arguments of {name}: {', '.join(sorted(unknown))}")
        args = {k: tuple(v) if isinstance(v, list) else v for k, v in data["args"].items()}
        source = data.get("source")
        return ModelCard(name, args, tuple(data["class_names"]), tuple(data["mean"]), tuple(data["std"]), source)
    except FileNotFoundError:
        raise PatchlightError(f"no {path}; give the folder of a finished run") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise PatchlightError(f"{path} is not a model's config: {error}") from None
