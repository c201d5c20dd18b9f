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


TEXT_SHAPE = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 20,
    "max_position_embeddings": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def backbone(name: str, *, pooled: bool | None = None, **options) -> nn.Module:
    """A model of Hugging Face without a head, `pooled` or not where that is to be chosen."""
    torch.manual_seed(0)
    cls = getattr(transformers, name)
    shape = {key: value for key, value in HF_SHAPE.items() if key != "num_labels"}
    config = cls.config_class(**{**shape, **options})
    return stirred(cls(config) if pooled is None else cls(config, add_pooling_layer=pooled))


def two_towers(kind: str, part: str = "Model") -> nn.Module:
    """CLIP or its like: both towers, or as a classifier the one for images."""
    torch.manual_seed(0)
    shape = {key: value for key, value in HF_SHAPE.items() if key != "num_labels"}
    config = getattr(transformers, f"{kind}Config")(
        text_config=TEXT_SHAPE, vision_config=shape, projection_dim=16, num_labels=HF_SHAPE["num_labels"]
    )
    return stirred(getattr(transformers, f"{kind}{part}")(config))


VITS = {
    "ours": ours,
    "ours, registers, mean": lambda: ours(global_pool="avg", reg_tokens=2),
    "ours, sequence pooling": lambda: ours(global_pool="seq"),
    "ours, conv stem": lambda: ours(stem="conv", global_pool="avg", qk_norm=True),
    "timm": of_timm,
    "timm, registers": lambda: of_timm(reg_tokens=4, qk_norm=True),
    "timm, mean": lambda: of_timm(global_pool="avg", class_token=False),
    "timm, not square": lambda: of_timm(img_size=(16, 24)),
    "timm, attention pooling": lambda: of_timm(global_pool="map", class_token=False),
    "timm, the mean of all tokens": lambda: of_timm(global_pool="avg", pool_include_prefix=True, reg_tokens=1),
    "Hugging Face ViT": of_hugging_face,
    "Hugging Face DeiT": lambda: of_hugging_face("DeiT"),
    "Hugging Face BEiT": lambda: of_hugging_face("Beit", use_absolute_position_embeddings=True),
    "Hugging Face I-JEPA": lambda: of_hugging_face("IJepa"),
    "Hugging Face DINOv2": lambda: of_hugging_face("Dinov2"),
    "Hugging Face DINOv2, registers": lambda: of_hugging_face("Dinov2WithRegisters", num_register_tokens=3),
    "Hugging Face CLIP": lambda: two_towers("CLIP", "ForImageClassification"),
    "Hugging Face SigLIP": lambda: two_towers("Siglip", "ForImageClassification"),
}

# Without a head, of Hugging Face and timm: features, and attention that can be seen.
BACKBONES = {
    "ViT": lambda: backbone("ViTModel", pooled=True),
    "ViT, not pooled": lambda: backbone("ViTModel", pooled=False),
    "DeiT": lambda: backbone("DeiTModel", pooled=False),
    "BEiT": lambda: backbone("BeitModel"),
    "BEiT, CLS token": lambda: backbone("BeitModel", use_mean_pooling=False, use_relative_position_bias=True),
    "MSN": lambda: backbone("ViTMSNModel"),
    "MAE": lambda: backbone("ViTMAEModel"),
    "I-JEPA": lambda: backbone("IJepaModel"),
    "I-JEPA, pooled": lambda: backbone("IJepaModel", pooled=True),
    "DINOv2": lambda: backbone("Dinov2Model"),
    "DINOv2, registers": lambda: backbone("Dinov2WithRegistersModel", num_register_tokens=2),
    "DINOv2, no classes": lambda: of_hugging_face("Dinov2", num_labels=0),
    "DINOv3": lambda: backbone("DINOv3ViTModel", num_register_tokens=2, num_attention_heads=2),
    "CLIP": lambda: backbone("CLIPVisionModel"),
    "CLIP, projected": lambda: backbone("CLIPVisionModelWithProjection", projection_dim=16),
    "CLIP, both towers": lambda: two_towers("CLIP"),
    "MetaCLIP 2": lambda: backbone("MetaClip2VisionModelWithProjection", projection_dim=16),
    "AltCLIP": lambda: backbone("AltCLIPVisionModel"),
    "Chinese CLIP": lambda: backbone("ChineseCLIPVisionModel"),
    "SigLIP": lambda: backbone("SiglipVisionModel"),
    "SigLIP, no head": lambda: backbone("SiglipVisionModel", vision_use_head=False),
    "SigLIP, both towers": lambda: two_towers("Siglip"),
    "timm": lambda: of_timm(num_classes=0),
    "timm, registers": lambda: of_timm(num_classes=0, reg_tokens=2, global_pool="avg"),
    "timm, attention pooling": lambda: of_timm(num_classes=0, global_pool="map", class_token=False),
}


def images_for(name: str, count: int = 3, seed: int = 2) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    size = (16, 24) if "not square" in name else (16, 16)
    return torch.randn(count, 3, *size, generator=draw, dtype=torch.float64)
