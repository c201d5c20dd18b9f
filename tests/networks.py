"""Small networks of three libraries that are no plain ViT: convolutions, hierarchies, mixers."""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.resnet import BasicBlock

from patchlight.models import ResNet


def alive(model: nn.Module) -> nn.Module:
    """In float64 and eval mode, its weights moved by noise, so that no head is zero, and its statistics not those of
    the start.
    """
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=draw) * 0.03)
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.add_(torch.randn(b.shape, generator=draw) * 0.1)
    return model.double().eval()


class Vgg(nn.Module):
    """As torchvision's, with a small head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torchvision.models.vgg.make_layers(
            [8, "M", 16, "M", 16, "M", 24, "M", 24, "M"], batch_norm=True
        )
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(nn.Linear(24 * 49, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def of_timm(name: str, **options) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=5, **options)


def of_torchvision(name: str, **options) -> Callable[[], nn.Module]:
    return lambda: getattr(torchvision.models, name)(weights=None, num_classes=5, **options)


def of_hugging_face(kind: str, **options) -> Callable[[], nn.Module]:
    config = getattr(transformers, f"{kind}Config")
    return lambda: getattr(transformers, f"{kind}ForImageClassification")(config(num_labels=5, **options))


CONVNEXT = {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 24)}
SWIN = {"img_size": 64, "embed_dim": 12, "depths": (1, 1, 2), "num_heads": (1, 2, 4), "window_size": 4}
HF_SWIN = {
    "image_size": 64,
    "embed_dim": 12,
    "depths": [1, 1, 2],
    "num_heads": [1, 2, 4],
    "window_size": 4,
}

# The network, and of images of its size the name of the last layer of more than one cell, and its cells a side.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "ours resnet18": (lambda: ResNet(num_classes=5, layers=(1, 1, 1, 1)), "layer4", 4),
    "timm resnet": (of_timm("resnet10t", channels=(8, 12, 16, 24)), "layer4", 2),
    "timm bottlenecks": (of_timm("resnet14t", channels=(8, 12, 16, 24)), "layer4", 2),
    "timm convnext": (of_timm("convnext_atto", **CONVNEXT), "norm_pre", 2),
    "timm convnextv2": (of_timm("convnextv2_atto", **CONVNEXT), "norm_pre", 2),
    "timm efficientnet": (of_timm("test_efficientnet"), "bn2", 2),
    "timm mobilenetv3": (of_timm("mobilenetv3_small_050"), "blocks", 2),
    "timm mobilenetv4": (of_timm("mobilenetv4_conv_small_035"), "blocks", 2),
    "timm regnet": (of_timm("regnety_002"), "final_conv", 2),
    "timm poolformer": (
        lambda: timm.models.MetaFormer(depths=(1, 1, 1, 1), dims=(8, 12, 16, 24), num_classes=5),
        "stages",
        2,
    ),
    "timm swin": (of_timm("swin_tiny_patch4_window7_224", **SWIN), "norm", 4),
    "timm swinv2": (of_timm("swinv2_tiny_window8_256", **SWIN), "norm", 4),
    "timm pvt": (
        of_timm("pvt_v2_b0", depths=(1, 1, 1, 1), embed_dims=(8, 16, 16, 24), num_heads=(1, 2, 2, 4)),
        "stages",
        2,
    ),
    "timm maxvit": (of_timm("test_maxvit", img_size=64), "norm", 2),
    "timm hiera": (of_timm("hiera_tiny_224", img_size=64, embed_dim=24, stages=(1, 1, 1, 1)), "blocks.3", 2),
    "timm mixer": (
        lambda: timm.models.MlpMixer(img_size=64, patch_size=16, num_blocks=2, embed_dim=24, num_classes=5),
        "norm",
        4,
    ),
    "torchvision resnet": (lambda: torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5), "layer4", 2),
    "torchvision vgg": (Vgg, "features", 2),
    "torchvision densenet": (
        lambda: torchvision.models.DenseNet(4, (1, 1, 1), num_init_features=8, num_classes=5),
        "features",
        4,
    ),
    "torchvision mobilenet": (of_torchvision("mobilenet_v2", width_mult=0.25), "features", 2),
    "torchvision efficientnet": (
        lambda: torchvision.models.EfficientNet(
            [MBConvConfig(1, 3, 1, 8, 8, 1, 1, 1), MBConvConfig(4, 3, 2, 8, 12, 1, 1, 1)], 0.1, num_classes=5
        ),
        "features",
        16,
    ),
    "torchvision convnext": (
        lambda: ConvNeXt(
            [CNBlockConfig(8, 12, 1), CNBlockConfig(12, 16, 1), CNBlockConfig(16, None, 1)], num_classes=5
        ),
        "features",
        4,
    ),
    "torchvision swin": (
        lambda: torchvision.models.SwinTransformer([4, 4], 12, [1, 1, 2], [1, 2, 4], [4, 4], num_classes=5),
        "permute",
        4,
    ),
    "torchvision vit": (
        lambda: torchvision.models.VisionTransformer(64, 16, 2, 2, 24, 48, num_classes=5),
        "encoder.layers.encoder_layer_1.ln_1",
        4,
    ),
    "Hugging Face swin": (of_hugging_face("Swin", **HF_SWIN), "swin.layernorm", 4),
    "Hugging Face swinv2": (of_hugging_face("Swinv2", **HF_SWIN), "swinv2.layernorm", 4),
    "Hugging Face convnext": (
        of_hugging_face("ConvNext", hidden_sizes=[8, 12], depths=[1, 1], num_stages=2),
        "convnext.encoder.stages.1",
        8,
    ),
    "Hugging Face resnet": (
        of_hugging_face("ResNet", embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1]),
        "resnet.encoder.stages.1",
        8,
    ),
}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return alive(NETWORKS[name][0]())


def size_of(name: str) -> int:
    """Pixels a side: ours keeps their number in its first stage."""
    return 32 if name.startswith("ours") else 64


def pictures_for(name: str, count: int = 2) -> Tensor:
    return pictures(size_of(name), count)


def pictures(size: int | tuple[int, int] = 64, count: int = 2, seed: int = 4) -> Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, height, width, generator=draw, dtype=torch.float64)
