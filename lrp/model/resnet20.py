"""ResNet-20 for 32 x 32 images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lrp.errors import check_float, check_int


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm and a shortcut: the input itself, or a 1 x 1 convolution with batch norm."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + shortcut)


class ResNet20(nn.Module):
    """He et al. 2016, section 4.2, n = 3: a 3 x 3 stem, three stages of three basic blocks with 16, 32 and 64 channels, global
    average pooling, one Linear. The shortcuts of the second and third stage are 1 x 1 convolutions.

    Input (B, in_channels, 32, 32), output logits (B, num_classes). ``width`` multiplies every number of channels.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, width: float = 1.0) -> None:
        check_float("model.width", width, above=0)
        check_int("model.in_channels", in_channels, 1)
        check_int("model.num_classes", num_classes, 1)
        super().__init__()
        first, second, third = (max(1, round(channels * width)) for channels in (16, 32, 64))
        self.conv1 = nn.Conv2d(in_channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = _stage(first, first, 1)
        self.layer2 = _stage(first, second, 2)
        self.layer3 = _stage(second, third, 2)
        self.fc = nn.Linear(third, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_channels, 32, 32) to logits (B, num_classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def _stage(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(in_channels, channels, stride), BasicBlock(channels, channels, 1), BasicBlock(channels, channels, 1))
