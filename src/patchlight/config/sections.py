"""Every setting of a recipe: its name, type, default, meaning and range.

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
from patchlight.config.names import (
    DEFAULT_METHOD,
    METHOD_NAMES,
    OPTIMIZER_NAMES,
    POLICY_NAMES,
    SCHEDULE_NAMES,
    TASK_NAMES,
)

CropMode = Literal["zero", "reflect"]
Flip = Literal["none", "random", "alternating"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class About(Section):
    """What a recipe says of itself; nothing here changes the training."""

    name: Annotated[str, "the recipe's name, and its run's folder in runs/ unless --out names another"] = "run"
    title: Annotated[str, "what the recipe trains, in one line"] = ""
    source: Annotated[str, "the paper or system that the settings come from"] = ""
    command: Annotated[str, "the command that trains by this recipe"] = ""
    cost: Annotated[str, "how long training takes, and on which hardware"] = ""
    expect: Annotated[str, "the result to expect, and who measured it"] = ""
    top1: Annotated[float | None, "the test accuracy after train.epochs that about.expect states", RATE] = None


@dataclass(frozen=True)
class DataConfig(Section):
    """Which images, and how they are divided into training, validation and test sets."""

    source: Annotated[
        str,
        "a named source such as digits or cifar10, hf:owner/name[:config], or the path of a folder, archive or Parquet",
    ] = "digits"
    image_size: Annotated[
        int | None,
        "pixels a side of the decoded images; unset keeps a square size that all have, else is model.img_size, else 32",
        COUNT,
    ] = None
    train_per_class: Annotated[int | None, "training images of each class; unset takes all", COUNT] = None
    val_per_class: Annotated[
        int | None, "validation images of each class; unset takes the share data.val_fraction", COUNT
    ] = None
    test_per_class: Annotated[int | None, "test images of each class; unset takes all", COUNT] = None
    subset_test_per_class: Annotated[
        int | None,
        "training images of each class that become a second, smaller test set, scored beside the full one",
        COUNT,
    ] = None
    val_fraction: Annotated[
        float, "share of the training images that become the validation set, where the source has none", PROPER_RATE
    ] = 0.1
    split_seed: Annotated[int, "random seed of the splits, which train.seed does not change", NOT_NEGATIVE] = 0
    mean: Annotated[
        tuple[float, ...] | None,
        "mean of each channel, of pixels in 0..1; unset is that of the pretrained weights, else of the training images",
    ] = None
    std: Annotated[
        tuple[float, ...] | None,
        "standard deviation of each channel, of pixels in 0..1; unset is chosen like data.mean",
    ] = None
    memory_limit_mb: Annotated[
        int,
        "MiB of decoded images that are kept in memory; larger sets go into a memory-mapped cache file",
        NOT_NEGATIVE,
    ] = 64


@dataclass(frozen=True)
class AugmentConfig(Section):
    """Random changes of the training images; each image of each epoch draws its own."""

    crop_padding: Annotated[
        int, "pixels added on every side before a random crop of the old size; 0 is off", NOT_NEGATIVE
    ] = 0
    crop_mode: Annotated[CropMode, "what the added pixels hold: black, or the image mirrored at its border"] = "zero"
    flip: Annotated[
        Flip, "mirror left and right: half of the images at random, or alternating, each image in every second epoch"
    ] = "none"
    resized_crop_scale: Annotated[
        tuple[float, ...] | None,
        "least and greatest area of a random crop that is resized, as shares of the image; unset is off",
    ] = None
    resized_crop_ratio: Annotated[tuple[float, ...], "least and greatest width / height of such a crop"] = (
        0.75,
        4 / 3,
    )
    policy: Annotated[str, "random changes of colour and shape, drawn for each image", POLICY_NAMES] = "none"
    randaugment_ops: Annotated[int, "randaugment: operations on each image", COUNT] = 2
    randaugment_magnitude: Annotated[
        int, "randaugment: strength of its operations, on torchvision's scale of 31 bins", Range(0, 30)
    ] = 9
    erasing_prob: Annotated[float, "probability that a random rectangle of an image is painted over", RATE] = 0.0
    mixup_alpha: Annotated[
        float, "mixup: both parameters of the Beta distribution of the mixing weight; 0 is off", NOT_NEGATIVE
    ] = 0.0
    cutmix_alpha: Annotated[
        float, "CutMix: both parameters of the Beta distribution of the area that is kept; 0 is off", NOT_NEGATIVE
    ] = 0.0
    mix_prob: Annotated[float, "probability that an image (or a batch, see augment.mix_mode) is mixed", RATE] = 1.0
    cutmix_share: Annotated[
        float, "where mixup and CutMix are both on, the share of the mixed that CutMix gets", RATE
    ] = 0.5
    mix_mode: Annotated[Literal["image", "batch"], "draw the mixing for each image, or once for a batch"] = "image"
    strong_until: Annotated[float, "share of training after which policy, erasing and mixing are off", RATE] = 1.0


@dataclass(frozen=True)
class ModelConfig(Section):
    """Which model, and what to change of it. An unset field keeps the variant's own value."""

    name: Annotated[
        str, "a row of `patchlight models`, timm/NAME, hf-hub:OWNER/NAME, OWNER/NAME, a folder or a run"
    ] = "vit-tiny"
    pretrained: Annotated[bool, "begin with a hub model's pretrained weights; false begins with random weights"] = True
    revision: Annotated[str | None, "branch, tag or commit of the hub's repository; unset is its newest"] = None
    img_size: Annotated[
        int | None,
        "pixels a side that the model takes; images are resized to it on the device; unset is the data's",
        COUNT,
    ] = None
    patch_size: Annotated[int | None, "pixels a side of a patch", COUNT] = None
    embed_dim: Annotated[int | None, "width of a token: how many numbers it has", COUNT] = None
    depth: Annotated[int | None, "number of transformer blocks; 0 leaves the stem alone", NOT_NEGATIVE] = None
    num_heads: Annotated[int | None, "attention heads of a block; embed_dim is a multiple of them", COUNT] = None
    mlp_ratio: Annotated[float | None, "hidden width of a block's MLP as a multiple of embed_dim", POSITIVE] = None
    stem: Annotated[
        Literal["patch", "conv"] | None,
        "what makes tokens of pixels: one strided convolution, or a small stack of them",
    ] = None
    stem_channels: Annotated[
        tuple[int, ...] | None,
        "widths of the conv stem's stages, each of which halves the image; patch_size is 2^stages",
    ] = None
    stem_whitening: Annotated[
        int | None, "channels of a fixed 2 x 2 convolution before the conv stem that decorrelates pixels", NOT_NEGATIVE
    ] = None
    global_pool: Annotated[
        Literal["token", "avg", "seq"] | None,
        "what the head reads: the CLS token, the tokens' mean, or a learned mean of them",
    ] = None
    pos_embed: Annotated[
        Literal["learn", "sincos1d", "sincos2d", "none"] | None,
        "how tokens know their place: learned, by sines, not at all",
    ] = None
    reg_tokens: Annotated[int | None, "register tokens: learned tokens that stand for no patch", NOT_NEGATIVE] = None
    distill_token: Annotated[bool | None, "a second token with its own head, which learns from train.teacher"] = None
    init_values: Annotated[
        float | None, "first value of LayerScale's factors; 0 is without LayerScale", NOT_NEGATIVE
    ] = None
    qk_norm: Annotated[bool | None, "normalise the queries and keys of attention"] = None
    drop_rate: Annotated[float | None, "dropout before the head", PROPER_RATE] = None
    patch_drop_rate: Annotated[
        float | None, "share of an image's patches that a training step leaves out of the blocks", PROPER_RATE
    ] = None
    pos_drop_rate: Annotated[float | None, "dropout after the position embedding", PROPER_RATE] = None
    proj_drop_rate: Annotated[float | None, "dropout in the MLP and after attention's projection", PROPER_RATE] = None
    mlp_drop_rate: Annotated[float | None, "dropout in the MLP; unset is model.proj_drop_rate", PROPER_RATE] = None
    attn_drop_rate: Annotated[float | None, "dropout of attention weights", PROPER_RATE] = None
    drop_path_rate: Annotated[
        float | None,
        "stochastic depth: how often an image skips the last block; earlier ones less, the first never",
        PROPER_RATE,
    ] = None
    fused_attn: Annotated[
        bool | None, "compute attention in one fused kernel; unset takes what a short test finds faster"
    ] = None
    grad_checkpointing: Annotated[bool | None, "recompute blocks in the backward pass, to save memory"] = None


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
    epochs: Annotated[float, "passes over the training images; 2.5 ends in the middle of the third", POSITIVE] = 10.0
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
        Literal["best", "last"], "which weights are kept: of the epoch with the best validation, or of the last one"
    ] = "best"
    early_stop_epochs: Annotated[
        int,
        "stop after so many epochs of the stage without a higher validation accuracy (a tie is not higher) or, in "
        "masked autoencoding, without a lower loss; 0 is off",
        NOT_NEGATIVE,
    ] = 0
    checkpoint_every: Annotated[
        int, "epochs between checkpoints that stay, beside the best and the last; 0 keeps these two alone", NOT_NEGATIVE
    ] = 0
    debug: Annotated[bool, "try out: two steps an epoch, and two epochs unless train.epochs is given with it"] = False


