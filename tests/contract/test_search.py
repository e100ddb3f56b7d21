"""What every search fulfils: the method that it gives compresses to any sparsity, leaves the network alone, and repeats itself."""

import pytest
import torch
from contract.adapt import every, from_python, method
from helpers import given_network
from torch.nn.utils import parameters_to_vector

from lrp.batches import Batches
from lrp.evidence import Evidence
from lrp.method.base import FittedMethod


@pytest.fixture(params=["residual"])
def network(request):
    return given_network(request, 8)


@pytest.mark.slow
@every("search")
def test_gives_a_method(name, network):
    model, x = network
    before = parameters_to_vector(model.parameters()).clone()
    chosen = method("singular_vectors", "scorer=noise_to_signal", "selection=lagrangian", "compensation=least_squares")
    rule = f"search={name}: "
    found = []
    for _ in range(2):
        searched = from_python("search", name, images=4)(chosen, chosen.estimator)
        assert searched.name == chosen.name and searched.budget == "params", rule + "it gives the method, with other options"
        fitted = searched.fit(Evidence(model, Batches.of(x), scoring_images=4))
        assert isinstance(fitted, FittedMethod)
        plan = fitted.plan(0.5)
        small, _ = fitted.compress(plan)
        found.append(parameters_to_vector(small.parameters()))
        sizes = fitted.sizes(small, plan)
        assert sizes["sparsity_params"] >= 0.5, rule + "the budget holds"
        assert len(fitted.report(plan, sizes)) >= len(plan.layers)
    assert torch.equal(*found), rule + "a second search finds the same"
    assert torch.equal(parameters_to_vector(model.parameters()), before), rule + "the network is left as it is"
