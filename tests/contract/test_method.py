"""What every method fulfils: a smaller network at any sparsity, within its budget, and the original untouched."""

import copy

import pytest
import torch
from contract.adapt import build_plan, every, fit, method, planned
from helpers import given_network, same_state

from lrp.errors import InputError

SPARSITIES = [0, 0.3, 0.6, 0.85]


@pytest.fixture(params=["residual", *(pytest.param(name, marks=pytest.mark.long) for name in ("depthwise", "tokens"))])
def network(request):
    return given_network(request, 12)


@pytest.mark.slow
@every("method")
@pytest.mark.parametrize("budget", ["params", "macs"])
def test_a_smaller_network_at_any_sparsity(name, budget, network):
    model, x = network
    before, images, y = copy.deepcopy(model.state_dict()), x.clone(), model(x).detach()
    try:
        fitted = fit(method(name, f"budget={budget}"), model, x)
    except InputError as error:  # a method for networks of one kind, or for one budget
        assert "\n" not in str(error) and str(error).startswith(("method=", "budget=")), f"method={name} refuses in one sentence"
        return
    for sparsity in (*SPARSITIES, SPARSITIES[1]):  # in any order
        rule = f"method={name}, budget={budget}, sparsity {sparsity}: "
        try:
            plan, held, allowed = planned(fitted, sparsity)
        except InputError as error:
            assert "\n" not in str(error) and f"={sparsity}: " in str(error), rule + "what it cannot remove it says in one sentence"
            assert sparsity > 0.5, rule + "half of a network can be removed"
            continue
        small = build_plan(fitted, plan)
        assert held <= allowed, rule + "the budget is kept"
        assert small(x).shape == y.shape and small(x).isfinite().all(), rule + "the network runs"
        assert small is not model and [m.training for m in model.modules()] == [False] * len(list(model.modules())), rule + "modes stay"
        assert sparsity or torch.equal(small(x), y), rule + "at 0 the network is what it was"
        assert sum(p.numel() for p in small.parameters()) <= sum(p.numel() for p in model.parameters()) + 64, rule + "it is not larger"
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()), f"method={name} leaves the network as it is"
    assert torch.equal(x, images), f"method={name} leaves the images as they are"


@pytest.mark.long
@pytest.mark.slow
@every("method")
def test_the_same_seed_gives_the_same_network(name, residual):
    x = torch.randn(12, 3, 9, 8).double()
    try:
        one, other = (build_plan(fitted, planned(fitted, 0.5)[0]) for fitted in (fit(method(name), residual, x) for _ in range(2)))
    except InputError:  # a method for networks of another kind
        return
    assert same_state(one, other), f"method={name}: the same seed gives the same network, bit for bit"
