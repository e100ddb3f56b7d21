"""Budgets hold in what runs."""

from fractions import Fraction

import pytest
from helpers import BLOCKINGS, given_network, prepared

from lrp.cost.costs import make_costs
from lrp.cost.count import count_macs, count_params
from lrp.errors import InputError
from lrp.layer.build import build
from lrp.matrices import Block
from lrp.selection.global_ import GlobalSelection


@pytest.fixture(params=[pytest.param("narrow_vgg", marks=pytest.mark.long), "residual", "depthwise", "tokens"])
def network(request):
    return given_network(request, 1)


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["params", "macs"])
@pytest.mark.parametrize("blocking", BLOCKINGS.values(), ids=BLOCKINGS)
def test_the_budget_holds_in_what_runs(network, blocking, budget):
    model, x = network
    candidates, blocks, factors = prepared(model, x, blocking)
    costs = make_costs(blocks, budget, candidates)
    count = (lambda m: count_macs(m, x)) if budget == "macs" else count_params
    total, before = sum(costs.dense.values()), count(model)
    scores = [f.S.square() for f in factors]
    for sparsity in (0.33, 0.9):
        allowed = before - total + (1 - Fraction(str(sparsity))) * total
        for selection in (GlobalSelection(), GlobalSelection(per_parameter=True), GlobalSelection(round_to=4)):
            keep = selection(blocks, scores, sparsity, costs)
            pruned = build(model, factors, keep)  # raises where a block is neither factored nor whole
            assert count(pruned) <= allowed
            if budget == "macs":  # stored whole where factors would not run faster either
                parts = zip(blocks, keep, costs.unit, costs.whole)
                assert all(bool(mask.all()) or int(mask.sum()) * unit < whole for _, mask, unit, whole in parts)


def test_the_unit_of_the_budget_is_checked():
    with pytest.raises(InputError, match="budget=flops: choose one of params, macs"):
        make_costs([Block("a", 0, 0, 2, 0, 2)], "flops")
