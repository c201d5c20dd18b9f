"""The sections of a recipe: what every setting is called, means, and may be.

The meaning stands in the annotation, so that help texts and checks are made of it. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from patchlight.config.fields import (
    COUNT,
    NEARLY_ONE,
    NOT_NEGATIVE,
    POSITIVE,
    PROPER_RATE,
    RATE,
    Duration,
    Range,
    Section,
)


@dataclass(frozen=True)
class About(Section):
    name: Annotated[str, "the recipe's name; a run is called so unless --out says otherwise"] = "run"
    title: Annotated[str, "what it trains, in a line"] = ""
    source: Annotated[str, "where the settings come from"] = ""
    command: Annotated[str, "how to run it"] = ""
    cost: Annotated[str, "time and hardware"] = ""
    expect: Annotated[str, "the result to expect, and who measured it"] = ""
    top1: Annotated[float | None, "test accuracy after train.epochs, in 0..1, as `expect` tells it", RATE] = None


@dataclass(frozen=True)
class DataConfig(Section):
    source: Annotated[
        str, "digits, planted, cifar10, cifar100, hf:owner/name[:config], or the path of a folder or archive"
    ] = "digits"
    image_size: Annotated[
        int | None, "pixels a side; unset keeps a size that all images have, else takes model.img_size, else 32", COUNT
    ] = None
    train_per_class: Annotated[int | None, "training images of each class; unset takes all", COUNT] = None
    val_per_class: Annotated[int | None, "validation images of each class; unset goes by val_fraction", COUNT] = None
    test_per_class: Annotated[int | None, "test images of each class; unset takes all", COUNT] = None
    subset_test_per_class: Annotated[
        int | None, "images of each class set aside from train as a second test set, read beside the full one", COUNT
    ] = None
    val_fraction: Annotated[float, "share of train cut off where the source has no validation split", PROPER_RATE] = 0.1
    split_seed: Annotated[int, "seed of the stratified splits, apart from train.seed", NOT_NEGATIVE] = 0
    mean: Annotated[
        tuple[float, ...] | None, "per channel, of pixels in 0..1; unset is the pretrained weights' own, or train's"
    ] = None
    std: Annotated[tuple[float, ...] | None, "the same of the deviation"] = None
    memory_limit_mb: Annotated[int, "larger sets are decoded once, into a memory-mapped cache file", NOT_NEGATIVE] = 64


@dataclass(frozen=True)
class AugmentConfig(Section):
    crop_padding: Annotated[int, "pixels of padding before a random crop; 0 is off", NOT_NEGATIVE] = 0
    crop_mode: Annotated[Literal["zero", "reflect"], "what the padding is filled with"] = "zero"
    flip: Annotated[Literal["none", "random", "alternating"], "mirroring; alternating shows each side in turn"] = "none"
    resized_crop_scale: Annotated[tuple[float, ...] | None, "least and greatest area share of a resized crop"] = None
    resized_crop_ratio: Annotated[tuple[float, ...], "least and greatest aspect ratio of a resized crop"] = (
        0.75,
        4 / 3,
    )
    policy: Annotated[
        Literal["none", "randaugment", "autoaugment", "trivialaugment"], "colour and shape policy, per image"
    ] = "none"
    randaugment_ops: Annotated[int, "operations per image", COUNT] = 2
    randaugment_magnitude: Annotated[int, "strength on torchvision's scale of 31 bins", Range(0, 30)] = 9
    erasing_prob: Annotated[float, "share of images that lose a random rectangle", RATE] = 0.0
    mixup_alpha: Annotated[float, "mixup's Beta parameter; 0 is off", NOT_NEGATIVE] = 0.0
    cutmix_alpha: Annotated[float, "CutMix's Beta parameter; 0 is off", NOT_NEGATIVE] = 0.0
    mix_prob: Annotated[float, "share of images (or batches) that are mixed", RATE] = 1.0
    cutmix_share: Annotated[float, "of the mixed ones, the share that gets CutMix where both are on", RATE] = 0.5
    mix_mode: Annotated[Literal["image", "batch"], "draw the mix for each image, or once for a batch"] = "image"
    strong_until: Annotated[float, "share of training after which policy, erasing and mixing stop", RATE] = 1.0


@dataclass(frozen=True)
class ModelConfig(Section):
    """Which model, and what to change of it. An unset field keeps the variant's own value."""

    name: Annotated[
        str, "a row of `patchlight models`, timm/NAME, hf-hub:OWNER/NAME, OWNER/NAME, a folder or a run"
    ] = "vit-tiny"
    pretrained: Annotated[bool, "a hub's model with its weights; false draws new ones"] = True
    revision: Annotated[str | None, "branch, tag or commit of the hub's repository; unset is its newest"] = None
    img_size: Annotated[
        int | None, "pixels a side that the model takes, images being resized on its device; unset is the data's", COUNT
    ] = None
    patch_size: Annotated[int | None, "pixels a side of a patch", COUNT] = None
    embed_dim: Annotated[int | None, "width of a token", COUNT] = None
    depth: Annotated[int | None, "number of blocks; 0 leaves the stem alone", NOT_NEGATIVE] = None
    num_heads: Annotated[int | None, "attention heads; they divide embed_dim", COUNT] = None
    mlp_ratio: Annotated[float | None, "hidden width of the MLP over embed_dim", POSITIVE] = None
    stem: Annotated[Literal["patch", "conv"] | None, "one strided convolution, or a small stack of them"] = None
    stem_channels: Annotated[tuple[int, ...] | None, "widths of the conv stem, one per halving; patch_size = 2^n"] = (
        None
    )
    stem_whitening: Annotated[int | None, "channels of frozen 2x2 whitening before the conv stem", NOT_NEGATIVE] = None
    global_pool: Annotated[Literal["token", "avg", "seq"] | None, "CLS token, mean, or attention over tokens"] = None
    pos_embed: Annotated[Literal["learn", "sincos1d", "sincos2d", "none"] | None, "position embedding"] = None
    reg_tokens: Annotated[int | None, "register tokens", NOT_NEGATIVE] = None
    distill_token: Annotated[bool | None, "a second token with its own head, which learns from train.teacher"] = None
    init_values: Annotated[float | None, "LayerScale's first value; 0 is without", NOT_NEGATIVE] = None
    qk_norm: Annotated[bool | None, "normalise queries and keys"] = None
    drop_rate: Annotated[float | None, "dropout before the head", PROPER_RATE] = None
    patch_drop_rate: Annotated[float | None, "share of an image's patches left out of a training step", PROPER_RATE] = (
        None
    )
    pos_drop_rate: Annotated[float | None, "dropout after the position embedding", PROPER_RATE] = None
    proj_drop_rate: Annotated[float | None, "dropout in the MLP and after attention's projection", PROPER_RATE] = None
    mlp_drop_rate: Annotated[float | None, "dropout in the MLP; unset is proj_drop_rate", PROPER_RATE] = None
    attn_drop_rate: Annotated[float | None, "dropout of attention weights", PROPER_RATE] = None
    drop_path_rate: Annotated[float | None, "stochastic depth of the last block, rising from 0", PROPER_RATE] = None
    fused_attn: Annotated[bool | None, "attention in one kernel; unset is what a probe finds faster"] = None
    grad_checkpointing: Annotated[bool | None, "recompute blocks in the backward pass to save memory"] = None


