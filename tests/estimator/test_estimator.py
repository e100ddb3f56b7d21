"""What every estimator computes, leaves alone and refuses."""

import copy
import dataclasses

import pytest
import torch
from cases import Branching, FixedBatch, Twice
from helpers import ESTIMATORS, close, factors_of, slow_differences
from torch import nn

from lrp.blocking.none import Unblocked
from lrp.blocking.square import SquareBlocking
from lrp.errors import InputError
from lrp.estimator import first_order
from lrp.estimator.exact import ExactEstimator
from lrp.estimator.first_order import FirstOrderEstimator

SHAPES = {"small_vgg": (5, 3, 32, 32), "residual": (5, 3, 16, 16), "depthwise": (4, 3, 16, 16), "tokens": (4, 3, 5, 4)}


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_probabilities_and_output_functions(estimator, residual):
    x = torch.randn(3, 3, 8, 8).double()

    class Wrapped(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.net, self.kind = residual, kind

        def forward(self, x):
            y = self.net(x).softmax(1) if self.kind == "softmax" else self.net(x)
            return {"dict": {"logits": y, "aux": x}, "other": {"scores": y}}.get(self.kind, y)

    def score(kind, **options):
        model = Wrapped(kind).eval()
        _, factors = factors_of(model, Unblocked())
        return torch.cat([m.second for m in dataclasses.replace(estimator, **options)(model, factors, x)[0]])

    assert close(score("plain", output="probabilities"), score("softmax"))
    assert close(score("dict", output_fn=lambda out: out["logits"]), score("plain"))
    assert close(score("dict"), score("plain"))  # what transformers call it
    with pytest.raises(InputError, match="the network gives a dict"):
        score("other")
    with pytest.raises(InputError, match="estimator.output_fn=.*it cannot read what the network returns .IndexError"):
        score("plain", output_fn=lambda out: out[:, :, 0])
    with pytest.raises(InputError, match="estimator.output=odds: "):
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


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("network", ["residual", "tokens"])
def test_memory_limit_changes_nothing(estimator, network, request, monkeypatch):
    model, x = request.getfixturevalue(network), torch.randn(SHAPES[network]).double()
    _, factors = factors_of(model, SquareBlocking())
    many, _ = estimator(model, factors, x)
    monkeypatch.setattr(first_order, "BUFFER_BYTES", 8)  # one image at a time in each product
    single, _ = dataclasses.replace(estimator, memory_limit=1e-9)(model, factors, x)  # one component and one image at a time
    for a, b in zip(many, single):
        assert close(a.second, b.second, 1e-10) and close(a.first, b.first, 1e-10)


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
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


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
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


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("form", ["time first", "windows", "windows first"])
def test_a_batch_in_another_dimension_is_scored_right_or_refused(estimator, form):
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            if form == "time first":
                h = self.fc(x.transpose(0, 1)).transpose(0, 1)
            elif form == "windows":
                h = self.fc(x.reshape(2 * len(x), -1, 4)).reshape(x.shape)
            else:
                h = self.fc(x.unflatten(1, (2, -1)).transpose(0, 1).flatten(0, 1)).unflatten(0, (2, -1)).transpose(0, 1).flatten(1, 2)
            return self.last(h).sum(1)  # linear, so that the first order is exact

    model = Inside().double().eval()
    x = torch.randn(5, 6, 4).double()
    _, factors = factors_of(model, Unblocked())
    if form == "windows first" and estimator.differentiates:
        moments, _ = estimator(model, factors, x)
        f, rows = factors[0], x.flatten(0, 1)
        gradient = model.last.weight @ f.U  # (K, R), of the outputs by each component: they are linear behind it
        change = gradient[:, :, None] * (rows @ f.V.T).T  # of each row by itself
        assert close(moments[0].second.sum(1), change.square().sum((0, 2)) / len(x))
        return
    moments, _ = estimator(model, factors, x)
    for f, m in zip(factors, moments):
        assert close(m.second, slow_differences(model, f, x).square().mean(1))


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
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
        for estimator in ESTIMATORS.values():
            a, _ = estimator(model, factors, x)
            b, _ = estimator(full, factors, x)
            assert all(torch.equal(m.second, n.second) for m, n in zip(a, b))
    assert next(model.parameters()).dtype == torch.bfloat16
