"""What every kind of layer says about itself agrees with what torch's layer computes."""

import copy

import pytest
import torch
from torch import nn

from lrp.blocking.alds import AldsBlocking
from lrp.decomposition.base import decompose
from lrp.layer.build import find_kind, kind_of, low_rank_layer, unsupported
from lrp.layer_statistics.positions import columns, outputs
from lrp.partition import cut

LAYERS = {
    "linear": (nn.Linear(7, 5), (7,)),
    "linear over tokens": (nn.Linear(6, 9, bias=False), (2, 4, 6)),
    "1d": (nn.Conv1d(6, 8, 3, stride=2, padding=1, groups=2), (6, 9)),
    "2d": (nn.Conv2d(4, 6, (3, 2), padding="same", dilation=2), (4, 7, 6)),
    "2d, circular": (nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode="circular", bias=False), (4, 7, 6)),
    "1d, transposed": (nn.ConvTranspose1d(6, 8, 3, stride=2, padding=1, output_padding=1, groups=2), (6, 9)),
    "2d, transposed": (nn.ConvTranspose2d(4, 6, (3, 2), stride=(1, 3), padding=(3, 0), dilation=2, bias=False), (4, 7, 6)),
}


@pytest.fixture(params=LAYERS)
def case(request):
    """(layer, its kind, x, its output without the bias)"""
    layer, shape = LAYERS[request.param]
    layer = copy.deepcopy(layer).double().requires_grad_(False)
    bare = copy.deepcopy(layer)
    bare.bias = None
    x = torch.randn(3, *shape, dtype=torch.float64)
    return layer, kind_of(layer), x, bare(x)


def test_columns_times_the_matrix_are_the_outputs(case):
    layer, kind, x, z = case
    matrix = kind.matrix("", layer)
    count = kind.positions(layer, z[:1])
    where = torch.arange(count).expand(len(x), count)
    read, gives = columns(layer, x, where), outputs(layer, z, where)
    rows = matrix.weight.view(matrix.groups, -1, matrix.shape[1])
    assert torch.allclose(torch.einsum("sgn,gmn->sgm", read, rows).flatten(1), gives)
    assert gives.shape == (len(x) * count, kind.rows(layer)) and kind.rows(layer) == matrix.shape[0]
    assert torch.equal(kind.features_last(z).reshape(gives.shape), gives)


def test_components_add_up_to_the_output(case):
    layer, kind, x, z = case
    matrices = {"": kind.matrix("", layer)}
    total = torch.zeros_like(z)
    for factor in decompose(matrices, cut(AldsBlocking(2), matrices)):
        block = factor.block
        rows = torch.zeros(len(factor.S), kind.rows(layer), dtype=torch.float64)
        rows[:, block.rows] = factor.U.T
        inner = kind.inner_values(layer, *kind.inner_filters(layer, block, factor.V), x)
        each = kind.outer_products(inner, rows)
        assert each.shape == (len(factor.S), *z.shape)
        total += each.sum(0)
    assert torch.allclose(total, z)


def test_rows_are_set_and_scaled(case):
    layer, kind, x, z = case
    scale, shift = torch.rand(2, kind.rows(layer), dtype=torch.float64)
    before = layer(x)
    low = low_rank_layer(layer, *_halved(layer, kind))
    for module, expected in ((copy.deepcopy(layer), before), (copy.deepcopy(low), low(x))):
        assert kind.foldable(module) and kind.rows(module) == kind.rows(layer) and find_kind(module) is kind
        kind.scale_rows(module, scale, shift)
        expected = kind.features_last(expected) * scale + shift
        assert torch.allclose(kind.features_last(module(x)), expected)
    span = slice(1, 3)
    kind.set_rows(layer, span, torch.zeros_like(kind.matrix("", layer).weight[span]))
    assert not kind.matrix("", layer).weight[span].any() and bool(kind.matrix("", layer).weight[0].any())


def _halved(layer, kind):
    matrices = {"": kind.matrix("", layer)}
    factors = decompose(matrices, cut(AldsBlocking(1), matrices))
    return factors, [torch.arange(len(factor.S)) < 1 for factor in factors]


class Scaled(nn.Linear):
    """May compute something else than a Linear does."""


class Doubled(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    ("layer", "reason", "known", "foldable"),
    [
        (nn.Linear(3, 2), None, True, True),
        (nn.Conv2d(4, 4, 3, groups=4), "depthwise", True, True),
        (nn.Conv3d(2, 3, 1), "type not supported (Conv3d)", True, True),
        (Scaled(3, 2), "type not supported (Scaled)", True, False),
        (nn.utils.weight_norm(nn.Linear(3, 2)), "its weight is computed from other parameters", True, False),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), "its weight is computed from other parameters", True, False),
        (nn.ConvTranspose3d(2, 3, 1), "type not supported (ConvTranspose3d)", True, True),
        (Doubled(3, 2), "a subclass of Linear with a forward of its own (Doubled)", True, False),
        (nn.Bilinear(4, 2, 3), "type not supported (Bilinear)", False, False),
    ],
)
def test_what_cannot_be_compressed(layer, reason, known, foldable):
    kind = find_kind(layer)
    assert unsupported(layer) == reason and (kind is not None) == known
    assert kind is None or kind.foldable(layer) == foldable
