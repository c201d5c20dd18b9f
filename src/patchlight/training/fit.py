"""Training by a recipe: its stages one after the other, from the beginning or from the newest checkpoint."""

from __future__ import annotations

import torch
from torch import nn

from patchlight.config import Config
from patchlight.data.augment import check_crop
from patchlight.data.splits import Splits
from patchlight.errors import PatchlightError, UsageError
from patchlight.machine.device import check_compile, resolve_device
from patchlight.machine.fastest import resolve_precision
from patchlight.machine.process import import_library
from patchlight.models import ModelCard, resize_model
from patchlight.models.lora import has_lora
from patchlight.progress import say
from patchlight.runs import Run
from patchlight.training.budget import rehearsal_s
from patchlight.training.checkpoint import list_checkpoints, read_state
from patchlight.training.distill import load_teacher
from patchlight.training.loop import Trainer
from patchlight.training.optim import build_optimizers
from patchlight.training.rehearsal import rehearse
from patchlight.training.state import TrainState, stop_on_signal
from patchlight.training.trainable import set_trainable


def fit(
    model: nn.Module, card: ModelCard, data: Splits, config: Config, run: Run, *, resume: bool = False
) -> TrainState:
    """Train `model` by `config` on `data.train`; leave metrics, checkpoints and the selected weights in `run`.

    After each epoch the validation images are scored, a line is added to `metrics.jsonl`, the weights are kept in
    `model/` if they are the best so far, and a checkpoint is saved. Raises Interrupted after SIGINT or SIGTERM, when a
    checkpoint has been saved, and PatchlightError where the loss is no longer finite.
    """
    check_fit(model, card, data, config)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    stages = config.of_stages()
    state = newest_state(run) if resume else TrainState()
    with torch.random.fork_rng(), stop_on_signal() as stop:
        for stage in stages[state.stage :]:
            if (size := size_of(stage, data)) != card.img_size:
                say(f"the model takes {size} x {size} pixels from here on, not {card.img_size} x {card.img_size}")
                model, card = resize_model(model, card, size)
            set_trainable(model, stage.train.trainable, names)
            trainer = Trainer(model, card, data, stage, run, state)
            pace = rehearse(trainer, rehearsal_s(trainer.budget_s)) if trainer.budget_s else None
            trainer.begin(len(stages), resume, pace)
            if config.train.engine == "hf":
                from patchlight.training.hf_trainer import train

                train(trainer, stop)
            else:
                trainer.train(stop)
            last = trainer.state
            state, resume = last.next_stage(trainer.done), False
            del trainer  # gives a GPU's memory back before the next one fills it
    return last


def size_of(stage: Config, data: Splits) -> int:
    """Pixels a side of what the model takes in a stage."""
    return stage.model.img_size or data.train.image_size[0]


def newest_state(run: Run) -> TrainState:
    """Where the newest checkpoint stands; the beginning, where none was saved yet."""
    found = list_checkpoints(run.path / "checkpoints")
    if not found:
        say("no checkpoint was saved yet; training starts over")
        return TrainState()
    return TrainState.from_dict(read_state(found[-1]), str(found[-1]))


def check_fit(model: nn.Module, card: ModelCard, data: Splits, config: Config) -> list[int]:
    """How many parameters each stage trains. Raises PatchlightError where training could not begin, or could not end
    as asked for.
    """
    train, stages = config.train, config.of_stages()
    if data.val is None and train.select == "best":
        raise PatchlightError(
            "there are no validation images to select by; set data.val_fraction, or --train.select last"
        )
    if data.val is None and any(stage.train.early_stop_epochs for stage in stages):
        raise PatchlightError("train.early_stop_epochs needs validation images; set data.val_fraction or leave it out")
    device = resolve_device(train.device)
    if train.compile:
        check_compile(device)
    if train.cuda_graphs and not (train.compile and device.type == "cuda"):
        raise UsageError("train.cuda_graphs needs train.compile = true and a CUDA device; set it to false")
    if train.engine == "hf":
        check_engine(config)
    if train.task == "reconstruct":
        check_reconstruction(config)
    if config.model.distill_token and not train.teacher:
        raise UsageError("model.distill_token learns from a teacher; name a finished run with train.teacher")
    if train.teacher:
        load_teacher(train.teacher, card)
    if has_lora(model) and any(stage.model.img_size != config.model.img_size for stage in stages):
        raise UsageError('stages with train.trainable = "lora" keep the image size; leave out their model.img_size')
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    for size in {size_of(stage, data) for stage in stages} - {card.img_size}:
        resize_model(model, card, size)
    trained = []
    for stage in stages:
        if stage.train.cuda_graphs and stage.train.micro_batch_size:
            raise UsageError("train.cuda_graphs replays whole batches; leave out train.micro_batch_size")
        check_crop(stage.augment.crop_padding, stage.augment.crop_mode, data.train.image_size)
        set_trainable(model, stage.train.trainable, names)
        build_optimizers(model, stage.optim)
        trained.append(sum(p.numel() for p in model.parameters() if p.requires_grad))
    set_trainable(model, "all", names)
    return trained


def check_reconstruction(config: Config) -> None:
    """Raises UsageError for what needs labels, which are not looked at."""
    augment = config.augment
    for asked, what in (
        (
            augment.mixup_alpha or augment.cutmix_alpha,
            "leave out augment.mixup_alpha and augment.cutmix_alpha, which mix labels",
        ),
        (config.train.teacher, "leave out train.teacher, who teaches labels"),
        (config.train.trainable != "all", "leave out train.trainable, for all is trained"),
        (config.stages, "leave out [[stages]], for there is one"),
        (config.optim.layer_decay != 1, "leave out optim.layer_decay, which is for trained weights"),
    ):
        if asked:
            raise UsageError(f"train.task 'reconstruct' looks at no labels: {what}")


def check_engine(config: Config) -> None:
    """Raises UsageError for what the `Trainer` of Hugging Face does not do."""
    import_library("transformers")
    import_library("accelerate")
    train = config.train
    precision = resolve_precision(train.precision, resolve_device(train.device))
    for asked, what in (
        (any(stage.optim.name == "muon" for stage in config.of_stages()), "optim.name 'muon', which is two optimizers"),
        (train.budget, "train.budget, whose number of steps may change"),
        (any(stage.train.micro_batch_size for stage in config.of_stages()), "train.micro_batch_size"),
        (train.compile, "train.compile"),
        (precision == "fp16", "train.precision 'fp16', as auto is on older GPUs"),
    ):
        if asked:
            raise UsageError(f"train.engine 'hf' cannot do {what}; change it, or set train.engine = 'loop'")