@dataclass(frozen=True)
class OptimConfig(Section):
    name: Annotated[Literal["adamw", "sgd", "muon"], "muon: for the matrices of the blocks, adamw for the rest"] = (
        "adamw"
    )
    lr: Annotated[float, "peak learning rate", POSITIVE] = 1e-3
    layer_decay: Annotated[
        float, "a block's learning rate as a share of the next block's; 1 is off", Range(0, 1, above=True)
    ] = 1.0
    weight_decay: Annotated[
        float,
        "decoupled (coupled for sgd); not on norms, biases, tokens, positions, nor a stem's kernels under muon",
        NOT_NEGATIVE,
    ] = 0.05
    beta1: Annotated[float, "of adamw: how much of its mean of gradients a step keeps", PROPER_RATE] = 0.9
    beta2: Annotated[float, "the same of the mean of their squares", NEARLY_ONE] = 0.999
    momentum: Annotated[float, "of sgd and muon: share of the last step that goes on", PROPER_RATE] = 0.9
    nesterov: Annotated[bool, "of sgd and muon: the gradient counts as if that share was gone already"] = True
    muon_lr: Annotated[float, "peak learning rate of the matrices under muon", POSITIVE] = 0.02
    muon_conv_lr: Annotated[float, "the same of a conv stem's kernels; 0 leaves them to adamw", NOT_NEGATIVE] = 0.0
    grad_clip: Annotated[float, "greatest norm of the gradient; 0 is off", NOT_NEGATIVE] = 0.0


