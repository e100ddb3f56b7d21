"""VGG16 with batch norm for 32 x 32 images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lrp.errors import check_float, check_int

CHANNELS = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


class VGG16(nn.Module):
    """Simonyan and Zisserman's configuration D with batch norm and one Linear, for images of 32 x 32 pixels.

    Input (B, in_channels, 32, 32), output logits (B, num_classes). ``width`` multiplies every number of channels.
    Keys: ``features.<i>`` (convolution, batch norm, ReLU, ... as one Sequential) and ``classifier``.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, width: float = 1.0) -> None:
        check_float("model.width", width, above=0)
        check_int("model.in_channels", in_channels, 1)
        check_int("model.num_classes", num_classes, 1)
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for entry in CHANNELS:
            if entry == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            out = max(1, round(entry * width))
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            channels = out
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_channels, 32, 32) to logits (B, num_classes)."""
        return self.classifier(torch.flatten(self.features(x), 1))
