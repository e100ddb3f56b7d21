"""Networks with their layers replaced by low-rank ones."""

import copy

import pytest
import torch
from helpers import BLOCKINGS, prune_network
from torch import nn

from lrp.decomposition.base import decompose
from lrp.layer.build import build, layer_matrices, replace_layer
from lrp.partition import cut
from lrp.selection.global_ import GlobalSelection


def test_sparsity_zero_is_bit_for_bit_dense(small_vgg):
    matrices = layer_matrices(small_vgg)
    x = torch.randn(2, 3, 32, 32).double()
    for blocking in BLOCKINGS.values():
        factors = decompose(matrices, cut(blocking, matrices))
        keep = GlobalSelection()([f.block for f in factors], [f.S for f in factors], 0)
        assert torch.equal(build(small_vgg, factors, keep)(x), small_vgg(x))


@pytest.mark.parametrize("blocking", BLOCKINGS.values(), ids=BLOCKINGS)
def test_a_network_may_lose_everything(small_vgg, blocking):
    """The paper's layer collapse: biases are left, nothing crashes, the original is untouched."""
    before = copy.deepcopy(small_vgg.state_dict())
    matrices = layer_matrices(small_vgg)
    factors = decompose(matrices, cut(blocking, matrices))
    pruned = build(small_vgg, factors, [torch.zeros(f.block.rank, dtype=bool) for f in factors])
    out = pruned(torch.randn(3, 3, 32, 32).double())
    assert torch.allclose(out, small_vgg.classifier.bias.expand(3, -1))
    assert not any(isinstance(m, nn.Conv2d) for m in pruned.modules())
    assert all(torch.equal(before[k], v) for k, v in small_vgg.state_dict().items())


def test_state_and_copies_round_trip(small_vgg):
    matrices = layer_matrices(small_vgg)
    factors = decompose(matrices, cut(BLOCKINGS["square"], matrices))
    keep = GlobalSelection()([f.block for f in factors], [f.S for f in factors], 0.7)
    pruned, x = build(small_vgg, factors, keep), torch.randn(2, 3, 32, 32).double()
    twin = copy.deepcopy(pruned)
    for parameter in twin.parameters():
        parameter.data.zero_()
    twin.load_state_dict(pruned.state_dict())
    assert torch.equal(twin(x), pruned(x))
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in small_vgg.parameters())


def test_replace_layer_keeps_encoders_open(encoder):
    """A dense layer put back in the place of a low-rank one is as good."""
    x = torch.randn(4, 5, 6).double()
    _, low = prune_network(encoder, x)
    for name, module in encoder.named_modules():
        if type(module) is nn.Linear:
            low = replace_layer(low, name, copy.deepcopy(module))
    assert torch.allclose(low(x), encoder(x))


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_equal_groups_at_one_rank_run_as_one_grouped_convolution(padding_mode):
    """As ALDS stores them; the layer is what its blocks give one by one, as they run while they train."""
    dense = nn.Sequential(nn.Conv2d(12, 10, 3, stride=2, padding=1, dilation=2, padding_mode=padding_mode)).double().eval()
    matrices = layer_matrices(dense)
    factors = decompose(matrices, cut(BLOCKINGS["alds"], matrices))
    keep = [torch.arange(f.block.rank) < 2 for f in factors]
    low, x = build(dense, factors, keep), torch.randn(3, 12, 9, 9).double()
    weight = torch.cat([f.U[:, :2] @ f.V[:2] for f in factors], 1).view_as(dense[0].weight)
    expected = copy.deepcopy(dense)
    expected[0].weight.data.copy_(weight)
    assert torch.allclose(low(x), expected(x)) and torch.allclose(low.train()(x), expected(x))
    graph = torch.export.export(low.eval(), (x,)).graph
    assert sum("conv2d" in str(node.target) for node in graph.nodes) == 2  # V of all groups, then U
    keep[0][2] = True
    graph = torch.export.export(build(dense, factors, keep).eval(), (x,)).graph
    assert sum("conv2d" in str(node.target) for node in graph.nodes) == len(factors) + 1
