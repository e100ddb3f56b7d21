"""Networks without memory."""

import torch
from torch import nn

from lrp.model.unfilled import unfilled
from lrp.model.vgg16 import VGG16


def test_shapes_without_numbers():
    """As ordinary networks, with initialisations of torch's layers and of a network's own; afterwards all is as before."""
    with unfilled():
        network, layer = VGG16(width=0.125), nn.Linear(3, 4)
        nn.init.kaiming_uniform_(layer.weight)
    assert all(each.device.type == "meta" for each in [*network.parameters(), *layer.parameters()])
    assert [each.shape for each in network.parameters()] == [each.shape for each in VGG16(width=0.125).parameters()]
    assert torch.zeros(5).normal_().abs().sum() > 0
