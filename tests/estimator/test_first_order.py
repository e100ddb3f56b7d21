"""First-order scores against the derivative, found by deletion, and against exact ones where they agree."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from cases import Affine, Branching
from helpers import SCORERS, close, factors_of, slow_differences
from torch import nn

from lrp.blocking.alds import AldsBlocking
from lrp.blocking.none import Unblocked
from lrp.blocking.square import SquareBlocking
from lrp.errors import InputError
from lrp.estimator.exact import ExactEstimator
from lrp.estimator.first_order import FirstOrderEstimator

SHAPES = {"narrow_vgg": (5, 3, 32, 32), "residual": (5, 3, 16, 16), "depthwise": (4, 3, 16, 16), "tokens": (4, 3, 5, 4)}


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
    for i in range(0, len(factors), 9 if network == "narrow_vgg" else 1):
        little = slow_differences(model, dataclasses.replace(factors[i], V=share * factors[i].V), x) / share  # (R, B, K)
        assert close(D[i].permute(2, 0, 1), little, 1e-3)
        assert close(moments[i].first, D[i].mean(0).T) and close(moments[i].second, D[i].square().mean(0).T)


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


def test_an_output_without_gradient_is_refused():
    class Frozen(Branching):  # of a network that can be traced the graph alone runs, and that has gradients
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    model = Frozen().double().eval()
    _, factors = factors_of(model, Unblocked())
    with pytest.raises(InputError, match="carries no gradient, so estimator=first_order cannot score it"):
        FirstOrderEstimator()(model, factors, torch.randn(3, 6).double())
