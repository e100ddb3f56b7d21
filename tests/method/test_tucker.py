"""The rivals in Tucker-2 form."""

import pytest
import torch
from cases import Depthwise
from torch import nn

import lrp
from lrp.layer.tucker2 import Tucker2
from lrp.method.hosvd import energy_rank


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(4, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 16, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(256, 6)]
    return nn.Sequential(*layers).eval(), torch.randn(64, 4, 6, 6)


@pytest.mark.parametrize("budget", ["params", "macs"])
@pytest.mark.parametrize("method", ["hosvd", "input_tucker"])
def test_the_budget_is_kept_and_nearly_spent(method, budget):
    model, x = network()
    for sparsity in (0.0, 0.3, 0.7, 0.95):
        small, report = lrp.compress(model, x, sparsity, method=method, budget=budget)
        found = report.attrs[f"sparsity_{budget}"]
        assert found >= sparsity - 1e-12 and found < sparsity + 0.15
        if sparsity == 0:
            assert torch.equal(small(x), model(x))
        elif sparsity == 0.7:
            assert isinstance(small[0], Tucker2) and isinstance(small[2], Tucker2)


def test_hosvd_has_equal_relative_ranks_and_the_best_core():
    """Against the projection on both sides' first singular vectors, written out."""
    model, x = network()
    small, _ = lrp.compress(model, x, 0.6, method="hosvd")
    q, r = small[0].ranks
    assert abs(q / 4 - r / 12) < 0.2 and abs(small[2].ranks[0] / 6 - r / 12) < 0.2
    W = model[0].weight.detach().double()
    U = torch.linalg.svd(W.flatten(1)).U[:, :r]
    P = torch.linalg.svd(W.transpose(0, 1).flatten(1)).U[:, :q]
    best = torch.einsum("ma,na,nckl,cb,db->mdkl", U, U, W, P, P)
    assert torch.allclose(small[0].weight_matrix().double().view_as(best), best, atol=1e-5)


def test_inputs_count():
    """In the inputs' norm the error is smaller than by weights alone, at the same ranks, where inputs are far from white."""
    model, x = network()
    x = x * torch.logspace(0, -2, 4).view(1, 4, 1, 1)
    plain, aware = (lrp.compress(model, x, 0.6, method=method, samples=4000) for method in ("hosvd", "input_tucker"))
    error = [float((small(x) - model(x)).square().mean()) for small, _ in (plain, aware)]
    assert error[1] < error[0]
    refitted, _ = lrp.compress(model, x, 0.6, method="hosvd", compensation="least_squares", samples=4000)
    assert float((refitted(x) - model(x)).square().mean()) < error[0]


def test_networks_of_other_layers():
    torch.manual_seed(0)
    for method in ("hosvd", "input_tucker"):
        small, report = lrp.compress(Depthwise().eval(), torch.randn(32, 3, 10, 9), 0.5, method=method)
        assert report.attrs["sparsity_params"] >= 0.5 and small(torch.randn(2, 3, 10, 9)).isfinite().all()


def test_energy_rank():
    energies = torch.tensor([5.0, 3, 1, 1])
    assert [energy_rank(energies, share) for share in (0.0, 0.5, 0.51, 0.8, 0.9, 1.0)] == [1, 1, 2, 2, 3, 4]
    assert energy_rank(torch.zeros(3), 0.5) == 3
