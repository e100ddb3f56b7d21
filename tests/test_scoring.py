"""Scores against a slow implementation that deletes one component and runs the whole network."""

import copy
import dataclasses
import threading
from types import SimpleNamespace

import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from lrp.blocking.alds import AldsBlocking
from lrp.blocking.none import Unblocked
from lrp.blocking.square import SquareBlocking
from lrp.config.paths import CONF
from lrp.decomposition.base import decompose
from lrp.errors import InputError
from lrp.estimator import first_order
from lrp.estimator.cache import cached_moments, moments_key
from lrp.estimator.exact import ExactEstimator
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.layer.build import layer_matrices
from lrp.matrices import cut
from lrp.network.frozen import FrozenNetwork
from lrp.network.survey import find_candidates
from lrp.scorer.noise_to_signal import NoiseToSignal

FILES = {file.stem: yaml.safe_load(file.read_text()) for file in sorted(CONF.glob("scorer/*.yaml"))}
SCORERS = {name: instantiate(OmegaConf.create({"seed": 0, "scorer": text}).scorer) for name, text in FILES.items()}
ESTIMATORS = [instantiate(yaml.safe_load(file.read_text())) for file in sorted(CONF.glob("estimator/*.yaml"))]
SHAPES = {"small_vgg": (5, 3, 32, 32), "residual": (5, 3, 16, 16), "depthwise": (4, 3, 16, 16), "tokens": (4, 3, 5, 4)}


def factors_of(model, blocking):
    matrices = layer_matrices(model)
    return matrices, decompose(matrices, cut(blocking, matrices))


@torch.no_grad()
def slow_differences(model, factor, x):
    """y - y_b of every component (R, B, K)."""
    y, weight = model(x), model.get_submodule(factor.block.layer).weight
    original, result = weight.clone(), []
    for i in range(factor.block.rank):
        changed = original.flatten(1).clone()
        factor.block.of(changed).sub_(torch.outer(factor.U[:, i], factor.V[i]))
        weight.copy_(changed.view_as(weight))
        result.append(y - model(x))
        weight.copy_(original)
    return torch.stack(result)


def close(a, b, tolerance=1e-9):
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


@pytest.mark.parametrize("blocking", [Unblocked(), AldsBlocking(), SquareBlocking()], ids=lambda b: b.name)
@pytest.mark.parametrize("network", SHAPES)
def test_exact_is_the_definition(network, blocking, request):
    model = request.getfixturevalue(network)
    x = torch.randn(SHAPES[network]).double()
    matrices, factors = factors_of(model, blocking)
    moments, seconds = ExactEstimator()(model, factors, x)
    assert seconds > 0
    perturbation = SCORERS["perturbation"](factors, SimpleNamespace(matrices=matrices, moments=lambda _: moments))
    variance = SCORERS["variance"](factors, SimpleNamespace(matrices=matrices, moments=lambda _: moments))
    for i in range(0, len(factors), 3 if network == "small_vgg" else 1):
        difference = slow_differences(model, factors[i], x)
        assert close(perturbation[i], difference.square().sum(2).mean(1))
        assert close(variance[i], difference.var(1, correction=0).sum(1))


@pytest.mark.parametrize("blocking", [Unblocked(), AldsBlocking(), SquareBlocking()], ids=lambda b: b.name)
@pytest.mark.parametrize("network", SHAPES)
def test_first_order_is_the_derivative(network, blocking, request):
    """The change when a component shrinks by a tiny share of itself, over that share; found by deleting it in float64."""
    model = request.getfixturevalue(network)
    x = torch.randn(SHAPES[network]).double()
    _, factors = factors_of(model, blocking)
    D = FirstOrderEstimator().contributions(model, factors, x)
    moments, _ = FirstOrderEstimator()(model, factors, x)
    share = 1e-6
    for i in range(0, len(factors), 3 if network == "small_vgg" else 1):
        little = slow_differences(model, dataclasses.replace(factors[i], V=share * factors[i].V), x) / share  # (R, B, K)
        assert close(D[i].permute(2, 0, 1), little, 1e-3)
        assert close(moments[i].first, D[i].mean(0).T) and close(moments[i].second, D[i].square().mean(0).T)


