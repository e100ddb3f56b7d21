"""Low-rank layers of every kind against the dense layer with the reconstructed weight."""

import copy

import pytest
import torch
from helpers import BLOCKINGS
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import blockings
from torch import nn

from lrp.cost.count import stored_params
from lrp.decomposition.base import decompose
from lrp.layer.base import LowRank
from lrp.layer.build import kind_of, layer_matrices, low_rank_layer
from lrp.partition import cut

LAYERS = {
    "plain": (nn.Conv2d(6, 10, 3, padding=1), (6, 9, 9)),
    "stride, no bias": (nn.Conv2d(7, 12, 3, stride=2, bias=False), (7, 9, 8)),
    "rectangle, dilation": (nn.Conv2d(5, 40, (1, 3), stride=(2, 1), padding=(0, 2), dilation=(1, 2)), (5, 9, 7)),
    "same": (nn.Conv2d(6, 8, 4, padding="same", dilation=2), (6, 10, 9)),
    "valid": (nn.Conv2d(3, 8, 3, padding="valid"), (3, 6, 6)),
    "reflect": (nn.Conv2d(6, 8, 3, padding=(1, 2), padding_mode="reflect"), (6, 7, 8)),
    "circular, same": (nn.Conv2d(6, 8, 3, padding="same", padding_mode="circular"), (6, 7, 8)),
    "pointwise": (nn.Conv2d(20, 9, 1), (20, 5, 5)),
    "linear": (nn.Linear(17, 30), (17,)),
    "linear, wide": (nn.Linear(40, 7, bias=False), (40,)),
    "linear over tokens": (nn.Linear(12, 12), (3, 5, 12)),
    "1d": (nn.Conv1d(6, 10, 3, padding=1), (6, 11)),
    "1d, stride, no bias": (nn.Conv1d(7, 12, 5, stride=3, bias=False), (7, 20)),
    "1d, dilation": (nn.Conv1d(5, 30, 3, dilation=2, padding=3), (5, 12)),
    "1d, same": (nn.Conv1d(6, 8, 4, padding="same", dilation=3), (6, 13)),
    "1d, circular": (nn.Conv1d(6, 8, 5, padding=2, stride=2, padding_mode="circular"), (6, 12)),
    "1d, grouped": (nn.Conv1d(8, 12, 3, padding=1, groups=4), (8, 10)),
    "grouped": (nn.Conv2d(8, 12, 3, padding=1, groups=2), (8, 6, 7)),
    "grouped, stride, no bias": (nn.Conv2d(10, 16, 3, stride=2, groups=2, bias=False), (10, 9, 8)),
    "grouped, reflect": (nn.Conv2d(6, 24, (3, 2), padding=1, groups=3, padding_mode="reflect"), (6, 6, 5)),
    "grouped, one row a group": (nn.Conv2d(8, 4, 3, groups=4), (8, 5, 5)),
}


def prune(layer, blocking, keep_share, seed=0):
    """(factors, keep masks that are dense where factors would not be smaller, the weight they amount to)"""
    matrices = layer_matrices(nn.Sequential(layer))
    factors = decompose(matrices, cut(blocking, matrices))
    generator = torch.Generator().manual_seed(seed)
    keep, weight = [], torch.zeros_like(layer.weight.flatten(1))
    for f in factors:
        mask = torch.rand(f.block.rank, generator=generator) < keep_share
        if f.block.is_dense(int(mask.sum())):
            mask[:] = True
        keep.append(mask)
        f.block.put(weight, f.U[:, mask] @ f.V[mask])
    return factors, keep, weight.view_as(layer.weight)


@pytest.mark.parametrize("share", [0.0, 0.15, 0.4, 0.8, 1.0])
@pytest.mark.parametrize("blocking", BLOCKINGS.values(), ids=BLOCKINGS)
@pytest.mark.parametrize("name", LAYERS)
def test_equals_the_dense_layer_with_the_reconstructed_weight(name, blocking, share):
    layer, shape = copy.deepcopy(LAYERS[name][0]), LAYERS[name][1]
    x = torch.randn(2, *shape)
    with torch.no_grad():
        factors, keep, weight = prune(layer, blocking, share)
        pruned = low_rank_layer(layer, factors, keep)
        dense = copy.deepcopy(layer)
        dense.weight.copy_(weight)
        for training in (True, False):  # blocks as one convolution, and one by one
            assert torch.allclose(pruned.train(training)(x), dense(x), atol=1e-5)
        assert torch.allclose(pruned(x[0]), dense(x)[0], atol=1e-5)  # one example without a batch
        stored = sum(p.numel() for n, p in pruned.named_parameters() if n != "bias")
        assert stored == stored_params([f.block for f in factors], keep)
        assert stored <= layer.weight.numel()
        assert pruned is layer or torch.allclose(pruned.weight, weight, atol=1e-5)