@dataclass(frozen=True)
class ScheduleConfig(Section):
    name: Annotated[
        Literal["constant", "linear", "cosine", "cosine_restarts", "onecycle"], "what follows the warm-up"
    ] = "cosine"
    warmup_epochs: Annotated[float, "linear warm-up from 0; onecycle has its own", NOT_NEGATIVE] = 0.0
    warmup_steps: Annotated[int | None, "the same in steps; wins over warmup_epochs", NOT_NEGATIVE] = None
    warmup_share: Annotated[float | None, "the same as a share of training; wins over both", PROPER_RATE] = None
    min_lr: Annotated[float, "where linear, cosine and each cycle of cosine_restarts end", NOT_NEGATIVE] = 0.0
    cycles: Annotated[int, "how often cosine_restarts falls from the peak", COUNT] = 1
    pct_start: Annotated[float, "share of onecycle spent rising", Range(0.001, 0.999)] = 0.3


@dataclass(frozen=True)
class TrainConfig(Section):
    task: Annotated[
        Literal["classify", "reconstruct"], "learn labels, or without them paint hidden patches (masked autoencoding)"
    ] = "classify"
    epochs: Annotated[float, "passes over the training images; 2.5 ends in the middle of the third", POSITIVE] = 10.0
    budget: Annotated[
        Duration | None, "wall-clock time of training and validation, as 90s, 10m or 1h30m; it then decides the epochs"
    ] = None
    trainable: Annotated[
        str, 'what is trained: "all", "head", the head and "last N" blocks, or the head and "lora" adapters'
    ] = "all"
    batch_size: Annotated[int, "images per optimizer step", COUNT] = 128
    micro_batch_size: Annotated[int | None, "process a batch in pieces of this size, to save memory", COUNT] = None
    label_smoothing: Annotated[float, "share of the target spread over all classes", PROPER_RATE] = 0.0
    teacher: Annotated[str | None, "a finished run that teaches beside the labels, on the same augmented images"] = None
    distill: Annotated[Literal["hard", "soft"], "by the teacher's answers, or by its softened probabilities"] = "hard"
    distill_share: Annotated[float, "share of the loss that is the teacher's", RATE] = 0.5
    distill_temperature: Annotated[
        float, "of soft distillation: the higher, the more even the probabilities", POSITIVE
    ] = 3.0
    ema_decay: Annotated[float, "moving average of the weights, used for validation and kept; 0 is off", NEARLY_ONE] = (
        0.0
    )
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"], "auto: bf16 where it is faster, fp16 on older GPUs, else fp32"
    ] = "auto"
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], "auto: cuda, else mps, else cpu"] = "auto"
    threads: Annotated[int | None, "CPU threads; unset is torch's choice", COUNT] = None
    compile: Annotated[bool, "torch.compile the model"] = False
    cuda_graphs: Annotated[bool, "replay the compiled model as CUDA graphs; needs compile and a GPU"] = False
    seed: Annotated[int, "of weights, order and augmentation", NOT_NEGATIVE] = 0
    engine: Annotated[Literal["loop", "hf"], "who makes the steps: Patchlight's loop, or Hugging Face's Trainer"] = (
        "loop"
    )
    select: Annotated[Literal["best", "last"], "which weights are kept: best by validation top-1, or the last"] = "best"
    early_stop_epochs: Annotated[
        int, "stop after so many epochs without a better validation; 0 is off", NOT_NEGATIVE
    ] = 0
    checkpoint_every: Annotated[
        int, "keep a checkpoint every so many epochs, beside the best and the last; 0 keeps those two", NOT_NEGATIVE
    ] = 0
    debug: Annotated[bool, "two steps an epoch and two epochs: does it all run?"] = False


