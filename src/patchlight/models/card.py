"""What must be known of a model beside its weights: what builds it, what it is fed, and where its weights came from."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from patchlight.config.sections import Interpolation
from patchlight.models.bounds import LARGEST, MOST_CLASSES, SMALLEST, shown
from patchlight.runs import Weights

FORMAT = "patchlight-model-1"  # of a saved model's config.json
MOST_PIXELS = 16384  # a side, of images that fit into memory


@dataclass(frozen=True)
class ModelSpec:
    """What a model is built from: the same spec gives the same architecture, with weights drawn anew.

    `family` is a row of FAMILIES, `architecture` the family's own name for the model, and `arguments` are the keyword
    arguments of its constructor (ours and timm's) or its whole configuration (Hugging Face's).
    """

    family: str
    architecture: str
    arguments: dict[str, Any]
    img_size: int  # pixels a side
    num_classes: int

    def to_json(self) -> dict[str, Any]:
        """As it stands under "args" in a saved model's config.json; the architecture of ours is the card's name."""
        shape = {"img_size": self.img_size, "num_classes": self.num_classes}
        if self.family == "patchlight":
            return {**self.arguments, **shape}
        if self.family == "huggingface":
            return {"library": self.family, "config": self.arguments, **shape}
        return {"library": self.family, "architecture": self.architecture, "options": self.arguments, **shape}

    @classmethod
    def from_json(cls, name: str, data: dict[str, Any]) -> ModelSpec:
        """The way back, of a card with this `name`. Raises ValueError, KeyError or TypeError where something is missing
        or of another kind. What the family's own arguments may be, `families.check_spec` says.
        """
        family = data.get("library", "patchlight")
        shape = (_whole(data, "img_size", MOST_PIXELS), _whole(data, "num_classes", MOST_CLASSES))
        if family == "huggingface":
            _known(data, ("library", "config", *SHAPE))
            return cls(family, data["config"]["model_type"], data["config"], *shape)
        if family == "timm":
            _known(data, ("library", "architecture", "options", *SHAPE))
            return cls(family, data["architecture"], data["options"], *shape)
        if family != "patchlight":
            raise ValueError(f"its library is {shown(family)}, not timm or huggingface")
        arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k not in SHAPE}
        return cls(family, name, arguments, *shape)


SHAPE = ("img_size", "num_classes")


def _whole(data: dict[str, Any], key: str, most: int) -> int:
    """A whole number of "args"; there may be 0 classes, of a model that gives features."""
    value, least = data[key], 0 if key == "num_classes" else 1
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"its {key} is {shown(value)}, not a whole number from {least} to {most:,}")
    return value


def _known(data: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in data:
        if key not in known:
            raise ValueError(f"its args have the key {shown(key)}, which no model of {data['library']} has")


@dataclass(frozen=True)
class ModelCard:
    """What must be known to use weights: the architecture, and the input that it was trained on."""

    name: str
    spec: ModelSpec
    class_names: tuple[str, ...]  # empty where it learned without labels
    mean: tuple[float, ...]  # of each channel, of pixels in 0..1
    std: tuple[float, ...]
    source: Weights | None = None  # of its first weights; None where they were drawn
    data_size: int | None = None  # pixels a side of the images, where they were resized to img_size afterwards
    interpolation: Interpolation = "bicubic"  # by which they were
    fit_interpolation: Interpolation = "bicubic"  # by which they were fitted to data_size (else img_size) before
    pixel_max: int = 65535  # the value that was white in 16-bit grey files; that of cards which do not say it

    @property
    def img_size(self) -> int:
        """Pixels a side that the model takes."""
        return self.spec.img_size

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

    def to_pixels(self, inputs: Tensor) -> Tensor:
        """What the model takes (B, C, H, W) -> pixels uint8, the way back of normalisation; what is outside is cut."""
        mean, std = (torch.tensor(values, device=inputs.device)[:, None, None] for values in (self.mean, self.std))
        return (255 * (inputs * std + mean)).round().clamp(0, 255).to(torch.uint8)

    def resized(self, images: Tensor) -> Tensor:
        """Pixels (B, C, h, w) of 0..255 at the model's size, by its interpolation with antialiasing."""
        size = (self.img_size, self.img_size)
        if images.shape[-2:] == size:
            return images
        return F.interpolate(images.float(), size=size, mode=self.interpolation, antialias=True).clamp(0, 255)

    def to_json(self) -> dict[str, Any]:
        """The content of config.json."""
        return {
            "format": FORMAT,
            "name": self.name,
            "args": self.spec.to_json(),
            "class_names": list(self.class_names),
            "mean": list(self.mean),
            "std": list(self.std),
            "source": self.source.to_json() if self.source else None,
            "data_size": self.data_size,
            "interpolation": self.interpolation,
            "fit_interpolation": self.fit_interpolation,
            "pixel_max": self.pixel_max,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelCard:
        """The way back. Raises KeyError, TypeError or ValueError where something is missing or of another type."""
        source, resizing = data.get("source"), {}
        for key in ("class_names", "mean", "std"):
            if not isinstance(data[key], list):
                raise ValueError(f"its {key} is {shown(data[key])}, not a list")
        for key in ("interpolation", "fit_interpolation"):
            resizing[key] = data.get(key, "bicubic")
            if resizing[key] not in get_args(Interpolation):
                raise ValueError(f"its {key} is {shown(resizing[key])}, not bilinear or bicubic")
        card = cls(
            name=data["name"],
            spec=ModelSpec.from_json(data["name"], data["args"]),
            class_names=tuple(data["class_names"]),
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
            source=Weights.from_json(source, "source") if source else None,
            data_size=data.get("data_size"),
            pixel_max=data.get("pixel_max", 65535),
            **resizing,
        )
        card.check()
        return card

    def check(self) -> None:
        """Raises ValueError for values that no training writes, as a file has them that was damaged."""
        names = self.class_names
        if not all(isinstance(text, str) for text in (self.name, *names)):
            raise ValueError("its name and each of its class_names must be text")
        if len(set(map(str, names))) != len(names) or len(names) not in (0, self.spec.num_classes):
            raise ValueError(f"it has {self.spec.num_classes} classes, and {len(set(map(str, names)))} names of them")
        for word, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) != 3 or not all(type(n) in (int, float) and abs(n) < LARGEST for n in numbers):
                raise ValueError(f"its {word} is {shown(list(numbers))}, not three numbers below {LARGEST:g}")
        if min(self.std) < SMALLEST:
            raise ValueError(f"its std is {list(self.std)}, not three numbers above 0 (at least {SMALLEST:g})")
        for word, size in (("img_size", self.img_size), ("data_size", self.data_size)):
            if size is not None and (type(size) is not int or not 1 <= size <= MOST_PIXELS):
                raise ValueError(f"its {word} is {shown(size)}, not a whole number from 1 to {MOST_PIXELS}")
        if type(self.pixel_max) is not int or not 1 <= self.pixel_max <= 65535:
            raise ValueError(f"its pixel_max is {shown(self.pixel_max)}, not a whole number from 1 to 65535")


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
