"""Small ViTs of three libraries, with weights that are far from their start so that attention is not uniform."""

from __future__ import annotations

import timm
import torch
import transformers
from torch import nn

from patchlight.models import VisionTransformer

SHAPE = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}
HF_SHAPE = {
    "image_size": 16,
    "patch_size": 4,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 48,
    "num_labels": 5,
}


def stirred(model: nn.Module) -> nn.Module:
    """In float64, eval mode, its parameters moved by noise of a fixed seed."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=draw) * 0.2)
    return model.double().eval()


def ours(**options) -> VisionTransformer:
    torch.manual_seed(0)
    return stirred(VisionTransformer(**{**SHAPE, **options}))


def of_timm(**options) -> nn.Module:
    torch.manual_seed(0)
    return stirred(timm.models.VisionTransformer(**{**SHAPE, **options}))


def of_hugging_face(kind: str = "ViT", **options) -> nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**HF_SHAPE, **options})
    return stirred(getattr(transformers, f"{kind}ForImageClassification")(config))


VITS = {
    "ours": ours,
    "ours, registers, mean": lambda: ours(global_pool="avg", reg_tokens=2),
    "ours, sequence pooling": lambda: ours(global_pool="seq"),
    "ours, conv stem": lambda: ours(stem="conv", global_pool="avg", qk_norm=True),
    "timm": of_timm,
    "timm, registers": lambda: of_timm(reg_tokens=4, qk_norm=True),
    "timm, mean": lambda: of_timm(global_pool="avg", class_token=False),
    "timm, not square": lambda: of_timm(img_size=(16, 24)),
    "Hugging Face ViT": of_hugging_face,
    "Hugging Face DeiT": lambda: of_hugging_face("DeiT"),
    "Hugging Face BEiT": lambda: of_hugging_face("Beit", use_absolute_position_embeddings=True),
    "Hugging Face I-JEPA": lambda: of_hugging_face("IJepa"),
    "Hugging Face DINOv2": lambda: of_hugging_face("Dinov2"),
    "Hugging Face DINOv2, registers": lambda: of_hugging_face("Dinov2WithRegisters", num_register_tokens=3),
}


def images_for(name: str, count: int = 3, seed: int = 2) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    size = (16, 24) if "not square" in name else (16, 16)
    return torch.randn(count, 3, *size, generator=draw, dtype=torch.float64)
