"""Embeddings: looked up in fewer columns, scored, fitted to how often each index comes."""

import pytest
import torch
from helpers import close
from torch import nn

import lrp
from lrp.blocking.alds import AldsBlocking
from lrp.blocking.none import Unblocked
from lrp.compensation.least_squares import LeastSquares
from lrp.decomposition.activation import Activation
from lrp.decomposition.base import decompose
from lrp.estimator.exact import ExactEstimator
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.evidence import Evidence
from lrp.layer.build import build, kind_of
from lrp.network.survey import find_candidates
from lrp.partition import cut


class Words(nn.Module):
    """Words and places, both embedded; linear behind them."""

    def __init__(self):
        super().__init__()
        self.words, self.places, self.head = nn.Embedding(30, 8, padding_idx=0), nn.Embedding(5, 8), nn.Linear(40, 3)

    def forward(self, x):
        return self.head((self.words(x) + self.places(torch.arange(x.shape[1])[None])).flatten(1))


@pytest.fixture
def words():
    torch.manual_seed(0)
    return Words().double().eval(), torch.randint(0, 20, (12, 5))


@pytest.mark.parametrize("blocking", [Unblocked(), AldsBlocking(k=3)])
def test_a_low_rank_embedding_is_its_matrix(words, blocking):
    model, x = words
    matrices = find_candidates(model, x[:1], lookups=True).matrices
    assert matrices["words"].shape == (8, 30) and matrices["words"].macs(5) == 0
    factors = decompose(matrices, cut(blocking, matrices))
    keep = [torch.arange(len(factor.S)) < 2 for factor in factors]
    small = build(model, factors, keep)
    layer = small.words
    assert layer.weight.shape == model.words.weight.shape
    assert close(layer(x), layer.weight_matrix().T[x])
    assert float(layer.weight_matrix()[:, 0].abs().max()) < 1e-12  # of the padding nothing comes


def test_components_are_scored_as_they_change_the_outputs(words):
    model, x = words
    matrices = find_candidates(model, x[:1], lookups=True).matrices
    factors = decompose(matrices, cut(AldsBlocking(k=2), matrices))
    exact, _ = ExactEstimator()(model, factors, x)
    first, _ = FirstOrderEstimator()(model, factors, x)
    for f, a, b in zip(factors, exact, first):
        if f.block.layer == "head":
            continue
        if f.block.layer == "words":
            assert close(a.second, b.second)  # the network is linear behind them
        table = model.get_submodule(f.block.layer).weight
        before, dense = table.detach().clone(), model(x)
        for i in range(len(f.S)):
            with torch.no_grad():
                f.block.of(table.T).sub_(torch.outer(f.U[:, i], f.V[i]))
                assert close(a.second[i], (dense - model(x)).square().mean(0))
                table.copy_(before)


def test_rows_that_all_examples_share_are_scored_without_bias(words):
    """A place is read once for all examples: their gradients add up with random signs, so that only squares stay in the mean."""
    model, x = words
    x = x[:2].repeat(1000, 1)
    matrices = find_candidates(model, x[:1], lookups=True).matrices
    factors = [f for f in decompose(matrices, cut(Unblocked(), matrices)) if f.block.layer == "places"]
    exact, _ = ExactEstimator()(model, factors, x)
    first, _ = FirstOrderEstimator()(model, factors, x)
    g = model.head.weight.unflatten(1, (5, 8))  # (K, place, M)
    by_rows = torch.einsum("kpm,mr,rp->kpr", g, factors[0].U, factors[0].V).square().sum((0, 1))
    assert torch.allclose(first[0].second.sum(1), by_rows, rtol=0.5)
    assert close(exact[0].second.sum(1), torch.einsum("kpm,mr,rp->kr", g, factors[0].U, factors[0].V).square().sum(0))


