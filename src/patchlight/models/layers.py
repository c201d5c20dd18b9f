"""The parts of a Vision Transformer. Names and state-dict keys are timm's.

Shapes: B batch, C channels, H W pixels, N tokens, D width, h heads, d = D / h.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6  # of every LayerNorm in a ViT (timm, Hugging Face and the original agree)


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, eq. 1), (B, N, D) -> (B, N, D)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qk_norm: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        fused_attn: bool = True,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.fused_attn = fused_attn
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.LayerNorm(dim // num_heads, EPS) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // num_heads, EPS) if qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three tensors (B, h, N, d), normalised where the model asks for it."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.q_norm(q), self.k_norm(k), v

    @staticmethod
    def weights(q: Tensor, k: Tensor) -> Tensor:
        """softmax(q k^T / sqrt(d)), (B, h, N, N): row i says where token i reads from."""
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query_key_value(x)
        if self.fused_attn:
            drop = self.attn_drop.p if self.training else 0.0
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=drop)
        else:
            x = self.attn_drop(self.weights(q, k)) @ v
        x = x.transpose(1, 2).flatten(2)  # (B, h, N, d) -> (B, N, D)
        return self.proj_drop(self.proj(x))


class Mlp(nn.Module):
    """Two linear maps with a GELU between, each followed by dropout."""

    def __init__(self, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch (Touvron et al. 2021, CaiT, eq. 2)."""

    def __init__(self, dim: int, init_value: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init_value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): drops the residual branch of whole images and scales up the kept ones."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = torch.empty((x.shape[0], 1, 1), dtype=x.dtype, device=x.device).bernoulli_(keep)
        return x * mask.div_(keep)


class PatchDropout(nn.Module):
    """Tokens (B, T, D) -> in training, those of a random share of each image's patches (Liu et al. 2022,
    arXiv:2208.07220), and the `prefix` tokens; what is dropped costs nothing in the blocks.
    """

    def __init__(self, rate: float, prefix: int) -> None:
        super().__init__()
        self.rate, self.prefix = rate, prefix

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        patches = x.shape[1] - self.prefix
        shown = torch.rand(x.shape[0], patches, device=x.device).argsort(dim=1)[:, : kept_patches(patches, self.rate)]
        return select_patches(x, shown, self.prefix)


def kept_patches(patches: int, dropped: float) -> int:
    """How many of an image's patches stay where a share of them is `dropped`."""
    return max(1, round(patches * (1 - dropped)))


def select_patches(tokens: Tensor, shown: Tensor, prefix: int) -> Tensor:
    """Of tokens (B, T, D) the `prefix` first and the patches `shown` (B, V): (B, prefix + V, D)."""
    first = torch.arange(prefix, device=shown.device).expand(shown.shape[0], -1)
    places = torch.cat([first, shown + prefix], dim=1)
    return tokens.gather(1, places.unsqueeze(2).expand(-1, -1, tokens.shape[2]))


