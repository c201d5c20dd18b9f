"""ResNets for small images, the convolutional baselines (He et al. 2016: section 4.2's stem, table 1's 18 layers).

torchvision's names, but a 3x3 first convolution of stride 1 and no max-pool, so that small images keep their size.
Shapes: B batch, C channels, H W pixels, K classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, (B, C, H, W) -> (B, C', H / stride, W / stride)."""

    def __init__(self, in_chans: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_chans != width:
            self.downsample = nn.Sequential(nn.Conv2d(in_chans, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class ResNet(nn.Module):
    """(B, C, H, W) -> logits (B, K)."""

    def __init__(
        self,
        *,
        img_size: int = 32,
        in_chans: int = 3,
        num_classes: int = 10,
        layers: tuple[int, ...] = (2, 2, 2, 2),
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.img_size, self.num_classes = img_size, num_classes
        self.conv1 = nn.Conv2d(in_chans, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        width = 64
        for number, depth in enumerate(layers, start=1):
            blocks = []
            for i in range(depth):
                stride = 2 if number > 1 and i == 0 else 1
                blocks.append(BasicBlock(width, 64 * 2 ** (number - 1), stride))
                width = 64 * 2 ** (number - 1)
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.layers = [f"layer{number}" for number in range(1, len(layers) + 1)]
        self.head_drop = nn.Dropout(drop_rate)
        self.fc = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for name in self.layers:
            x = self.get_submodule(name)(x)
        return self.fc(self.head_drop(x.mean(dim=(2, 3))))
