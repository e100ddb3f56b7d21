"""Second moments of few samples by a thin factor, against the whole matrices."""

import pytest
import torch
from torch import nn

import lrp
from lrp.compensation.least_squares import LeastSquares
from lrp.form.alternating import inner_metric
from lrp.form.known import BUILT
from lrp.layer_statistics import few_samples
from lrp.layer_statistics.few_samples import FewSamples, thin_factor
from lrp.layer_statistics.regression import Regression, ridge_solve
from lrp.layer_statistics.sums import Sums

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


def far_from_zero():
    """Centred second moments of samples whose mean is far larger than their spread, summed in single precision: rounding, mostly."""
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) @ torch.randn(3, N, generator=torch.Generator().manual_seed(1)) + 300
    mean = x.double().mean(0)
    return (x.T @ x).double() / 6 - mean[:, None] * mean


@pytest.mark.parametrize(
    "C, samples",
    [(moments(5), 4), (moments(5), 9), (torch.zeros(N, N).double(), 2), (far_from_zero(), 6)],
    ids=["more than said", "many", "zeros", "rounding"],
)
def test_there_is_none(C, samples):
    assert thin_factor(C, samples) is None


def test_samples_that_repeat_each_other():
    x = torch.randn(2, N, generator=torch.Generator().manual_seed(0)).double()[[0, 1, 1, 0]]
    L = thin_factor(x.T @ x, 4)
    assert L is not None and L.shape == (N, 2) and torch.allclose(L @ L.T, x.T @ x, atol=1e-12)


@pytest.mark.parametrize("ridge", [0.0, 1e-10, 1e-5])
def test_small_ridges_need_the_whole_matrix(ridge):
    sums = Sums()
    x = torch.randn(5, N, generator=torch.Generator().manual_seed(0)).double()
    sums.add(x[:, None], x[:, :3])
    assert not Regression(sums.flush(), torch.randn(3, N).double(), ridge).thin


def test_nothing_changes_that_needs_no_change():
    """One input that dwarfs the others: of these C hardly knows anything, and the weight is already what gives z."""
    x = torch.randn(6, N, generator=torch.Generator().manual_seed(0)).double()
    x[:, 0] *= 1e5
    W, sums = torch.randn(3, N).double(), Sums()
    sums.add(x[:, None], x @ W.T)
    fit = Regression(sums.flush(), W, 0.03)
    assert fit.thin and torch.allclose(fit.solution(0)[0], W, atol=1e-3)


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
        (X @ thin, X @ whole), (thin.diagonal(), whole.diagonal()), (thin.solved(X) @ whole, X), (thin.quadratic(X), X @ whole @ X.T),
        (torch.eye(8).double() @ FewSamples(L).part(support), C[support][:, support]),
        (thin.channels(4), torch.einsum("ckdk->cd", whole.view(6, 4, 6, 4))), (torch.eye(12).double() @ inner, inner_metric(P, whole, 4)),
    ):  # fmt: skip
        assert torch.allclose(found, want, atol=1e-10)
    W, A = torch.randn(4, N).double(), torch.randn(4, N).double() @ C
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


FORMS = ("matrix", "tucker2", "spatial", "nested", "pivoted", "tucker2_pivoted")


@pytest.mark.parametrize(
    "form, options",
    [
        *((form, {"forms": [form], "method": "output_aware"}) for form in FORMS),
        ("matrix", {"method": "singular_vectors", "blocking": "alds"}),
        ("masked", {"method": "singular_vectors", "decomposition": "entries"}),
    ],
    ids=[*FORMS, "blocks", "masked"],
)
@pytest.mark.parametrize("ridge", [0.1, "auto"])
def test_every_form_is_fitted_as_by_the_whole_matrix(form, options, ridge, monkeypatch):
    """One position of each of six images: fewer samples than every layer has columns."""
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    used = set()

    def watched(real):
        def refit(self, module, fit, gradients):
            if fit.thin:
                used.add(self.name)
            return real(self, module, fit, gradients)

        return refit

    for kind in {type(each) for each in BUILT.values() if "refit" in vars(type(each))}:
        monkeypatch.setattr(kind, "refit", watched(kind.refit))

    def compressed():
        small, _ = lrp.compress(network(), x, 0.3, samples=1, compensation=LeastSquares(ridge=ridge), **options)
        return small(x + 0.1)

    found = compressed()
    assert used == {form}
    monkeypatch.setattr(few_samples, "WORTHWHILE", 1e9)
    used.clear()
    want = compressed()
    assert not used and torch.allclose(found, want, atol=1e-6 * float(want.abs().max().detach()))
