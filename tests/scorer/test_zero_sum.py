"""Zero Sum SVD's order and LEMS's error model, against slow ways."""

import pytest
import torch
from helpers import close, factors_of
from torch import nn
from torch.nn import functional as F

import lrp
from lrp.blocking.alds import AldsBlocking
from lrp.blocking.none import Unblocked
from lrp.config.parts import make
from lrp.errors import InputError
from lrp.evidence import Evidence
from lrp.scorer.layer_error import LayerError
from lrp.scorer.zero_sum import ZeroSum, order


def evidence_of(model, x):
    return Evidence(model, x).of(make("estimator", "first_order"), (), 65536)


def slow_order(changes):
    """Look at every block's last component at each step."""
    left, total, gone = [list(c.tolist()) for c in changes], 0.0, []
    for least in (1, 0):
        while any(len(own) > least for own in left):
            offered = [(abs(own[-1]), i) for i, own in enumerate(left) if len(own) > least]
            wanted = [(size, i) for size, i in offered if (left[i][-1] >= 0) == (total <= 0)]
            _, block = min(wanted or offered)
            gone.append((block, len(left[block]) - 1, bool(wanted)))
            total += left[block].pop()
    return gone


@pytest.mark.parametrize("seed", range(5))
def test_the_order_is_that_of_the_rule(seed):
    generator = torch.Generator().manual_seed(seed)
    changes = [torch.randn(n, generator=generator).double() for n in (1, 5, 9, 4, 30)]
    places = order(changes)
    assert sorted(torch.cat(places).tolist()) == list(range(49))
    gone = slow_order(changes)
    assert [places[block][i] for block, i, _ in gone] == list(range(49))
    assert all((own.diff() < 0).all() for own in places)  # the smallest singular value goes first
    assert all(own[0] >= 49 - 5 for own in places)  # and no block is emptied before all others are at rank 1


@pytest.mark.parametrize("seed", range(5))
def test_the_sum_stays_below_the_largest_change(seed):
    """As long as there is a change of the sign that is wanted."""
    generator = torch.Generator().manual_seed(seed)
    changes = [torch.randn(60, generator=generator).double() for _ in range(6)]
    total, seen, checked = 0.0, 0.0, 0
    for block, i, wanted in slow_order(changes):
        if not wanted:
            break
        total += float(changes[block][i])
        seen = max(seen, abs(float(changes[block][i])))
        checked += 1
        assert abs(total) <= seen + 1e-12
    assert checked > 20


def test_changes_are_those_of_the_loss(residual):
    """A little of a component is taken out of its layer: the cross entropy to the network's own predictions moves as predicted."""
    x = torch.randn(6, 3, 9, 8).double()
    for blocking in (Unblocked(), AldsBlocking(2)):
        _, factors = factors_of(residual, blocking)
        predicted = ZeroSum().changes(factors, evidence_of(residual, x))
        labels = residual(x).argmax(1)
        base = float(F.cross_entropy(residual(x), labels).detach())
        for f, change in list(zip(factors, predicted))[::3]:
            weight = residual.get_submodule(f.block.layer).weight
            for i in (0, len(f.S) - 1):
                with torch.no_grad():
                    before, step = weight.clone(), 1e-6
                    f.block.of(weight.view(len(weight), -1)).sub_(step * f.U[:, i : i + 1] @ f.V[i : i + 1])
                    moved = (float(F.cross_entropy(residual(x), labels).detach()) - base) / step
                    weight.copy_(before)
                assert moved == pytest.approx(float(change[i]), rel=1e-3, abs=1e-6)


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.inner, self.head = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9)

    def forward(self, ids):
        return self.head(torch.tanh(self.inner(self.table(ids))))


