"""Small networks that are trained at low rank: of figures 1 and 2 and of the simplicity bias."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OneHidden(nn.Sequential):
    """Linear (hidden) - ReLU - Linear (classes) on flattened images: the smallest network that has a last hidden layer."""

    def __init__(self, inputs: int, dim: int, num_classes: int = 10) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.hidden = nn.Linear(inputs, dim)
        self.relu = nn.ReLU()
        self.classifier = nn.Linear(dim, num_classes)


class SwitchNet(nn.Module):
    """The network of figure 2: four 3 x 3 convolutions (64, 128, 256, 512, padding 1) with ReLU and 2 x 2 pooling, the maximum
    after the first three and the average after the last; Linear 256 with ReLU; Linear 10. ``width`` multiplies all of these
    but the classes. Images are (B, C, 32, 32)."""

    def __init__(self, in_channels: int = 3, num_classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        channels = [max(1, round(width * c)) for c in (64, 128, 256, 512)]
        layers: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(zip([in_channels, *channels], channels)):
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2) if i < 3 else nn.AvgPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(4 * channels[-1], max(1, round(width * 256)))
        self.classifier = nn.Linear(self.hidden.out_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_channels, 32, 32) to logits (B, num_classes)."""
        x = torch.flatten(self.features(x), 1)
        return self.classifier(torch.relu(self.hidden(x)))
