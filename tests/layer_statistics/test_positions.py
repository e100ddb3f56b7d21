"""Which positions of a layer are looked at, and what each reads."""

import copy

import pytest
import torch
from helpers import measured
from torch import nn

from lrp.layer_statistics.positions import Positions, columns, inside


def test_positions_are_those_of_every_network(residual):
    """Another network of the same shape looks where this one does; each layer and each image somewhere else."""
    x = torch.randn(6, 3, 16, 16).double()
    other = copy.deepcopy(residual)
    for p in other.parameters():
        p.data.mul_(0.5)
    mine, theirs = (measured(model, x, "outputs", samples=30)[1] for model in (residual, other))
    assert all(torch.equal(mine[name].where, theirs[name].where) for name in mine)
    at = Positions({"a": 40, "b": 40, "few": 4}, 200, 1000)
    assert not torch.equal(at.of("a"), at.of("b")) and len({tuple(row.tolist()) for row in at.of("a")}) > 150
    assert at.of("few").tolist() == 200 * [[0, 1, 2, 3]]
    count = torch.bincount(at.of("a").flatten(), minlength=40)
    assert len(count) == 40 and int(count.min()) > 8 and int(count.max()) < 50  # 25 each, on average


@pytest.mark.parametrize(
    "options", [{"padding": 1}, {"padding": 1, "padding_mode": "circular"}, {"padding": (0, 2), "stride": 2, "groups": 2}]
)
def test_what_a_position_reads(options):
    layer, x = nn.Conv2d(4, 4, 3, **options).double(), torch.randn(1, 4, 3, 3).double() + 9
    positions = layer(x)[0, 0].numel()
    read = inside(layer, x, positions)
    assert torch.equal(read, columns(layer, x, torch.arange(positions)[None])[:, 0] != 0)
    assert bool(read.all()) == (options.get("padding_mode") == "circular")
