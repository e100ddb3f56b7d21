"""Refitting one layer by least squares, against solvers and from other starts."""

import copy

import pytest
import torch
from helpers import BLOCKINGS, ranks_of
from torch import nn

from lrp.compensation import least_squares
from lrp.compensation.refit import refit, set_bias
from lrp.decomposition.base import decompose
from lrp.decomposition.metric import OutputMetric, roots
from lrp.layer.base import LowRank
from lrp.layer.build import kind_of, layer_matrices, low_rank_layer
from lrp.layer_statistics.gather import gather
from lrp.layer_statistics.regression import ridge_solve
from lrp.layer_statistics.sums import Sums
from lrp.network.survey import find_candidates
from lrp.partition import cut

LAYERS = {
    "linear": (nn.Linear(9, 6), (9,)),
    "linear over tokens, no bias": (nn.Linear(6, 10, bias=False), (5, 6)),
    "2d": (nn.Conv2d(4, 8, 3, stride=2, padding=1), (4, 5, 4)),
    "2d, reflect, dilation": (nn.Conv2d(3, 12, (3, 1), padding=(2, 0), dilation=2, padding_mode="reflect", bias=False), (3, 6, 4)),
    "1d": (nn.Conv1d(5, 6, 3, padding="same"), (5, 7)),
    "grouped": (nn.Conv2d(6, 8, 3, padding=1, groups=2), (6, 4, 4)),
    "1d, grouped, no bias": (nn.Conv1d(6, 9, 4, groups=3, bias=False), (6, 9)),
}


@pytest.mark.parametrize("ridge", [0.0, 0.01, 3.0])
def test_ridge_solve_against_a_solver(ridge):
    X, Z, W = torch.randn(40, 6).double(), torch.randn(40, 4).double(), torch.randn(4, 6).double()
    C, A = X.T @ X / 40, Z.T @ X / 40
    found, metric = ridge_solve(A, C, W, ridge)
    penalty = ridge * float(C.diagonal().mean())
    augmented = torch.cat([X / 40**0.5, penalty**0.5 * torch.eye(6).double()])
    target = torch.cat([Z / 40**0.5, penalty**0.5 * W.T])
    assert torch.allclose(found, torch.linalg.lstsq(augmented, target).solution.T, atol=1e-10)
    assert torch.allclose(metric, C + penalty * torch.eye(6).double())


@pytest.mark.parametrize("zero", [False, True])
def test_a_singular_problem_stays_close(zero):
    """ridge 0: of all solutions the one nearest to W. It is nearly that at a tiny ridge, too."""
    X = torch.randn(3, 7).double() * (not zero)
    Z, W = torch.randn(3, 4).double(), torch.randn(4, 7).double()
    C, A = X.T @ X / 3, Z.T @ X / 3
    found, _ = ridge_solve(A, C, W, 0.0)
    nearest = W + (torch.linalg.pinv(X) @ (Z - X @ W.T)).T if not zero else W
    assert torch.allclose(found, nearest, atol=1e-8)
    assert torch.allclose(ridge_solve(A, C, W, 1e-7)[0], found, atol=1e-4)
    few = C.clone()
    few[0], few[:, 0] = 0, 0  # an input that is constant
    assert ridge_solve(A, few, W, 0.0)[0].isfinite().all()


def samples(layer, shape, count=60, noise=0.3):
    """Of a layer: x' and z, where z are the outputs from inputs that x' is a disturbed copy of, and the sums."""
    generator = torch.Generator().manual_seed(5)
    draw = lambda: torch.randn(count, *shape, generator=generator).double()  # noqa: E731
    x = draw() + 0.5
    changed = 0.9 * x + noise * draw()
    with torch.no_grad():
        z = layer(x)
    names = nn.Sequential(layer)
    candidates = find_candidates(names, x[:1])
    every = lambda module, values: gather(nn.Sequential(module), candidates, values, ["outputs"], lambda y: y.flatten(1))["0"]  # noqa: E731
    where = every(layer, x).where
    sums = Sums()
    sums.add(least_squares.columns(layer, changed, where), every(layer, x).outputs.flatten(0, 1))
    return changed, z, sums.flush()