class Affine(nn.Module):
    """Linear from end to end: convolutions, batch norm in eval mode, a sum, average pooling, a layer that runs twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.short = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc((self.bn(self.conv(x)) + self.short(x)).mean((2, 3)))


@pytest.mark.parametrize("blocking", [Unblocked(), SquareBlocking()], ids=lambda b: b.name)
def test_first_order_is_exact_for_a_linear_network(blocking):
    model = Affine().double().eval()
    model.bn.running_var.uniform_(0.5, 2)
    x = torch.randn(6, 3, 5, 5).double()
    _, factors = factors_of(model, blocking)
    (first, _), (exact, _) = FirstOrderEstimator()(model, factors, x), ExactEstimator()(model, factors, x)
    assert all(close(a.second, b.second) and close(a.first, b.first) for a, b in zip(first, exact))


def test_joint_is_what_removing_a_set_does_to_a_linear_network():
    """In one layer the changes add up exactly; the sum of single scores is something else."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Linear(7, 3)).double()
    x = torch.randn(70, 3, 2, 2).double()
    _, factors = factors_of(model, Unblocked())
    gone = torch.rand(7) < 0.5
    none = torch.zeros(3, dtype=torch.bool)
    joint = FirstOrderEstimator().joint(model, factors, x, [[gone, none], [~gone, none]])
    for value, mask in zip(joint, (gone, ~gone)):
        f = factors[0]
        with torch.no_grad():
            change = x.flatten(1) @ (f.U[:, mask] @ f.V[mask]).T @ model[2].weight.T
        assert close(value, change.square().sum(1).mean())
    D = torch.cat(FirstOrderEstimator().contributions(model, factors, x), dim=2)
    assert D.shape == (70, 3, 10) and close(D[:, :, :7][:, :, gone].sum(2).square().sum(1).mean(), joint[0])
    assert ExactEstimator().joint(model, factors, x, [[gone, none]]) is None


