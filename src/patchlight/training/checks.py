"""What of a recipe cannot be trained, told in a sentence before anything is built."""

from __future__ import annotations

import torch

from patchlight.config import Config, DataConfig
from patchlight.data.augment import check_augment, check_crop
from patchlight.data.splits import Splits
from patchlight.errors import PatchlightError, UsageError
from patchlight.machine.device import check_compile, resolve_device
from patchlight.machine.fastest import resolve_precision
from patchlight.machine.process import import_library
from patchlight.training.classes import class_weights
from patchlight.training.trackers import check_trackers


def check_recipe(config: Config) -> None:
    """Raises UsageError for what does not go together in a recipe, or cannot be on this machine, whatever the data."""
    train, stages = config.train, config.of_stages()
    device = resolve_device(train.device)
    for stage in stages:
        check_augment(stage.augment)
        if stage.schedule.cycle_momentum and stage.schedule.name != "onecycle":
            raise UsageError("schedule.cycle_momentum is for schedule.name = onecycle; set one or leave out the other")
    if train.compile:
        check_compile(device)
    if train.cuda_graphs and not (train.compile and device.type == "cuda"):
        raise UsageError("train.cuda_graphs needs train.compile = true and a CUDA device; set it to false")
    if train.cuda_graphs and any(stage.train.micro_batch_size for stage in stages):
        raise UsageError("train.cuda_graphs replays whole batches; leave out train.micro_batch_size")
    if train.engine == "hf":
        check_engine(config, device)
    check_trackers(train.track, train.track_project)
    if train.task == "reconstruct":
        check_reconstruction(config)
    if config.model.distill_token and not train.teacher:
        raise UsageError("model.distill_token learns from a teacher; name a finished run with train.teacher")
    sizes = {stage.model.img_size for stage in stages} | {config.model.img_size}
    if len(sizes) > 1 and any(stage.train.trainable == "lora" for stage in stages):
        raise UsageError('stages with train.trainable = "lora" keep the image size; leave out their model.img_size')


def check_data(config: Config, data: Splits) -> None:
    """Raises PatchlightError where these images do not do for the recipe."""
    stages = config.of_stages()
    if data.val is None and config.train.select != "last":
        raise PatchlightError(
            "there are no validation images to select by; set data.val_fraction, or --train.select last"
        )
    if data.val is None and any(stage.train.early_stop_epochs for stage in stages):
        raise PatchlightError("train.early_stop_epochs needs validation images; set data.val_fraction or leave it out")
    for stage in stages:
        check_crop(stage.augment.crop_padding, stage.augment.crop_mode, data.train.image_size)
        class_weights(stage, data.train)


def check_normalisation(config: DataConfig) -> None:
    """Raises UsageError where a recipe has only one of mean and deviation."""
    if (config.mean is None) != (config.std is None):
        raise UsageError("data.mean and data.std belong together; give both or neither")


def check_reconstruction(config: Config) -> None:
    """Raises UsageError for what masked autoencoding, which uses no labels, cannot do."""
    augment = config.augment
    select = config.train.select
    for asked, what in (
        (config.train.class_weights != "none", "leave out train.class_weights, which weigh labels"),
        (config.data.sampler != "uniform", "leave out data.sampler, which draws images by their labels"),
        (
            select not in ("best", "last"),
            f"train.select = '{select}' is a score of labels; set best (the loss) or last",
        ),
        (
            augment.mixup_alpha or augment.cutmix_alpha,
            "leave out augment.mixup_alpha and augment.cutmix_alpha, which mix labels",
        ),
        (config.train.teacher, "leave out train.teacher, whose answers are labels"),
        (config.train.trainable != "all", "leave out train.trainable: the whole model is trained"),
        (config.stages, "leave out [[stages]]: there is one stage"),
        (config.optim.layer_decay != 1, "leave out optim.layer_decay, which is for pretrained weights"),
    ):
        if asked:
            raise UsageError(f"train.task 'reconstruct' uses no labels: {what}")


def check_engine(config: Config, device: torch.device) -> None:
    """Raises UsageError for what Hugging Face's `Trainer` does not do."""
    import_library("transformers")
    import_library("accelerate")
    train, stages = config.train, config.of_stages()
    # On a CPU "auto" is never fp16, and finding out what it is takes a probe.
    precision = resolve_precision(train.precision, device) if device.type == "cuda" else train.precision
    for asked, what in (
        (any(stage.optim.name == "muon" for stage in stages), "optim.name 'muon', which is two optimizers"),
        (
            any(stage.train.budget for stage in stages),
            "train.budget, under which the number of steps is not known before",
        ),
        (any(stage.train.micro_batch_size for stage in stages), "train.micro_batch_size"),
        (train.compile, "train.compile"),
        (precision == "fp16", "train.precision 'fp16', as auto is on older GPUs"),
    ):
        if asked:
            raise UsageError(f"train.engine 'hf' cannot do {what}; change it, or set train.engine = 'loop'")
