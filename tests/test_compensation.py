"""The least squares compensation against brute force, and the inputs that it reads of a network that changes behind them."""

import copy
import dataclasses

import pytest
import torch
import yaml
from conftest import randomise
from hydra.utils import instantiate
from torch import nn
from torch.nn import functional as F

import lrp
from lrp.batches import Batches
from lrp.compensation import least_squares
from lrp.compensation.least_squares import LeastSquares, refit, ridge_solve, set_bias
from lrp.compensation.none import NoCompensation
from lrp.compression import compress
from lrp.config.paths import CONF
from lrp.cost.count import count_params
from lrp.decomposition.base import decompose
from lrp.decomposition.metric import roots
from lrp.deploy.saving import load, save
from lrp.errors import InputError
from lrp.evidence import Evidence
from lrp.layer.base import LowRank
from lrp.layer.build import kind_of, layer_matrices, low_rank_layer, replace_layer
from lrp.layer_statistics.gather import gather
from lrp.layer_statistics.sums import Sums
from lrp.matrices import cut
from lrp.method.singular_vectors import SingularVectors
from lrp.network.arithmetic import layer_input
from lrp.network.layer_inputs import MEMORY, Replay
from lrp.network.survey import find_candidates

BLOCKINGS = {file.stem: instantiate(yaml.safe_load(file.read_text())) for file in sorted(CONF.glob("blocking/*.yaml"))}
SHAPES = {
    "residual": (3, 9, 8), "depthwise": (3, 10, 9), "tokens": (3, 5, 4), "untraceable": (3, 9, 8), "keywords": (12,), "encoder": (5, 6),
}  # fmt: skip
LAYERS = {
    "linear": (nn.Linear(9, 6), (9,)),
    "linear over tokens, no bias": (nn.Linear(6, 10, bias=False), (5, 6)),
    "2d": (nn.Conv2d(4, 8, 3, stride=2, padding=1), (4, 5, 4)),
    "2d, reflect, dilation": (nn.Conv2d(3, 12, (3, 1), padding=(2, 0), dilation=2, padding_mode="reflect", bias=False), (3, 6, 4)),
    "1d": (nn.Conv1d(5, 6, 3, padding="same"), (5, 7)),
    "grouped": (nn.Conv2d(6, 8, 3, padding=1, groups=2), (6, 4, 4)),
    "1d, grouped, no bias": (nn.Conv1d(6, 9, 4, groups=3, bias=False), (6, 9)),
}


class Untraceable(nn.Module):
    """torch.fx cannot follow what depends on values; writes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = self.relu(self.first(x))
        if float(x.sum()) >= 0:
            x = x + self.second(x)
        x *= 0.5
        return self.fc(self.relu(x).mean((2, 3)))


class Keywords(nn.Module):
    """Layers called with keywords, defined in another order than they run in, a layer that does not run, two heads; takes more
    than the images."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(10, 3)
        self.unused = nn.Linear(4, 4)
        self.right = nn.Linear(10, 2, bias=False)
        self.trunk = nn.ModuleList([nn.Linear(12, 10), nn.Linear(10, 10)])

    def forward(self, x, *more, scale=1.0, **options):
        x = scale * torch.tanh(self.trunk[1](input=torch.relu(self.trunk[0](input=x))))
        return self.left(x), self.right(input=x)


