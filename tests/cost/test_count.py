"""What is counted as multiply-accumulates against what torch counts."""

import subprocess
import sys

import pytest
import torch
from helpers import BLOCKINGS, given_network, prepared
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lrp.cost import count
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


NETWORKS = {
    "strided and grouped": (lambda: nn.Sequential(nn.Conv2d(4, 8, 3, 2, groups=2), nn.ReLU(), nn.ConvTranspose2d(8, 3, 3)), (1, 4, 9, 9)),
    "encoder": (lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), (1, 7, 16)),
    "attention alone": (lambda: Attention(), (1, 5, 8)),
    "recurrent": (lambda: nn.LSTM(8, 16, 2, bidirectional=True, batch_first=True), (1, 9, 8)),
}


class Attention(nn.Module):
    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_it_counts_as_torch_does(name, monkeypatch):
    """With values and without them."""
    make, shape = NETWORKS[name]
    model, x = make().eval(), torch.randn(shape)
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mkldnn_rnn_layer: count._recurrent_flops}) as counter:
        model.to("meta").requires_grad_()(x.to("meta"))
    assert counter.get_total_flops() == 2 * count.count_macs(make(), x) > 0
    monkeypatch.setattr(count, "SMALL", -1)
    assert counter.get_total_flops() == 2 * count.count_macs(make(), x)


@pytest.mark.slow
def test_counting_does_not_load_the_compiler():
    """Which takes as long as the rest of a small run."""
    script = "import sys, torch, lrp.cost.count as c; print(c.count_macs(torch.nn.Conv2d(2, 3, 3), torch.zeros(1, 2, 4, 4))); "
    done = subprocess.run([sys.executable, "-c", script + "print('torch._dynamo' in sys.modules)"], capture_output=True, text=True)
    assert done.stdout.split() == ["216", "False"], done.stderr
