"""Factors in a metric: components without energy, roots above a floor."""

import torch
from helpers import close

from lrp.decomposition.metric import metric_factors, roots


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
