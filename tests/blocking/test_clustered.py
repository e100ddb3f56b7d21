"""Groups of channels that belong together: the search for them, and what becomes of a network that is cut so."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

import lrp
from lrp.blocking.clustered import ClusteredBlocking
from lrp.blocking.clusters import Points
from lrp.config.parts import make
from lrp.decomposition.metric import metric_factors
from lrp.errors import InputError
from lrp.layer.permuted import Permuted
from lrp.matrices import LayerMatrix


def planted(p=9, k=3, each=4, kernel=2, rank=2, seed=0):
    """A matrix (p, N) whose channels lie in k subspaces, in a random order, and the subspace of each channel."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    parts = [draw(p, rank) @ draw(rank, each * kernel) for _ in range(k)]
    order = torch.randperm(k * each, generator=generator)
    weight = torch.cat(parts, 1).view(p, k * each, kernel)[:, order].flatten(1)
    return weight, torch.arange(k).repeat_interleave(each)[order]


def metric(n, seed=1):
    x = torch.randn(3 * n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x = x * torch.logspace(0, 0.5, n, dtype=torch.float64)
    return x.T @ x / (3 * n)


def slow_error(T, C, labels, kernel, rank):
    """Block by block by the decomposition that lrp has for one, and the error of all of them together."""
    D = T.clone()
    for b in labels.unique():
        columns = torch.tensor([i for i in range(T.shape[1]) if labels[i // kernel] == b])
        part = T[:, columns]
        U, _, V = metric_factors(part, part @ C[columns][:, columns] @ part.T, None)
        D[:, columns] -= U[:, :rank] @ V[:rank]
    return float(torch.trace(D @ C @ D.T))


@pytest.mark.parametrize("C", [None, metric(24)], ids=["weights", "metric"])
def test_planted_groups_are_found_and_no_error_is_above_that_of_contiguous_ones(C):
    weight, truth = planted()
    points = Points(weight, C, 2, [4, 4, 4], 2)
    labels, errors = points.best(4)
    assert min(errors) < 1e-10 * errors[0] and min(errors) == pytest.approx(points.error(labels), abs=1e-12)
    assert (labels[:, None] == labels).equal(truth[:, None] == truth)


@pytest.mark.parametrize("C", [None, torch.linspace(1, 3, 20).double(), metric(20)], ids=["weights", "diagonal", "metric"])
def test_errors_fall_on_the_way_and_are_those_of_the_blocks(C):
    T = torch.randn(6, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    points, full = Points(T, C, 2, [4, 3, 3], 2), torch.eye(20).double() if C is None else C if C.dim() == 2 else C.diag()
    for start in points.starts(5):
        labels, errors = points.descend(start)
        assert all(later < earlier for earlier, later in itertools.pairwise(errors))
        assert labels.bincount().tolist() == [4, 3, 3]
        assert errors[-1] == pytest.approx(slow_error(T, full, labels, 2, 2), rel=1e-8)


def test_a_cost_is_what_moving_a_channel_changes():
    """Against the error computed anew, the components of the groups held."""
    T, C = torch.randn(5, 12, dtype=torch.float64), metric(12)
    points, labels = Points(T, C, 2, [2, 2, 2], 1), torch.tensor([0, 1, 2, 0, 1, 2])
    D, bases = points.fit(labels)
    costs = points.costs(D, bases)
    for c, b in itertools.product(range(6), range(3)):
        moved, span = D.clone(), slice(2 * c, 2 * c + 2)
        moved[:, span] = T[:, span] - bases[b] @ bases[b].T @ T[:, span]
        change = float(torch.trace(moved @ C @ moved.T) - torch.trace(D @ C @ D.T))
        assert float(costs[c, b] - costs[c, labels[c]]) == pytest.approx(change, abs=1e-10)


def test_the_best_partition_by_brute_force():
    weight, _ = planted(p=5, k=2, each=3, kernel=1, rank=1, seed=4)
    points = Points(weight + 0.3 * torch.randn(5, 6, generator=torch.Generator().manual_seed(5)), None, 1, [3, 3], 1)
    every = [torch.tensor([0 if i in chosen else 1 for i in range(6)]) for chosen in itertools.combinations(range(6), 3)]
    assert points.error(points.best(6)[0]) == pytest.approx(min(points.error(labels) for labels in every))


def test_what_cannot_be_reordered_is_contiguous():
    weight, _ = planted()
    contiguous, moved = (
        ClusteredBlocking(3, at_sparsity=0.5)({"a": LayerMatrix("a", weight, 2, reorders=reorders)}) for reorders in (False, True)
    )
    assert [block.order for block in contiguous] == [None] * 3 and contiguous == make("blocking", "alds", k=3)(
        {"a": LayerMatrix("a", weight, 2)}
    )
    order = moved[0].order
    assert order is not None and sorted(order.channels) == list(range(12)) and all(block.order is order for block in moved)
    assert torch.cat([block.of(weight) for block in moved], 1).equal(weight.view(9, 12, 2)[:, list(order.channels)].flatten(1))


@pytest.mark.parametrize("wrong", [{"k": 0}, {"side": "rows"}, {"at_sparsity": 1.0}, {"at_sparsity": -0.1}, {"starts": 0}])
def test_options_are_checked(wrong):
    with pytest.raises(InputError, match=f"blocking.{next(iter(wrong))}="):
        ClusteredBlocking(**wrong)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 10), nn.ReLU(), nn.Linear(10, 6),
    ).eval()  # fmt: skip


@pytest.mark.parametrize(("side", "decomposition", "compensation"), [
    ("inputs", "two_sided", "least_squares"), ("inputs", "svd", "surgeon"), ("outputs", "activation", "least_squares"),
])  # fmt: skip
def test_a_network_is_compressed_saved_fused_and_trained(side, decomposition, compensation, tmp_path):
    model, x = network(), torch.randn(32, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    fitted = lrp.fit(
        model, x, method="singular_vectors", blocking=ClusteredBlocking(2, side), decomposition=decomposition, compensation=compensation,
        scorer="perturbation",
    )  # fmt: skip
    small, _ = fitted.compress(0.5)
    layers = [layer for layer in small if isinstance(layer, Permuted)]
    assert layers
    lrp.save(small, tmp_path / "a.safetensors")
    assert torch.equal(lrp.load(tmp_path / "a.safetensors", network())(x), small(x))
    fused = lrp.fuse(small)
    assert torch.allclose(fused(x), small(x), atol=1e-6)
    if side == "inputs":
        still = [name for name, layer in fused.named_children() if isinstance(layer, Permuted) and layer.order is not None]
        assert still in (["0", "7"], ["7"], ["0"], [])  # the image, and what is flattened: nothing before them can be reordered
        assert fused[9].order is None
    lrp.save(fused, tmp_path / "b.safetensors")
    assert torch.equal(lrp.load(tmp_path / "b.safetensors", network())(x), fused(x))
    before = small(x)
    torch.optim.SGD(small.parameters(), 0.1).zero_grad()
    before.square().mean().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_full_rank_is_the_network_itself():
    model, x = network().double(), torch.randn(16, 3, 6, 6, generator=torch.Generator().manual_seed(0)).double()
    fitted = lrp.fit(model, x, method="singular_vectors", blocking=ClusteredBlocking(2), decomposition="svd", scorer="magnitude")
    state = fitted.method
    whole = state.build([torch.ones(factor.block.rank, dtype=torch.bool) for factor in state.factors])
    assert torch.equal(whole(x), model(x))
    for factor in state.factors:
        assert torch.allclose(factor.U @ factor.V, factor.block.of(state.evidence.matrices[factor.block.layer].weight))
    exact = make("estimator", "exact")(state.evidence.network, state.factors, x)[0]
    first = make("estimator", "first_order")(state.evidence.network, state.factors, x)[0]
    with pytest.raises(InputError, match="rounds.keep_factor"):
        replace(state.method, keep_factor=0.5)
    last = [i for i, factor in enumerate(state.factors) if factor.block.layer == "9"]
    assert all(torch.allclose(exact[i].second, first[i].second) for i in last)  # behind it the network is linear
