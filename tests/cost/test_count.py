"""What is counted as multiply-accumulates against what torch counts."""

import pytest
import torch
from helpers import BLOCKINGS, given_network, prepared

from lrp.cost.count import _count, block_macs, count_macs, layers_macs
from lrp.layer.build import build
from lrp.matrices import Block, LayerMatrix


def random_masks(blocks, share, seed):
    generator = torch.Generator().manual_seed(seed)
    keep = [torch.rand(b.rank, generator=generator) < share for b in blocks]
    return [torch.ones_like(mask) if block.is_dense(int(mask.sum())) else mask for block, mask in zip(blocks, keep)]


@pytest.fixture(params=["narrow_vgg", "residual", "depthwise", "tokens"])
def network(request):
    return given_network(request, 1)


@pytest.mark.slow
@pytest.mark.parametrize("blocking", BLOCKINGS.values(), ids=BLOCKINGS)
def test_macs_are_those_that_torch_counts(network, blocking):
    model, x = network
    candidates, blocks, factors = prepared(model, x, blocking)
    dense = sum(candidates.positions[name] * m.weight.numel() for name, m in candidates.matrices.items())
    rest = count_macs(model, x) - dense  # of what is not compressed
    assert sum(layers_macs(candidates, blocks, [torch.ones(b.rank, dtype=bool) for b in blocks]).values()) == dense
    for seed, share in enumerate((0.0, 0.15, 0.5)):
        keep = random_masks(blocks, share, seed)
        assert count_macs(build(model, factors, keep), x) - rest == sum(layers_macs(candidates, blocks, keep).values())


def test_zero_filling_is_counted():
    """5 columns from the fourth on touch three channels of 3 entries: 9 run."""
    matrix = LayerMatrix("a", torch.empty(4, 12), 3)
    assert block_macs(Block("a", 0, 0, 4, 4, 10), None, matrix, 7) == 7 * 4 * 9
    assert block_macs(Block("a", 0, 0, 4, 4, 10), 2, matrix, 7) == 7 * 2 * (4 + 9)
    assert block_macs(Block("a", 0, 0, 4, 3, 9), 2, matrix, 7) == 7 * 2 * (4 + 6)


def test_recurrent_networks_count_alike_with_and_without_values():
    network, x = torch.nn.LSTM(5, 7, 2, bidirectional=True), torch.randn(3, 2, 5)
    assert _count(network, x, "meta") == _count(network, x, "cpu") == 3 * 2 * 2 * (4 * 7 * (5 + 7) + 4 * 7 * (14 + 7))
