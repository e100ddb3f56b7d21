"""Factors in a metric: components without energy, roots above a floor."""

import pytest
import torch
from helpers import close

from lrp.decomposition import metric
from lrp.decomposition.metric import OutputMetric, factors_in, metric_factors, roots
from lrp.layer_statistics.few_samples import FewSamples


def test_components_without_energy_come_last_by_their_weight():
    W = torch.randn(6, 8).double()
    X = torch.randn(8, 2).double()  # two samples
    U, S, V = metric_factors(W, W @ X @ X.T @ W.T, None)
    assert (S[:2] > 0).all() and (S[2:] == 0).all()
    assert torch.allclose(U.T @ U, torch.eye(6).double(), atol=1e-12)
    assert torch.allclose(U[:, :2] @ (V[:2] @ X), W @ X, atol=1e-10)  # the first two give all the outputs
    assert (V[2:].norm(dim=1).diff() <= 1e-12).all()
    U, S, V = metric_factors(W, torch.zeros(6, 6).double(), torch.zeros(6, 6).double())
    assert not S.any() and close(V.norm(dim=1), torch.linalg.svdvals(W)) and torch.allclose(U @ V, W)
    U, S, V = metric_factors(torch.zeros(6, 8).double(), torch.zeros(6, 6).double(), None)
    assert not S.any() and not (U @ V).any() and U.isfinite().all()


def test_roots_raise_what_is_below_the_floor():
    vectors = torch.linalg.qr(torch.randn(4, 4).double()).Q
    root, inverse = roots(vectors @ torch.diag(torch.tensor([100, 1, 1e-9, 0]).double()) @ vectors.T)
    expected = vectors @ torch.diag(torch.tensor([100, 1, 0.01, 0.01]).double()) @ vectors.T
    assert torch.allclose(root @ root, expected, atol=1e-10) and torch.allclose(root @ inverse, torch.eye(4).double(), atol=1e-10)


@pytest.mark.parametrize("shape", [(6, 8), (9, 4)])
@pytest.mark.parametrize("samples", [30, 3])
def test_factors_in_a_metric_are_those_of_its_products(shape, samples):
    """Rows more or fewer than columns, C whole, by few samples and diagonal, with G and without; each a best rank r."""
    W, X, g = (torch.randn(*size).double() for size in (shape, (shape[1], samples), (shape[0], 20)))
    for C, held in ((X @ X.T, X @ X.T), (X @ X.T, FewSamples(X)), (torch.diag(X[:, 0].square()), X[:, 0].square())):
        for G in (None, g @ g.T):
            slow = metric_factors(W, W @ C @ W.T, G)
            U, S, V = factors_in(W, held, None if G is None else OutputMetric(G))
            assert torch.allclose(U @ V, W, atol=1e-9) and torch.allclose(S.square(), slow[1].square(), atol=1e-9 * float(slow[1][0]) ** 2)
            assert torch.allclose(U[:, :1] @ V[:1], slow[0][:, :1] @ slow[2][:1], atol=1e-7)


def test_an_output_metric_keeps_what_it_was_asked_to_keep(monkeypatch):
    """The roots of the parts that ranges of rows ask for, once; without ``keep`` and of rows in another order anew each time."""
    made = []
    monkeypatch.setattr(metric, "roots", lambda G: (made.append(len(G)), roots(G))[1])
    g = torch.randn(6, 20).double()
    G = g @ g.T
    for keep, expected in ((True, [6, 2, 2, 2]), (False, [6, 6, 2, 2, 2, 2])):
        held, like = OutputMetric(G, keep), torch.zeros(()).double()
        for _ in range(2):
            assert close(held.of(slice(0, 6), like).roots()[0], roots(G)[0])
        for _ in range(2):
            assert close(held.of(slice(1, 3), like).roots()[1], roots(G[1:3, 1:3])[1])
        order = torch.tensor([4, 0])
        for _ in range(2):
            assert close(held.of(order, like).roots()[0], roots(G[order][:, order])[0])
        assert made == expected
        made.clear()
