"""Decompositions in the metric of inputs and output gradients, against the theory and each other."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from cases import Chain
from helpers import BLOCKINGS, DECOMPOSITIONS, FACTORED, SCORERS, close, factors_of, given_network, measured, measured_factors
from torch import nn

from lrp.blocking.none import Unblocked
from lrp.decomposition.activation import Activation
from lrp.decomposition.base import decompose
from lrp.decomposition.metric import GRADIENT_FLOOR, roots
from lrp.decomposition.svd import Svd
from lrp.decomposition.two_sided import TwoSided
from lrp.errors import InputError
from lrp.estimator.exact import ExactEstimator
from lrp.layer_statistics.base import LayerStatistics
from lrp.matrices import Block
from lrp.partition import cut


@pytest.fixture(params=["narrow_vgg", "residual", "depthwise", "tokens", "chain"])
def network(request):
    return given_network(request, 5)


@pytest.mark.parametrize("decomposition", FACTORED)
def test_gives_every_block_back(network, decomposition):
    """With few images, constant and dead channels: moments that are singular, or zero."""
    model, x = network
    x[:, -1] = 0
    if isinstance(model, Chain):
        with torch.no_grad():
            model.b.weight[:3], model.b.bias[:3] = 0, 0  # channels without a value, and without a gradient
            model.c.weight[:, 3:] = 0
    for images in (x[:1], x):
        candidates, found = measured(model, images, "inputs", "magnitudes", "gradients", samples=2 * len(images))
        singular = [s for s in found.values() if int(torch.linalg.matrix_rank(s.inputs[0])) < s.inputs.shape[1]]
        assert len(singular) > len(found) / 2
        for blocking in BLOCKINGS.values():
            factors = measured_factors(candidates, DECOMPOSITIONS[decomposition], blocking, found)
            for f in factors:
                W = f.block.of(candidates.matrices[f.block.layer].weight)
                R = min(W.shape)
                assert f.U.shape == (len(W), R) and f.V.shape == (R, W.shape[1]) and f.S.shape == (R,)
                assert f.U.dtype == f.S.dtype == f.V.dtype == torch.float64 and f.decomposition == decomposition
                assert torch.allclose(f.U @ f.V, W, atol=1e-9 * max(1.0, float(W.abs().max())))
                assert f.S.isfinite().all() and (f.S >= 0).all() and (f.S.diff() <= 1e-12 * f.S[0]).all()
                if decomposition == "svd":
                    assert (f.layer_norm >= f.S - 1e-12).all()


@pytest.mark.parametrize("decomposition", DECOMPOSITIONS)
def test_the_norm_of_a_layer_is_the_largest_of_its_groups(depthwise, decomposition):
    """Whatever the blocking. In a metric of the inputs that is no bound of the blocks' own: what they give may cancel."""
    x = torch.randn(3, 3, 10, 9).double()
    candidates, found = measured(depthwise, x, "inputs", "magnitudes", "gradients")
    wholes = measured_factors(candidates, DECOMPOSITIONS[decomposition], BLOCKINGS["none"], found)
    for blocking in BLOCKINGS.values():
        for f in measured_factors(candidates, DECOMPOSITIONS[decomposition], blocking, found):
            largest = max(float(whole.S.max()) for whole in wholes if whole.block.layer == f.block.layer)
            assert f.layer_norm == pytest.approx(largest, rel=1e-9)


def only(decomposition, W, C=None, G=None):
    block = Block("", 0, 0, len(W), 0, W.shape[1])
    return decomposition(W, block, LayerStatistics(len(W), None if C is None else C[None], G))


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6), (1, 4), (4, 1)])
def test_identities_leave_the_plain_ones(shape):
    W = torch.randn(shape).double()
    X = torch.randn(shape[1], 30).double()
    eyes = [torch.eye(n, dtype=torch.float64) for n in shape]
    products = lambda found: [found[0][:, :r] @ found[2][:r] for r in range(len(found[1]) + 1)]  # noqa: E731
    plain, active = only(Svd(), W), only(Activation(), W, X @ X.T)
    for other, same in ((plain, only(Activation(), W, eyes[1])), (plain, only(TwoSided(), W, eyes[1], eyes[0])),
                        (plain, only(TwoSided(), W, 2 * eyes[1], 2 * eyes[0])), (active, only(TwoSided(), W, X @ X.T, eyes[0])),
                        (active, only(TwoSided(), W, X @ X.T, torch.zeros(2 * [shape[0]]).double()))):  # fmt: skip
        assert close(same[1] / same[1][0], other[1] / other[1][0])
        assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(products(same), products(other)))
    assert close(only(TwoSided(), W, 2 * eyes[1], 2 * eyes[0])[1], 2 * plain[1])