def test_projections_are_unbiased():
    """Over many draws of the signs the estimate is the exact score within its own standard error; it says so for one draw."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 40)).double()
    x = torch.randn(6, 3, 2, 2).double()
    _, factors = factors_of(model, Unblocked())
    exact, _ = FirstOrderEstimator(projections=40)(model, factors, x)
    assert not exact[0].projected and float(exact[0].standard_error().sum()) == 0
    one, _ = FirstOrderEstimator(projections=32)(model, factors, x)
    assert one[0].projected and one[0].second.shape == (5, 32)
    many, _ = FirstOrderEstimator(projections=39)(model, factors, x)
    D = FirstOrderEstimator(projections=40).contributions(model, factors, x)[0]
    signs = 2.0 * torch.randint(0, 2, (20000, 40)).double() - 1
    draws = torch.einsum("jk,bkr->bjr", signs, D).square().mean(0)  # what one projection of each draw gives
    truth = exact[0].second.sum(1)
    assert torch.allclose(draws.mean(0), truth, rtol=0.05)
    for estimate, count in ((one, 32), (many, 39)):
        assert bool(((estimate[0].second.sum(1) - truth).abs() < 5 * draws.std(0) / count**0.5).all())
        assert torch.allclose(estimate[0].standard_error(), draws.std(0) / count**0.5, rtol=0.8)
    # the variance too: the mean over images is projected by the same signs
    mean_free = (D - D.mean(0)).square().mean(0).sum(0)
    estimate = SCORERS["variance"](factors, SimpleNamespace(moments=lambda _: many))[0]
    assert torch.allclose(estimate, mean_free, rtol=1.0) and float((estimate / mean_free).log().mean().abs()) < 0.5


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)
def test_probabilities_and_output_functions(estimator, residual):
    x = torch.randn(3, 3, 8, 8).double()

    class Wrapped(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.net, self.kind = residual, kind

        def forward(self, x):
            y = self.net(x).softmax(1) if self.kind == "softmax" else self.net(x)
            return {"logits": y, "aux": x} if self.kind == "dict" else y

    def score(kind, **options):
        model = Wrapped(kind).eval()
        _, factors = factors_of(model, Unblocked())
        return torch.cat([m.second for m in dataclasses.replace(estimator, **options)(model, factors, x)[0]])

    assert close(score("plain", output="probabilities"), score("softmax"))
    assert close(score("dict", output_fn=lambda out: out["logits"]), score("plain"))
    with pytest.raises(InputError, match="the network gives a dict"):
        score("dict")
    with pytest.raises(InputError, match="estimator.output_fn=.*it cannot read what the network returns .IndexError"):
        score("plain", output_fn=lambda out: out[:, :, 0])
    with pytest.raises(InputError, match="estimator.output=odds: logits, probabilities or hellinger is needed"):
        score("plain", output="odds")
    with pytest.raises(InputError, match="estimator.output_fn=no.such.thing"):
        score("plain", output_fn="no.such.thing")
    named = dataclasses.replace(estimator, output_fn="operator.neg")
    assert close(torch.cat([m.second for m in named(residual, factors_of(residual, Unblocked())[1], x)[0]]), score("plain"))
    others = [{"output": "probabilities"}, {"output": "hellinger"}, {"output": "hellinger", "temperature": 2.0}]
    identities = {e.identity for e in (estimator, named, *(dataclasses.replace(estimator, **options) for options in others))}
    assert len(identities) == 5 and dataclasses.replace(estimator, temperature=2.0).identity == estimator.identity
    with pytest.raises(InputError, match="^estimator.temperature=0: must be a number greater than 0"):
        score("plain", output="hellinger", temperature=0)


def test_hellinger_is_twice_the_divergence():
    """Of small changes, at any temperature."""
    with pytest.raises(InputError, match="^estimator.output=hellinger: the network has one output"):
        FirstOrderEstimator(output="hellinger").read(torch.randn(5, 1))
    z = torch.randn(5, 7, dtype=torch.float64)
    change = 1e-5 * torch.randn(5, 7, dtype=torch.float64)
    for T in (1.0, 4.0):
        read = FirstOrderEstimator(output="hellinger", temperature=T).read
        p, q = (z / T).softmax(1), ((z + change) / T).softmax(1)
        divergence = (p * (p / q).log()).sum(1)
        assert torch.allclose((read(z + change) - read(z)).square().sum(1), 2 * divergence, rtol=1e-3)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)
@pytest.mark.parametrize("network", ["residual", "tokens"])
def test_memory_limit_changes_nothing(estimator, network, request, monkeypatch):
    model, x = request.getfixturevalue(network), torch.randn(SHAPES[network]).double()
    _, factors = factors_of(model, SquareBlocking())
    many, _ = estimator(model, factors, x)
    monkeypatch.setattr(first_order, "BUFFER_BYTES", 8)  # one image at a time in each product
    single, _ = dataclasses.replace(estimator, memory_limit=1e-9)(model, factors, x)  # one component and one image at a time
    for a, b in zip(many, single):
        assert close(a.second, b.second, 1e-10) and close(a.first, b.first, 1e-10)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)
def test_invariances(estimator, residual):
    """The sign of a pair does not matter, nor the order of images and components; s = 0 scores 0; modes and weights stay."""
    x = torch.randn(4, 3, 16, 16).double()
    _, factors = factors_of(residual, Unblocked())
    f = factors[1]
    order = torch.randperm(len(f.S))
    flipped = dataclasses.replace(f, U=-f.U, V=-f.V)
    permuted = dataclasses.replace(f, U=f.U[:, order], S=f.S[order], V=f.V[order])
    zeroed = dataclasses.replace(f, V=f.V * (torch.arange(len(f.S)) != 2)[:, None])
    residual.train()
    residual.bn1.eval()
    modes = [module.training for module in residual.modules()]
    state = {k: v.clone() for k, v in residual.state_dict().items()}
    (plain, negative, mixed, zero), _ = estimator(residual, [f, flipped, permuted, zeroed], x)
    (shuffled,), _ = estimator(residual, [f], x.flip(0))
    assert close(plain.second, negative.second) and close(plain.second, shuffled.second)
    assert close(plain.second[order], mixed.second)
    assert float(zero.second[2].abs().max()) < 1e-24
    assert [module.training for module in residual.modules()] == modes
    assert all(torch.equal(state[k], v) for k, v in residual.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in residual.parameters())


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)
def test_what_is_not_finite_is_named(estimator, residual):
    x = torch.randn(3, 3, 8, 8).double()
    _, factors = factors_of(residual, Unblocked())
    bad = x.clone()
    bad[1, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="layer stem: it reads values that are not finite"):
        estimator(residual, factors, bad)
    residual.conv1.bias.data[0] = float("inf")
    with pytest.raises(InputError, match="layer conv1: it gives values that are not finite"):
        estimator(residual, factors, x)


class Twice(nn.Module):
    """One layer runs twice; a second one never runs."""

    def __init__(self):
        super().__init__()
        self.fc, self.unused, self.last = nn.Linear(6, 6), nn.Linear(6, 2), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.fc(torch.tanh(self.fc(x)))))


class Branching(Twice):
    """torch.fx cannot trace it; an in-place change follows a layer."""

    def forward(self, x):
        x = self.fc(x)
        x += 1
        x = torch.tanh(x) if float(x.detach().abs().sum()) > 0 else x
        return self.last(F.relu_(self.fc(input=x)))


class FixedBatch(nn.Module):
    """The number of images is read from the input and used behind the layers: copies cannot run as one batch."""

    def __init__(self):
        super().__init__()
        self.fc, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.fc(x)).view(x.shape[0], -1))


@pytest.mark.parametrize("kind", [Twice, Branching, FixedBatch])
def test_networks_without_a_simple_graph(kind, caplog):
    model = kind().double().eval()
    x = torch.randn(5, 6).double()
    matrices, factors = factors_of(model, Unblocked())
    moments, _ = ExactEstimator()(model, factors, x)
    for f, m in zip(factors, moments):
        if f.block.layer == "unused":
            assert float(m.second.abs().max()) == 0
        else:
            assert close(m.second, slow_differences(model, f, x).square().mean(1))
    said = [r.message for r in caplog.records if "the whole network runs for each component" in r.message]
    assert len(said) == (kind is not FixedBatch)
    D = FirstOrderEstimator().contributions(model, factors, x)
    for i, f in enumerate(factors):
        little = slow_differences(model, dataclasses.replace(f, V=1e-6 * f.V), x) / 1e-6
        assert close(D[i].permute(2, 0, 1), little, 1e-3) or (f.block.layer == "unused" and not bool(D[i].any()))


def test_a_batch_in_another_dimension_is_refused_or_scored_right():
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.last(torch.tanh(self.fc(x.transpose(0, 1))).transpose(0, 1).mean(1))

    model = TimeFirst().double().eval()
    x = torch.randn(4, 4, 4).double()
    _, factors = factors_of(model, Unblocked())
    moments, _ = ExactEstimator()(model, factors, x)
    assert close(moments[0].second, slow_differences(model, factors[0], x).square().mean(1))
    with pytest.raises(InputError, match="layer fc: the first dimension of its values does not run over the images"):
        FirstOrderEstimator()(model, factors, x)


def test_an_output_without_gradient_is_refused():
    class Frozen(Branching):  # of a network that can be traced the graph alone runs, and that has gradients
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    model = Frozen().double().eval()
    _, factors = factors_of(model, Unblocked())
    with pytest.raises(InputError, match="carries no gradient, so estimator=first_order cannot score it"):
        FirstOrderEstimator()(model, factors, torch.randn(3, 6).double())


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)
def test_inputs_may_be_indices(estimator):
    model = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 5), nn.Flatten(), nn.Linear(20, 3)).double()
    x = torch.randint(0, 7, (6, 4))
    _, factors = factors_of(model, Unblocked())
    moments, _ = estimator(model, factors, x)
    for f, m in zip(factors, moments):
        assert close(m.second, slow_differences(model, f, x).square().mean(1))


def test_half_precision_is_scored_in_fp32(residual):
    x = torch.randn(3, 3, 8, 8)
    model = residual.to(torch.bfloat16)
    _, factors = factors_of(model, Unblocked())
    full = copy.deepcopy(model).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for estimator in ESTIMATORS:
            a, _ = estimator(model, factors, x)
            b, _ = estimator(full, factors, x)
            assert all(torch.equal(m.second, n.second) for m, n in zip(a, b))
    assert next(model.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer(name, residual):
    """One score a component, finite and not negative."""
    scorer = SCORERS[name]
    assert scorer.name == name
    matrices, factors = factors_of(residual, AldsBlocking(2))
    moments = ExactEstimator()(residual, factors, torch.randn(2, 3, 8, 8).double())[0]
    scores = scorer(factors, SimpleNamespace(matrices=matrices, moments=lambda _: moments))
    assert [s.shape for s in scores] == [(f.block.rank,) for f in factors]
    assert all(bool(torch.isfinite(s).all()) and float(s.min()) >= 0 for s in scores)


def test_relative_error_is_relative_to_the_unblocked_matrix(residual):
    matrices, factors = factors_of(residual, SquareBlocking())
    for f, score in zip(factors, SCORERS["relative_error"](factors, SimpleNamespace(matrices=matrices))):
        whole = torch.linalg.svdvals(matrices[f.block.layer].weight)[0]
        assert torch.allclose(score, f.S / whole)


def test_noise_to_signal(residual):
    """The scores of the smallest components of a layer, its blocks together, add up to removed over kept."""
    matrices, factors = factors_of(residual, AldsBlocking(2))
    moments = ExactEstimator()(residual, factors, torch.randn(2, 3, 8, 8).double())[0]
    plain = SCORERS["perturbation"](factors, SimpleNamespace(matrices=matrices, moments=lambda _: moments))
    found = NoiseToSignal(0.1)(factors, SimpleNamespace(matrices=matrices, moments=lambda _: moments))
    for name in matrices:
        own, scores = (torch.cat([p for f, p in zip(factors, parts) if f.block.layer == name]) for parts in (plain, found))
        order = own.argsort()
        for count in (1, len(own) // 2, len(own)):
            lost, kept = own[order[:count]].sum(), own[order[count:]].sum()
            assert torch.allclose(scores[order[:count]].sum(), own.sum() * lost / (kept + 0.1 * own.sum()))
        assert bool((scores[order].diff() >= -1e-12).all())
    faint = NoiseToSignal(0.5)._layer(torch.tensor([1e-30, 1.0, 1e-25], dtype=torch.float64))
    assert torch.allclose(
        faint[[0, 2]], torch.tensor([1e-30, 1e-25], dtype=torch.float64) / 1.5, rtol=1e-12, atol=0
    )  # no cancellation against the whole
    silent = [dataclasses.replace(block, second=torch.zeros_like(block.second)) for block in moments]
    assert all(
        float(score.abs().max()) == 0 for score in NoiseToSignal()(factors, SimpleNamespace(matrices=matrices, moments=lambda _: silent))
    )
    deep = NoiseToSignal(0.1, depth=2)(factors, SimpleNamespace(matrices=matrices, moments=lambda _: moments))
    order = list(matrices)
    assert all(torch.allclose(b, a * (len(order) - order.index(f.block.layer)) ** 2) for f, a, b in zip(factors, found, deep))
    with pytest.raises(InputError, match="^scorer.floor=0: must be a number greater than 0"):
        NoiseToSignal(0)
    with pytest.raises(InputError, match="^scorer.depth=-1: must be a number of at least 0 and less than 10"):
        NoiseToSignal(depth=-1)


def test_layers_come_in_the_order_in_which_they_run():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(4, 3), nn.Linear(5, 4)

        def forward(self, x):
            return self.last(self.first(x))

    assert list(find_candidates(Backwards(), torch.randn(1, 5)).matrices) == ["first", "last"]


def test_cache(tmp_path, residual):
    """A second call computes nothing; a damaged file is made again; other weights, blocks and images have other keys."""
    x = torch.randn(2, 3, 8, 8).double()
    _, factors = factors_of(residual, Unblocked())
    calls = []

    def compute(partial):
        calls.append(partial)
        return ExactEstimator()(residual, factors, x, partial)

    key = moments_key(FrozenNetwork(residual), residual, factors, x, "exact")
    first, seconds = cached_moments(tmp_path, key, factors, compute)
    second, again = cached_moments(tmp_path, key, factors, compute)
    assert len(calls) == 1 and seconds == again
    assert all(torch.equal(a.second, b.second) for a, b in zip(first, second))
    file = tmp_path / f"{key}.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    cached_moments(tmp_path, key, factors, compute)
    assert len(calls) == 2 and not (tmp_path / f"{key}.partial").exists()

    _, blocked = factors_of(residual, SquareBlocking())
    keys = {
        key,
        moments_key(FrozenNetwork(residual), residual, blocked, x, "exact"),
        moments_key(FrozenNetwork(residual), residual, factors, x + 1, "exact"),
        moments_key(FrozenNetwork(residual), residual, factors, x, "other"),
    }
    with torch.no_grad():
        residual.fc.bias += 1e-12
    keys.add(moments_key(FrozenNetwork(residual), residual, factors, x, "exact"))
    assert len(keys) == 5


def test_two_that_want_the_same_scores_compute_them_once(tmp_path, residual):
    x = torch.randn(2, 3, 8, 8).double()
    _, factors = factors_of(residual, Unblocked())
    calls, results = [], []

    def compute(partial):
        calls.append(partial)
        return FirstOrderEstimator()(residual, factors, x)

    threads = [threading.Thread(target=lambda: results.append(cached_moments(tmp_path, "same", factors, compute))) for _ in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(calls) == 1 and len(results) == 3 and all(torch.equal(results[0][0][0].second, r[0][0].second) for r in results)


def test_a_change_of_the_forward_alone_has_another_key(residual):
    class Other(type(residual)):
        def forward(self, x):
            return 2 * super().forward(x)

    other = Other().double()
    other.load_state_dict(residual.state_dict())
    other.__class__.__name__ = other.__class__.__qualname__ = type(residual).__name__
    x = torch.randn(2, 3, 8, 8).double()
    _, factors = factors_of(residual, Unblocked())
    assert str(other) == str(residual) and moments_key(FrozenNetwork(other), other, factors, x, "e") != moments_key(
        FrozenNetwork(residual), residual, factors, x, "e"
    )


@pytest.mark.parametrize("memory_limit", [1.0, 1e-9])
def test_a_killed_run_goes_on_after_the_last_finished_layer(tmp_path, residual, monkeypatch, memory_limit):
    x = torch.randn(2, 3, 8, 8).double()
    _, factors = factors_of(residual, Unblocked())
    estimator = ExactEstimator(memory_limit)
    undisturbed, _ = estimator(residual, factors, x)
    real, seen = ExactEstimator._block, []

    def dies_at_third(self, network, known, factor, *rest):
        seen.append(factor.block.layer)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(self, network, known, factor, *rest)

    monkeypatch.setattr(ExactEstimator, "_block", dies_at_third)
    with pytest.raises(KeyboardInterrupt):
        estimator(residual, factors, x, tmp_path)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) == 2
    marked = load_file(files[1])
    marked["moments"] += 1000  # proof that the stored layer is read, not computed again
    save_file(marked, files[1])
    resumed, _ = estimator(residual, factors, x, tmp_path)
    assert torch.equal(resumed[0].second, undisturbed[0].second) and torch.equal(resumed[4].second, undisturbed[4].second)
    assert float(resumed[1].first.min()) > 400


def test_a_weight_that_is_not_finite_names_the_layer(residual):
    residual.conv2.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="layer conv2"):
        factors_of(residual, Unblocked())


def test_svd_gives_the_blocks_back(residual):
    for blocking in (Unblocked(), AldsBlocking(), SquareBlocking()):
        matrices, factors = factors_of(residual, blocking)
        for f in factors:
            assert torch.allclose(f.U @ f.V, f.block.of(matrices[f.block.layer].weight), atol=1e-12)
            assert bool((f.S.diff() <= 0).all())
