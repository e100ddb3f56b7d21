"""The ridge that is found by trial, against a slow search of its own."""

import copy

import pytest
import torch
from torch import nn

import lrp
from lrp.compensation import refit as compensation
from lrp.compensation.least_squares import ENOUGH, LeastSquares
from lrp.compensation.refit import RIDGE, RIDGES, best_ridge, refit
from lrp.config.build import compose_job
from lrp.config.parts import make
from lrp.decomposition.base import decompose
from lrp.decomposition.metric import OutputMetric
from lrp.errors import InputError
from lrp.form.alternating import fit_sides, rounds
from lrp.layer.base import LowRank
from lrp.layer.build import layer_matrices, low_rank_layer
from lrp.layer_statistics.folds import Folds, held_out
from lrp.layer_statistics.regression import Regression
from lrp.layer_statistics.sums import Sums
from lrp.partition import cut
from lrp.shelf import Shelf


def drawn(examples, columns, rows, groups=1, each=3, noise=0.0):
    """x (s, groups, N), z (s, M), places and examples of as many samples ``each``, and a weight (M, N), float64."""
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator).double()  # noqa: E731
    W = draw(rows, columns)
    x = draw(examples * each, groups, columns) + 0.5
    z = torch.cat([x[:, g] @ part.T for g, part in enumerate(W.chunk(groups))], 1) + noise * draw(examples * each, rows)
    example = torch.arange(examples).repeat_interleave(each)
    return x, z, torch.zeros(examples * each).long(), example, W


def test_folds_are_sums_of_whole_examples():
    x, z, where, example, _ = drawn(11, 4, 6, groups=2)
    folds = Folds(3)
    for rows in (slice(0, 8), slice(8, 33)):
        folds.add(x[rows], z[rows], where[rows], example[rows])
    folds.flush()
    for fold in (None, 0, 2):
        found, rows = folds.without(fold), example % 3 != (-1 if fold is None else fold)
        want = Sums()
        want.add(x[rows], z[rows])
        want.flush()
        assert found.count == want.count
        for name in ("x", "z", "xx", "zx"):
            assert torch.allclose(getattr(found, name), getattr(want, name), atol=1e-12)
    few = Folds(4)
    few.add(x[:6], z[:6], where[:6], example[:6])
    assert len(few.flush().parts) == 2  # parts of which there is no example are none


@pytest.mark.parametrize("columns", [4, 60], ids=["whole", "thin"])
def test_the_held_out_error_is_that_of_the_samples(columns):
    x, z, where, example, W = drawn(6, columns, 6, groups=2, noise=1.0)
    sums = Folds(1)
    sums.add(x, z, where, example)
    (part,) = sums.flush().parts
    assert bool(part.thin()) == (columns == 60)
    G = torch.randn(3, 5).double()
    G = G @ G.T
    for metric in (G, None):
        span, b = slice(3, 6), torch.randn(3).double()
        losses = []
        for weight in (W[span], W[span] + 1):
            left = z[:, span] - x[:, 1] @ weight.T - b
            slow = sum(float(row @ (torch.eye(3).double() if metric is None else metric) @ row) for row in left)
            losses.append((held_out(span, weight, b, part, metric, part.thin()), slow))
        (a, slow_a), (c, slow_c) = losses
        assert a - c == pytest.approx(slow_a - slow_c, rel=1e-9)  # what is left out is the same for both


def low_rank(W, rank):
    layer = nn.Linear(W.shape[1], len(W)).double()
    with torch.no_grad():
        layer.weight.copy_(W)
    matrices = layer_matrices(nn.Sequential(layer))
    (factor,) = decompose(matrices, cut(make("blocking", "none"), matrices))
    return low_rank_layer(copy.deepcopy(layer), [factor], [torch.arange(factor.block.rank) < rank])


