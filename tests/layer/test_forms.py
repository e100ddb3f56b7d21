"""Tucker-2 and spatial layers of every kind of convolution against the dense layer with the reconstructed weight."""

import copy

import pytest
import torch
from torch import nn

import lrp
from lrp.errors import InputError
from lrp.layer.build import kind_of
from lrp.layer.spatial import SpatialConv2d, spatial_svd
from lrp.layer.spatial_pivoted import SpatialPivotedConv2d
from lrp.layer.tucker2 import Tucker2, Tucker2Conv1d, Tucker2Conv2d, balance_triple, hosvd

LAYERS = {
    "plain": (nn.Conv2d(6, 10, 3, padding=1), (6, 7, 6)),
    "stride, no bias": (nn.Conv2d(7, 12, 3, stride=2, bias=False), (7, 9, 8)),
    "rectangle, dilation": (nn.Conv2d(5, 20, (2, 3), stride=(2, 1), padding=(0, 2), dilation=(1, 2)), (5, 9, 7)),
    "same": (nn.Conv2d(6, 8, 4, padding="same", dilation=2), (6, 10, 9)),
    "valid": (nn.Conv2d(3, 8, 3, padding="valid"), (3, 6, 6)),
    "reflect": (nn.Conv2d(6, 8, 3, padding=(1, 2), padding_mode="reflect"), (6, 7, 8)),
    "replicate": (nn.Conv2d(6, 8, 3, stride=2, padding=2, padding_mode="replicate"), (6, 7, 8)),
    "circular, same": (nn.Conv2d(6, 8, (3, 4), padding="same", padding_mode="circular"), (6, 7, 8)),
    "grouped": (nn.Conv2d(8, 12, 3, padding=1, groups=2), (8, 6, 7)),
    "grouped, reflect": (nn.Conv2d(6, 24, (3, 2), padding=1, groups=3, padding_mode="reflect"), (6, 6, 5)),
    "1d": (nn.Conv1d(6, 10, 3, padding=1), (6, 11)),
    "1d, grouped, dilation, circular": (nn.Conv1d(8, 12, 3, padding=2, dilation=2, groups=4, padding_mode="circular"), (8, 10)),
}
TWO = [name for name, (layer, _) in LAYERS.items() if isinstance(layer, nn.Conv2d)]


def tucker2(dense, q=None, r=None):
    """Of a dense layer in float64 the Tucker-2 layer of the truncated higher-order SVD."""
    form = kind_of(dense).form(dense, "tucker2")
    q, r = q or dense.in_channels // dense.groups, r or dense.out_channels // dense.groups
    layer = form(dense, (q, r))
    layer.set_triples(hosvd(form.matrix_of(dense), dense.groups, dense.weight[0, 0].numel(), q, r))
    return layer


def spatial(dense, rank=None):
    most = min(dense.in_channels * dense.kernel_size[0], dense.out_channels * dense.kernel_size[1]) // dense.groups
    layer = SpatialConv2d(dense, rank or most)
    layer.set_pairs([spatial_svd(part, *dense.kernel_size, rank or most) for part in dense.weight.detach().flatten(1).chunk(dense.groups)])
    return layer


def check(layer, dense, x):
    """It runs as the dense layer with its weight, alone and in plain layers, and scales its rows."""
    twin = copy.deepcopy(dense)
    twin.weight.data.copy_(layer.weight_matrix().view_as(dense.weight))
    y = twin(x)
    assert torch.allclose(layer(x), y) and torch.allclose(layer(x[0]), y[0])
    assert layer.weight.shape == dense.weight.shape
    if not isinstance(plain := layer.plain_layers(), str):
        assert torch.allclose(nn.Sequential(*plain)(x), y)
    scale, shift = torch.randn(len(twin.weight)).double(), torch.randn(len(twin.weight)).double()
    layer.scale_rows(scale, shift)
    ones = [1] * (y.dim() - 2)
    assert torch.allclose(layer(x), y * scale.view(-1, *ones) + shift.view(-1, *ones))


@pytest.mark.parametrize("name", LAYERS)
def test_tucker2_runs_as_the_dense_layer(name):
    dense, shape = copy.deepcopy(LAYERS[name][0]).double(), LAYERS[name][1]
    x = torch.randn(2, *shape).double()
    assert torch.allclose(tucker2(dense)(x), dense(x))  # all ranks: nothing is lost
    check(tucker2(dense, 1, 2), dense, x)


@pytest.mark.parametrize("name", TWO)
def test_spatial_runs_as_the_dense_layer(name):
    dense, shape = copy.deepcopy(LAYERS[name][0]).double(), LAYERS[name][1]
    x = torch.randn(2, *shape).double()
    assert torch.allclose(spatial(dense)(x), dense(x))
    check(spatial(dense, 2), dense, x)
    assert isinstance(spatial(dense).plain_layers(), str) == (dense.padding_mode != "zeros")


@pytest.mark.parametrize("name", [name for name in TWO if LAYERS[name][0].groups == 1])
def test_pivoted_spatial_is_spatial_in_fewer_numbers(name):
    dense, shape = copy.deepcopy(LAYERS[name][0]).double(), LAYERS[name][1]
    x = torch.randn(2, *shape).double()
    for plain in (spatial(dense), spatial(dense, 2)):
        layer = SpatialPivotedConv2d(dense, plain.rank)
        layer.set_pairs([(U.double(), V.double()) for U, V in plain.pairs()])
        assert torch.allclose(layer(x), plain(x))
        held = [sum(p.numel() for n, p in each.named_parameters() if n != "bias") for each in (layer, plain)]
        assert held[0] == held[1] - plain.rank**2
        layer.check_loaded()
        check(layer, dense, x)