def part_of(found, block):
    """The block's own part of C."""
    return found.inputs[block.row_start // (found.rows // len(found.inputs))][block.columns][:, block.columns]


def error(D, C, G=None):
    """tr(G D C D^T)"""
    root = D if G is None else G @ D
    return float((root @ C * D).sum())


@pytest.mark.parametrize("blocking", BLOCKINGS)
def test_no_rank_has_less_error_on_the_calibration_data(network, blocking):
    """Against the SVD, and against what the theory says the error is."""
    model, x = network
    candidates, found = measured(model, x, "inputs", "gradients")
    plain = measured_factors(candidates, Svd(), BLOCKINGS[blocking], None)
    one = measured_factors(candidates, Activation(), BLOCKINGS[blocking], found)
    two = measured_factors(candidates, TwoSided(), BLOCKINGS[blocking], found)
    better = 0
    for p, a, t in zip(plain, one, two):
        s, W = found[p.block.layer], p.block.of(candidates.matrices[p.block.layer].weight)
        C = part_of(s, p.block)
        values, vectors = torch.linalg.eigh(s.gradients_of(p.block))
        largest = float(values[-1])
        floored = values.clamp(min=GRADIENT_FLOOR * largest) if largest > 0 else torch.ones_like(values)
        G = (vectors * floored) @ vectors.T
        whole, gradients = error(W, C), error(W, C, G)
        for r in range(0, len(p.S), 1 + len(p.S) // 5):
            left = [W - f.U[:, :r] @ f.V[:r] for f in (p, a, t)]
            own, best = error(left[1], C), error(left[2], C, G)
            assert own == pytest.approx(float(a.S[r:].square().sum()), rel=1e-8, abs=1e-8 * whole)
            assert best == pytest.approx(float(t.S[r:].square().sum()), rel=1e-8, abs=1e-8 * gradients)
            assert own <= min(error(left[0], C), error(left[2], C)) + 1e-9 * whole
            assert best <= min(error(left[0], C, G), error(left[1], C, G)) + 1e-9 * gradients
            better += own < 0.999 * error(left[0], C)
    assert better > 3


@pytest.mark.parametrize("decomposition", [Activation(), TwoSided()], ids=lambda d: d.name)
def test_outputs_do_in_place_of_inputs(network, decomposition):
    """Blocks of whole rows need the second moment of the outputs alone, without the bias: the same components."""
    model, x = network
    candidates, found = measured(model, x, "inputs", "products", "gradients")
    blocks = cut(BLOCKINGS["none"], candidates.matrices)
    short = {name: dataclasses.replace(s, inputs=None) for name, s in found.items()}
    long = {name: dataclasses.replace(s, zz=None) for name, s in found.items()}
    for a, b in zip(*(decompose(candidates.matrices, blocks, decomposition, s) for s in (short, long))):
        assert close(a.S, b.S, 1e-6) and a.layer_norm == pytest.approx(b.layer_norm)
        for r in range(1, len(a.S)):
            if a.S[r] < 0.9 * a.S[r - 1]:  # or the two may mix
                assert torch.allclose(a.U[:, :r] @ a.V[:r], b.U[:, :r] @ b.V[:r], atol=1e-4)


def test_best_of_all_ranks_by_descent():
    """No small step from the rank r that two_sided finds lowers its error: it is at a minimum, for each r."""
    W, X, g = torch.randn(5, 7).double(), torch.randn(7, 20).double(), torch.randn(5, 20).double()
    C, G = X @ X.T, g @ g.T
    U, S, V = only(TwoSided(), W, C, G)
    for r in range(1, 5):
        least = error(W - U[:, :r] @ V[:r], C, G)
        for size in (1e-3, 1e-1):
            for _ in range(10):
                moved = (U[:, :r] + size * torch.randn(5, r).double()) @ (V[:r] + size * torch.randn(r, 7).double())
                assert error(W - moved, C, G) >= least * (1 - 1e-9)


def test_what_is_not_finite_is_named(residual):
    candidates, found = measured(residual, torch.randn(3, 3, 9, 8).double(), "inputs")
    candidates.matrices["conv1"].weight[0, 0] = torch.nan
    with pytest.raises(InputError, match="^layer conv1: its weight holds values that are not finite, so it cannot be decomposed$"):
        measured_factors(candidates, Activation(), BLOCKINGS["none"], found)


def test_two_sided_is_the_change_of_a_linear_network():
    """With one position, independent inputs and a linear rest of one output S^2 is the perturbation itself, to first order."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 7, bias=False), nn.Linear(7, 1)).double()
    x = torch.randn(40, 12).double()
    candidates, found = measured(model, x, "inputs", "gradients")
    f = measured_factors(candidates, TwoSided(), BLOCKINGS["none"], found)[0]
    first, weight = model[1].weight.detach(), model[2].weight[0].detach()
    floored = roots(torch.outer(weight, weight))[0]
    X = x.T @ x / len(x)
    assert float(f.S[0]) == pytest.approx(float(torch.linalg.eigvalsh(floored @ first @ X @ first.T @ floored)[-1].sqrt()))
    perturbation = SCORERS["perturbation"]([f], SimpleNamespace(moments=lambda factors: ExactEstimator()(model, factors, x)[0]))[0]
    assert float(perturbation[0]) == pytest.approx(float(f.S[0].square()), rel=1e-3)
    assert float(perturbation[1:].sum()) < 1e-2 * float(perturbation[0])  # directions that the output does not see


def test_a_weight_that_is_not_finite_names_the_layer(residual):
    residual.conv2.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="layer conv2"):
        factors_of(residual, Unblocked())
