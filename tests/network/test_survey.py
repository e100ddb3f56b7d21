"""What a network's candidates are."""

import torch
from torch import nn

from lrp.network.survey import find_candidates


def test_layers_come_in_the_order_in_which_they_run():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(4, 3), nn.Linear(5, 4)

        def forward(self, x):
            return self.last(self.first(x))

    assert list(find_candidates(Backwards(), torch.randn(1, 5)).matrices) == ["first", "last"]
