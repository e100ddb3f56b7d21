"""What parts may ask of a network: gradients against finite differences, each thing found once, networks with several inputs."""

import copy

import pytest
import torch
from cases import Residual
from helpers import randomise
from torch import nn
from torch.nn import functional as F

import lrp
from lrp.batches import Batches
from lrp.errors import InputError
from lrp.estimator.exact import ExactEstimator
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.evidence import Evidence
from lrp.network import frozen

X, LABELS = torch.randn(6, 3, 6, 5, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([0, 3, 1, 2, 2, 0])


def evidence_of(model, **options):
    return Evidence(model, [(X[:4], LABELS[:4]), (X[4:], LABELS[4:])], **options).of(ExactEstimator(), (), 4096)


def loss(model, moved):
    """The mean cross entropy with weights moved by these matrices."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name, step in moved.items():
            weight = twin.get_submodule(name).weight
            weight += step.view_as(weight)
        return float(F.cross_entropy(twin(X), LABELS))


def test_loss_gradients_are_finite_differences(residual):
    evidence = evidence_of(residual)
    generator = torch.Generator().manual_seed(1)
    for name, gradient in evidence.loss_gradients.items():
        assert gradient.shape == evidence.matrices[name].shape and gradient.dtype == torch.float64
        direction = torch.randn(gradient.shape, generator=generator).double()
        slope = (loss(residual, {name: 1e-6 * direction}) - loss(residual, {name: -1e-6 * direction})) / 2e-6
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-7)
    assert all(parameter.grad is None for parameter in residual.parameters())


def test_hessian_vector_products_are_differences_of_gradients(residual):
    evidence = evidence_of(residual)
    generator = torch.Generator().manual_seed(2)
    v = {name: torch.randn(matrix.shape, generator=generator).double() for name, matrix in evidence.matrices.items()}
    found = evidence.hessian_vector_product(v)
    steps = []
    for sign in (1, -1):
        twin = copy.deepcopy(residual)
        with torch.no_grad():
            for name, direction in v.items():
                twin.get_submodule(name).weight += sign * 1e-5 * direction.view_as(twin.get_submodule(name).weight)
        steps.append(evidence_of(twin).loss_gradients)
    for name, product in found.items():
        assert torch.allclose(product, (steps[0][name] - steps[1][name]) / 2e-5, rtol=1e-3, atol=1e-5)
    w = {name: torch.randn(matrix.shape, generator=generator).double() for name, matrix in evidence.matrices.items()}
    other = evidence.hessian_vector_product(w)  # H is symmetric
    assert sum(float((found[n] * w[n]).sum()) for n in v) == pytest.approx(sum(float((other[n] * v[n]).sum()) for n in v), rel=1e-8)
    one = evidence.hessian_vector_product({"fc": v["fc"]})
    zeros = {name: torch.zeros_like(direction) for name, direction in v.items()} | {"fc": v["fc"]}
    assert all(torch.allclose(one[name], value) for name, value in evidence.hessian_vector_product(zeros).items())


def test_scores_that_need_labels_say_so(residual):
    with pytest.raises(InputError, match="it holds no labels"):
        _ = Evidence(residual, X).of(ExactEstimator(), (), 1).loss_gradients


@pytest.mark.slow
def test_the_network_is_traced_once(residual, monkeypatch):
    made, original = [], frozen.FrozenNetwork.__init__
    monkeypatch.setattr(frozen.FrozenNetwork, "__init__", lambda self, *given, **more: (made.append(1), original(self, *given, **more))[1])
    lrp.compress(residual, X, 0.5, method="singular_vectors", selection="joint", samples=64)
    assert len(made) == 1


class TwoInputs(nn.Module):
    """Two images of which the second is optional, and an argument by keyword alone."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.out = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, a, b=None, *, scale=1.0):
        hidden = self.left(a) + (0 if b is None else self.right(b))
        return self.out(torch.relu(scale * hidden).mean((2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [ExactEstimator(), FirstOrderEstimator()], ids=lambda e: e.name)
@pytest.mark.parametrize("compensation", ["none", "least_squares"])
def test_networks_of_several_inputs(estimator, compensation):
    """As a tuple or by keyword they are what a wrapper of one input gives."""
    model = randomise(TwoInputs())
    a, b = X, torch.randn(6, 3, 6, 5).double()

    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = copy.deepcopy(model)

        def forward(self, x):
            return self.inner(x[:, :3], x[:, 3:])

    parts = {"estimator": estimator, "compensation": compensation, "method": "singular_vectors", "samples": 10**6}
    expected, _ = lrp.compress(Joined(), torch.cat([a, b], 1), 0.6, **parts)
    for given in ((a, b), {"a": a, "b": b}, [{"b": b[:2], "a": a[:2]}, {"b": b[2:], "a": a[2:]}], [((a, b), LABELS)]):
        found, report = lrp.compress(model, given, 0.6, **parts)
        assert torch.allclose(found(a, b), expected(torch.cat([a, b], 1)), atol=1e-8) and report.attrs["sparsity_params"] >= 0.6


class Branches(nn.Module):
    """Runs ``a`` where the second argument is absent, which a proxy is not."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.d = nn.Linear(12, 8), nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x, alt=None):
        hidden = self.a(x) if alt is None else self.b(alt)
        return self.d(torch.relu(hidden))


@pytest.mark.slow
def test_the_branch_that_the_calibration_takes():
    model, x = Branches().double(), torch.randn(10, 12).double()
    seen = {}
    for given in (x, (x, x + 1)):
        evidence = Evidence(model, given).of(ExactEstimator(), (), 64)
        assert evidence.network.untraced is None
        seen[isinstance(given, tuple)] = [name for name, _ in evidence.network.module.named_modules() if name in "abd" and name]
    assert seen == {False: ["a", "d"], True: ["b", "d"]}
    _, report = lrp.compress(model, x, 0.5, method="singular_vectors")
    assert list(report.set_index("layer")["what"]) == ["low rank", "left alone: not called on the first calibration examples", "low rank"]


class Counted(nn.Module):
    """What it computes depends on a number that changes between calls, which a graph would hold fast."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(4, 4), 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x) * self.calls


def test_a_graph_that_computes_something_else_is_not_used():
    assert "does not compute what the network does" in Evidence(Counted().double(), torch.randn(3, 4).double()).network.untraced


@pytest.mark.parametrize("labels", [LABELS.double(), LABELS + 4, LABELS[:, None].expand(6, 2)])
def test_labels_that_do_not_fit(residual, labels):
    evidence = evidence_of(residual)
    evidence.scoring.labels = labels
    evidence.labels = labels
    with pytest.raises(InputError, match=r"its labels must be 6 integers in \[0, 3\]"):
        _ = evidence.loss_gradients


def test_a_later_network_keeps_the_examples(residual):
    evidence = evidence_of(residual, scoring_images=3)
    other = evidence.for_model(randomise(Residual(), 1))
    assert len(other.scoring) == 3 and torch.equal(other.scoring.whole(), X[:3]) and other.model is not residual
    assert isinstance(other.batches, Batches) and other.estimator is evidence.estimator
