"""Layers whose blocks are cut in another order against the dense layer with the reconstructed weight."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from lrp.layer.build import kind_of
from lrp.layer.permuted import Permuted
from lrp.matrices import Block
from lrp.order import Order
from lrp.partition import check_partition, spans

LAYERS = {
    "linear": (nn.Linear(10, 7), (10,)),
    "convolution": (nn.Conv2d(10, 7, 3, padding=1, padding_mode="reflect"), (10, 5, 6)),
    "one dimension, no bias": (nn.Conv1d(10, 7, 2, stride=2, bias=False), (10, 9)),
}


def permuted(dense, side, ranks=(2, None)):
    """Two blocks, of which one is whole."""
    kernel = dense.weight[0, 0].numel()
    channels, rows = torch.randperm(10).tolist(), torch.randperm(7).tolist()
    if side == "inputs":
        order, cuts = Order(tuple(channels), kernel), [(0, 7, a * kernel, b * kernel) for a, b in spans(10, 2)]
    else:
        order, cuts = (
            Order(tuple(channels) if side == "both" else None, kernel, tuple(rows)),
            [(a, b, 0, 10 * kernel) for a, b in spans(7, 2)],
        )
    blocks = [Block("layer", i, *cut, order=order) for i, cut in enumerate(cuts)]
    layer = kind_of(dense).low_rank(dense, list(zip(blocks, ranks)))
    layer.initialise()
    if dense.bias is not None:
        nn.init.normal_(layer.bias)
    return layer, blocks


@pytest.mark.parametrize("side", ["inputs", "outputs", "both"])
@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_it_runs_as_the_dense_layer_with_its_weight(name, side):
    torch.manual_seed(0)
    dense, shape = LAYERS[name][0].double(), LAYERS[name][1]
    x = torch.randn(3, *shape).double()
    layer, blocks = permuted(dense, side)
    assert isinstance(layer, Permuted) and layer.form == "permuted"
    check = lambda: copy.deepcopy(dense)  # noqa: E731
    twin = check()
    twin.weight.copy_(layer.weight_matrix().view_as(dense.weight))
    if dense.bias is not None:
        twin.bias.copy_(layer.bias)
    y = twin(x)
    assert torch.allclose(layer(x), y)
    for block, (_, rank) in zip(blocks, layer.blocks):
        if rank is not None:
            assert torch.linalg.matrix_rank(block.of(layer.weight_matrix())) == rank
    scale, shift = torch.randn(2, 7).double()
    ones = [1] * (len(shape) - 1)
    order = torch.randperm(7)
    if layer.reorder_rows(order):
        y = y[:, order]
    assert torch.allclose(layer(x), y)
    layer.scale_rows(scale, shift)
    assert torch.allclose(layer(x), y * scale.view(-1, *ones) + shift.view(-1, *ones))
    before = layer.weight_matrix()
    layer.set_rank(3 if side != "inputs" else 5, "svd")  # of what has a lower rank, and of what is whole
    if side == "inputs":
        assert torch.allclose(layer.weight_matrix(), before, atol=1e-9) or layer.blocks[1][0].rank > 5
    assert layer(x).shape == y.shape


def test_a_wrong_order_is_refused():
    dense = nn.Linear(4, 3)
    matrix = kind_of(dense).matrix("a", dense)
    blocks = [Block("a", 0, 0, 3, 0, 2, order=Order((0, 1, 2, 2))), Block("a", 1, 0, 3, 2, 4, order=Order((0, 1, 2, 2)))]
    with pytest.raises(ValueError, match="order of its channels"):
        check_partition({"a": matrix}, blocks)
    mixed = [replace(blocks[0], order=Order((0, 1, 3, 2))), replace(blocks[1], order=None)]
    with pytest.raises(ValueError, match="different orders"):
        check_partition({"a": matrix}, mixed)
    layer = kind_of(dense).low_rank(dense, [(replace(block, order=Order((3, 1, 0, 2))), 1) for block in blocks])
    layer.order[0] = 1
    with pytest.raises(ValueError, match="order"):
        layer.check_loaded()
    with pytest.raises(ValueError, match="orders are"):
        type(layer).held(matrix, {"blocks": [], "orders": "x"})