@pytest.mark.parametrize("blocking", BLOCKINGS.values(), ids=BLOCKINGS)
@pytest.mark.parametrize("name", LAYERS)
def test_factors_of_full_rank_are_the_dense_layer(name, blocking):
    """``low_rank_layer`` would store these blocks whole: here they are factored all the same, as a file might say."""
    layer, shape = LAYERS[name]
    matrices = layer_matrices(nn.Sequential(layer))
    factors = decompose(matrices, cut(blocking, matrices))
    low = kind_of(layer).low_rank(layer, [(f.block, f.block.rank) for f in factors])
    low.fill(layer, factors, [torch.ones(f.block.rank, dtype=bool) for f in factors])
    assert not low.W
    x = torch.randn(2, *shape)
    with torch.no_grad():
        assert torch.allclose(low(x), layer(x), atol=1e-5)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1, 2, 3]), st.integers(1, 5), st.integers(1, 5), st.sampled_from([(1, 1), (3, 3), (1, 2), (1,), (3,), (4,)]),
    blockings(), st.floats(0, 1), st.integers(0, 99), st.integers(1, 2), st.booleans(),
)  # fmt: skip
def test_any_shape(groups, out, channels, kernel, blocking, share, seed, stride, bias):
    groups = min(groups, 1 if channels == 1 else groups)  # else it is depthwise
    kind = nn.Conv1d if len(kernel) == 1 else nn.Conv2d
    layer = kind(groups * channels, groups * out, kernel, stride, padding=1, groups=groups, bias=bias).double()
    with torch.no_grad():
        factors, keep, weight = prune(layer, blocking, share, seed)
        x = torch.randn(2, groups * channels, *[4] * len(kernel)).double()
        low = low_rank_layer(layer, factors, keep)
        expected = layer._conv_forward(x, weight, layer.bias)
        assert all(torch.allclose(low.train(training)(x), expected, atol=1e-10) for training in (True, False))
        assert sum(p.numel() for p in low.parameters()) <= sum(p.numel() for p in layer.parameters())


def test_factors_are_balanced_and_train():
    layer = nn.Linear(20, 20)
    factors, keep, _ = prune(layer, BLOCKINGS["none"], 0.3)
    pruned = low_rank_layer(layer, factors, keep)
    U, V = pruned.U["0"], pruned.V["0_0"]
    assert torch.allclose(U.norm(dim=0), V.norm(dim=1), rtol=1e-5)
    pruned(torch.randn(4, 20)).sum().backward()
    assert U.grad is not None and V.grad is not None and pruned.bias.grad is not None


PARTLY = ["plain", "circular, same", "linear over tokens", "1d, dilation", "grouped", "1d, grouped"]  # at 0.3: low rank for sure


def low_rank(name, blocking=BLOCKINGS["alds"], share=0.3):
    """(a low-rank layer, an input with a batch)"""
    layer, shape = copy.deepcopy(LAYERS[name][0]), LAYERS[name][1]
    low = low_rank_layer(layer, *prune(layer, blocking, share)[:2])
    assert isinstance(low, LowRank)
    return low, torch.randn(2, *shape)


@pytest.mark.parametrize("name", PARTLY)
def test_gradients_reach_every_parameter_and_the_input(name):
    low, x = low_rank(name)
    x.requires_grad_()
    low(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert {n for n, p in low.named_parameters() if p.grad is None or not p.grad.any()} == set()
    double, x = low.double(), x.detach().double().requires_grad_()
    assert all(torch.autograd.gradcheck(double.train(training), (x,), fast_mode=True) for training in (True, False))


@pytest.mark.parametrize("name", PARTLY)
def test_precisions_and_copies(name):
    low, x = low_rank(name)
    with torch.no_grad():
        y = low(x)
        twin = copy.deepcopy(low)
        assert torch.equal(twin(x), y)
        twin.bias.add_(1)
        assert torch.equal(low(x), y) and not torch.equal(twin(x), y)  # nothing is shared
        double = copy.deepcopy(low).to(torch.float64)(x.double())
        assert double.dtype == torch.float64 and torch.allclose(double.float(), y, atol=1e-5)
        half = copy.deepcopy(low).half()
        assert {p.dtype for p in half.parameters()} == {torch.float16} and half.weight.dtype == torch.float16
        out = half(x.half())
        assert out.dtype == torch.float16 and torch.allclose(out.float(), y, atol=2e-2)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.allclose(low(x).float(), y, atol=0.1)


def test_frozen_weights_stay_frozen():
    layer = nn.Linear(20, 20).requires_grad_(False)
    factors, keep, _ = prune(layer, BLOCKINGS["alds"], 0.2)
    assert not any(p.requires_grad for p in low_rank_layer(layer, factors, keep).parameters())


@pytest.mark.parametrize("lost", [[0], [1], [0, 1]])
def test_a_group_that_keeps_nothing_gives_its_bias(lost):
    layer = nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=2)
    matrices = layer_matrices(nn.Sequential(layer))
    blocks = cut(BLOCKINGS["none"], matrices)
    assert [(b.row_start, b.row_stop, b.col_start, b.col_stop) for b in blocks] == [(0, 6, 0, 36), (6, 12, 0, 36)]
    factors = decompose(matrices, blocks)
    keep = [torch.full((f.block.rank,), i not in lost) for i, f in enumerate(factors)]
    x = torch.randn(2, 8, 7, 6)
    with torch.no_grad():
        out, dense = low_rank_layer(layer, factors, keep)(x), layer(x)
    for g in range(2):
        rows = slice(6 * g, 6 * g + 6)
        expected = layer.bias[rows].view(-1, 1, 1).expand_as(dense[:, rows]) if g in lost else dense[:, rows]
        assert torch.allclose(out[:, rows], expected, atol=1e-6)


@pytest.mark.slow
def test_torch_compile():
    low = nn.Sequential(low_rank("grouped")[0], nn.Conv2d(12, 6, 1), nn.ReLU(), low_rank("plain")[0]).double()
    x = torch.randn(2, 8, 6, 7).double()
    compiled = torch.compile(low, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), low(x), atol=1e-12)
    compiled(x).sum().backward()
    assert low[0].U["0"].grad is not None


@pytest.mark.slow
def test_distributed_data_parallel(tmp_path):
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    low, x = low_rank("grouped")
    expected = torch.autograd.grad(low(x).square().sum(), list(low.parameters()))
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(low)
        parallel(x).square().sum().backward()
        assert all(torch.allclose(p.grad, g) for p, g in zip(low.parameters(), expected))
    finally:
        distributed.destroy_process_group()