@pytest.mark.parametrize(("noise", "rank"), [(0.0, None), (0.3, None), (30.0, None), (1.0, 2)])
def test_best_ridge_against_a_slow_search(noise, rank, monkeypatch):
    x, z, where, example, W = drawn(12, 9, 5, noise=noise)
    W = W + 0.3
    layer = nn.Linear(9, 5).double() if rank is None else low_rank(W, rank)
    assert rank is None or isinstance(layer, LowRank)
    before = copy.deepcopy(layer.state_dict())
    G = torch.diag(torch.arange(1.0, 6.0).double())
    folds = Folds(4)
    folds.add(x, z, where, example)
    tried = []
    monkeypatch.setattr(compensation, "held_out", lambda *given: (tried.append(1), held_out(*given))[1])
    with torch.no_grad():
        found = best_ridge(layer, W, folds.flush(), OutputMetric(G))
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    losses = []
    for ridge in RIDGES:
        total = 0.0
        for fold in range(4):
            held = example % 4 == fold
            X, Z = x[~held, 0], z[~held]
            mean_x, mean_z = X.mean(0), Z.mean(0)
            if rank is None:  # augmented least squares of the change
                C = (X - mean_x).T @ (X - mean_x) / len(X)
                more = (ridge * C.diagonal().mean() * len(X)) ** 0.5 * torch.eye(9).double()
                wanted = torch.cat([Z - mean_z - (X - mean_x) @ W.T, torch.zeros(9, 5).double()])
                new = W + torch.linalg.lstsq(torch.cat([X - mean_x, more]), wanted).solution.T
            else:
                twin, sums = copy.deepcopy(layer), Sums()
                sums.add(X[:, None], Z)
                with torch.no_grad():
                    refit(twin, W, sums.flush(), OutputMetric(G), ridge)
                assert isinstance(twin, LowRank)
                new = twin.weight_matrix().detach()
            left = z[held] - mean_z - (x[held, 0] - mean_x) @ new.T
            total += float(((left @ G) * left).sum())
        losses.append(total)
    assert found == RIDGES[losses.index(min(losses))]
    assert len(tried) == 4 * min(RIDGES.index(found) + 2, len(RIDGES)), "none behind the first that is no better"
    if rank is None:
        assert found == {0.0: RIDGES[0], 30.0: RIDGES[-1]}.get(noise, found)


def test_one_regression_with_several_ridges():
    x, z, *_, W = drawn(12, 9, 5, noise=1.0)
    sums = Sums()
    sums.add(x, z)
    first = Regression(copy.deepcopy(sums.flush()), W, 0.1)
    first.solution(0)
    again = Regression(copy.deepcopy(sums), W, 3.0).solution(0)
    fit = first.with_ridges(Shelf(kept=0))
    for _ in range(2):  # what lies in the file stays as it is
        fit(0.5).solution(0)
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(fit(3.0).solution(0), again))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 5)).double().eval()


def test_it_is_tried_only_where_samples_are_few():
    """With enough of them nothing differs from the usual ridge, to the bit."""
    model = network()
    for examples, same in ((ENOUGH * 24, True), (ENOUGH * 24 - 4, False)):
        x = torch.randn(examples, 20).double()
        fixed, tried = (lrp.compress(model, x, 0.5, compensation=LeastSquares(ridge=ridge))[0] for ridge in (RIDGE, "auto"))
        assert same == all(torch.equal(a, b) for a, b in zip(fixed.parameters(), tried.parameters(), strict=True))


def test_refused():
    with pytest.raises(InputError, match=r"compensation.ridge='?much'?: must be a number of at least 0, or auto"):
        LeastSquares(ridge="much")
    assert compose_job("compensation=least_squares", "compensation.ridge=auto").method.compensation.ridge == "auto"


def test_ridges_are_compared_on_the_first_turn():
    """A form that is fitted in turns: the comparison stops after one, the fit goes on."""
    torch.manual_seed(0)
    x, W = torch.randn(400, 18, dtype=torch.float64), torch.randn(8, 18, dtype=torch.float64)

    def made():
        return Regression(Sums.of_moments(x.T[None] @ x / 400, x.mean(0)[None], W, None), W, RIDGE)

    fit, rough = made(), made().with_ridges(Shelf())(0.3)
    assert rounds(rough) == 1 < rounds(fit) and not fit.rough
    best, metric = fit.solution(0)
    assert fit_sides(best, metric, None, 9, 1, 3, rounds=rounds(fit)).lost < fit_sides(best, metric, None, 9, 1, 3, rounds=1).lost
