"""Layers held at a rank while a network trains, against numpy and plain loops."""

import copy

import numpy as np
import pytest
import torch
from helpers import assert_near, refused
from torch import nn
from torch.nn import functional as F

import lrp
from lrp.blocking.alds import AldsBlocking
from lrp.blocking.square import SquareBlocking
from lrp.decomposition.base import decompose
from lrp.layer.base import LowRank
from lrp.layer.build import build, layer_matrices
from lrp.layer.hold_rank import at_rank, hold_rank
from lrp.partition import cut

LAYERS = {
    "linear": (lambda: nn.Linear(9, 7), (9,)),
    "linear, wide, no bias": (lambda: nn.Linear(20, 6, bias=False), (20,)),
    "conv": (lambda: nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 7, 6)),
    "grouped": (lambda: nn.Conv2d(6, 10, 3, padding=1, groups=2), (6, 5, 5)),
    "1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (4, 9)),
}  # the smallest full rank, that of a group of "grouped", is 5


def make(name):
    """(a dense layer, inputs), float64"""
    layer, shape = LAYERS[name]
    return layer().double(), torch.randn(4, *shape, dtype=torch.float64)


def group_matrices(layer):
    """The matrix of each group of a layer, low-rank or dense, as numpy arrays."""
    weight = layer.weight.detach().flatten(1).numpy()
    return np.split(weight, getattr(layer, "groups", 1))


def full_rank(layer):
    return min(min(matrix.shape) for matrix in group_matrices(layer))


def as_dense(low, dense):
    """The dense layer with the weight and the bias of ``low``."""
    twin = copy.deepcopy(dense)
    twin.weight.data = low.weight.detach().clone()
    if twin.bias is not None:
        twin.bias.data = low.bias.detach().clone()
    return twin


