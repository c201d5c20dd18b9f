"""Set-up: all that training needs is built once, and all that can fail fails here, before the first step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from patchlight.config import Config, DataConfig
from patchlight.config.sections import Interpolation
from patchlight.data.batches import steps_per_epoch
from patchlight.data.images import ImageSet, channel_stats
from patchlight.data.splits import Splits
from patchlight.errors import UsageError
from patchlight.evaluation.evaluate import choose_precision
from patchlight.machine.device import resolve_device
from patchlight.machine.seeds import derive_seed, seeded_generator
from patchlight.models import ModelCard, ModelSpec, VisionTransformer, load_backbone, resize_model
from patchlight.models.backbone import OwnInput
from patchlight.models.fused import resolve_fused, set_fused_attn
from patchlight.models.lora import add_lora
from patchlight.models.mae import MaskedAutoencoder
from patchlight.progress import say
from patchlight.runs import Environment, Weights
from patchlight.training.checks import check_data, check_normalisation, check_recipe
from patchlight.training.classes import class_weights
from patchlight.training.distill import Teacher
from patchlight.training.optim import build_optimizers, scaled_rates
from patchlight.training.stage import Stage
from patchlight.training.tasks import TASKS
from patchlight.training.trainable import frozen_modules, set_trainable

Stats = tuple[float, ...]  # a number of each channel
DEBUG_STEPS = 2  # of an epoch, with train.debug


@dataclass(frozen=True)
class Setup:
    """A training that can begin."""

    config: Config  # the whole recipe; precision and kind of attention are decided
    data: Splits
    device: torch.device
    model: nn.Module  # as the first stage takes it up, but for its image size
    card: ModelCard
    stages: tuple[Stage, ...]


def prepare(
    config: Config, data: Splits, before: Environment | None = None, card_before: ModelCard | None = None
) -> Setup:
    """Check the recipe and the data, decide what the recipe leaves to the machine, and build every stage.

    `before` is the record of a run that goes on, and `card_before` the card of its weights so far, if there are any:
    what was chosen when it was started is chosen again. Raises UsageError or PatchlightError, in a sentence, where
    training could not begin, or could not end as asked for.
    """
    check_recipe(config)
    check_data(config, data)
    device = resolve_device(config.train.device)
    asked = config.model.fused_attn  # what is chosen for this machine is not of the model, and not of its card
    if before is not None:
        config = choices_of(before, config, device)
    precision = choose_precision(config.train.precision, device)
    as_asked = dataclasses.replace(config, model=dataclasses.replace(config.model, fused_attn=asked))
    model, card = build(as_asked, data, input_before(before, card_before))
    model.to(device)
    fused = resolve_fused(config.model.fused_attn, model, config.train.batch_size, precision, device)
    config = with_choices(config, precision, fused)
    teacher = Teacher(config.train, card, device) if config.train.teacher else None
    with torch.random.fork_rng():  # of another size, a model is drawn before it gets its weights
        stages = build_stages(config, data, model, card, teacher)
    return Setup(config, data, device, model, card, stages)


def choices_of(before: Environment, config: Config, device: torch.device) -> Config:
    """The recipe with the hub's commit that a run was started with and, on the same kind of device, with the precision
    and the kind of attention.
    """
    commit = before.model.weights.commit if before.model.weights else None
    if commit and not config.model.revision:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, revision=commit))
    if before.hardware.device != device.type:
        return config
    fused = config.model.fused_attn if before.fused_attn is None else before.fused_attn
    return with_choices(config, before.precision, fused)


def input_before(before: Environment | None, card: ModelCard | None) -> OwnInput | None:
    """What a run that goes on did with images; a record without an interpolation is of when it was bicubic. None of a
    run that begins.
    """
    if before is None:
        return None if card is None else OwnInput(mean=card.mean, std=card.std, interpolation=card.interpolation)
    interpolation: Interpolation = "bilinear" if before.model.interpolation == "bilinear" else "bicubic"
    if card is None:
        return OwnInput(interpolation=interpolation)
    return OwnInput(mean=card.mean, std=card.std, interpolation=interpolation)


def with_choices(config: Config, precision: str, fused_attn: bool | None) -> Config:
    """The recipe with what was chosen for it on this machine."""
    return dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, precision=precision),  # type: ignore[arg-type]
        model=dataclasses.replace(config.model, fused_attn=fused_attn),
    )


def build_stages(
    config: Config, data: Splits, model: nn.Module, card: ModelCard, teacher: Teacher | None
) -> tuple[Stage, ...]:
    """The stages of a recipe. One whose images have another size than those before it has a model of its own, which
    takes over the weights when the stage begins.
    """
    learned = [name for name, p in model.named_parameters() if p.requires_grad]
    recipes, stages = config.of_stages(), list[Stage]()
    average: AveragedModel | None = None
    for number, recipe in enumerate(recipes, 1):
        size = recipe.model.img_size or data.train.image_size[0]
        if size != card.img_size:
            model, card = resize_model(model, card, size)
            average = None
        if recipe.model.fused_attn is not None:
            set_fused_attn(model, recipe.model.fused_attn)
        set_trainable(model, recipe.train.trainable, learned)
        if average is None and recipe.train.ema_decay:
            average = AveragedModel(model)
        stages.append(build_stage(recipe, number, len(recipes), data, model, card, average, teacher))
        set_trainable(model, "all", learned)
    return tuple(stages)


def build_stage(
    config: Config,
    number: int,
    count: int,
    data: Splits,
    model: nn.Module,
    card: ModelCard,
    average: AveragedModel | None,
    teacher: Teacher | None,
) -> Stage:
    """One stage, of what is trainable in `model` now."""
    train, device = config.train, next(model.parameters()).device
    batch_size = min(train.batch_size, len(data.train))
    config = scale_rates(config, batch_size)
    steps = steps_per_epoch(len(data.train), batch_size, train.drop_last)
    steps = min(DEBUG_STEPS, steps) if train.debug else steps
    images = min(steps * batch_size, len(data.train))
    last = images - (steps - 1) * batch_size
    micro = train.micro_batch_size or train.batch_size
    if micro > 1 and any(size % micro == 1 for size in (last, *([batch_size] if steps > 1 else []))):
        check_batch_norm(model)
    weights = class_weights(config, data.train)
    mode = "reduce-overhead" if train.cuda_graphs else None
    return Stage(
        config=config,
        number=number,
        count=count,
        batch_size=batch_size,
        steps_per_epoch=steps,
        images_per_epoch=images,
        total_steps=max(1, round(train.epochs * steps)),
        device=device,
        model=model,
        card=card,
        # Each size of batch for itself: one kernel for all sizes would be slower for the full ones.
        forward=torch.compile(model, mode=mode, dynamic=False) if train.compile else model,
        task=TASKS[train.task](config, card, model, teacher, weights),
        class_weights=weights,
        optimizers=build_optimizers(model, config.optim),
        scaler=torch.amp.GradScaler(device.type, enabled=train.precision == "fp16"),
        average=average,
        trainable=frozenset(name for name, p in model.named_parameters() if p.requires_grad),
        frozen=tuple(frozen_modules(model)),
    )


def scale_rates(config: Config, batch_size: int) -> Config:
    """The recipe with the learning rates for its batches, and a line about them, where it has them for other ones."""
    optim = scaled_rates(config.optim, batch_size)
    if optim is not config.optim:
        base = config.optim
        others = " (muon_lr and muon_conv_lr likewise)" if base.name == "muon" else ""
        sizes = f"for batches of {base.lr_base_size} is {optim.lr:g} for batches of {batch_size}"
        say(f"optim.lr {base.lr:g} {sizes}{others}")
    return dataclasses.replace(config, optim=optim)


def check_batch_norm(model: nn.Module) -> None:
    """Raises UsageError where the rest of a batch, one image, would give the model's batch norm mean and deviation."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    norms = [module for module in model.modules() if isinstance(module, kinds)]
    if any(p.requires_grad for norm in norms for p in norm.parameters()):
        raise UsageError(
            "a batch, or the last micro-batch of one, is a single image, too few for the model's batch norm; change "
            "train.batch_size or train.micro_batch_size, or set train.drop_last = true"
        )


