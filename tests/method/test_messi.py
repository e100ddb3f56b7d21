"""Projective clustering against its definition, planted subspaces, and MESSI as a method."""

import itertools

import pytest
import torch
from torch import nn

import lrp
from lrp.compensation.least_squares import LeastSquares
from lrp.compensation.none import NoCompensation
from lrp.errors import InputError
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.evidence import Evidence
from lrp.layer.clusters import Clustered
from lrp.method.messi import Messi
from lrp.method.subspaces import balanced, cluster, distances, exchanged, nearest, settle, subspace


def planted(count, size, rank, d, seed, m=1):
    """(points of ``count`` random subspaces in a random order, which subspace each is from)"""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    points = torch.cat([torch.einsum("dr,nrm->ndm", draw(d, rank), draw(size, rank, m)) for _ in range(count)])
    order = torch.randperm(len(points), generator=generator)
    return points[order], torch.arange(count).repeat_interleave(size)[order]


def same_parts(a, b):
    return len({*zip(a.tolist(), b.tolist())}) == len({*a.tolist()}) == len({*b.tolist()})


def test_distances_and_subspaces_by_their_definition():
    points, _ = planted(2, 5, 3, 4, 0, m=2)
    basis = subspace(points, 2)
    P = basis @ basis.T
    slow = [sum(float((point[:, c] - P @ point[:, c]).square().sum()) for c in range(2)) for point in points]
    assert torch.allclose(distances(points, [basis])[:, 0], torch.tensor(slow).double())
    S = torch.linalg.svdvals(points.transpose(1, 2).flatten(0, 1))
    assert abs(sum(slow) - float(S[2:].square().sum())) < 1e-9  # no subspace loses less (Eckart, Young)
    weights = torch.rand(10).double()
    twice = torch.cat([points[:1], points])  # a point of weight 2
    weights[0] = 2
    weights[1:] = 1
    a, b = subspace(points, 2, weights), subspace(twice, 2)
    assert torch.allclose(a @ a.T, b @ b.T)


@pytest.mark.parametrize("assign", [nearest, balanced, exchanged])
def test_the_cost_never_rises(assign):
    generator = torch.Generator().manual_seed(0)
    for trial in range(8):
        points = torch.randn(24, 5, 1 + trial % 2, generator=generator, dtype=torch.float64)
        weights = torch.rand(24, generator=generator, dtype=torch.float64) ** 3 if trial > 3 else None
        labels = torch.randint(0, 4, (24,), generator=generator)
        ranks = [1, 2, 1, 3]
        found, costs = settle(points, labels, ranks, assign, 15, weights)
        assert len(costs) > 1 and all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(costs))
        if assign is not nearest:
            assert torch.equal(found.bincount(minlength=4), labels.bincount(minlength=4))


def test_assignments_against_all_there_are():
    """Of equal sizes the assignment is the best of all; exchanges between two clusters are the best as well."""
    lost = torch.rand(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    total = lambda lost, labels: float(lost[torch.arange(6), torch.as_tensor(labels)].sum())  # noqa: E731
    best = min(total(lost, each) for each in {*itertools.permutations(labels.tolist())})
    assert abs(total(lost, balanced(lost, labels)) - best) < 1e-12
    two = torch.tensor([0, 0, 0, 0, 1, 1])
    best = min(total(lost, each) for each in {*itertools.permutations(two.tolist())})
    assert abs(total(lost[:, :2], exchanged(lost[:, :2], two)) - best) < 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_planted_subspaces_are_found(seed):
    """Lines of rows, within 10 restarts, and as many channels in each subspace."""
    points, truth = planted(3, 20, 2, 8, seed)
    labels, lost = cluster(points, 3, 2, nearest, 10, 30, torch.Generator().manual_seed(seed))
    assert lost < 1e-9 * float(points.square().sum()) and same_parts(labels, truth)
    points, truth = planted(4, 4, 2, 12, seed, m=3)
    labels, lost = cluster(points, 4, 2, balanced, 10, 30, torch.Generator().manual_seed(seed))
    assert lost < 1e-9 * float(points.square().sum()) and same_parts(labels, truth)


def fitted_to(model, x, **options):
    return Messi(FirstOrderEstimator(), **options).fit(Evidence(model, x))


def test_the_toy_of_the_paper():
    """120 points on 3 lines in 3 dimensions: 129 numbers without an error, where the SVD of rank 2 holds 246 and errs."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    W = torch.cat([draw(40, 1) * draw(3) for _ in range(3)])
    model, x = nn.Sequential(nn.Linear(3, 120)).double().eval(), torch.randn(16, 3).double()
    model[0].weight.data = W[torch.randperm(120, generator=generator)]
    fitted = fitted_to(model, x, clusters=3)
    plan = fitted.plan(1 - 129 / 360)
    assert plan.params == 129 and plan.layers["0"].rows()[0]["form"] == "clusters"
    assert torch.allclose(plan.build()(x), model(x), atol=1e-9)
    assert float(torch.linalg.svdvals(W)[2]) > 0.1 and 2 * (120 + 3) == 246


def network():
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(6, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 12, 3, stride=2, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 20),
    ]
    return nn.Sequential(*layers).double().eval(), torch.randn(48, 6, 6, 6).double()


@pytest.mark.parametrize("budget", ["params", "macs"])
def test_the_budget_is_kept(budget):
    model, x = network()
    fitted = fitted_to(model, x, clusters=4, restarts=2, budget=budget)
    for sparsity in (0.0, 0.2, 0.5, 0.8, 0.95):
        plan = fitted.plan(sparsity)
        small, _ = fitted.compress(plan)
        found = fitted.sizes(small, plan)[f"sparsity_{budget}"]
        assert sparsity - 1e-12 <= found < sparsity + 0.1
        if sparsity == 0:
            assert torch.equal(small(x), model(x))
        if sparsity == 0.5:
            assert isinstance(small[0], Clustered) and isinstance(small[5], Clustered)
            assert len({*(block.shape[1] for block, _ in small[0].blocks)}) == 1  # of one size: 3 of 2 channels
            counted = fitted.sizes(small, plan)
            assert counted["macs_layers"] == counted["macs"]  # as torch counts them


def test_one_cluster_is_the_svd():
    model, x = network()
    a, b = (lrp.compress(model, x, 0.5, method=each)[0] for each in ("svd_uniform", Messi(FirstOrderEstimator(), clusters=1)))
    assert all(torch.allclose(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_is_compensated_and_trains():
    model, x = network()
    fitted = [fitted_to(model, x, clusters=4, restarts=2, compensation=each) for each in (NoCompensation(), LeastSquares(ridge=1e-6))]
    small, better = (each.compress(each.plan(0.6))[0] for each in fitted)
    error = [float((net(x) - model(x)).detach().square().mean()) for net in (small, better)]
    assert error[1] < 0.7 * error[0]
    optimiser = torch.optim.SGD(small.parameters(), lr=0.02)
    for _ in range(20):
        optimiser.zero_grad()
        (small(x) - model(x).detach()).square().mean().backward()
        optimiser.step()
    assert float((small(x) - model(x)).detach().square().mean()) < error[0]


def test_more_clusters_than_points():
    model, x = network()
    with pytest.raises(InputError, match="^method.clusters=21: no layer has so many rows.*; 5 has the most, 20"):
        fitted_to(model, x, clusters=21)