@pytest.mark.parametrize(
    "form, held", [("pivoted", 3), ("tucker2_pivoted", (3, 4)), ("spatial_pivoted", 3), ("tucker2", (3, 4)), ("spatial", 3)]
)
def test_images_stay_in_their_order(form, held):
    """In channels_last order or not, as the dense layer leaves them; what follows would be slower otherwise."""
    dense, x = nn.Conv2d(6, 10, 3, padding=1), torch.randn(2, 6, 7, 5)
    layer = kind_of(dense).form(dense, form)(dense, held).requires_grad_(False)
    for each in layer.parameters():
        each.normal_()
    for order in layer.buffers():
        order.copy_(torch.randperm(len(order)))
    _is_kept_by(layer, x)


def test_an_empty_layer_keeps_the_order_of_images():
    x = torch.randn(2, 6, 7, 5)
    empty = lrp.compress(nn.Sequential(nn.Conv2d(6, 10, 3, padding=1)), x, 1 - 1e-9, forms=["matrix"], compensation="none")[0][0]
    assert not [name for name, _ in empty.named_parameters() if name != "bias"]
    _is_kept_by(empty.requires_grad_(False), x)


def _is_kept_by(layer, x):
    y = layer(x)
    assert y.is_contiguous()
    last = layer(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last) and torch.allclose(last, y, atol=1e-5)


def test_factors_are_balanced():
    """Pair by pair: what belongs to one rank is as long on both sides, whatever lengths it had."""
    U, K, P = torch.randn(9, 4).double(), torch.randn(4, 3, 5).double(), torch.randn(3, 6).double()
    K[:, 2], U[:, 1] = 0, 0  # an input rank and an output rank that carry nothing
    stretched = (U * 1e3, K / 7, P * 1e-5)
    u, k, p = balance_triple(*stretched)
    whole = lambda U, K, P: torch.einsum("mr,rqk,qc->mck", U, K, P)  # noqa: E731
    assert torch.allclose(whole(u, k, p), whole(*stretched), rtol=1e-9, atol=1e-14)
    lengths = torch.stack([u.norm(dim=0), k.flatten(1).norm(dim=1)])[:, [0, 2, 3]]
    assert torch.allclose(lengths[0], lengths[1], rtol=1e-4)
    assert torch.allclose(p.norm(dim=1)[:2], k.transpose(0, 1).flatten(1).norm(dim=1)[:2], rtol=1e-4)
    layer = spatial(nn.Conv2d(4, 6, 3).double(), 3)
    assert torch.allclose(layer.U.transpose(0, 1).flatten(1).norm(dim=1), layer.V.flatten(1).norm(dim=1))


@pytest.mark.parametrize("name", ["plain", "grouped", "1d"])
def test_set_rank_of_tucker2(name):
    """Smaller: the truncated higher-order SVD; larger: the same function, with directions that learn at once."""
    dense, shape = copy.deepcopy(LAYERS[name][0]).double(), LAYERS[name][1]
    x = torch.randn(3, *shape).double()
    layer = tucker2(dense)
    layer.set_rank((2, 1))
    assert layer.ranks == (2, 1) and torch.allclose(layer(x), tucker2(dense, 2, 1)(x))
    y = layer(x)
    layer.set_rank((2, 3), generator=torch.Generator().manual_seed(0))
    assert layer.ranks == (2, 3) and torch.allclose(layer(x), y)
    layer(x).square().sum().backward()
    assert bool((layer.U.grad.view(len(layer.U), -1)[:, 1:] != 0).any())  # columns that are zero have a gradient
    layer.set_rank((2, 3), grow="svd")
    assert torch.allclose(layer(x), y)
    for ranks in ((0, 1), (1, 99), 3, (1, 2, 3), "ab", (1.5, 1)):
        with pytest.raises(InputError, match="^rank=.*a Tucker-2 layer needs two"):
            layer.set_rank(ranks)
    with pytest.raises(InputError, match="^grow=up: choose"):
        layer.set_rank((1, 1), grow="up")
    layer.U.data[0, 0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        layer.set_rank((1, 1))


def test_hold_rank_takes_a_pair():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 6, 3), nn.Linear(5, 4))
    lrp.hold_rank(model, {"0": (2, 4), "2": (3, 2), "3": 2})
    assert isinstance(model[0], Tucker2Conv2d) and isinstance(model[2], Tucker2Conv1d) and model[0].ranks == (2, 4)
    assert all(parameter.requires_grad for parameter in model.parameters())
    before = model[0].P
    lrp.hold_rank(model, {"0": (1, 4)})
    assert model[0].ranks == (1, 4) and model[0].P is not before
    drawn = lrp.hold_rank(nn.Sequential(nn.Conv2d(3, 8, 3)), {"0": (2, 4)}, init="glorot", generator=torch.Generator().manual_seed(1))
    assert isinstance(drawn[0], Tucker2) and float(drawn[0].K.detach().abs().max()) < 1
    for ranks, match in (
        ({"3": (1, 2)}, "^layer 3: "),
        ({"0": 3}, "^layer 0: rank=3: a Tucker-2 layer needs two"),
        ({"0": (9, 1)}, r"from \(1, 1\) to \(3, 8\)"),
    ):
        with pytest.raises(InputError, match=match):
            lrp.hold_rank(model, ranks)
    with pytest.raises(InputError, match="^layer 0: rank=.*has no Tucker-2 form; give one rank"):
        lrp.hold_rank(nn.Sequential(nn.Linear(3, 3)), {"0": (1, 1)})
