"""How a model is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from patchlight.config.fields import (
    COUNT,
    EPOCHS,
    NEARLY_ONE,
    NOT_NEGATIVE,
    POSITIVE,
    PROPER_RATE,
    RATE,
    Duration,
    Range,
    Section,
)
from patchlight.config.names import OPTIMIZER_NAMES, SCHEDULE_NAMES, SELECT_NAMES, TASK_NAMES, TRACKER_NAMES

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class OptimConfig(Section):
    """The optimizer, and its rates at the peak of the schedule."""

    name: Annotated[
        str, "the optimizer; muon is for the matrices of the blocks, with adamw for all else", OPTIMIZER_NAMES
    ] = "adamw"
    lr: Annotated[float, "peak learning rate; under muon, of what it leaves to adamw", POSITIVE] = 1e-3
    lr_base_size: Annotated[
        int | None,
        "batch size that the peak rates are for: they are multiplied by train.batch_size / this; unset: not scaled",
        COUNT,
    ] = None
    layer_decay: Annotated[
        float, "a block's learning rate as a share of the next block's; 1 gives all the same", Range(0, 1, above=True)
    ] = 1.0
    weight_decay: Annotated[
        float,
        "weight decay, decoupled but in sgd; not on norms, biases, tokens, positions, nor under muon a stem's kernels",
        NOT_NEGATIVE,
    ] = 0.05
    decay_all: Annotated[
        bool,
        "weight decay on norms, biases, tokens and positions, too: all parameters are one group, as torch has them",
    ] = False
    beta1: Annotated[float, "adamw: share of its running mean of gradients that a step keeps", PROPER_RATE] = 0.9
    beta2: Annotated[float, "adamw: share of its running mean of squared gradients that a step keeps", NEARLY_ONE] = (
        0.999
    )
    momentum: Annotated[float, "sgd and muon: share of the last step that the next one keeps", PROPER_RATE] = 0.9
    nesterov: Annotated[bool, "sgd and muon: use Nesterov's form of momentum"] = True
    muon_lr: Annotated[float, "muon: peak learning rate of the blocks' matrices", POSITIVE] = 0.02
    muon_conv_lr: Annotated[
        float, "muon: peak learning rate of a conv stem's kernels; 0 leaves them to adamw", NOT_NEGATIVE
    ] = 0.0
    grad_clip: Annotated[
        float, "greatest norm of all gradients together; larger ones are scaled down; 0 is off", NOT_NEGATIVE
    ] = 0.0


@dataclass(frozen=True)
class ScheduleConfig(Section):
    """How learning rates change during training: a linear warm-up, then a curve."""

    name: Annotated[str, "the curve of the learning rate after warm-up", SCHEDULE_NAMES] = "cosine"
    warmup_epochs: Annotated[
        float, "epochs of linear warm-up from 0 to the peak; onecycle has its own rise", NOT_NEGATIVE
    ] = 0.0
    warmup_steps: Annotated[
        int | None, "optimizer steps of warm-up, instead of schedule.warmup_epochs", NOT_NEGATIVE
    ] = None
    warmup_share: Annotated[float | None, "warm-up as a share of training, instead of epochs or steps", PROPER_RATE] = (
        None
    )
    min_lr: Annotated[
        float, "learning rate at the end of linear and cosine, and of each cycle of cosine_restarts", NOT_NEGATIVE
    ] = 0.0
    cycles: Annotated[int, "cosine_restarts: how often the rate falls from the peak", COUNT] = 1
    restart_warmup: Annotated[
        bool, "cosine_restarts: begin every cycle with the warm-up, from min_lr; false: only the first, then jumps"
    ] = True
    pct_start: Annotated[float, "onecycle: share of training in which the rate rises", Range(0.001, 0.999)] = 0.3
    cycle_momentum: Annotated[
        bool, "onecycle: momentum (adamw's beta1) falls from 0.95 to 0.85 while the rate rises, then goes back"
    ] = False


@dataclass(frozen=True)
class TrainConfig(Section):
    """What is trained, for how long, and on what."""

    task: Annotated[
        str, "learn the labels, or without labels to reconstruct hidden patches (masked autoencoding)", TASK_NAMES
    ] = "classify"
    epochs: Annotated[float, "passes over the training images; 2.5 ends in the middle of the third", EPOCHS] = 10.0
    budget: Annotated[
        Duration | None,
        "time for training and validation, as 90s, 10m or 1h30m; where it is set, it decides the epochs",
    ] = None
    trainable: Annotated[
        str, 'which weights are trained: "all", "head", the head and "last N" blocks, or the head and "lora" adapters'
    ] = "all"
    batch_size: Annotated[int, "images of an optimizer step", COUNT] = 128
    micro_batch_size: Annotated[
        int | None, "images at a time, where a batch is worked through in pieces to save memory", COUNT
    ] = None
    drop_last: Annotated[bool, "leave out the last images of an epoch that do not fill a batch"] = True
    label_smoothing: Annotated[float, "share of each label that is spread evenly over all classes", PROPER_RATE] = 0.0
    class_weights: Annotated[
        Literal["none", "balanced"] | tuple[float, ...],
        "what an image counts in the loss, by its class: all 1, balanced (the rarer the class, the more: images / "
        "(classes * images of the class)), or a number of each class in the order of the classes",
        NOT_NEGATIVE,
    ] = "none"
    teacher: Annotated[
        str | None, "folder of a finished run; its answers to the same augmented images are learned beside the labels"
    ] = None
    distill: Annotated[
        Literal["hard", "soft"], "learn the class that the teacher predicts, or all of its softened probabilities"
    ] = "hard"
    distill_share: Annotated[float, "share of the loss that comes from the teacher", RATE] = 0.5
    distill_temperature: Annotated[
        float, "soft distillation: divides the logits; the higher, the more even the probabilities", POSITIVE
    ] = 3.0
    ema_decay: Annotated[
        float,
        "share that a step keeps of a moving average of the weights, which is validated and saved; 0 is off",
        NEARLY_ONE,
    ] = 0.0
    precision: Annotated[
        Precision, "number format of the computation; auto: bf16 where it is faster, fp16 on older GPUs, else fp32"
    ] = "auto"
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"],
        "where training runs; auto: a CUDA GPU, else an Apple GPU, else the CPU",
    ] = "auto"
    threads: Annotated[int | None, "CPU threads; unset is torch's choice", COUNT] = None
    compile: Annotated[bool, "compile the model with torch.compile"] = False
    cuda_graphs: Annotated[bool, "replay the compiled model as CUDA graphs; needs train.compile and a GPU"] = False
    seed: Annotated[int, "random seed of the first weights, the order of images and augmentation", NOT_NEGATIVE] = 0
    engine: Annotated[Literal["loop", "hf"], "what runs the steps: Patchlight's loop, or Hugging Face's Trainer"] = (
        "loop"
    )
    select: Annotated[
        str,
        "which weights are kept: of the epoch with the best validation accuracy, balanced accuracy or macro F1, or of "
        "the last one; early stopping goes by the same measure",
        SELECT_NAMES,
    ] = "best"
    early_stop_epochs: Annotated[
        int,
        "stop after so many epochs of the stage without a higher validation accuracy (or what train.select says; a tie "
        "is not higher) or, in masked autoencoding, without a lower loss; 0 is off",
        NOT_NEGATIVE,
    ] = 0
    checkpoint_every: Annotated[
        int, "epochs between checkpoints that stay, beside the best and the last; 0 keeps these two alone", NOT_NEGATIVE
    ] = 0
    track: Annotated[
        tuple[str, ...],
        "trackers that get the settings, each epoch's numbers, the test result, the figures and the report, beside the "
        "run folder; on the command line tensorboard,wandb or none",
        TRACKER_NAMES,
    ] = ()
    track_project: Annotated[
        str | None,
        "the project in Weights & Biases and the experiment in MLflow; unset: $WANDB_PROJECT and "
        "$MLFLOW_EXPERIMENT_NAME, or patchlight",
    ] = None
    track_name: Annotated[
        str | None,
        "the run's name in Weights & Biases and MLflow; unset: in a study or sweep which run it is of it, else "
        "$WANDB_NAME and $MLFLOW_RUN_NAME, or the folder's name",
    ] = None
    debug: Annotated[bool, "try out: two steps an epoch, and two epochs unless train.epochs is given with it"] = False
