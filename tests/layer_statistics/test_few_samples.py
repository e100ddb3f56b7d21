"""Second moments of few samples by a thin factor, against the whole matrices."""

import pytest
import torch
from torch import nn

import lrp
from lrp.compensation.least_squares import LeastSquares
from lrp.form.alternating import inner_metric
from lrp.layer_statistics import few_samples
from lrp.layer_statistics.few_samples import FewSamples, thin_factor
from lrp.layer_statistics.regression import ridge_solve

N = 24


def moments(samples, seed=0):
    x = torch.randn(samples, N, generator=torch.Generator().manual_seed(seed)).double()
    return x.T @ x


def test_the_factor_is_exact_and_thin():
    C = moments(5)
    L = thin_factor(C, 8)
    assert L is not None and L.shape == (N, 5) and torch.allclose(L @ L.T, C, atol=1e-12)
    rounded = thin_factor(moments(5).float().double(), 5)
    assert rounded is not None and torch.allclose(rounded @ rounded.T, C, atol=1e-5)


@pytest.mark.parametrize(
    "C, samples", [(moments(5), 4), (moments(5), 9), (torch.zeros(N, N).double(), 2)], ids=["more than said", "many", "zeros"]
)
def test_there_is_none(C, samples):
    assert thin_factor(C, samples) is None


def test_it_acts_as_the_matrix():
    C, ridge = moments(5), 0.3
    L = thin_factor(C, 5)
    assert L is not None
    thin, whole = FewSamples(L).raised(ridge), C + ridge * torch.eye(N)
    X, P = torch.randn(7, N).double(), torch.linalg.qr(torch.randn(6, 3).double()).Q.T
    support = torch.arange(N) % 3 == 0
    inner = inner_metric(P, thin, 4)
    assert isinstance(inner, FewSamples)
    for found, want in (
        (X @ thin, X @ whole), (thin.diagonal(), whole.diagonal()), (thin.part(support), whole[support][:, support]),
        (thin.solved(X) @ whole, X), (thin.channels(4), torch.einsum("ckdk->cd", whole.view(6, 4, 6, 4))),
        (torch.eye(12).double() @ inner, inner_metric(P, whole, 4)),
    ):  # fmt: skip
        assert torch.allclose(found, want, atol=1e-10)
    W, A = torch.randn(2, 4, N).double()
    assert torch.allclose(ridge_solve(A, FewSamples(L), W, 0.1)[0], ridge_solve(A, C, W, 0.1)[0], atol=1e-8)


def network():
    torch.manual_seed(1)
    layers = (
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, groups=2),
        nn.ReLU(),
        nn.Conv2d(12, 10, 3),
        nn.Flatten(),
        nn.Linear(160, 6),
    )
    return nn.Sequential(*layers).double().eval()


@pytest.mark.parametrize(
    "options",
    [
        *({"forms": [form], "method": "output_aware"} for form in ("matrix", "tucker2", "spatial", "nested", "pivoted", "tucker2_pivoted")),
        {"method": "singular_vectors", "blocking": "alds"}, {"method": "singular_vectors", "decomposition": "entries"},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("ridge", [0.1, "auto"])
def test_every_form_is_fitted_as_by_the_whole_matrix(options, ridge, monkeypatch):
    """One position of each of six images: fewer samples than every layer has columns."""
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    thin, made = [], FewSamples.__init__
    monkeypatch.setattr(FewSamples, "__init__", lambda self, *given: (thin.append(1), made(self, *given))[1])

    def compressed():
        small, _ = lrp.compress(network(), x, 0.4, samples=1, compensation=LeastSquares(ridge=ridge), **options)
        return small(x + 0.1)

    found = compressed()
    assert thin
    monkeypatch.setattr(few_samples, "WORTHWHILE", 1e9)
    thin.clear()
    want = compressed()
    assert not thin and torch.allclose(found, want, atol=1e-6 * float(want.abs().max().detach()))
