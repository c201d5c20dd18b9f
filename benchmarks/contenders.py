"""The same Vision Transformer from four libraries, and a training step as the users of each write it.

The libraries are imported when a model of theirs is built, so that a missing one is left out and the others are timed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from patchlight.config import OptimConfig
from patchlight.machine.device import autocast
from patchlight.machine.fastest import resolve_precision
from patchlight.models import VisionTransformer, create_model
from patchlight.models.fused import choose_fused, set_fused_attn
from patchlight.training.optim import build_optimizers

LR, WEIGHT_DECAY, CLASSES = 1e-3, 0.05, 10
MODULES = {"timm": "timm", "Hugging Face": "transformers", "vit-pytorch": "vit_pytorch", "Patchlight": "patchlight"}


@dataclass(frozen=True)
class Shape:
    """ViT-Ti/4 for 32 x 32 pixels: 65 tokens, 5.36 million parameters. `batch` is images per step."""

    img_size: int = 32
    patch_size: int = 4
    dim: int = 192
    depth: int = 12
    heads: int = 3
    batch: int = 64


QUICK = Shape(depth=2, batch=4)


@dataclass(frozen=True)
class Contender:
    """`precision` "auto" is Patchlight's choice; None is the library's own attention, of Patchlight its choice, and
    torch's default of AdamW.
    """

    library: str
    precision: str
    fused_attn: bool | None = None
    fused_adamw: bool | None = None


OURS = "Patchlight"  # as a user gets it
CONTENDERS = {
    "timm fp32": Contender("timm", "fp32"),
    "timm bf16": Contender("timm", "bf16"),
    "timm bf16, fused AdamW": Contender("timm", "bf16", fused_adamw=True),
    "timm bf16, plain attention, fused AdamW": Contender("timm", "bf16", fused_attn=False, fused_adamw=True),
    "Hugging Face fp32": Contender("Hugging Face", "fp32"),
    "Hugging Face bf16": Contender("Hugging Face", "bf16"),
    "Hugging Face bf16, plain attention, fused AdamW": Contender(
        "Hugging Face", "bf16", fused_attn=False, fused_adamw=True
    ),
    "vit-pytorch fp32": Contender("vit-pytorch", "fp32"),
    "vit-pytorch bf16": Contender("vit-pytorch", "bf16"),
    "vit-pytorch bf16, fused AdamW": Contender("vit-pytorch", "bf16", fused_adamw=True),
    "Patchlight fp32": Contender("Patchlight", "fp32", fused_attn=True),
    "Patchlight fp32, plain attention": Contender("Patchlight", "fp32", fused_attn=False),
    "Patchlight bf16": Contender("Patchlight", "bf16", fused_attn=True),
    "Patchlight bf16, plain attention": Contender("Patchlight", "bf16", fused_attn=False),
    OURS: Contender("Patchlight", "auto"),
}
DEFAULTS = [  # what a user of each library runs without looking further, in both precisions
    "timm fp32",
    "timm bf16",
    "Hugging Face fp32",
    "Hugging Face bf16",
    "vit-pytorch fp32",
    "vit-pytorch bf16",
    OURS,
]


def installed(names: Iterable[str]) -> dict[str, Contender]:
    """Those contenders whose library is here."""
    rows = {name: CONTENDERS[name] for name in names}
    return {name: row for name, row in rows.items() if importlib.util.find_spec(MODULES[row.library])}


def same_precision(name: str, chosen: str) -> str:
    """Our contender with fused attention in the precision of this one, which is `chosen` where it was left open; ours
    as it is where there is none of that precision, as of fp16.
    """
    asked = CONTENDERS[name].precision
    ours = f"Patchlight {chosen if asked == 'auto' else asked}"
    return ours if ours in CONTENDERS else OURS


def _timm(shape: Shape, contender: Contender) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(
        "deit_tiny_patch16_224",
        img_size=shape.img_size,
        patch_size=shape.patch_size,
        num_classes=CLASSES,
        embed_dim=shape.dim,
        depth=shape.depth,
        num_heads=shape.heads,
    )
    return model


class _Logits(nn.Module):
    """A Hugging Face model that answers with its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=images).logits
        return logits


def _hugging_face(shape: Shape, contender: Contender) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=shape.img_size,
        patch_size=shape.patch_size,
        hidden_size=shape.dim,
        num_labels=CLASSES,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.dim,
    )
    return _Logits(ViTForImageClassification(config))


def _vit_pytorch(shape: Shape, contender: Contender) -> nn.Module:
    from vit_pytorch import ViT

    model: nn.Module = ViT(
        image_size=shape.img_size,
        patch_size=shape.patch_size,
        num_classes=CLASSES,
        dim=shape.dim,
        depth=shape.depth,
        heads=shape.heads,
        dim_head=shape.dim // shape.heads,
        mlp_dim=4 * shape.dim,
    )
    return model


