"""The Vision Transformer (Dosovitskiy et al. 2021), with the options that small images ask for.

Shapes: B batch, C channels, H W pixels, N patch tokens, T = prefix tokens + N, D width, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from patchlight.errors import UsageError
from patchlight.models.adapt import resample_positions
from patchlight.models.layers import (
    EPS,
    Block,
    ConvStem,
    PatchDropout,
    PatchEmbed,
    SequencePool,
    select_patches,
    sincos_1d,
    sincos_2d,
)


class VisionTransformer(nn.Module):
    """(B, C, H, W) -> logits (B, K). Arguments and state-dict keys are timm's where timm has them.

    stem: "patch", one convolution with stride `patch_size`, or "conv", a ConvStem of `stem_channels`, before which
    `stem_whitening` channels of a frozen Whitening may stand; `fit_input` gives it its filters.
    global_pool: "token" reads the CLS token, "avg" the mean patch token, "seq" a learned average of them.
    distill_token: a second token with a head of its own (DeiT); the answer is the mean of the two heads'.
    pos_embed: "learn", "sincos1d", "sincos2d" or "none".
    init_values: LayerScale's start; 0 is without. The `_rate`s are dropout (of patches, numbers or, as drop_path_rate,
    whole branches), in 0..1; mlp_drop_rate is timm's proj_drop_rate unless given.
    pos_grid: rows and columns that sine and cosine positions are made for, and then resampled to the model's own:
    those of the images that the weights were trained on.
    """

    def __init__(
        self,
        *,
        img_size: int = 32,
        patch_size: int = 4,
        in_chans: int = 3,
        num_classes: int = 10,
        embed_dim: int = 192,
        depth: int = 12,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        stem: str = "patch",
        stem_channels: tuple[int, ...] | None = None,
        stem_whitening: int = 0,
        global_pool: str = "token",
        pos_embed: str = "learn",
        reg_tokens: int = 0,
        distill_token: bool = False,
        init_values: float = 0.0,
        qk_norm: bool = False,
        drop_rate: float = 0.0,
        patch_drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        mlp_drop_rate: float | None = None,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        fused_attn: bool = True,
        grad_checkpointing: bool = False,
        pos_grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        check_shape(img_size, patch_size, embed_dim, num_heads, pos_embed)
        class_token = global_pool == "token"
        self.img_size, self.patch_size, self.num_classes = img_size, patch_size, num_classes
        self.global_pool, self.stem = global_pool, stem
        self.num_heads, self.head_dim = num_heads, embed_dim // num_heads
        self.mlp_ratio, self.init_values, self.qk_norm = mlp_ratio, init_values, qk_norm
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.pos_grid = pos_grid or self.grid_size
        if distill_token and not class_token:
            raise UsageError("model.distill_token stands beside a CLS token; set model.global_pool = 'token'")
        self.num_prefix_tokens = int(class_token) + int(distill_token) + reg_tokens
        self.distilled_training = False  # in training mode give the answers of both heads
        self.grad_checkpointing = grad_checkpointing

        self.patch_embed: nn.Module
        if stem != "conv" and (stem_channels or stem_whitening):
            field = "stem_channels" if stem_channels else "stem_whitening"
            raise UsageError(f"model.{field} is for model.stem = 'conv'; set that, or leave out {field}")
        if stem == "conv":
            channels = stem_channels or default_stem_channels(patch_size, embed_dim)
            check_stem(channels, patch_size)
            self.patch_embed = ConvStem(tuple(channels), in_chans, embed_dim, stem_whitening)
        else:
            self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if class_token else None
        self.dist_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if distill_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, reg_tokens, embed_dim)) if reg_tokens else None
        self._add_positions(pos_embed, embed_dim)
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.patch_drop = PatchDropout(patch_drop_rate, self.num_prefix_tokens)

        rates = torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()  # the deeper, the more often dropped
        self.blocks = nn.Sequential(
            *[
                Block(
                    embed_dim,
                    num_heads,
                    mlp_ratio=mlp_ratio,
                    qk_norm=qk_norm,
                    init_values=init_values,
                    proj_drop=proj_drop_rate,
                    mlp_drop=proj_drop_rate if mlp_drop_rate is None else mlp_drop_rate,
                    attn_drop=attn_drop_rate,
                    drop_path=rate,
                    fused_attn=fused_attn,
                )
                for rate in rates
            ]
        )

        # As in timm, the last norm stands before the pooling of a CLS token and after that of a mean.
        self.norm = nn.Identity() if global_pool == "avg" else nn.LayerNorm(embed_dim, EPS)
        self.attn_pool = SequencePool(embed_dim) if global_pool == "seq" else None
        self.fc_norm = nn.LayerNorm(embed_dim, EPS) if global_pool == "avg" else nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(embed_dim, num_classes)
        self.head_dist = nn.Linear(embed_dim, num_classes) if distill_token else None
        self._init_weights()

    def _add_positions(self, kind: str, dim: int) -> None:
        """A learned parameter, a fixed buffer that is not saved, or None: (1, T, D)."""
        num_patches = self.grid_size[0] * self.grid_size[1]
        if kind == "learn":
            self.pos_embed = nn.Parameter(torch.zeros(1, self.num_prefix_tokens + num_patches, dim))
        elif kind == "none":
            self.register_buffer("pos_embed", None)
        else:
            places = torch.arange(self.pos_grid[0] * self.pos_grid[1])
            table = sincos_2d(self.pos_grid, dim) if kind == "sincos2d" else sincos_1d(places, dim)
            table = torch.cat([torch.zeros(self.num_prefix_tokens, dim), table])[None]
            if self.pos_grid != self.grid_size:
                table = resample_positions(table, self.grid_size, self.num_prefix_tokens, self.pos_grid)
            self.register_buffer("pos_embed", table, persistent=False)

    def _init_weights(self) -> None:
        """timm's: truncated normal of 0.02 for linear maps and positions, nearly zero for the prefix tokens."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if isinstance(self.pos_embed, nn.Parameter):
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for token in (self.cls_token, self.dist_token, self.reg_token):
            if token is not None:
                nn.init.normal_(token, std=1e-6)

    def fit_input(self, images: Tensor) -> None:
        """Take from training images (B, C, H, W), as `forward` gets them, what is not learned but computed."""
        if isinstance(self.patch_embed, ConvStem) and self.patch_embed.whitening is not None:
            self.patch_embed.whitening.fit(images)

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> tokens (B, T, D): patches, the prefix before them, positions added."""
        x = self.patch_embed(x)
        tokens = (self.cls_token, self.dist_token, self.reg_token)
        prefix = [token.expand(x.shape[0], -1, -1) for token in tokens if token is not None]
        x = torch.cat([*prefix, x], dim=1) if prefix else x
        return self.pos_drop(x if self.pos_embed is None else x + self.pos_embed)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> tokens after the last block (B, T, D), in training less the dropped patches."""
        return self.norm(self.run_blocks(self.patch_drop(self.embed(x))))

    def run_blocks(self, x: Tensor) -> Tensor:
        """Tokens (B, T, D) of any number through all blocks."""
        for block in self.blocks:
            recompute = self.grad_checkpointing and self.training
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x

    def encode_visible(self, x: Tensor, shown: Tensor) -> Tensor:
        """Images (B, C, H, W) of which only the patches `shown` (B, V) are looked at -> tokens (B, P + V, D)."""
        visible = select_patches(self.embed(x), shown, self.num_prefix_tokens)
        return self.norm(self.run_blocks(visible))

    def pool(self, x: Tensor) -> Tensor:
        """Tokens (B, T, D) -> (B, D)."""
        if self.global_pool == "token":
            return x[:, 0]
        patches = x[:, self.num_prefix_tokens :]
        return patches.mean(dim=1) if self.attn_pool is None else self.attn_pool(patches)

    def forward_head(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Tokens (B, T, D) -> logits (B, K); of both heads, apart, in `distilled_training`."""
        logits = self.head(self.head_drop(self.fc_norm(self.pool(x))))
        if self.head_dist is None:
            return logits
        distilled = self.head_dist(self.head_drop(x[:, 1]))
        return (logits, distilled) if self.distilled_training and self.training else (logits + distilled) / 2

    def forward(self, x: Tensor) -> Any:
        return self.forward_head(self.forward_features(x))


def default_stem_channels(patch_size: int, embed_dim: int) -> tuple[int, ...]:
    """Widths that double with each halving of the resolution and end at `embed_dim`."""
    groups = patch_size.bit_length() - 1
    return tuple(embed_dim // 2**i for i in reversed(range(groups)))


def check_shape(img_size: int, patch_size: int, embed_dim: int, num_heads: int, pos_embed: str) -> None:
    if img_size % patch_size:
        fits = [p for p in range(1, img_size + 1) if img_size % p == 0]
        raise UsageError(
            f"model.patch_size {patch_size} does not divide the image size {img_size}; "
            f"choose one of {', '.join(map(str, fits))}, or change data.image_size"
        )
    if embed_dim % num_heads:
        raise UsageError(
            f"model.embed_dim {embed_dim} is not a multiple of model.num_heads {num_heads}; choose another of them"
        )
    divisor = {"sincos1d": 2, "sincos2d": 4}.get(pos_embed, 1)
    if embed_dim % divisor:
        raise UsageError(f"model.pos_embed {pos_embed} needs a model.embed_dim that {divisor} divides, not {embed_dim}")


def check_stem(channels: tuple[int, ...], patch_size: int) -> None:
    if patch_size < 2 or patch_size & (patch_size - 1):
        raise UsageError(
            f"model.stem 'conv' halves the image, so patch_size must be a power of two above 1, not {patch_size}"
        )
    if 2 ** len(channels) != patch_size:
        raise UsageError(
            f"model.stem_channels needs a width per halving, {patch_size.bit_length() - 1} for patch_size {patch_size}"
            f", not {len(channels)}"
        )