def build(config: Config, data: Splits, before: OwnInput | None = None) -> tuple[nn.Module, ModelCard]:
    """The model for the data, as training takes it up, and its card. What is drawn is drawn from the recipe's seed.

    Pixels are normalised and images resized on the device as they were `before` (of a run that goes on), else as the
    recipe says, else as pretrained weights want it, else by the training images and bicubic interpolation. Raises
    UsageError where the recipe's fields and the model do not go together.
    """
    names, (height, width) = data.train.class_names, data.train.image_size
    assert height == width, "sources give square images"
    check_normalisation(config.data)
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
    card = make_card(
        config, data.train, backbone.own, backbone.spec, name=backbone.name, source=backbone.source, before=before
    )
    for line in resizing_lines(config, card, backbone.own):
        say(line)
    if config.train.task == "reconstruct":
        return autoencoder(backbone.model, config), card
    if backbone.source is None:
        fit_input(backbone.model, card, data.train, config.train.seed)
    return backbone.model, card


def make_card(
    config: Config,
    images: ImageSet,
    own: OwnInput,
    spec: ModelSpec,
    *,
    name: str | None = None,
    source: Weights | None = None,
    before: OwnInput | None = None,
) -> ModelCard:
    """What the recipe's model takes: classes, mean and deviation, size and interpolation. `build` says of what."""
    before = before or OwnInput()
    mean, std = before.mean, before.std
    if mean is None or std is None:
        mean, std = normalisation(config.data, images, own.mean, own.std)
    # An encoder that learned without labels has no classes, so that training on from it begins with a new head.
    classes = images.class_names if config.train.task == "classify" else ()
    asked = config.data.interpolation
    return ModelCard(
        name or config.model.name,
        spec,
        classes,
        mean,
        std,
        source,
        data_size=images.image_size[0],
        interpolation=before.interpolation or asked or own.interpolation or "bicubic",
        fit_interpolation=asked or "bicubic",
        pixel_max=config.data.pixel_max,
    )