def _patchlight(shape: Shape, contender: Contender) -> nn.Module:
    attention = {} if contender.fused_attn is None else {"fused_attn": contender.fused_attn}
    return create_model(
        "deit-tiny",
        img_size=shape.img_size,
        patch_size=shape.patch_size,
        num_classes=CLASSES,
        embed_dim=shape.dim,
        depth=shape.depth,
        num_heads=shape.heads,
        **attention,
    )


BUILDERS: dict[str, Callable[[Shape, Contender], nn.Module]] = {
    "timm": _timm,
    "Hugging Face": _hugging_face,
    "vit-pytorch": _vit_pytorch,
    "Patchlight": _patchlight,
}


def build(contender: Contender, shape: Shape, device: torch.device) -> nn.Module:
    """The library's model, whose number of parameters is the one that all share."""
    torch.manual_seed(0)
    model = BUILDERS[contender.library](shape, contender)
    count = sum(p.numel() for p in model.parameters())
    expected = parameters(shape) + known_difference(contender.library, shape)
    assert count == expected, f"{contender.library} has {count:,} parameters, not {expected:,}"
    return model.to(device)


def parameters(shape: Shape) -> int:
    """Patch embedding, CLS token, positions, blocks, last norm and head, counted by hand."""
    d, tokens = shape.dim, (shape.img_size // shape.patch_size) ** 2 + 1
    embedding = 3 * shape.patch_size**2 * d + d + d + tokens * d
    block = 4 * d * d + 4 * d + 8 * d * d + 5 * d + 4 * d  # attention, MLP, two norms
    return embedding + shape.depth * block + 2 * d + CLASSES * d + CLASSES


def known_difference(library: str, shape: Shape) -> int:
    """vit-pytorch's queries, keys and values have no bias, and two norms stand around its patch embedding."""
    if library != "vit-pytorch":
        return 0
    return -3 * shape.dim * shape.depth + 2 * (3 * shape.patch_size**2) + 2 * shape.dim


def precision_of(contender: Contender, device: torch.device) -> str:
    return resolve_precision(contender.precision, device)


def choose_attention(
    model: nn.Module, contender: Contender, batch: int, device: torch.device, *, training: bool = True
) -> str:
    """Where it is left to Patchlight, take what its probe finds faster, as its own commands do."""
    if contender.library != "Patchlight" and contender.fused_attn is not None:
        if contender.library == "Hugging Face":
            inner: Any = model.model
            inner.set_attn_implementation("sdpa" if contender.fused_attn else "eager")
        else:
            set_fused_attn(model, contender.fused_attn)
    if contender.library != "Patchlight" or contender.fused_attn is not None:
        return "given"
    assert isinstance(model, VisionTransformer)
    fused = choose_fused(model, batch, precision_of(contender, device), device, training=training)
    assert fused is not None
    set_fused_attn(model, fused)
    return "fused" if fused else "plain"


def patchlights_choice(shape: Shape, device: torch.device) -> str:
    """The precision and the attention that Patchlight trains with here, in words."""
    contender = CONTENDERS[OURS]
    model = build(contender, shape, device)
    return f"{precision_of(contender, device)}, {choose_attention(model, contender, shape.batch, device)} attention"


def make_batch(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random images (B, 3, H, W) float32 and labels (B,), the same for everyone."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(shape.batch, 3, shape.img_size, shape.img_size, generator=draw)
    return images.to(device), torch.randint(CLASSES, (shape.batch,), generator=draw).to(device)


def in_layout_of(contender: Contender, images: Tensor) -> Tensor:
    """Patchlight's data path hands over channels-last images, the others' plain ones."""
    return images.contiguous(memory_format=torch.channels_last) if contender.library == "Patchlight" else images


def training_step(contender: Contender, shape: Shape, device: torch.device) -> Callable[[], None]:
    """Forward, cross-entropy, backward, AdamW and zero_grad on one batch, over and over."""
    model = build(contender, shape, device).train()
    choose_attention(model, contender, shape.batch, device)
    images, labels = make_batch(shape, device)
    images = in_layout_of(contender, images)
    precision = precision_of(contender, device)
    if contender.library == "Patchlight":
        optimizers = build_optimizers(model, OptimConfig(name="adamw", lr=LR, weight_decay=WEIGHT_DECAY))
    else:
        fused = contender.fused_adamw
        optimizers = [torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=fused)]

    def step() -> None:
        with autocast(precision, device):
            logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def forward_flops(shape: Shape) -> int:
    """FLOPs of a forward pass on a batch, by torch's FlopCounterMode; a multiply-add is two."""
    model = _patchlight(shape, CONTENDERS[OURS]).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, shape.img_size, shape.img_size))
    return int(counter.get_total_flops()) * shape.batch


def step_flops(shape: Shape) -> int:
    """FLOPs of a training step: the backward pass is twice the forward pass."""
    return 3 * forward_flops(shape)