class Encoder(nn.Module):
    """Layers inside one of torch's own modules, which torch.fx does not look into."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, dim_feedforward=12, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x)).mean(1))


@pytest.fixture
def untraceable():
    return randomise(Untraceable())


@pytest.fixture
def keywords():
    return randomise(Keywords())


@pytest.fixture
def encoder():
    return randomise(Encoder())


@pytest.fixture(params=SHAPES)
def network(request):
    """(a network in float64, 12 inputs)"""
    return request.getfixturevalue(request.param), torch.randn(12, *SHAPES[request.param]).double()


def read(y):
    return torch.cat(y, 1) if isinstance(y, tuple) else y.flatten(1)


def ranks_of(share, factors, seed=0):
    """Masks of the first components, about a share of them, all of a block that is stored whole."""
    generator, keep = torch.Generator().manual_seed(seed), []
    for f in factors:
        rank = int(f.block.rank * share * 2 * torch.rand((), generator=generator))
        keep.append(torch.arange(f.block.rank) < (f.block.rank if f.block.is_dense(rank) else rank))
    return keep


# Least squares


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
        refit(low, layer.weight.flatten(1), sums, None if metric is None else g @ g.T, ridge)
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
            refit(low, layer.weight.flatten(1), sums, None, ridge)
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
        for G in (None, found.gradients):
            with torch.no_grad():
                refit(low, layer.weight.flatten(1), sums.flush(), G, ridge)
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


# Replay


@torch.no_grad()
def slow_inputs(model, name, batches):
    """What a layer reads when the whole network runs."""
    found = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, a, k: found.append(layer_input(a, k).clone()), with_kwargs=True)
    for batch in batches:
        model(batch.clone())
    handle.remove()
    return found


def prune_network(model, x, blocking="none", share=0.4):
    candidates = find_candidates(model, x[:1])
    factors = decompose(candidates.matrices, cut(BLOCKINGS[blocking], candidates.matrices))
    return candidates, lrp.layer.build.build(model, factors, ranks_of(share, factors))


def test_replay_gives_what_hooks_give(network):
    """Every layer changes once its inputs were seen; the layers behind it see that."""
    model, x = network
    batches = x.split(5)
    candidates, low = prune_network(model, x)
    for net, memory in ((copy.deepcopy(model), MEMORY), (low, MEMORY), (model, 100)):  # little: from the beginning for each
        whole, names = copy.deepcopy(net), list(candidates.matrices)
        images, state = x.clone(), set(vars(net))
        replay = Replay(net, Batches.of(list(batches)), len(batches[0]), memory)
        order = replay.order(names)
        assert set(order) == set(names) and len(order) == len(names)  # all that run; no unused one is a candidate
        for name in order:
            found = [part.clone() for part in replay.inputs(name)]
            expected = slow_inputs(whole, name, batches)
            assert len(found) == len(batches) and all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, expected))
            for changed in (net, whole):
                for p in changed.get_submodule(name).parameters():
                    p.data.mul_(1.1).add_(0.01)
        assert torch.equal(x, images) and set(vars(net)) == state  # nothing is left behind
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in net.modules())


def test_replay_runs_each_layer_once_where_it_can(residual, untraceable):
    for model, most in ((residual, 1), (untraceable, 3)):
        x, count = torch.randn(4, 3, 9, 8).double(), dict.fromkeys(["first" if model is untraceable else "stem"], 0)
        (first,) = count
        replay = Replay(model, Batches.of(x), len(x))
        order = replay.order([n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))])
        handle = model.get_submodule(first).register_forward_hook(lambda *_: count.update({first: count[first] + 1}))
        for name in order:
            list(replay.inputs(name))
        handle.remove()
        assert count[first] <= most
        skipped = Replay(model, Batches.of(x), len(x))  # layers may be left out
        assert torch.allclose(next(iter(skipped.inputs("fc"))), slow_inputs(model, "fc", [x])[0])


def test_replay_of_a_layer_that_does_not_run(keywords):
    x = torch.randn(3, 12).double()
    assert Replay(keywords, Batches.of(x), len(x)).order(["right", "unused", "trunk.1", "left", "trunk.0"])[:2] == ["trunk.0", "trunk.1"]
    assert "unused" not in Replay(keywords, Batches.of(x), len(x)).order(["unused", "left"])


class Constants(nn.Module):
    """Writes into what it is given, and makes a tensor as it runs; ``traced``: torch.fx can follow it."""

    def __init__(self, traced: bool) -> None:
        super().__init__()
        self.fc, self.out, self.traced = nn.Linear(6, 8), nn.Linear(8, 3), traced

    def forward(self, x):
        x -= 1
        x = torch.relu(self.fc(x)) * torch.arange(1.0, 9.0, dtype=torch.float64)
        return self.out(x) if self.traced or float(x.sum()) >= 0 else x


@pytest.mark.parametrize("traced", [True, False])
def test_replay_leaves_images_and_network_as_they_are(traced):
    model, x = Constants(traced).double().eval(), torch.randn(6, 6).double()
    images, names = x.clone(), set(vars(model))
    for _ in range(2):
        replay = Replay(model, Batches.of(x), len(x))
        for name in replay.order(["fc", "out"]):
            assert torch.allclose(next(iter(replay.inputs(name))), slow_inputs(model, name, [images])[0])
    assert torch.equal(x, images) and set(vars(model)) == names


# Whole networks


def fit(model, x, compensation, **options):
    parts = {"blocking": "none", "scorer": "relative_error", "estimator": "first_order", "selection": "global", "decomposition": "svd"}
    made = {name: lrp.config.parts.make(name, options.pop(name, part)) for name, part in parts.items()}
    made["estimator"] = dataclasses.replace(made["estimator"], output_fn=read)
    return SingularVectors(**made, compensation=compensation, **options).fit(Evidence(model, x, scoring_images=4))


@torch.no_grad()
def distance(a, b, x):
    return float((read(a(x)) - read(b(x))).square().sum(1).mean())


@pytest.mark.parametrize(("blocking", "metric"), [("none", "gradient"), ("alds", "gradient"), ("square", "plain")])
def test_closer_to_the_dense_network(network, blocking, metric):
    model, x = network
    x = torch.cat([x, 0.8 * x.roll(1, 0) + 0.2 * x.flip(0)])
    decomposition = "svd" if metric == "plain" else "two_sided"
    plain = fit(model, x, NoCompensation(), blocking=blocking, decomposition=decomposition)
    least = fit(model, x, LeastSquares(metric=metric), blocking=blocking, decomposition=decomposition)
    for sparsity in (0.2, 0.6):
        plan = plain.plan(sparsity)
        keep = least.plan(sparsity)
        assert plan.rows == keep.rows
        without, _ = plain.compress(plan)
        with_, seconds = least.compress(keep)
        assert seconds > 0 and distance(model, with_, x) < distance(model, without, x)
        names = [n for n, m in with_.named_modules() if isinstance(m, LowRank)]
        assert names == [n for n, m in without.named_modules() if isinstance(m, LowRank)]
        held = dict(without.named_parameters())
        for name, p in with_.named_parameters():
            assert p.grad is None and p.requires_grad and p.dtype == torch.float64 and p.isfinite().all()
            assert held[name].shape == p.shape if name in held else name.endswith(".bias")


def test_every_layer_is_refitted(network, monkeypatch):
    model, x = network
    seen = []
    monkeypatch.setattr(least_squares, "refit", lambda module, *rest: seen.append(module))
    fitted = fit(model, x, LeastSquares())
    compressed, _ = fitted.compress(fitted.plan(0.4))
    names = {module: name for name, module in compressed.named_modules()}
    assert sorted(names[module] for module in seen) == sorted(fitted.evidence.survey.matrices)


def test_nothing_is_compensated_where_nothing_was_removed(residual):
    x = torch.randn(6, 3, 9, 8).double()
    fitted = fit(residual, x, LeastSquares())
    same, _ = fitted.compress(fitted.plan(0.0))
    assert all(torch.equal(a, b) for a, b in zip(same.state_dict().values(), residual.state_dict().values(), strict=True))
    again = copy.deepcopy(residual)
    LeastSquares(ridge=0.0)(again, fitted.evidence.survey, x, fitted.statistics)  # and if it is, nothing changes
    assert distance(residual, again, x) < 1e-16


def test_all_that_is_left_are_biases(residual):
    """A network that lost every component gives its mean output."""
    x = torch.randn(20, 3, 9, 8).double()
    fitted = fit(residual, x, LeastSquares())
    nothing = fitted.build([torch.zeros(b.rank, dtype=torch.bool) for b in fitted.blocks])
    fitted.method.compensation(nothing, fitted.evidence.survey, x, fitted.statistics)
    assert torch.allclose(nothing(x), residual(x).mean(0).expand(20, -1), atol=1e-9)


def test_chunks_and_modes(residual, monkeypatch):
    """Batches of images change rounding alone; modes, gradients and the dense network stay."""
    x = torch.randn(7, 3, 9, 8).double()
    residual.train()
    residual.bn1.eval()
    residual.conv1.weight.grad = torch.ones_like(residual.conv1.weight)
    before = copy.deepcopy(residual.state_dict())
    fitted = fit(residual, x, LeastSquares(), selection="uniform")
    whole, _ = fitted.compress(fitted.plan(0.5))
    modes = [(n, m.training) for n, m in residual.named_modules()]
    assert [(n, whole.get_submodule(n).training) for n, _ in modes] == modes
    assert all(torch.equal(before[k], v) for k, v in residual.state_dict().items())
    assert torch.equal(residual.conv1.weight.grad, torch.ones_like(residual.conv1.weight))
    assert [n for n, p in residual.named_parameters() if p.grad is not None] == ["conv1.weight"]
    assert all(torch.equal(before[k], whole.state_dict()[k]) for k in before if ".running" in k or ".num_batches" in k)
    monkeypatch.setattr(least_squares, "CHUNK", 3)
    parts, _ = fitted.compress(fitted.plan(0.5))
    assert distance(whole.eval(), parts.eval(), x) < 1e-16


def test_added_biases_survive_files(network, tmp_path):
    """Of dense and of low-rank layers, of one of rank 0; after a round and a second one too."""
    model, x = network
    for factor in (None, 0.75):
        fitted = fit(model, x, LeastSquares(), blocking="square", keep_factor=factor)
        compressed, _ = fitted.compress(fitted.plan(0.6))
        had = {n for n, m in model.named_modules() if getattr(m, "bias", None) is not None}
        biased = {n for n, m in compressed.named_modules() if getattr(m, "bias", None) is not None} - had
        assert biased == set(fitted.evidence.survey.matrices) - had
        save(compressed, tmp_path / "a.safetensors")
        again = load(tmp_path / "a.safetensors", model)
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in compressed.state_dict().items())
        assert distance(again, compressed, x) < 1e-20
        save(again, tmp_path / "b.safetensors")
        assert distance(load(tmp_path / "b.safetensors", model), compressed, x) < 1e-20
        if not isinstance(model, (Untraceable, Encoder)):
            fused = lrp.fuse(compressed)
            save(fused, tmp_path / "c.safetensors")
            assert distance(load(tmp_path / "c.safetensors", model), compressed, x) < 1e-16


def test_a_report_counts_added_biases(residual):
    x = torch.randn(8, 3, 9, 8).double()
    options = {"compensation": "least_squares", "decomposition": "activation", "recovery": "none", "scoring_images": 4}
    compressed, report = compress(residual, x, 0.5, **options)
    assert report.attrs["params_total"] == count_params(compressed)
    assert report.attrs["params_total_dense"] == count_params(residual)


def test_half_precision():
    """bfloat16 and float16 networks get parameters of their own precision, from sums that are kept in a better one."""
    for dtype in (torch.bfloat16, torch.float16):
        model = nn.Sequential(nn.Linear(12, 20, bias=False), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4)).to(dtype)
        x = torch.randn(64, 12).to(dtype)
        for sparsity in (0.4, 0.95):
            low, _ = fit(model, x, LeastSquares()).compress(fit(model, x, LeastSquares()).plan(sparsity))
            assert {p.dtype for p in low.parameters()} == {dtype} and low(x).dtype == dtype and low(x).isfinite().all()
    x = (300 + torch.randn(3000, 1, 4)).half()  # in float16 neither the sum nor its square
    sums = Sums()
    for part in x.split(500):
        sums.add(part, part[:, 0])
    exact = x[:, 0].double()
    for found, true in (
        (sums.flush().xx[0], exact.T @ exact),
        (sums.zx, exact.T @ exact),
        (sums.x[0], exact.sum(0)),
        (sums.z, exact.sum(0)),
    ):
        assert torch.allclose(found, true, rtol=1e-5)


def test_autocast_of_the_caller(network):
    """What is around a compression does not lower its precision."""
    model, x = network
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            fitted = fit(model.float(), x.float(), LeastSquares())
            found.append(fitted.compress(fitted.plan(0.5))[0].state_dict())
    assert found[0].keys() == found[1].keys() and all(torch.equal(a, b) for a, b in zip(*(state.values() for state in found)))


def test_options():
    for options, text in (
        ({"ridge": -0.1}, "compensation.ridge=-0.1: must be a number"),
        ({"ridge": float("nan")}, "compensation.ridge=nan: must be a number"),
        ({"ridge": float("inf")}, "compensation.ridge=inf: must be a number"),
        ({"ridge": "much"}, "compensation.ridge=much: must be a number"),
        ({"ridge": True}, "compensation.ridge=True: must be a number"),
        ({"metric": "outputs"}, "compensation.metric=outputs: choose one of gradient, plain"),
        ({"metric": None}, "compensation.metric=null: choose one of gradient, plain"),
    ):
        with pytest.raises(InputError, match=f"^{text}") as error:
            LeastSquares(**options)
        assert "\n" not in str(error.value) and "e-300" not in str(error.value)
    assert LeastSquares(ridge=0).needs == ("outputs", "gradients") and LeastSquares(metric="plain").needs == ("outputs",)


def test_networks_that_cannot_be_compensated_say_so():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.out(F.relu(self.fc(x.flatten(0, 1)))).view(len(x), -1)

    class Detached(Mixed):
        @torch.no_grad()
        def forward(self, x):
            return self.out(F.relu(self.fc(x)))

    x = torch.randn(5, 4, 6)
    options = {"scorer": "magnitude", "decomposition": "svd", "recovery": "none", "sparsity": 0.5}
    with pytest.raises(InputError, match="^layer fc: the first dimension of its values does not run over the images.*compensation"):
        compress(Mixed(), x, compensation="least_squares", **options)
    with pytest.raises(InputError, match="no gradient"):
        compress(Detached(), x[:, 0], compensation="least_squares", **options)
    compress(Detached(), x[:, 0], compensation=LeastSquares(metric="plain"), **options)


def test_replace_layer_keeps_encoders_open(encoder):
    """A dense layer put back in the place of a low-rank one is as good."""
    x = torch.randn(4, 5, 6).double()
    _, low = prune_network(encoder, x)
    for name, module in encoder.named_modules():
        if type(module) is nn.Linear:
            low = replace_layer(low, name, copy.deepcopy(module))
    assert torch.allclose(low(x), encoder(x))
