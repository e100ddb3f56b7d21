"""Shrunk second moments, against the formula entry by entry and the truth."""

import pytest
import torch

from lrp.layer_statistics.shrinkage import ENOUGH, shrunk


def slow(S, n):
    p = len(S)
    trace = sum(float(S[i, i]) for i in range(p))
    squares = sum(float(S[i, j]) ** 2 for i in range(p) for j in range(p))
    rho = min((squares / p**2 + (trace / p) ** 2) / ((n + 1) * (squares / p**2 - (trace / p) ** 2 / p)), 1.0)
    return torch.tensor([[(1 - rho) * float(S[i, j]) + (rho * trace / p if i == j else 0.0) for j in range(p)] for i in range(p)]).double()


@pytest.mark.parametrize("flat", [True, False])
def test_against_the_formula_and_the_truth(flat):
    generator = torch.Generator().manual_seed(0)
    scale = torch.ones(12).double() if flat else torch.linspace(2, 0.1, 12).double()
    truth, errors = torch.diag(scale**2), torch.zeros(2)
    for _ in range(40):
        g = torch.randn(10, 12, generator=generator).double() * scale
        S = g.T @ g / 10
        found = shrunk(S.clone(), 10)
        assert float(found.trace()) == pytest.approx(float(S.trace())) and bool((torch.linalg.eigvalsh(found) > 0).all())
        errors += torch.tensor([float((estimate - truth).square().sum()) for estimate in (found, S)])
    assert torch.allclose(found, slow(S, 10), atol=1e-12)
    assert errors[0] < 0.8 * errors[1]


def test_what_rests_on_many_samples_stays():
    S = torch.diag(torch.arange(4.0)).double()
    assert torch.equal(shrunk(S.clone(), ENOUGH * 4), S)
    assert not torch.equal(shrunk(S.clone(), ENOUGH * 4 - 1), S)
    assert torch.equal(shrunk(torch.zeros(3, 3).double(), 1), torch.zeros(3, 3).double())
    assert torch.allclose(shrunk(2 * torch.eye(3).double(), 1), 2 * torch.eye(3).double())