def test_labels_of_every_kind(residual):
    model, ids = Reader().double().eval(), torch.randint(0, 9, (70, 5))
    evidence = Evidence(model, ids).of(make("estimator", "first_order"), (), 65536, lookups=True)
    _, factors = factors_of(model, Unblocked())
    for labels in ("own", "next"):
        y = model(ids)
        loss = (
            F.cross_entropy(y[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            if labels == "next"
            else F.cross_entropy(y.flatten(0, 1), y.flatten(0, 1).argmax(1))
        )
        found = ZeroSum(labels).changes(factors, evidence)
        for f, change in zip(factors, found, strict=True):
            layer = model.get_submodule(f.block.layer)
            grad = torch.autograd.grad(loss, layer.weight, retain_graph=True)[0]
            grad = grad.T if isinstance(layer, nn.Embedding) else grad
            assert close(change, -torch.einsum("mr,mn,rn->r", f.U, grad, f.V))
    x, wanted = torch.randn(6, 3, 9, 8).double(), torch.tensor([0, 1, 2, 3, 0, 1])
    _, factors = factors_of(residual, Unblocked())
    evidence = Evidence(residual, [(x, wanted)]).of(make("estimator", "first_order"), (), 65536)
    given = evidence.loss_gradients
    for f, change in zip(factors, ZeroSum("given").changes(factors, evidence), strict=True):
        assert close(change, -torch.einsum("mr,mn,rn->r", f.U, given[f.block.layer], f.V))


def test_labels_that_are_not_there_are_a_sentence(residual):
    x = torch.randn(6, 3, 9, 8).double()
    _, factors = factors_of(residual, Unblocked())
    for labels, sentence in (("next", "reads tokens"), ("given", "holds no labels")):
        with pytest.raises(InputError, match=f"^scorer.labels={labels}: .*{sentence}"):
            ZeroSum(labels)(factors, evidence_of(residual, x))
    with pytest.raises(InputError, match="^scorer.labels=hard: choose one of own, next, given"):
        ZeroSum("hard")
    wrong = Evidence(residual, [(x, torch.tensor([0, 1, 2, 3, 4, 1]))]).of(make("estimator", "first_order"), (), 65536)
    with pytest.raises(InputError, match=r"^scorer.labels=given: each of the 6 rows .* in \[0, 3\]"):
        ZeroSum("given")(factors, wrong)


@pytest.mark.parametrize("blocking", [Unblocked(), AldsBlocking(2)])
def test_layer_error_is_measured_once_and_spread_by_energy(residual, blocking):
    x = torch.randn(8, 3, 9, 8).double()
    matrices, factors = factors_of(residual, blocking)
    scorer = LayerError(alpha=1.0, gamma=2.0, temperature=0.5, measured_at=0.4)
    found = scorer(factors, evidence_of(residual, x))
    z = (residual(x) / 0.5).log_softmax(1)
    counts = [sum(1 / k for k in range(n, len(matrices) + 1)) for n in range(1, len(matrices) + 1)]
    for n, name in enumerate(matrices):
        h = (counts[n] - counts[-1]) / (counts[0] - counts[-1])
        own = [(f, score) for f, score in zip(factors, found, strict=True) if f.block.layer == name]
        ranks = [min(limit, max(1, int(0.4 * limit))) for f, _ in own for limit in [(f.block.size - 1) // sum(f.block.shape)]]
        layer = residual.get_submodule(name)
        before = layer.weight.detach().clone()
        with torch.no_grad():
            for (f, _), r in zip(own, ranks, strict=True):
                f.block.of(layer.weight.view(len(before), -1)).copy_(f.U[:, :r] @ f.V[:r])
            y = (residual(x) / 0.5).log_softmax(1)
            layer.weight.copy_(before)
        measured = float((z.exp() * (z - y)).sum(1).mean())
        lost = sum(float(score[r:].sum()) for (_, score), r in zip(own, ranks, strict=True))
        assert lost == pytest.approx(measured * (1 + 2 * h), rel=1e-6)
        assert all(close(score / score[0], (f.S / f.S[0]).square()) for f, score in own if float(score[0]) > 0)


def test_depths_fall_from_the_first_layer_to_the_last():
    assert LayerError(gamma=4.0).depths(5) == pytest.approx([5, 4, 3, 2, 1])
    assert LayerError(alpha=3.0, gamma=4.0).depths(1) == [1]
    steep = torch.tensor(LayerError(alpha=2.0, gamma=4.0).depths(6))
    assert steep[0] == pytest.approx(5) and steep[-1] == 1 and (steep.diff() < 0).all() and (steep.diff().diff() > 0).all()


@pytest.mark.parametrize(("option", "value"), [("alpha", -1), ("gamma", -0.1), ("temperature", 0), ("measured_at", 1)])
def test_layer_error_refuses(option, value):
    with pytest.raises(InputError, match=f"^scorer.{option}={value}: must be a number"):
        LayerError(**{option: value})


def test_one_output_is_a_sentence():
    model, x = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 1)), torch.randn(30, 8)
    for method in ("zero_sum", "lems", "surgeon"):
        with pytest.raises(InputError, match="the network has one output, whose softmax is constant"):
            lrp.compress(model, x, 0.5, method=method)
