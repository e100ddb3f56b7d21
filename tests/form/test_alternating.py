"""The fit of both sides against slow ways to find it."""

import pytest
import torch

from lrp.decomposition.metric import OutputMetric, metric_factors
from lrp.form.alternating import _inner_side, fit_sides

M, C, k = 7, 5, 4


@pytest.fixture
def problem():
    """A target (M, C k), and metrics of inputs and outputs that tie everything to everything."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator).double()  # noqa: E731
    X, g = draw(200, C * k) @ draw(C * k, C * k), draw(90, M) @ draw(M, M)
    return draw(M, C * k), X.T @ X / 200, g.T @ g / 90


def fit(problem, *given):
    best, metric, G = problem
    return fit_sides(best, metric, OutputMetric(G), *given)


def error(sides, best, metric, G):
    D = best - sides.U @ (sides.P.T @ sides.K).flatten(1)
    return float(torch.trace(G @ D @ metric @ D.T))


@pytest.mark.parametrize(("q", "r"), [(2, 3), (3, 7), (4, None), (1, 1)])
def test_the_error_never_rises_and_is_what_is_said(problem, q, r):
    errors = []
    for rounds in (1, 2, 3, 8):
        sides = fit(problem, k, q, r, rounds)
        errors.append(error(sides, *problem))
        assert sides.lost == pytest.approx(errors[-1], rel=1e-3)  # G's smallest eigenvalues are raised
    assert errors == sorted(errors, reverse=True)


def test_all_input_ranks_are_the_best_matrix(problem):
    best, metric, G = problem
    U, _, V = metric_factors(best, best @ metric @ best.T, G)
    for r in (1, 3, M):
        sides = fit(problem, k, C, r)
        assert torch.allclose(sides.U @ (sides.P.T @ sides.K).flatten(1), U[:, :r] @ V[:r], atol=1e-6)


def test_all_ranks_and_one_entry(problem):
    best, metric, G = problem
    assert error(fit(problem, k, C, None), *problem) < 1e-8 * error(fit(problem, k, 1, None), *problem)
    U, _, V = metric_factors(best, best @ metric @ best.T, G)
    sides = fit(problem, 1, 3, 5)  # a kernel of one entry: a matrix of the smaller rank
    assert torch.allclose(sides.U @ (sides.P.T @ sides.K).flatten(1), U[:, :3] @ V[:3], atol=1e-6)


def test_the_input_side_is_least_squares(problem):
    """Conjugate gradients against one solve with all entries of P as unknowns."""
    best, metric, G = problem
    sides = fit(problem, k, 2, 3, 1)
    root = torch.linalg.cholesky(G).T  # any root will do
    L = torch.linalg.cholesky(metric)
    columns = []
    for at in range(2 * C):
        P = torch.zeros(2 * C).double()
        P[at] = 1
        columns.append((root @ sides.U @ (P.view(2, C).T @ sides.K).flatten(1) @ L).flatten())
    slow = torch.linalg.lstsq(torch.stack(columns, 1), (root @ best @ L).flatten()).solution.view(2, C)
    channel = torch.einsum("ckdk->cd", metric.view(C, k, C, k))
    found = sides.P
    for _ in range(4):
        found = _inner_side(root @ sides.U, sides.K, found, root @ best, metric, channel)
    assert torch.allclose(found, slow, atol=1e-6 * float(slow.abs().max()))


def test_nothing_to_fit_and_singular_metrics(problem):
    best, metric, G = problem
    assert fit((torch.zeros_like(best), metric, G), k, 2, 2).lost == 0
    thin = torch.randn(3, C * k).double()
    for some in (thin.T @ thin, torch.zeros_like(metric)):
        sides = fit_sides(best, some, None, k, 2, 2)
        assert all(bool(part.isfinite().all()) for part in sides[:3])