def test_the_metric_is_how_often_each_index_comes(words):
    """The decomposition of outputs is the weighted SVD of GroupReduce (Chen et al., 2018); every index counts once more than it came."""
    model, x = words
    found = Evidence(model, x).of(FirstOrderEstimator(), (), 64, lookups=True).statistics(("inputs", "gradients"))
    q = (torch.bincount(x.flatten(), minlength=30) + 1).double()
    q = q / q.sum()
    assert close(found["words"].inputs, q[None])
    matrices = find_candidates(model, x[:1], lookups=True).matrices
    factor = decompose(matrices, cut(Unblocked(), matrices), Activation(), found)[0]
    A = model.words.weight.detach()
    U, S, Vh = torch.linalg.svd(q.sqrt()[:, None] * A, full_matrices=False)
    for r in (1, 3, 6):
        weighted = (U[:, :r] * S[:r] @ Vh[:r]) / q.sqrt()[:, None]
        assert close((factor.U[:, :r] @ factor.V[:r]).T, weighted)


def test_the_fit_minimises_its_objective(words):
    model, x = words
    options = {"blocking": "none", "decomposition": "svd", "scorer": "magnitude", "selection": "global", "forms": "matrix"}
    small, report = lrp.compress(model, x, 0.4, compensation=LeastSquares(ridge=0.1), **options)
    assert dict(zip(report.layer, report.what))["words"] == "low rank" and small.words.bias is None
    evidence = Evidence(model, x).of(FirstOrderEstimator(), (), 65536, lookups=True)
    found = evidence.statistics(("outputs", "gradients"))["words"]
    C = found.inputs[0] + 0.1 * found.inputs.mean()
    values, vectors = torch.linalg.eigh(found.gradients)
    root = vectors * values.clamp(min=1e-4 * values[-1]).sqrt() @ vectors.T
    W = model.words.weight.detach().T
    left = (root @ (W - small.words.weight_matrix())) * C.sqrt()
    rank = small.words.blocks[0][1]
    assert close(left.square().sum(), torch.linalg.svdvals(root @ W * C.sqrt())[rank:].square().sum())


def test_where_it_is_left_alone(words):
    model, x = words
    for options in ({"budget": "macs"}, {"macs_removed": 0.3}, {"method": "alds"}):
        _, report = lrp.compress(model, x, 0.4, **options)
        assert report.what[0].startswith("left alone: it looks vectors up"), options
    kind = kind_of(model.words)
    assert kind.unsupported(nn.Embedding(4, 4, max_norm=1.0)) == "it scales its vectors as it looks them up (max_norm)"
    assert kind.unsupported(nn.Embedding(4, 4, sparse=True)) == "its gradients are sparse"


def test_saved_loaded_unfolded_trained(words, tmp_path):
    model, x = words
    small, _ = lrp.compress(model, x, 0.5)
    lrp.save(small, tmp_path / "a.safetensors")
    again = lrp.load(tmp_path / "a.safetensors", Words().double())
    assert torch.equal(again(x), small(x))
    assert close(lrp.unfold(small)(x), small(x))
    small.train()(x).square().sum().backward()
    assert all(p.grad is not None for p in small.words.parameters())


def test_gradients_are_of_the_layer_matrix(words):
    model, x = words
    evidence = Evidence(model, [(x, torch.randint(0, 3, (len(x),)))]).of(FirstOrderEstimator(), (), 64, lookups=True)
    found = evidence.loss_gradients
    loss = nn.functional.cross_entropy(model(x), evidence.labels)
    (gradient,) = torch.autograd.grad(loss, [model.words.weight])
    assert close(found["words"], gradient.T)
    direction = torch.randn(8, 30).double()
    assert evidence.hessian_vector_product({"words": direction})["words"].shape == (8, 30)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_one_that_lost_everything_gives_zeros_in_its_networks_precision(words, dtype, tmp_path):
    """It has no parameter that would say it."""
    model, x = words
    matrices = find_candidates(model, x[:1], lookups=True).matrices
    factors = decompose(matrices, cut(Unblocked(), matrices))
    keep = [torch.full((len(f.S),), f.block.layer == "head") for f in factors]
    small = build(model, factors, keep).to(dtype)
    assert not [*small.words.parameters()] and small.words.weight.dtype == small.words(x).dtype == small(x).dtype == dtype
    lrp.save(small, tmp_path / "a.safetensors")
    again = lrp.load(tmp_path / "a.safetensors", Words())
    assert again.words(x).dtype == dtype and torch.equal(again(x), small(x))
    assert not [name for name in small.state_dict() if "alike" in name]
    small.words.set_rank(2)
    assert small.words.alike is None and {p.dtype for p in small.words.parameters()} == {dtype}