def sgd(layer, x, target, steps=1, lr=0.05):
    optimizer = torch.optim.SGD(layer.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(layer(x), target).backward()
        optimizer.step()


@pytest.mark.parametrize("init", ["svd", "glorot"])
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_training_does_not_raise_the_rank(name, rank, init):
    dense, x = make(name)
    layer = at_rank(dense, rank, init)
    before = layer.weight.detach().clone()
    sgd(layer, x, torch.randn_like(layer(x).detach()), steps=5, lr=0.5)
    assert (layer.weight - before).abs().max() > 1e-3
    assert [np.linalg.matrix_rank(matrix) for matrix in group_matrices(layer)] == [rank] * getattr(dense, "groups", 1)
    assert_near(layer(x), as_dense(layer, dense)(x))


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("name", LAYERS)
def test_the_truncation_is_the_best_one(name, rank):
    """Eckart and Young, of each group; the factors share the singular values evenly. Directly and after a higher rank."""
    dense, _ = make(name)
    again = at_rank(dense, 5)
    again.set_rank(rank)
    for layer in (at_rank(dense, rank), again):
        values = []
        for matrix, truncated in zip(group_matrices(dense), group_matrices(layer), strict=True):
            S = np.linalg.svd(matrix, compute_uv=False)
            expected = (S[rank:] ** 2).sum() if layer is not again else (S[rank:5] ** 2).sum() + (S[5:] ** 2).sum()
            assert expected > 1e-3
            assert np.linalg.norm(matrix - truncated) ** 2 == pytest.approx(expected, rel=1e-9)
            values.append(S[:rank])
        for U, V, S in zip(layer.U.values(), layer.V.values(), values, strict=True):
            np.testing.assert_allclose(U.detach().square().sum(0), S, rtol=1e-9)
            np.testing.assert_allclose(V.detach().square().sum(1), S, rtol=1e-9)


@pytest.mark.parametrize("grow", ["orthogonal", "svd"])
@pytest.mark.parametrize("start", [-1, 2, "full"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_higher_rank_keeps_the_function(name, start, grow):
    dense, x = make(name)
    full = full_rank(dense)
    layer = at_rank(dense, full if start == "full" else start)
    if start != 2:
        assert_near(layer(x), dense(x))
    y = layer(x).detach()
    steps = [full, -1, full] if start == -1 else [2, 3, full, full, -1, full] if start == 2 else [full, -1]
    for rank in steps:
        layer.set_rank(rank, grow)
        assert_near(layer(x), y)
        assert [held for _, held in layer.blocks] == [None if rank == -1 else rank] * len(layer.blocks)
        assert (len(layer.U), len(layer.W)) == ((0, len(layer.blocks)) if rank == -1 else (len(layer.blocks), 0))
        assert layer.bias is None or torch.equal(layer.bias, dense.bias)
        assert {p.dtype for p in layer.parameters()} == {torch.float64} and all(p.requires_grad for p in layer.parameters())


@pytest.mark.parametrize("name", LAYERS)
def test_orthogonal_growth_learns_at_once(name):
    dense, x = make(name)
    layer = at_rank(dense, 2)
    layer.set_rank(4, "orthogonal", torch.Generator().manual_seed(3))
    eye = torch.eye(2, dtype=torch.float64)
    for U, V in zip(layer.U.values(), layer.V.values(), strict=True):
        assert torch.equal(U[:, 2:], torch.zeros_like(U[:, 2:])) and bool(U[:, :2].any(0).all())
        assert_near(V[2:] @ V[2:].T, eye, 1e-12)
        assert_near(V[2:] @ V[:2].T, torch.zeros_like(eye), 1e-12)
    twin, other = at_rank(dense, 2), at_rank(dense, 2)
    twin.set_rank(4, "orthogonal", torch.Generator().manual_seed(3))
    other.set_rank(4, "orthogonal", torch.Generator().manual_seed(4))
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), twin.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(layer.V.values(), other.V.values(), strict=True))
    assert {np.linalg.matrix_rank(matrix) for matrix in group_matrices(layer)} == {2}
    sgd(layer, x, torch.randn_like(layer(x).detach()))
    assert min(np.linalg.matrix_rank(matrix) for matrix in group_matrices(layer)) > 2


@pytest.mark.parametrize("name", LAYERS)
def test_svd_growth_starts_at_rounding(name):
    layer = at_rank(make(name)[0].float(), 2)
    before = layer.weight.detach().clone()
    layer.set_rank(4, "svd")
    assert_near(layer.weight, before, 1e-5)
    for U, V in zip(layer.U.values(), layer.V.values(), strict=True):
        assert 0 <= U[:, 2:].abs().max() < 1e-2 * U.abs().max()
        assert 0 <= V[2:].abs().max() < 1e-2 * V.abs().max()


def test_growth_from_a_dense_matrix_of_low_rank():
    """The matrix, not what was stored, says what rank there is; also where it is zero."""
    dense, _ = make("linear")
    for rank in (2, 0):
        dense.weight.data = torch.randn(7, rank, dtype=torch.float64) @ torch.randn(rank, 9, dtype=torch.float64)
        layer = at_rank(dense, 6)
        assert_near(layer.weight_matrix(), dense.weight)
        assert not layer.U["0"][:, rank:].any() and bool(layer.U["0"][:, :rank].any(0).all())
        V = layer.V["0_0"][rank:]
        assert_near(V @ V.T, torch.eye(6 - rank, dtype=torch.float64), 1e-12)


def test_glorot_initialisation():
    dense = nn.Linear(300, 200)
    layers = [at_rank(dense, 40, "glorot", torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    for factor, again, other, ends in zip(*[[layer.U["0"], layer.V["0_0"]] for layer in layers], [240, 340]):
        bound = (6 / ends) ** 0.5
        assert 0.99 * bound < factor.abs().max() <= bound
        assert float(factor.detach().var()) == pytest.approx(2 / ends, rel=0.05)
        assert torch.equal(factor, again) and not torch.equal(factor, other)
    assert torch.equal(layers[0].bias, dense.bias) and layers[0].bias is not dense.bias
    matrix = at_rank(dense, -1, "glorot").W["0_0"]
    assert float(matrix.detach().var()) == pytest.approx(2 / 500, rel=0.05) and matrix.abs().max() <= (6 / 500) ** 0.5


def test_one_step_by_hand():
    """dL/dU = G V^T and dL/dV = U^T G, with G = dL/dW of the mean squared error."""
    dense, x = make("linear")
    layer, target, lr = at_rank(dense, 3), torch.randn(4, 7, dtype=torch.float64), 0.3
    U, V, b = (p.detach().numpy().copy() for p in (layer.U["0"], layer.V["0_0"], layer.bias))
    sgd(layer, x, target, lr=lr)
    error = 2 / target.numel() * (x.numpy() @ (U @ V).T + b - target.numpy())
    G = error.T @ x.numpy()
    steps = [(layer.U["0"], U, G @ V.T), (layer.V["0_0"], V, U.T @ G), (layer.bias, b, error.sum(0))]
    for after, before, gradient in steps:
        np.testing.assert_allclose(after.detach().numpy(), before - lr * gradient, rtol=0, atol=1e-13)
        assert np.abs(gradient).max() > 1e-3


@pytest.mark.parametrize("grow", ["orthogonal", "svd"])
@pytest.mark.parametrize("blocking", [SquareBlocking(), AldsBlocking(4)], ids=lambda b: b.name)
@pytest.mark.parametrize(
    ("dense", "shape"), [(nn.Linear(24, 8), (24,)), (nn.Conv2d(8, 6, 3, groups=2, padding=1), (8, 5, 5))], ids=["linear", "grouped"]
)
def test_layers_of_many_blocks(dense, shape, blocking, grow):
    """Blocks at rank 1, one without components and one whole grow to full rank and become dense; the function stays."""
    model = nn.Sequential(copy.deepcopy(dense)).double()
    matrices = layer_matrices(model)
    factors = decompose(matrices, cut(blocking, matrices))
    assert len(factors) > 2
    keep = [torch.arange(f.block.rank) < 1 for f in factors]
    keep[0][:], keep[-1][:] = False, True
    for f, mask in zip(factors, keep):
        mask[:] |= f.block.is_dense(int(mask.sum()))
    layer = build(model, factors, keep)[0]
    assert isinstance(layer, LowRank) and {0, 1, None} <= {held for _, held in layer.blocks}
    x = torch.randn(2, *shape, dtype=torch.float64)
    y, full = layer(x).detach(), min(block.rank for block, _ in layer.blocks)
    assert full == max(block.rank for block, _ in layer.blocks) > 1
    for rank in (full, -1, full):
        layer.set_rank(rank, grow)
        assert_near(layer(x), y)
        assert {held for _, held in layer.blocks} == {None if rank == -1 else rank}
    layer(x).square().sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize("rank", [2, 4, 8, -1])
def test_round_trip_after_a_switch(rank, tmp_path):
    """Also at full rank, where the factors are larger than the matrix."""

    def network():
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 10), nn.Linear(10, 4))

    model = hold_rank(network(), {"0": 3, "3": 3}).eval()
    model[0].set_rank(rank)
    model[3].set_rank(rank)
    x = torch.randn(2, 3, 5, 5)
    lrp.save(model, tmp_path / "a.safetensors")
    loaded = lrp.load(tmp_path / "a.safetensors", network)
    assert torch.equal(loaded(x), model(x))
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert [held for _, held in loaded[3].blocks] == [held for _, held in model[3].blocks] == [None if rank == -1 else rank]
    loaded[3].set_rank(10)  # and goes on from there
    assert_near(loaded(x), model(x), 1e-5)


def test_hold_rank_replaces_and_switches():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    x, last = torch.randn(3, 6, dtype=torch.float64), model[2]
    y = model(x).detach()
    assert hold_rank(model, {"0": 6}) is model and isinstance(model[0], LowRank) and model[2] is last
    assert_near(model(x), y)
    low = model[0]
    hold_rank(model, {"0": 2, "2": -1})
    assert model[0] is low and [held for _, held in low.blocks] == [2] and [held for _, held in model[2].blocks] == [None]
    assert np.linalg.matrix_rank(low.weight.detach().numpy()) == 2
    alone = hold_rank(nn.Linear(3, 3), {"": 1})
    assert isinstance(alone, LowRank)


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ({"0": 2, "nothing": 2}, ["layer=nothing"]),
        ({"0": 2, "2": 5}, ["rank=5", "from 1 to 4"]),
        ({"0": 2, "1": 2}, ["layer=ReLU"]),
        ({"2": 2, "3": 9}, ["rank=9", "from 1 to 4"]),
    ],
)
def test_hold_rank_leaves_a_network_that_it_refuses(ranks, words):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), at_rank(nn.Linear(4, 4), 3))
    modules, before = list(model.modules()), copy.deepcopy(model.state_dict())
    refused(lambda: hold_rank(model, ranks), *words)
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert list(before) == list(model.state_dict()) and all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("rank", [0, -2, 6, 2.0, 1.5, True, None, "2"])
def test_a_rank_that_a_layer_cannot_have(rank):
    dense = nn.Linear(9, 5)
    layer = at_rank(dense, 3)
    before, shown = copy.deepcopy(layer.state_dict()), f"rank={'null' if rank is None else rank}"
    for call in (lambda: at_rank(dense, rank), lambda: at_rank(dense, rank, "glorot"), lambda: layer.set_rank(rank)):
        refused(call, shown, "from 1 to 5")
    assert list(before) == list(layer.state_dict()) and all(torch.equal(before[k], v) for k, v in layer.state_dict().items())