def resizing_lines(config: Config, card: ModelCard, own: OwnInput) -> Iterator[str]:
    """Sentences on images that are resized on the device, and on what the weights' own were."""
    asked = config.data.interpolation
    if asked and own.interpolation and asked != own.interpolation:
        yield (
            f"images are resized by {asked} interpolation, as data.interpolation says; the weights' own were by "
            f"{own.interpolation}"
        )
    if card.img_size != card.fit_size:
        how = "enlarged" if card.img_size > card.fit_size else "made smaller"
        size = f"{card.img_size} pixels a side"
        if card.img_size == own.size:
            cheaper = "; a smaller model.img_size costs less" if card.img_size > card.fit_size else ""
            size += f" (the weights' own size{cheaper})"
        like = ", as the weights' own images were" if card.interpolation == own.interpolation else ""
        yield f"images are {how} from {card.fit_size} to {size} by {card.interpolation} interpolation{like}"


def normalisation(config: DataConfig, images: ImageSet, mean: Stats | None, std: Stats | None) -> tuple[Stats, Stats]:
    """Mean and deviation of each channel, of pixels in 0..1: the recipe's, else `mean` and `std` of the weights, else
    those of the training `images`.

    Raises UsageError where they are not three numbers each.
    """
    mean, std = config.mean or mean, config.std or std
    if mean is None or std is None:
        mean, std = channel_stats(images)
        std = tuple(deviation or 1.0 for deviation in std)  # a channel of one value stays that of zero
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise UsageError("data.mean and data.std need three numbers each (red, green, blue), those of std above 0")
    return mean, std


def autoencoder(model: nn.Module, config: Config) -> nn.Module:
    """The encoder with a decoder. Raises UsageError for a model that is no plain ViT of ours."""
    if not isinstance(model, VisionTransformer):
        raise UsageError(f"train.task 'reconstruct' is for a ViT of `patchlight models`, not for {config.model.name}")
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.train.seed, "decoder"))
        return MaskedAutoencoder(model, **dataclasses.asdict(config.mae))


def fit_input(model: nn.Module, card: ModelCard, images: ImageSet, seed: int) -> None:
    """Set what a new ViT's stem computes from training images, of which 5,000 do; trained weights have theirs."""
    if isinstance(model, VisionTransformer):
        chosen = torch.randperm(len(images), generator=seeded_generator(seed, "input"))[:5000]
        model.fit_input(card.to_input(images.gather(chosen)[0]))
