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
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from patchlight.config import ModelConfig
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.models.resnet import ResNet
from patchlight.models.vit import VisionTransformer

__all__ = [
    "MODELS", "ModelCard", "ResNet", "VisionTransformer", "build_model", "create_model", "load_model", "model_args",
    "pixels_to_input", "save_model",
]  # fmt: skip

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

    @property
    def img_size(self) -> int:
        return int(self.args["img_size"])


def model_args(config: ModelConfig, *, img_size: int, num_classes: int) -> dict[str, Any]:
    """The variant's arguments with the config's fields laid over them.

    Raises UsageError for an unknown model and for a field that the model does not have.
    """
    if config.name not in MODELS:
        raise UsageError(f"no model '{config.name}'; {did_you_mean(config.name, MODELS)}")
    _, args = MODELS[config.name]
    given = {k: v for k, v in dataclasses.asdict(config).items() if v is not None and k != "name"}
    known = _arguments(config.name)
    for key in given:
        if key not in known:
            raise UsageError(f"model.{key} does not apply to {config.name}; remove it or choose another model.name")
    return {**args, **given, "img_size": img_size, "num_classes": num_classes}


def _arguments(name: str) -> set[str]:
    return set(inspect.signature(MODELS[name][0]).parameters)


def create_model(name: str | ModelConfig, *, img_size: int = 32, num_classes: int = 10, **overrides: Any) -> nn.Module:
    """A new model with random weights: `create_model("vit-tiny", patch_size=8)`. Its convolutions are channels-last.

    Raises UsageError for an unknown name or argument, or shapes that do not fit together.
    """
    config = name if isinstance(name, ModelConfig) else _as_config(name, overrides)
    args = model_args(config, img_size=img_size, num_classes=num_classes)
    return build_model(config.name, args)


def build_model(name: str, args: dict[str, Any]) -> nn.Module:
    """The model with exactly these arguments; convolutions are channels-last, which CPUs and GPUs do faster."""
    return MODELS[name][0](**args).to(memory_format=torch.channels_last)


def _as_config(name: str, overrides: dict[str, Any]) -> ModelConfig:
    known = {f.name for f in dataclasses.fields(ModelConfig)}
    for key in overrides:
        if key not in known:
            raise UsageError(f"no model argument '{key}'; {did_you_mean(key, known)}")
    return ModelConfig(name=name, **overrides)


def pixels_to_input(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 pixels (B, C, H, W) -> what a model takes: float32 of zero mean and unit deviation, channels-last."""
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
    """Write `model.safetensors` and `config.json` into `folder`, each in one step, the weights last."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"format": "patchlight-model-1", **dataclasses.asdict(card)}
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
    folder = Path(folder)
    folder = folder / "model" if (folder / "model").is_dir() or (folder / "config.toml").is_file() else folder
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


def _read_card(path: Path) -> ModelCard:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        name = data["name"]
        if name not in MODELS:
            raise PatchlightError(f"{path} names the model '{name}', which this version does not have")
        unknown = set(data["args"]) - _arguments(name)
        if unknown:
            raise PatchlightError(f"{path} has unknown arguments of {name}: {', '.join(sorted(unknown))}")
        args = {k: tuple(v) if isinstance(v, list) else v for k, v in data["args"].items()}
        return ModelCard(name, args, tuple(data["class_names"]), tuple(data["mean"]), tuple(data["std"]))
    except FileNotFoundError:
        raise PatchlightError(f"no {path}; give the folder of a finished run") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise PatchlightError(f"{path} is not a model's config: {error}") from None