def rows(z, layer):
    return z.reshape(-1, z.shape[-1]) if isinstance(layer, nn.Linear) else z.movedim(1, -1).reshape(-1, z.shape[1])


def matrix(module):
    return module.weight_matrix() if isinstance(module, LowRank) else module.weight.flatten(1)


def objective(module, dense, x, z, G, ridge, C):
    """E ||z - W' x' - b||_G^2 + lambda ||W' - W||_G^2, lambda of each group (a list) times its own rows."""
    with torch.no_grad():
        left = rows(z - module(x), dense)
        change = matrix(module) - dense.weight.flatten(1)
        total = float(((left @ G) * left).sum(1).mean())
        size = len(change) // len(C)
        for g, own in enumerate(C):
            span = slice(g * size, (g + 1) * size)
            total += ridge * float(own.diagonal().mean()) * float(((G[span, span] @ change[span]) * change[span]).sum())
        return total


def moments(sums):
    mean = sums.x / sums.count
    return sums.xx / sums.count - mean[:, :, None] * mean[:, None, :]


def pruned_layer(layer, blocking, share, full=False):
    matrices = layer_matrices(nn.Sequential(layer))
    factors = decompose(matrices, cut(BLOCKINGS[blocking], matrices))
    if full:
        low = kind_of(layer).low_rank(layer, [(f.block, f.block.rank) for f in factors])
        low.fill(layer, factors, [torch.ones(f.block.rank, dtype=bool) for f in factors])
        return low
    return low_rank_layer(copy.deepcopy(layer), factors, ranks_of(share, factors, seed=len(factors)))


def nudged(module, size):
    """The layer with all parameters moved a little, at random."""
    twin = copy.deepcopy(module)
    for p in twin.parameters():
        p.data.add_(size * torch.randn_like(p))
    return twin


@pytest.mark.parametrize("ridge", [0.0, 0.05])
@pytest.mark.parametrize("name", LAYERS)
def test_a_dense_layer(name, ridge):
    """Against a solver, group by group, and against moving any parameter."""
    layer, shape = copy.deepcopy(LAYERS[name][0]).double(), LAYERS[name][1]
    x, z, sums = samples(layer, shape)
    C = moments(sums)
    fitted = copy.deepcopy(layer)
    with torch.no_grad():
        refit(fitted, layer.weight.flatten(1), sums, None, ridge)
    size = len(layer.weight) // len(C)
    columns = least_squares.columns(layer, x, torch.arange(len(rows(z[:1], layer))).expand(len(x), -1))
    for g in range(len(C)):
        span = slice(g * size, (g + 1) * size)
        X, Z = columns[:, g], rows(z, layer)[:, span]
        n, penalty = len(X), (ridge * float(C[g].diagonal().mean())) ** 0.5
        inputs = torch.cat([torch.cat([X, torch.ones(n, 1).double()], 1) / n**0.5, penalty * torch.eye(X.shape[1] + 1).double()[:-1]])
        target = torch.cat([Z / n**0.5, penalty * layer.weight.flatten(1)[span].T])
        solution = torch.linalg.lstsq(inputs, target).solution.detach()
        assert torch.allclose(fitted.weight.flatten(1)[span], solution[:-1].T, atol=1e-8)
        assert torch.allclose(fitted.bias[span], solution[-1], atol=1e-8)
    G = torch.eye(len(layer.weight)).double()
    best = objective(fitted, layer, x, z, G, ridge, C)
    assert best < objective(layer, layer, x, z, G, ridge, C)
    assert all(objective(nudged(fitted, s), layer, x, z, G, ridge, C) >= best * (1 - 1e-9) for s in (1e-4, 1e-2, 0.3) for _ in range(2))


