"""Training by a recipe: its stages one after the other, from the beginning or from the newest checkpoint."""

from __future__ import annotations

import torch
from torch import nn

from patchlight import runtime
from patchlight.config import Config
from patchlight.data.splits import Splits
from patchlight.errors import PatchlightError, UsageError
from patchlight.models import ModelCard, resize_model
from patchlight.models.hub import import_library
from patchlight.models.lora import has_lora
from patchlight.progress import say
from patchlight.runs import Run
from patchlight.training.checkpoint import list_checkpoints, read_state
from patchlight.training.loop import Trainer
from patchlight.training.optim import build_optimizers
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
    check_fit(model, data, config)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    stages = config.of_stages()
    state = newest_state(run) if resume else TrainState()
    with torch.random.fork_rng(), stop_on_signal() as stop:
        for stage in stages[state.stage :]:
            if stage.model.img_size not in (None, card.img_size):
                model, card = resize_model(model, card, stage.model.img_size)
            set_trainable(model, stage.train.trainable, names)
            trainer = Trainer(model, card, data, stage, run, state)
            trainer.begin(len(stages), resume)
            if config.train.engine == "hf":
                from patchlight.training.hf_trainer import train

                train(trainer, stop)
            else:
                trainer.train(stop)
            state, resume = trainer.state.next_stage(trainer.done), False
    return trainer.state


def newest_state(run: Run) -> TrainState:
    """Where the newest checkpoint stands; the beginning, where none was saved yet."""
    found = list_checkpoints(run.path / "checkpoints")
    if not found:
        say("no checkpoint was saved yet; training starts over")
        return TrainState()
    return TrainState.from_dict(read_state(found[-1]), str(found[-1]))


def check_fit(model: nn.Module, data: Splits, config: Config) -> None:
    """Raises PatchlightError where training could not begin, or could not end as asked for."""
    train = config.train
    if data.val is None and train.select == "best":
        raise PatchlightError(
            "there are no validation images to select by; set data.val_fraction, or --train.select last"
        )
    if data.val is None and train.early_stop_epochs:
        raise PatchlightError("train.early_stop_epochs needs validation images; set data.val_fraction or leave it out")
    device = runtime.resolve_device(train.device)
    if train.compile:
        runtime.check_compile(device)
    if train.cuda_graphs and not (train.compile and device.type == "cuda"):
        raise UsageError("train.cuda_graphs needs train.compile = true and a CUDA device; set it to false")
    if train.engine == "hf":
        check_engine(config)
    if train.task == "reconstruct":
        check_reconstruction(config)
    if config.model.distill_token and not train.teacher:
        raise UsageError("model.distill_token learns from a teacher; name a finished run with train.teacher")
    if has_lora(model) and any(stage.model.img_size != config.model.img_size for stage in config.of_stages()):
        raise UsageError('stages with train.trainable = "lora" keep the image size; leave out their model.img_size')
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    for stage in config.of_stages():
        set_trainable(model, stage.train.trainable, names)
        build_optimizers(model, stage.optim)
    set_trainable(model, "all", names)


def check_reconstruction(config: Config) -> None:
    """Raises UsageError for what needs labels, which are not looked at."""
    augment = config.augment
    for asked, what in (
        (augment.mixup_alpha or augment.cutmix_alpha, "mixup and CutMix mix labels; leave them out"),
        (config.train.teacher, "train.teacher teaches labels; leave it out"),
        (config.train.trainable != "all", "all is trained; leave out train.trainable"),
        (config.stages, "it has one stage; leave out [[stages]]"),
    ):
        if asked:
            raise UsageError(f"train.task 'reconstruct' looks at no labels: {what}")


def check_engine(config: Config) -> None:
    """Raises UsageError for what the `Trainer` of Hugging Face does not do."""
    import_library("transformers")
    import_library("accelerate")
    train = config.train
    for asked, what in (
        (any(stage.optim.name == "muon" for stage in config.of_stages()), "optim.name 'muon', which is two optimizers"),
        (train.budget, "train.budget, whose number of steps may change"),
        (any(stage.train.micro_batch_size for stage in config.of_stages()), "train.micro_batch_size"),
        (train.compile, "train.compile"),
        (train.precision == "fp16", "train.precision 'fp16'"),
    ):
        if asked:
            raise UsageError(f"train.engine 'hf' cannot do {what}; change it, or set train.engine = 'loop'")