def test_options_and_layers_that_are_refused():
    dense = nn.Linear(9, 5)
    refused(lambda: at_rank(dense, 2, "foo"), "init=foo", "svd or glorot")
    refused(lambda: at_rank(dense, 2).set_rank(3, "foo"), "grow=foo", "orthogonal or svd")
    refused(lambda: at_rank(nn.Conv2d(4, 4, 3, groups=4), 1), "layer=Conv2d", "depthwise")
    refused(lambda: at_rank(nn.ReLU(), 1), "layer=ReLU")
    refused(lambda: at_rank(nn.Conv2d(6, 10, 3, groups=2), 6), "rank=6", "from 1 to 5")  # the rank is a group's


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_components(dtype):
    """A truncation in half precision is the truncated SVD to that precision, whatever the size."""
    dense = nn.Linear(300, 200).to(dtype)
    layer = at_rank(dense, 50)
    U, S, Vh = torch.linalg.svd(dense.weight.double())
    best = U[:, :50] * S[:50] @ Vh[:50]
    error = (layer.weight_matrix().double() - best).norm() / best.norm()
    assert layer.U["0"].dtype == dtype and error < 0.02


def test_a_diverged_layer_is_refused_and_left():
    layer = at_rank(nn.Linear(6, 5), 3)
    with torch.no_grad():
        layer.U["0"][0, 0] = float("nan")
    before = layer.U["0"]
    with pytest.raises(lrp.InputError, match="not finite"):
        layer.set_rank(2)
    assert layer.U["0"] is before