class Block(nn.Module):
    """A pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        qk_norm: bool = False,
        init_values: float = 0.0,
        proj_drop: float = 0.0,
        mlp_drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        fused_attn: bool = True,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, EPS)
        self.attn = Attention(
            dim, num_heads, qk_norm=qk_norm, attn_drop=attn_drop, proj_drop=proj_drop, fused_attn=fused_attn
        )
        self.ls1 = LayerScale(dim, init_values) if init_values else nn.Identity()
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=mlp_drop)
        self.ls2 = LayerScale(dim, init_values) if init_values else nn.Identity()
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class PatchEmbed(nn.Module):
    """One token per patch by one strided convolution, (B, C, H, W) -> (B, N, D), N = HW / P^2 in reading order."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Whitening(nn.Conv2d):
    """A frozen 2x2 convolution whose outputs are uncorrelated and of unit variance, with a trained bias.

    Filters are the principal components of the training images' 2x2 patches over their standard deviations, each with
    its negative beside it (Page 2018; Jordan 2024, arXiv:2404.00498, section 3.2). (B, C, H, W) -> (B, channels, H, W).
    """

    def __init__(self, in_chans: int, channels: int) -> None:
        super().__init__(in_chans, channels, 2)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.weight.requires_grad_(False)

    @torch.no_grad()
    def fit(self, images: Tensor, eps: float = 5e-4) -> None:
        """Take the filters from the patches of `images` (B, C, H, W), as the model gets them."""
        moments, count = self.weight.new_zeros(self.weight[0].numel(), self.weight[0].numel(), dtype=torch.float64), 0
        for few in images.split(64):  # all patches at once are four times the images, and twice that in float64
            patches = few.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, len(moments)).double()
            moments += patches.T @ patches
            count += len(patches)
        variances, components = torch.linalg.eigh(moments / count)
        filters = (components / (variances + eps).sqrt()).T.flip(0)  # from the largest variance down
        pairs = torch.stack([filters, -filters], dim=1).flatten(0, 1).float()
        self.weight.copy_(pairs[: len(self.weight)].view_as(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class ConvStem(nn.Module):
    """Patch embedding by a small convolutional network, (B, C, H, W) -> (B, N, D).

    After Xiao et al. 2021 ("Early Convolutions"), with the groups of Jordan's airbench (2024, arXiv:2404.00498):
    convolution, max-pool that halves the resolution, second convolution, each followed by batch norm and GELU, and
    started as the identity on the channels that come in. There are log2(patch_size) groups, so a token still stands for
    a patch of `patch_size` pixels, though it sees beyond it. `whitening` channels of a Whitening may stand before.
    """

    def __init__(self, channels: tuple[int, ...], in_chans: int, embed_dim: int, whitening: int = 0) -> None:
        super().__init__()
        self.whitening = Whitening(in_chans, whitening) if whitening else None
        in_chans = whitening or in_chans
        groups: list[nn.Module] = []
        for width in channels:
            groups += [
                nn.Conv2d(in_chans, width, 3, padding=1, bias=False),
                nn.MaxPool2d(2),
                nn.BatchNorm2d(width),
                nn.GELU(),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.GELU(),
            ]
            in_chans = width
        self.stem = nn.Sequential(*groups)
        for module in self.stem:
            if isinstance(module, nn.Conv2d):
                nn.init.dirac_(module.weight[: module.in_channels])
        self.proj = nn.Identity() if in_chans == embed_dim else nn.Conv2d(in_chans, embed_dim, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.whitening is not None:
            x = F.gelu(self.whitening(x))
        x = self.proj(self.stem(x))
        if x.requires_grad and x.shape[0] == 1:
            # The backward pass of batch norm misreads the gradient of a single image whose channels come last, where
            # the image's own come first (torch 2.15, CPU).
            x.register_hook(Tensor.contiguous)
        return x.flatten(2).transpose(1, 2)


class SequencePool(nn.Module):
    """Attention over the output tokens (Hassani et al. 2021, Compact Transformers, eq. 4-6), (B, N, D) -> (B, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1)

    def weights(self, x: Tensor) -> Tensor:
        """The share of each token in the pooled one, (B, N), summing to 1."""
        return self.score(x).squeeze(-1).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.weights(x).unsqueeze(1) @ x).squeeze(1)


def sincos_1d(positions: Tensor, dim: int) -> Tensor:
    """Fixed sinusoidal embedding (Vaswani et al. 2017, section 3.5) of positions (N,), (N, dim): sines, cosines."""
    rates = 10000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
    angles = positions.double()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def sincos_2d(grid: tuple[int, int], dim: int) -> Tensor:
    """Half of the width tells the row, the other half the column (as in MAE, He et al. 2022), (rows * columns, dim)."""
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    return torch.cat([sincos_1d(rows.flatten(), dim // 2), sincos_1d(columns.flatten(), dim // 2)], dim=1)
