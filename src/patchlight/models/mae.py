"""Masked autoencoding (He et al. 2022): a ViT learns from images without labels, by predicting the pixels of patches
that were hidden from it.

Shapes: B batch, C channels, N patches of p x p pixels, V of them visible.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchlight.errors import UsageError
from patchlight.models.layers import EPS, Block, kept_patches, sincos_2d
from patchlight.models.vit import VisionTransformer


class MaskedAutoencoder(nn.Module):
    """Images (B, C, H, W) -> (pixels of all patches (B, N, p p C), normalised patch by patch; hidden (B, N) bool).

    The encoder sees `1 - mask_ratio` of the patches; a narrow decoder puts a mask token where the others were. In
    evaluation mode the hidden patches are the same each time.
    """

    positions: Tensor

    def __init__(
        self,
        encoder: VisionTransformer,
        *,
        mask_ratio: float = 0.75,
        decoder_dim: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
    ) -> None:
        super().__init__()
        if encoder.stem == "conv":
            raise UsageError("a convolutional stem sees what masked autoencoding hides; set model.stem = 'patch'")
        if decoder_dim % 4 or decoder_dim % decoder_heads:
            raise UsageError(f"mae.decoder_dim {decoder_dim} must be a multiple of 4 and of mae.decoder_heads")
        if encoder.patch_drop.rate:
            raise UsageError(
                "masked autoencoding hides patches itself (mae.mask_ratio); leave out model.patch_drop_rate"
            )
        rows, columns = encoder.grid_size
        self.encoder, self.mask_ratio, self.patch_size = encoder, mask_ratio, encoder.patch_size
        self.visible = kept_patches(rows * columns, mask_ratio)
        self.embed = nn.Linear(encoder.head.in_features, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.register_buffer("positions", sincos_2d(encoder.grid_size, decoder_dim)[None], persistent=False)
        self.blocks = nn.Sequential(*[Block(decoder_dim, decoder_heads) for _ in range(decoder_depth)])
        self.norm = nn.LayerNorm(decoder_dim, EPS)
        self.pixels = nn.Linear(decoder_dim, 3 * encoder.patch_size**2)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        order = self.draw(images)
        shown = order[:, : self.visible]
        hidden = torch.ones_like(order, dtype=torch.bool).scatter(1, shown, False)
        tokens = self.embed(self.encoder.encode_visible(images, shown))[:, self.encoder.num_prefix_tokens :]
        filled = self.mask_token.to(tokens).expand(len(images), order.shape[1], -1)
        filled = filled.scatter(1, shown.unsqueeze(2).expand(-1, -1, tokens.shape[2]), tokens)
        return self.pixels(self.norm(self.blocks(filled + self.positions))), hidden

    def loss(self, answer: tuple[Tensor, Tensor], images: Tensor) -> Tensor:
        """Mean squared error of the hidden patches, in fp32."""
        predicted, hidden = answer
        error = (predicted.float() - normalized(patchify(images, self.patch_size))).square().mean(dim=2)
        return (error * hidden).sum() / hidden.sum()

    def draw(self, images: Tensor) -> Tensor:
        """An order of the patches for each image, (B, N)."""
        patches = self.encoder.grid_size[0] * self.encoder.grid_size[1]
        if self.training:
            noise = torch.rand(len(images), patches, device=images.device)
        else:
            draw = torch.Generator().manual_seed(0)
            noise = torch.rand(len(images), patches, generator=draw).to(images.device)
        return noise.argsort(dim=1)


def patchify(images: Tensor, size: int) -> Tensor:
    """(B, C, H, W) -> (B, N, p p C), patches in reading order."""
    return F.unfold(images, size, stride=size).transpose(1, 2)


def normalized(patches: Tensor) -> Tensor:
    """Each patch with mean 0 and deviation 1 (He et al. 2022, section 4.1: the better target)."""
    return (patches - patches.mean(dim=2, keepdim=True)) / (patches.var(dim=2, keepdim=True) + EPS).sqrt()


def unpatchify(patches: Tensor, size: int, shape: tuple[int, int]) -> Tensor:
    """The way back, to images of `shape` (H, W)."""
    return F.fold(patches.transpose(1, 2), shape, size, stride=size)
