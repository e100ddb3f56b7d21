"""Scorers against their formulas."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from helpers import (
    BLOCKINGS,
    DECOMPOSITIONS,
    FACTORED,
    SCORERS,
    close,
    factors_of,
    given_network,
    measured,
    measured_factors,
    slow_differences,
)

from lrp.blocking.alds import AldsBlocking
from lrp.blocking.square import SquareBlocking
from lrp.errors import InputError
from lrp.estimator.exact import ExactEstimator
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.evidence import Evidence
from lrp.matrices import Block, Factors
from lrp.scorer.base import check_scores
from lrp.scorer.energy import Energy
from lrp.scorer.noise_to_signal import NoiseToSignal


@pytest.fixture(params=["residual", "depthwise", "tokens", "chain"])
def network(request):
    return given_network(request, 5)


def test_relative_error_is_relative_to_the_unblocked_matrix(residual):
    matrices, factors = factors_of(residual, SquareBlocking())
    for f, score in zip(factors, SCORERS["relative_error"](factors, SimpleNamespace(matrices=matrices))):
        whole = torch.linalg.svdvals(matrices[f.block.layer].weight)[0]
        assert torch.allclose(score, f.S / whole)


def test_noise_to_signal(residual):
    """The scores of the smallest components of a layer, its blocks together, add up to removed over kept."""
    matrices, factors = factors_of(residual, AldsBlocking(2))
    moments = ExactEstimator()(residual, factors, torch.randn(2, 3, 8, 8).double())[0]
    plain = SCORERS["perturbation"](factors, SimpleNamespace(matrices=matrices, moments=lambda _: moments))
    found = NoiseToSignal(0.1)(factors, SimpleNamespace(matrices=matrices, moments=lambda _: moments))
    for name in matrices:
        own, scores = (torch.cat([p for f, p in zip(factors, parts) if f.block.layer == name]) for parts in (plain, found))
        order = own.argsort()
        for count in (1, len(own) // 2, len(own)):
            lost, kept = own[order[:count]].sum(), own[order[count:]].sum()
            assert torch.allclose(scores[order[:count]].sum(), own.sum() * lost / (kept + 0.1 * own.sum()))
        assert bool((scores[order].diff() >= -1e-12).all())
    faint = NoiseToSignal(0.5)._layer(torch.tensor([1e-30, 1.0, 1e-25], dtype=torch.float64))
    assert torch.allclose(
        faint[[0, 2]], torch.tensor([1e-30, 1e-25], dtype=torch.float64) / 1.5, rtol=1e-12, atol=0
    )  # no cancellation against the whole
    silent = [dataclasses.replace(block, second=torch.zeros_like(block.second)) for block in moments]
    assert all(
        float(score.abs().max()) == 0 for score in NoiseToSignal()(factors, SimpleNamespace(matrices=matrices, moments=lambda _: silent))
    )
    deep = NoiseToSignal(0.1, depth=2)(factors, SimpleNamespace(matrices=matrices, moments=lambda _: moments))
    order = list(matrices)
    assert all(torch.allclose(b, a * (len(order) - order.index(f.block.layer)) ** 2) for f, a, b in zip(factors, found, deep))
    with pytest.raises(InputError, match="^scorer.floor=0: must be a number greater than 0"):
        NoiseToSignal(0)
    with pytest.raises(InputError, match="^scorer.depth=-1: must be a number of at least 0 and less than 10"):
        NoiseToSignal(depth=-1)


@pytest.mark.slow
@pytest.mark.parametrize("decomposition", [name for name in FACTORED if name != "svd"])
def test_scorers_score_these_components(network, decomposition):
    model, x = network
    candidates, found = measured(model, x, "inputs", "magnitudes", "gradients")
    factors = measured_factors(candidates, DECOMPOSITIONS[decomposition], BLOCKINGS["square"], found)
    exact, _ = ExactEstimator()(model, factors, x)
    evidence = Evidence(model, x).of(ExactEstimator(), (), 65536)
    evidence.moments, evidence.labels = lambda _: exact, torch.zeros(len(x), dtype=torch.long)
    slow = [slow_differences(model, f, x) for f in factors]
    for name, scorer in SCORERS.items():
        scores = scorer(factors, evidence)
        assert [len(score) for score in scores] == [f.block.rank for f in factors]
        assert all(score.isfinite().all() and (score >= 0).all() for score in scores)
        for f, score, change in zip(factors, scores, slow):
            expected = {
                "perturbation": change.square().sum(2).mean(1),
                "variance": change.var(1, correction=0).sum(1),
                "magnitude": f.S,
                "spectrum": f.S.square(),
                "relative_error": f.S / f.layer_norm,
                "energy": f.S.square() / sum(g.S.square().sum() for g in factors if g.block.layer == f.block.layer),
            }
            if name in expected:
                assert torch.allclose(score, expected[name], rtol=1e-8, atol=1e-18)
    D = FirstOrderEstimator().contributions(model, factors, x)
    for f, part in zip(factors[::2], D[::2]):
        little = slow_differences(model, dataclasses.replace(f, V=1e-6 * f.V), x) / 1e-6
        assert close(part.permute(2, 0, 1), little, 1e-3)


def test_energy_sums_to_one_in_each_layer():
    blocks = [Block("a", 0, 0, 4, 0, 6), Block("a", 1, 0, 4, 6, 8), Block("b", 0, 0, 3, 0, 3), Block("zero", 0, 0, 2, 0, 2)]
    norms = [torch.rand(b.rank, dtype=torch.float64).sort(descending=True)[0] for b in blocks]
    norms[3] = torch.zeros(2, dtype=torch.float64)
    factors = [Factors(b, torch.empty(b.shape[0], b.rank), S, torch.empty(b.rank, b.shape[1])) for b, S in zip(blocks, norms)]
    scores = Energy()(factors, SimpleNamespace(matrices=dict.fromkeys(["a", "b", "zero"])))
    assert float(scores[0].sum() + scores[1].sum()) == pytest.approx(1) and float(scores[2].sum()) == pytest.approx(1)
    assert torch.equal(scores[3], torch.zeros(2, dtype=torch.float64))
    assert float(scores[0][0] / scores[1][0]) == pytest.approx(float(norms[0][0] / norms[1][0]) ** 2)


@pytest.mark.parametrize(
    ("scores", "rule"),
    [
        (None, "a list of 2 tensors, one for each block, not NoneType"),
        ([torch.ones(2)], "a list of 2 tensors, one for each block, not 1"),
        ([torch.ones(2), torch.ones(1)], r"layer b, block 0 needs a tensor \(3,\), one score per component, not a tensor \(1,\)"),
        ([torch.ones(2), [1.0] * 3], "not list"),
        ([torch.ones(2), torch.tensor([1, 2, torch.nan])], "layer b: block 0 has scores that are not finite"),
        ([torch.ones(2), torch.tensor([1.0, -1, 0])], "negative scores"),
    ],
)
def test_what_a_scorer_has_to_give(scores, rule):
    blocks = [Block("a", 0, 0, 2, 0, 6), Block("b", 0, 0, 3, 0, 3)]
    factors = [Factors(b, torch.empty(b.shape[0], b.rank), torch.ones(b.rank), torch.empty(b.rank, b.shape[1])) for b in blocks]
    with pytest.raises(InputError, match=f"^scorer=mine: .*{rule}"):
        check_scores("mine", factors, scores)
