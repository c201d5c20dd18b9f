"""Which images, and how they are changed at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from patchlight.config.fields import COUNT, NOT_NEGATIVE, PROPER_RATE, RATE, Range, Section
from patchlight.config.names import POLICY_NAMES, SAMPLER_NAMES

CropMode = Literal["zero", "reflect"]
Flip = Literal["none", "random", "alternating"]
Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class DataConfig(Section):
    """Which images, and how they are divided into training, validation and test sets."""

    source: Annotated[
        str,
        "a named source such as digits or cifar10, hf:owner/name[:config], or the path of a folder, archive or Parquet",
    ] = "digits"
    image_column: Annotated[str | None, "column of a table or list that holds the images; unset: found, or asked"] = (
        None
    )
    label_column: Annotated[str | None, "column of a table or list that holds the labels; unset: found, or asked"] = (
        None
    )
    split_column: Annotated[str | None, "column of a file list that says train, val or test of each image"] = None
    image_folder: Annotated[str | None, "what the paths of a file list are relative to; unset: the list's folder"] = (
        None
    )
    outside_paths: Annotated[
        bool, "take files that lie outside the data set's folder, by their paths in a list or table or by links"
    ] = False
    train_split: Annotated[
        str | None, "the source's own name of the split to train on; with it, splits that are not named are not used"
    ] = None
    val_split: Annotated[str | None, "the source's own name of the split to validate with"] = None
    test_split: Annotated[str | None, "the source's own name of the split to test on"] = None
    class_folders: Annotated[
        Literal["outer", "inner", "path"] | None,
        "where class folders hold folders, what names the class: the outer one, the one that the image is in, or both",
    ] = None
    max_left_out: Annotated[
        float, "share of a source's images that may be left out, each reason being told; more is an error", RATE
    ] = 0.01
    on_bad: Annotated[
        Literal["error", "skip"], "what an image that cannot be read does: end the command, or be left out and listed"
    ] = "error"
    pixel_max: Annotated[
        int,
        "the value that is white in 16-bit grey images and arrays of uint16; 4095 where 12 bits are stored in 16",
        Range(1, 65535),
    ] = 65535
    image_size: Annotated[
        int | None,
        "pixels a side of the decoded images; unset keeps a square size that all have, else is model.img_size, else 32",
        COUNT,
    ] = None
    interpolation: Annotated[
        Interpolation | None,
        "how images are resized, antialiased; unset is as those of the pretrained weights were, else bicubic",
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
    sampler: Annotated[
        str,
        "which training images an epoch has: each of them once, or as many, of every class equally many",
        SAMPLER_NAMES,
    ] = "uniform"
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
