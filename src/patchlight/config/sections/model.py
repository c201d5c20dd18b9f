"""Which model, and what is laid over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from patchlight.config.fields import COUNT, NOT_NEGATIVE, POSITIVE, PROPER_RATE, Range, Section


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
        "pixels a side that the model takes, to which images are resized on the device; unset is the size that "
        "pretrained weights were made for, else the data's",
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