@pytest.mark.parametrize("metric", [None, "gradient"])
@pytest.mark.parametrize("ridge", [0.0, 0.05])
@pytest.mark.parametrize("name", LAYERS)
def test_an_unblocked_low_rank_layer_is_at_the_optimum(name, ridge, metric):
    """No step of U, V and the bias lowers the error and penalty in the metric of the gradients; nor does Adam find less."""
    layer, shape = copy.deepcopy(LAYERS[name][0]).double(), LAYERS[name][1]
    x, z, sums = samples(layer, shape)
    C, M = moments(sums), len(layer.weight)
    g = torch.randn(M, M + 3).double() / (1 + torch.arange(M)).double()[:, None]
    size = M // len(C)
    blocks = torch.block_diag(*[torch.ones(size, size)] * len(C)).double()
    G = torch.eye(M).double()
    if metric is not None:  # of each group its own part, floored
        halves = [roots((g @ g.T)[i : i + size, i : i + size])[0] for i in range(0, M, size)]
        G = torch.block_diag(*[half @ half for half in halves])
    assert torch.equal(G * blocks, G)
    low = pruned_layer(layer, "none", 0.5)
    if not isinstance(low, LowRank) or not low.V:
        matrices = layer_matrices(nn.Sequential(layer))
        factors = decompose(matrices, cut(BLOCKINGS["none"], matrices))
        low = kind_of(layer).low_rank(layer, [(f.block, 1) for f in factors])
        low.fill(layer, factors, [torch.arange(f.block.rank) < 1 for f in factors])
    start = objective(low, layer, x, z, G, ridge, C)
    with torch.no_grad():
        refit(low, layer.weight.flatten(1), sums, None if metric is None else OutputMetric(g @ g.T), ridge)
    best = objective(low, layer, x, z, G, ridge, C)
    assert best < start * (1 - 1e-6)
    assert all(objective(nudged(low, s), layer, x, z, G, ridge, C) >= best * (1 - 1e-9) for s in (1e-5, 1e-3, 0.1) for _ in range(2))
    U, V = low.U["0"], low.V["0_0"]
    assert torch.allclose(U.norm(dim=0), V.norm(dim=1))
    other = nudged(low, 0.5)  # from elsewhere
    optimiser = torch.optim.Adam(other.parameters(), lr=0.05)
    for _ in range(25):
        optimiser.zero_grad()
        left, change = rows(z - other(x), layer), other.weight_matrix() - layer.weight.detach().flatten(1)
        penalty = sum(
            ridge * own.diagonal().mean() * ((G[s, s] @ change[s]) * change[s]).sum()
            for own, s in zip(C, (slice(i * size, (i + 1) * size) for i in range(len(C))))
        )
        (((left @ G) * left).sum(1).mean() + penalty).backward()
        optimiser.step()
    assert objective(other, layer, x, z, G, ridge, C) >= best * (1 - 1e-9)


