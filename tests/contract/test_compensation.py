"""What every compensation fulfils: the network still runs, and nothing changes where nothing was removed."""

import copy

import pytest
import torch
from contract.adapt import compensate, every, first_components, from_python, options, plain_factors, remove
from helpers import given_network


@pytest.fixture(params=["residual", "depthwise", "tokens"])
def network(request):
    return given_network(request, 12)


@pytest.mark.slow
@every("compensation")
@pytest.mark.parametrize("blocking", sorted(options("blocking")))
def test_a_pruned_network_still_runs(name, blocking, network):
    model, x = network
    before, images = copy.deepcopy(model.state_dict()), x.clone()
    candidates, factors = plain_factors(model, x, blocking)
    pruned = remove(model, factors, first_components(factors, 0.4))
    kinds, modes = [type(m) for m in pruned.modules()], [m.training for m in pruned.modules()]
    shapes = {key: value.shape for key, value in pruned.state_dict().items()}
    compensate(from_python("compensation", name), pruned, model, candidates, x)
    rule = f"compensation={name}, blocking={blocking}: "
    assert pruned(x).isfinite().all(), rule + "what it leaves runs and gives finite outputs"
    assert [type(m) for m in pruned.modules()] == kinds and [m.training for m in pruned.modules()] == modes, rule + "modules and modes stay"
    found = {key: value.shape for key, value in pruned.state_dict().items()}
    assert {key: found[key] for key in shapes} == shapes, rule + "no rank changes"
    assert all(key.endswith("bias") for key in found.keys() - shapes.keys()), rule + "only biases are added"
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()), rule + "the dense network stays as it is"
    assert torch.equal(x, images), rule + "so do the images"


@every("compensation")
def test_a_network_of_full_rank_stays_the_same(name, network):
    model, x = network
    candidates, factors = plain_factors(model, x)
    whole = remove(model, factors, [torch.ones(f.block.rank, dtype=torch.bool) for f in factors])
    compensate(from_python("compensation", name), whole, model, candidates, x)
    assert torch.allclose(whole(x), model(x), atol=1e-6), f"compensation={name}: a network of full rank computes what it did before"
