"""Small models with weights of chance in the hubs' own formats, written by timm and transformers themselves."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import timm
import torch
import transformers

SIZE = 32


def save_timm(folder: Path, architecture: str = "vit_tiny_patch16_224", **options) -> Path:
    """timm's folder: config.json with the architecture, model.safetensors."""
    torch.manual_seed(0)
    if architecture.startswith("vit"):
        options = {"img_size": SIZE, "patch_size": 4, "embed_dim": 24, "depth": 12, "num_heads": 3, **options}
    model = timm.create_model(architecture, num_classes=7, **options)
    model.pretrained_cfg |= {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "input_size": (3, SIZE, SIZE)}
    timm.models.save_for_hf(model, folder, model_args=options, safe_serialization=True)
    return folder


def save_hugging_face(folder: Path, kind: str = "ViT", classifier: bool = True, **options) -> Path:
    """Hugging Face's folder: config.json with the model type, model.safetensors, preprocessor_config.json."""
    torch.manual_seed(0)
    options = {
        "image_size": SIZE,
        "patch_size": 4,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 48,
        **options,
    }
    config = getattr(transformers, f"{kind}Config")(num_labels=7, **options)
    suffix = {"ViTMAE": "ForPreTraining"}.get(kind, "ForImageClassification" if classifier else "Model")
    model = getattr(transformers, f"{kind}{suffix}")(config)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        model.save_pretrained(folder)
    size = {"height": options["image_size"], "width": options["image_size"]}
    processor = transformers.ViTImageProcessor(size=size, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    processor.save_pretrained(folder)
    return folder


SAVED = {"timm": save_timm, "huggingface": save_hugging_face}
