"""The same budget in every layer."""

from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import SPARSITIES, kept_ranks, problems

from lrp.cost.costs import make_costs
from lrp.matrices import Block
from lrp.selection.global_ import GlobalSelection
from lrp.selection.uniform import UniformSelection


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from(SPARSITIES), st.sampled_from(["params", "macs"]), st.integers(1, 5), st.booleans())
def test_uniform_gives_every_layer_its_own_budget(problem, sparsity, budget, step, per_parameter):
    blocks, scores, candidates = problem
    costs = make_costs(blocks, budget, candidates)
    keep = UniformSelection(per_parameter=per_parameter, round_to=step)(blocks, scores, sparsity, costs)
    ranks = kept_ranks(keep)
    for name, places in costs.blocks.items():
        assert costs.layer(name, ranks) <= (1 - Fraction(str(sparsity))) * costs.dense[name]
        among = [blocks[i] for i in places]
        alone = SimpleNamespace(matrices={name: candidates.matrices[name]}, positions=candidates.positions)
        masks = GlobalSelection(per_parameter=per_parameter, round_to=step)(
            among, [scores[i] for i in places], sparsity, make_costs(among, budget, alone)
        )
        assert all(torch.equal(mask, keep[i]) for mask, i in zip(masks, places))


def test_uniform_by_hand():
    """Two layers of 10 x 10: 40 of 100 parameters are two components, in each. One of 1 x 9 has none that fits."""
    blocks = [Block("a", 0, 0, 10, 0, 10), Block("b", 0, 0, 10, 0, 10), Block("c", 0, 0, 1, 0, 9)]
    scores = [torch.arange(10.0), 100 * torch.arange(10.0), torch.ones(1)]
    assert kept_ranks(UniformSelection()(blocks, scores, 0.6)) == [2, 2, 0]
    keep = UniformSelection(break_even="measured")(blocks, scores, 0.6, make_costs(blocks, break_even={"b": 1}))
    assert kept_ranks(keep) == [2, 1, 0]
