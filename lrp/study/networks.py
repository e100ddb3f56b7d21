"""The networks that studies train from scratch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from lrp.errors import InputError
from lrp.model.resnet20 import ResNet20
from lrp.model.vgg16 import VGG16


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


class LeNet300100(nn.Module):
    """Linear 300 - ReLU - Linear 100 - ReLU - Linear (classes) on the 28 x 28 pixels in the middle of images (B, C, 32, 32), the size of
    MNIST before it was padded: 266,200 weights for one channel and ten classes (LeCun et al., 1998). Glorot's normal initialisation,
    biases 0."""

    def __init__(self, in_channels: int = 1, num_classes: int = 10) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(28 * 28 * in_channels, 300)
        self.hidden2 = nn.Linear(300, 100)
        self.classifier = nn.Linear(100, num_classes)
        for layer in (self.hidden1, self.hidden2, self.classifier):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_channels, 32, 32) to logits (B, num_classes)."""
        x = torch.flatten(x[:, :, 2:30, 2:30], 1)
        return self.classifier(torch.relu(self.hidden2(torch.relu(self.hidden1(x)))))


NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "lenet_300_100": LeNet300100,
    "resnet20": ResNet20,
    "vgg16": VGG16,
    "vgg16_slim": partial(VGG16, width=0.125),
}


def check_network(name: object) -> None:
    """Check the name of a network that a study is to train.

    Raises:
        InputError: For one that there is not.
    """
    if name not in NETWORKS:
        raise InputError("study.network", name, f"choose one of {', '.join(NETWORKS)}")