@pytest.mark.parametrize("share", [0.15, 0.5])
@pytest.mark.parametrize("blocking", BLOCKINGS)
@pytest.mark.parametrize("name", LAYERS)
def test_never_worse_than_the_start(name, blocking, share):
    """At ridge 0 without a metric the error cannot rise; with a ridge what is kept still gives no more than the start's error."""
    layer, shape = copy.deepcopy(LAYERS[name][0]).double(), LAYERS[name][1]
    x, z, sums = samples(layer, shape)
    start = pruned_layer(layer, blocking, share)
    G = torch.eye(len(layer.weight)).double()
    before = objective(start, layer, x, z, G, 0, moments(sums))
    for ridge in (0.0, 0.1):
        low = copy.deepcopy(start)
        with torch.no_grad():
            refit(low, layer.weight.flatten(1), copy.deepcopy(sums), None, ridge)
        after = objective(low, layer, x, z, G, 0, moments(sums))
        single = not isinstance(low, LowRank) or all([p.columns for p in r.parts] == [(0, low.columns)] for r in low.ranges)
        if ridge == 0 or not single:  # there the penalty holds the start: whatever it costs is less than what it gains
            assert after <= before * (1 + 1e-9)
        if single:
            own = [objective(m, layer, x, z, G, ridge, moments(sums)) for m in (low, start)]
            assert own[0] <= own[1] * (1 + 1e-9)
        left = rows(z - low(x), layer)
        assert torch.allclose(left.mean(0), torch.zeros_like(left[0]), atol=1e-9)  # the bias takes the mean
        if ridge == 0 and not single:
            for _ in range(3):  # V and the split stay: U, whole blocks and bias are at their optimum
                twin = copy.deepcopy(low)
                for p in [*twin.U.values(), *twin.W.values(), twin.bias]:
                    p.data.add_(1e-3 * torch.randn_like(p))
                assert objective(twin, layer, x, z, G, 0, moments(sums)) >= after * (1 - 1e-9)
            assert all(torch.equal(low.V[k], start.V[k]) for k in low.V) or any(
                [p.columns for p in r.parts] == [(0, low.columns)] for r in low.ranges
            )


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("blocking", [*BLOCKINGS, "dense"])
@pytest.mark.parametrize("name", LAYERS)
def test_nothing_changes_at_full_rank(name, blocking, ridge):
    """From inputs that have not changed; also where they are fewer than the columns."""
    layer, shape = copy.deepcopy(LAYERS[name][0]).double(), LAYERS[name][1]
    for count in (60, 2):
        low = copy.deepcopy(layer) if blocking == "dense" else pruned_layer(layer, blocking, 1, full=True)
        generator = torch.Generator().manual_seed(2)
        x = torch.randn(count, *shape, generator=generator).double()
        net = nn.Sequential(layer)
        found = gather(net, find_candidates(net, x[:1]), x, ["outputs", "gradients"], lambda y: y.flatten(1))["0"]
        sums = Sums()
        sums.add(least_squares.columns(layer, x, found.where), found.outputs.flatten(0, 1))
        for G in (None, OutputMetric(found.gradients)):
            with torch.no_grad():
                refit(low, layer.weight.flatten(1), copy.deepcopy(sums.flush()), G, ridge)
                assert torch.allclose(matrix(low), layer.weight.flatten(1), atol=1e-8)
                assert torch.allclose(low(x), layer(x), atol=1e-8)
                assert torch.allclose(low.bias, torch.zeros(()).double() if layer.bias is None else layer.bias, atol=1e-8)


def test_a_layer_of_rank_zero_gives_the_mean():
    for dtype, bias in ((torch.float64, True), (torch.float64, False), (torch.float16, False)):
        layer = nn.Conv2d(4, 6, 3, bias=bias).to(dtype)
        matrices = layer_matrices(nn.Sequential(layer))
        factors = decompose(matrices, cut(BLOCKINGS["none"], matrices))
        low = low_rank_layer(layer, factors, [torch.zeros(6, dtype=torch.bool)])
        _, z, sums = samples(copy.deepcopy(layer).double(), (4, 5, 5))
        with torch.no_grad():
            refit(low, layer.weight.flatten(1), sums, None, 0.01)
        assert torch.allclose(low.bias.double(), z.mean((0, 2, 3)), atol=1e-10 if dtype == torch.float64 else 1e-3)
        assert low.bias.dtype == dtype and low.bias.requires_grad  # as the weight was


def test_biases_are_noted():
    layer = nn.Linear(3, 2, bias=False).double().requires_grad_(False)
    set_bias(layer, torch.ones(2), layer.weight)
    assert layer.added_bias and layer.bias.dtype == torch.float64 and not layer.bias.requires_grad
    other = nn.Linear(3, 2)
    held = other.bias
    with torch.no_grad():
        set_bias(other, torch.ones(2).double(), other.weight)
    assert other.bias is held and other.bias.tolist() == [1, 1] and not hasattr(other, "added_bias")