@dataclass(frozen=True)
class LoraConfig(Section):
    """Low-rank adapters (Hu et al. 2022), in stages with train.trainable = "lora"."""

    rank: Annotated[int, "width of an adapter", COUNT] = 8
    alpha: Annotated[float, "an adapter's product is scaled by alpha / rank", POSITIVE] = 16.0
    dropout: Annotated[float, "of an adapter's input", PROPER_RATE] = 0.0


@dataclass(frozen=True)
class MaeConfig(Section):
    """Masked autoencoding (He et al. 2022), with train.task = "reconstruct"."""

    mask_ratio: Annotated[float, "share of the patches that are hidden", Range(0.05, 0.95)] = 0.75
    decoder_dim: Annotated[int, "width of the decoder, which is thrown away; four divides it", COUNT] = 128
    decoder_depth: Annotated[int, "number of its blocks", COUNT] = 2
    decoder_heads: Annotated[int, "attention heads of each; they divide decoder_dim", COUNT] = 4


@dataclass(frozen=True)
class EvalConfig(Section):
    batch_size: Annotated[int, "images at a time", COUNT] = 500
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"], "fp32 gives one score on all machines; auto: the fastest here"
    ] = "fp32"
    mirror: Annotated[bool, "give apart the score of probabilities averaged over an image and its mirror image"] = False
    gallery: Annotated[int, "right and wrong predictions kept for the report, each", COUNT] = 12


# The rows of explanation.methods.METHODS, which imports torch; a test holds them equal.
MethodName = Literal[
    "attention",
    "rollout",
    "grad-rollout",
    "chefer",
    "legrad",
    "gradcam",
    "integrated-gradients",
    "occlusion",
    "random",
    "centre",
]
DEFAULT_METHOD: MethodName = "grad-rollout"  # by the faithfulness tables of docs/results.md


@dataclass(frozen=True)
class ExplainConfig(Section):
    snapshots_every: Annotated[
        int, "keep maps of a few validation images every so many epochs; 0 is off", NOT_NEGATIVE
    ] = 0
    faithfulness: Annotated[
        int, "measure the maps of the report on so many test images at the end; 0 is off", NOT_NEGATIVE
    ] = 0
    snapshots_images: Annotated[int, "how many images, of as many classes as there are", COUNT] = 6
    method: Annotated[MethodName, "which map the snapshots show"] = DEFAULT_METHOD


SECTIONS: dict[str, type[Section]] = {
    "about": About,
    "data": DataConfig,
    "augment": AugmentConfig,
    "model": ModelConfig,
    "optim": OptimConfig,
    "schedule": ScheduleConfig,
    "train": TrainConfig,
    "lora": LoraConfig,
    "mae": MaeConfig,
    "eval": EvalConfig,
    "explain": ExplainConfig,
}

# What a stage may change; all else belongs to the whole training.
STAGE_FIELDS = (
    "augment.",
    "optim.",
    "schedule.",
    "model.img_size",
    "train.epochs",
    "train.trainable",
    "train.batch_size",
    "train.micro_batch_size",
    "train.label_smoothing",
    "train.early_stop_epochs",
)
