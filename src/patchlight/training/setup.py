"""From a recipe and its data to what is trained: the model, what the machine chooses, and the record of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from patchlight.config import Config
from patchlight.data.images import ImageSet, channel_stats, digest
from patchlight.data.sources import SOURCES
from patchlight.data.splits import Splits
from patchlight.errors import PatchlightError, UsageError
from patchlight.machine.fastest import resolve_precision
from patchlight.machine.seeds import derive_seed, seeded_generator
from patchlight.models import ModelCard, VisionTransformer, load_backbone
from patchlight.models.fused import resolve_fused
from patchlight.models.lora import add_lora
from patchlight.models.mae import MaskedAutoencoder
from patchlight.progress import say
from patchlight.units import percent


def build(config: Config, data: Splits) -> tuple[nn.Module, ModelCard]:
    """The model for the data, as training takes it up, and its card. What is drawn is drawn from the recipe's seed.

    Pixels are normalised as the recipe says, else as pretrained weights were, else by the training images.
    Raises UsageError where the recipe's fields and the model do not go together.
    """
    names, (height, width) = data.train.class_names, data.train.image_size
    assert height == width, "sources give square images"
    if (config.data.mean is None) != (config.data.std is None):
        raise UsageError("data.mean and data.std belong together; give both or neither")
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.train.seed, "init"))
        backbone = load_backbone(
            config.model, img_size=config.model.img_size or height, num_classes=len(names), class_names=names
        )
        if any(stage.train.trainable == "lora" for stage in config.of_stages()):
            layers = add_lora(backbone.model, config.lora, config.model.img_size or height)
            say(f"LoRA adapters of rank {config.lora.rank} beside {layers} linear layers")
    if backbone.note:
        say(backbone.note)
    mean, std = config.data.mean or backbone.mean, config.data.std or backbone.std
    if mean is None or std is None:
        mean, std = channel_stats(data.train)
        std = tuple(deviation or 1.0 for deviation in std)  # a channel of one value stays that of zero
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise UsageError("data.mean and data.std need three numbers each (red, green, blue), those of std above 0")
    name = backbone.name or config.model.name
    # What paints knows no classes, so what begins with it gets a new head.
    classes = names if config.train.task == "classify" else ()
    card = ModelCard(name, backbone.spec, classes, mean, std, backbone.source, height)
    if config.train.task == "reconstruct":
        return autoencoder(backbone.model, config), card
    if backbone.source is None:
        fit_input(backbone.model, card, data.train, config.train.seed)
    return backbone.model, card


def pinned(config: Config, record: dict[str, Any]) -> Config:
    """The recipe with the commit of the hub's repository that the run's `record` says it was started with."""
    weights = record["model"].get("weights") or {}
    if config.model.revision or not weights.get("commit"):
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, revision=weights["commit"]))


def autoencoder(model: nn.Module, config: Config) -> nn.Module:
    """The encoder with a decoder. Raises UsageError for a model that is no plain ViT of ours."""
    if not isinstance(model, VisionTransformer):
        raise UsageError(f"train.task 'reconstruct' is for a ViT of `patchlight models`, not for {config.model.name}")
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.train.seed, "decoder"))
        return MaskedAutoencoder(model, **dataclasses.asdict(config.mae))


def fit_input(model: nn.Module, card: ModelCard, images: ImageSet, seed: int) -> None:
    """Give a new ViT's stem what it computes from training images, 5,000 at most; trained weights have theirs."""
    if isinstance(model, VisionTransformer):
        chosen = torch.randperm(len(images), generator=seeded_generator(seed, "input"))[:5000]
        model.fit_input(card.to_input(images.gather(chosen)[0]))


def machine_choices(config: Config, model: nn.Module, device: torch.device) -> dict[str, Any]:
    """What the recipe leaves to the machine: precision, and whether a ViT's attention is one kernel."""
    precision = resolve_precision(config.train.precision, device)
    fused = resolve_fused(config.model.fused_attn, model, config.train.batch_size, precision, device)
    return {"precision": precision, "fused_attn": fused}


def with_choices(config: Config, record: dict[str, Any]) -> Config:
    """The recipe as this run trains it: a resumed run goes on with what was chosen when it was started."""
    choices = record["resumed"][-1] if "resumed" in record else record
    return dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, precision=choices["precision"]),
        model=dataclasses.replace(config.model, fused_attn=choices["fused_attn"]),
    )


def describe_data(source: str, data: Splits) -> dict[str, Any]:
    """How many images there are of each kind, and the digests that they are known by later."""
    sets = {"train": data.train, "val": data.val, "test": data.test}
    if data.subset_test is not None:
        sets["subset_test"] = data.subset_test
    return {
        "source": source,
        "path": source_path(source),
        **{name: len(images or ()) for name, images in sets.items()},
        "classes": len(data.train.class_names),
        "notes": list(data.notes),
        "digests": {name: digest(images) for name, images in sets.items() if images is not None},
    }


def source_path(source: str) -> str | None:
    """The full path of a source that is one, from wherever it is looked at; None of a source with a name."""
    path = Path(source).expanduser()
    return None if source in SOURCES or not path.exists() else str(path.resolve())


def continued(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The record of a run that goes on: as it was, and what it goes on with.

    Raises PatchlightError where the images are not those that it was started with.
    """
    if before["data"].get("digests") != now["data"]["digests"]:
        raise PatchlightError(
            f"the images of {now['data']['source']} have changed since the run was started; restore them, or start a "
            "new run with --out"
        )
    later = {key: now[key] for key in ("started", "git_commit", "hardware", "threads", "precision", "fused_attn")}
    if before["hardware"]["device"] == now["hardware"]["device"]:
        later |= {key: before[key] for key in ("precision", "fused_attn") if key in before}
    return {**before, "resumed": [*before.get("resumed", []), later]}


def summary_line(record: dict[str, Any]) -> str:
    model, data = record["model"], record["data"]
    stem = attention = ""
    if model["stem"] == "conv":
        stem = f", {percent(model['stem_flops'] / model['flops_per_image'])} of them in the convolutional stem"
    if record["fused_attn"] is not None:
        attention = f", {'fused' if record['fused_attn'] else 'explicit'} attention"
    return (
        f"{model['name']}: {model['params']:,} parameters, {model['flops_per_image'] / 1e6:,.0f} MFLOPs/image{stem}; "
        f"{data['train']:,} training, {data['val']:,} validation, {data['test']:,} test images; "
        f"{record['hardware']['device']}, {record['precision']}, {record['threads']} threads{attention}"
    )
