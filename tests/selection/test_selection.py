"""Selections that choose by scores, on made problems; what every selection fulfils is in contract/test_selection.py."""

import dataclasses

import pytest
import torch
from helpers import NAMES, parts
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import SPARSITIES, check, problems

from lrp.cost.costs import make_costs
from lrp.errors import InputError

# those that choose by scores; the others read the network: see contract/test_selection.py
SELECTIONS = {name: part for name, part in parts("selection").items() if not getattr(part, "reads_network", False)}


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    problems(), st.sampled_from(SPARSITIES), st.sampled_from(["params", "macs"]), st.integers(1, 9), st.booleans(),
    st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=4, max_size=4),
)  # fmt: skip
def test_any_selection(problem, sparsity, budget, step, per_parameter, shares):
    """Within the budget and the break-even ranks, the highest scores of each block, ranks rounded, all at sparsity 0."""
    blocks, scores, candidates = problem
    plain = make_costs(blocks, budget, candidates)
    sums = {name: sum(plain.limit[i] for i in places) for name, places in plain.blocks.items()}
    measured = {name: int(share * sums[name]) for name, share in zip(sums, shares) if share is not None}
    for costs in (plain, make_costs(blocks, budget, candidates, measured)):
        for part in SELECTIONS.values():
            own = {"per_parameter": per_parameter} if hasattr(part, "per_parameter") else {}
            selection = dataclasses.replace(part, round_to=step, **own)
            keep = selection(blocks, scores, sparsity, costs)
            check(costs, blocks, keep, sparsity)
            for score, mask in zip(scores, keep):
                assert mask.dtype == torch.bool and mask.shape == score.shape
                assert mask.all() or not mask.any() or score[mask].min() >= score[~mask].max()
                assert mask.all() or int(mask.sum()) % step == 0 or int(mask.sum()) < step
            if sparsity == 0:
                assert all(bool(mask.all()) for mask in keep)
            again = selection(blocks, scores, sparsity, costs)
            assert all(torch.equal(a, b) for a, b in zip(keep, again))


@pytest.mark.parametrize("name", NAMES["selection"])
def test_options_out_of_range(name):
    selection = parts("selection")[name]
    with pytest.raises(InputError, match="selection.round_to=0: must be an integer of at least 1"):
        dataclasses.replace(selection, round_to=0)
    with pytest.raises(InputError, match="selection.break_even=guess: choose one of params, measured"):
        dataclasses.replace(selection, break_even="guess")
