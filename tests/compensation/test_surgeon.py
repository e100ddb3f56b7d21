"""SVD-Surgeon: the quadratic model's minimiser, and a loss that never rises."""

import copy

import pytest
import torch
from helpers import close, factors_of, ranks_of, same_state
from torch.nn import functional as F

from lrp.batches import Batches
from lrp.blocking.alds import AldsBlocking
from lrp.blocking.none import Unblocked
from lrp.compensation import surgeon
from lrp.compensation.surgeon import Surgeon, minimiser
from lrp.config.parts import make
from lrp.errors import InputError
from lrp.estimator.divergence import divergence
from lrp.evidence import Evidence
from lrp.layer.build import build
from lrp.network.own_loss import drawn_gradients


def evidence_of(model, x):
    return Evidence(model, x).of(make("estimator", "first_order"), (), 65536)


def test_the_minimiser_of_the_quadratic_model():
    """With s the singular values, kept ones S and dropped ones C: ds_S = H_SS^-1 H_SC s_C, which no other change beats."""
    g, s = torch.randn(50, 8).double(), torch.rand(8).double() + 1
    H, S, C = g.T @ g / 50, slice(0, 5), slice(5, 8)
    found = minimiser(g[:, S], g[:, C] @ s[C], 1e-12)
    assert torch.allclose(found, torch.linalg.solve(H[S, S], H[S, C] @ s[C]), rtol=1e-8)

    def loss(change):
        moved = torch.cat([change, -s[C]])
        return float(moved @ H @ moved) / 2

    assert loss(found) < loss(torch.zeros(5).double())
    assert all(loss(found) <= loss(found + 0.1 * torch.randn(5).double()) for _ in range(20))


def test_nothing_dropped_or_no_gradient_is_no_change():
    g = torch.randn(50, 5).double()
    assert not minimiser(g, torch.zeros(50).double(), 0.01).any()
    assert not minimiser(0 * g, torch.randn(50).double(), 0.01).any()


def test_damping_is_relative():
    """The scale of the loss cancels, and more damping is a smaller change."""
    g, c = torch.randn(50, 5).double(), torch.randn(50).double()
    assert close(minimiser(g, c, 0.1), minimiser(100 * g, 100 * c, 0.1))
    sizes = [float(minimiser(g, c, damping).norm()) for damping in (1e-6, 0.1, 10)]
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.parametrize("blocking", [Unblocked(), AldsBlocking(2)])
def test_the_loss_never_rises_and_directions_stay(residual, blocking):
    x = torch.randn(40, 3, 9, 8).double()
    evidence, before = evidence_of(residual, x), copy.deepcopy(residual)
    _, factors = factors_of(residual, blocking)
    gained = 0.0
    for share in (0.2, 0.3, 0.4, 0.5):
        small = build(residual, factors, ranks_of(share, factors))
        plain = copy.deepcopy(small)
        Surgeon().with_network(small, evidence.survey, evidence)
        losses = [divergence(residual, net, Batches.of(x), evidence.estimator) for net in (plain, small)]
        assert losses[1] <= losses[0]
        gained += losses[0] - losses[1]
        held = dict(plain.named_parameters())
        for name, parameter in small.named_parameters():
            if ".U." in name:  # each column is a multiple of what it was
                assert close(
                    parameter / parameter.norm(dim=0), held[name] / held[name].norm(dim=0) * (parameter * held[name]).sum(0).sign()
                )
            else:
                assert torch.equal(parameter, held[name])
    assert gained > 0 and same_state(residual, before)


def test_a_bad_direction_is_not_taken(residual, monkeypatch):
    monkeypatch.setattr(surgeon, "minimiser", lambda kept, rest, damping: torch.full((kept.shape[1],), -1e3).double())
    x = torch.randn(12, 3, 9, 8).double()
    _, factors = factors_of(residual, Unblocked())
    small = build(residual, factors, ranks_of(0.5, factors))
    plain = copy.deepcopy(small)
    evidence = evidence_of(residual, x)
    Surgeon().with_network(small, evidence.survey, evidence)
    assert torch.allclose(small(x), plain(x), rtol=1e-12, atol=1e-12)


def test_the_correction_is_that_of_single_gradients(residual):
    """A slow way: each component's derivative by its singular value, example by example, kept and dropped ones apart."""
    x = torch.randn(9, 3, 9, 8).double()
    evidence = evidence_of(residual, x)
    _, factors = factors_of(residual, Unblocked())
    f = next(f for f in factors if f.block.layer == "conv1")
    keep = torch.arange(len(f.S)) < 3
    small = build(residual, [f], [keep])
    layer = surgeon._Layer(small.get_submodule("conv1"), evidence.matrices["conv1"].weight)
    slow = []
    for gradient in drawn_gradients(residual, ["conv1"], Batches.of(x), lambda y: y):
        layer.add(gradient["conv1"])
        slow.append(torch.einsum("mr,mn,rn->r", f.U, gradient["conv1"], f.V / f.S[:, None]))
    g = torch.stack(slow)
    H = g.T @ g / len(g)
    damped = H[:3, :3] + 0.01 * H[:3, :3].diagonal().mean() * torch.eye(3).double()
    assert close(layer.correction(0.01), torch.linalg.solve(damped, H[:3, 3:] @ f.S[3:]))


@pytest.mark.long
def test_drawn_labels_give_the_fisher_information():
    """Of a linear layer: E[g g^T] is x x^T times diag(p) - p p^T, in the mean over draws."""
    model, x = torch.nn.Linear(2, 3).double(), torch.randn(1, 2).double()
    many = Batches.of(x.expand(4000, 2).clone())
    total = torch.zeros(6, 6).double()
    for gradient in drawn_gradients(torch.nn.Sequential(model), ["0"], many, lambda y: y):
        g = gradient["0"].flatten()
        total += torch.outer(g, g) / 4000
    p = F.softmax(model(x), 1)[0].detach()
    expected = torch.einsum("ab,i,j->aibj", torch.diag(p) - torch.outer(p, p), x[0], x[0]).reshape(6, 6)
    assert (total - expected).norm() < 0.1 * expected.norm()


def test_refuses():
    with pytest.raises(InputError, match="^compensation.damping=0: must be a number greater than 0"):
        Surgeon(damping=0)
    with pytest.raises(InputError, match="^compensation.examples=0: must be an integer of at least 1"):
        Surgeon(examples=0)
    with pytest.raises(InputError, match="^compensation=surgeon: it needs the dense network"):
        Surgeon()(None, None, None, {})
