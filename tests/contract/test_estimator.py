"""What every estimator fulfils: moments of each component's change, which are those of brute force where that is linear."""

import dataclasses

import torch
from cases import Affine
from contract.adapt import every, from_python, moments, options, plain_factors
from helpers import close, given_network, randomise, slow_differences
from pytest import fixture, mark


@fixture(params=["residual", "depthwise", "tokens"])
def network(request):
    return given_network(request, 4)


@every("estimator")
def test_moments_of_every_component(name, network):
    model, x = network
    before = {key: value.clone() for key, value in model.state_dict().items()}
    _, factors = plain_factors(model, x)
    found, again = (moments(from_python("estimator", name), model, factors, x) for _ in range(2))
    outputs = model(x).flatten(1).shape[1]
    assert len(found) == len(factors), f"estimator={name}: moments of every block"
    for f, m, other in zip(factors, found, again, strict=True):
        rule = f"estimator={name}, layer {f.block.layer}: "
        assert m.second.shape == m.first.shape and len(m.second) == f.block.rank, rule + "moments are (R, K)"
        assert m.projected or m.second.shape[1] == outputs, rule + "K counts the outputs"
        assert m.second.isfinite().all() and (m.second >= 0).all(), rule + "second moments are finite and not negative"
        assert (m.second >= m.first.square() * (1 - 1e-9)).all(), rule + "no second moment is below the square of the first"
        assert torch.equal(m.second, other.second) and torch.equal(m.first, other.first), rule + "a second call gives the same"
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()), f"estimator={name} leaves the network as it is"


@every("estimator")
@mark.parametrize("blocking", sorted(options("blocking")))
def test_agrees_with_deletion_on_a_linear_network(name, blocking):
    """The output is linear in each component, so that all estimators find what deleting it does."""
    model, x = randomise(Affine()), torch.randn(6, 3, 5, 5).double()
    _, factors = plain_factors(model, x, blocking)
    for f, m in zip(factors, moments(from_python("estimator", name), model, factors, x), strict=True):
        change = slow_differences(model, f, x)
        assert close(m.second, change.square().mean(1)) and close(m.first, change.mean(1)), f"estimator={name} finds what deletion does"


@every("estimator")
def test_a_component_that_is_zero_changes_nothing(name, residual):
    x = torch.randn(3, 3, 8, 8).double()
    _, factors = plain_factors(residual, x)
    zeroed = [dataclasses.replace(f, V=torch.zeros_like(f.V)) for f in factors[:2]]
    for m in moments(from_python("estimator", name), residual, zeroed, x):
        assert float(m.second.abs().max()) < 1e-24, f"estimator={name}: the removal of nothing changes nothing"
