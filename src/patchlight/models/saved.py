"""A model on disk: its weights, and the card that says how to build it and what to feed it."""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from patchlight.errors import PatchlightError
from patchlight.models.lora import merged
from patchlight.models.registry import MODELS, arguments, build_model

FORMAT = "patchlight-model-1"  # of a saved model's config.json


@dataclass(frozen=True)
class ModelCard:
    """What must be known to use the weights: the architecture and the input that it was trained on."""

    name: str
    args: dict[str, Any]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: dict[str, Any] | None = None  # where the weights came from that training began with
    data_size: int | None = None  # pixels a side of the images, where they were resized to img_size afterwards

    @property
    def img_size(self) -> int:
        """Pixels a side that the model takes."""
        return int(self.args["img_size"])

    @property
    def fit_size(self) -> int:
        """Pixels a side that a new image is fitted to, so that it comes the way that the training images came."""
        return self.data_size or self.img_size

    @property
    def black(self) -> Tensor:
        """What black pixels are to the model, (C,)."""
        return -torch.tensor(self.mean) / torch.tensor(self.std)

    def to_input(self, images: Tensor) -> Tensor:
        """uint8 pixels (B, C, h, w) of any size -> what the model takes, (B, C, img_size, img_size), normalised."""
        return pixels_to_input(self.resized(images), self.mean, self.std)

    def resized(self, images: Tensor) -> Tensor:
        """Pixels (B, C, h, w) of 0..255 at the model's size, bicubic with antialiasing."""
        size = (self.img_size, self.img_size)
        if images.shape[-2:] == size:
            return images
        return F.interpolate(images.float(), size=size, mode="bicubic", antialias=True).clamp(0, 255)


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
            f"`patchlight train finetune --model.name {folder} --model.img_size {card.img_size}`"
        )
    return model, card


def is_model_folder(name: str) -> bool:
    """Whether it is the folder of a run or of a model that Patchlight saved. A name of MODELS is a new model."""
    if name in MODELS:
        return False
    folder = _model_folder(Path(name))
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, LookupError, TypeError):
        return False


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
            unknown = set(data["args"]) - arguments(name)
            if unknown:
                raise PatchlightError(f"{path} has unknown arguments of {name}: {', '.join(sorted(unknown))}")
        args = {k: tuple(v) if isinstance(v, list) else v for k, v in data["args"].items()}
        mean, std = tuple(data["mean"]), tuple(data["std"])
        return ModelCard(name, args, tuple(data["class_names"]), mean, std, data.get("source"), data.get("data_size"))
    except FileNotFoundError:
        raise PatchlightError(f"no {path}; give the folder of a finished run") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise PatchlightError(f"{path} is not a model's config: {error}") from None