@dataclass(frozen=True)
class LoraConfig(Section):
    """Low-rank adapters (Hu et al. 2022), in stages with train.trainable = "lora"."""

    rank: Annotated[int, "rank of an adapter: the inner width of its two matrices", COUNT] = 8
    alpha: Annotated[float, "what an adapter adds is multiplied by lora.alpha / lora.rank", POSITIVE] = 16.0
    dropout: Annotated[float, "dropout of an adapter's input", PROPER_RATE] = 0.0


@dataclass(frozen=True)
class MaeConfig(Section):
    """Masked autoencoding (He et al. 2022), with train.task = "reconstruct"."""

    mask_ratio: Annotated[float, "share of the patches that are hidden", Range(0.05, 0.95)] = 0.75
    decoder_dim: Annotated[int, "width of the decoder, which is not kept; a multiple of 4", COUNT] = 128
    decoder_depth: Annotated[int, "number of the decoder's blocks", COUNT] = 2
    decoder_heads: Annotated[
        int, "attention heads of a decoder block; mae.decoder_dim is a multiple of them", COUNT
    ] = 4


@dataclass(frozen=True)
class EvalConfig(Section):
    """How a trained model is scored."""

    batch_size: Annotated[int, "images at a time", COUNT] = 500
    precision: Annotated[
        Precision, "number format of the computation; fp32 gives one score on all machines; auto: the fastest here"
    ] = "fp32"
    mirror: Annotated[bool, "report a second score, of probabilities averaged over each image and its mirror image"] = (
        False
    )
    gallery: Annotated[int, "right predictions, and as many wrong ones, that the report shows", COUNT] = 12


@dataclass(frozen=True)
class ExplainConfig(Section):
    """Which explanations a training run makes by itself."""

    snapshots_every: Annotated[
        int, "epochs between snapshots of explanation maps of a few validation images; 0 is off", NOT_NEGATIVE
    ] = 0
    faithfulness: Annotated[
        int, "test images on which the report's maps are tested for faithfulness at the end; 0 is off", NOT_NEGATIVE
    ] = 0
    snapshots_images: Annotated[int, "images of the snapshots, from as many classes as there are", COUNT] = 6
    method: Annotated[str, "the method of explanation that the snapshots show", METHOD_NAMES] = DEFAULT_METHOD


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

# What a stage of training may change; all other settings are the same in all stages.
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
