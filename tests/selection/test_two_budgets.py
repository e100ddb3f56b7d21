"""Two budgets at once."""

from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import SPARSITIES, kept_ranks, problems

from lrp.config.build import compose_job
from lrp.cost.costs import make_costs
from lrp.cost.count import layers_macs, stored_params
from lrp.errors import InputError
from lrp.matrices import Block, LayerMatrix
from lrp.selection.global_ import GlobalSelection
from lrp.selection.lagrangian import LagrangianSelection
from lrp.selection.two_budgets import select_both


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(problems(), st.sampled_from(SPARSITIES), st.sampled_from(SPARSITIES), st.integers(1, 5))
def test_both_budgets_hold(problem, sparsity, macs_removed, step):
    """In what runs; where the parameters' budget alone holds the other too, it decides alone."""
    blocks, scores, candidates = problem
    params, macs = make_costs(blocks, "params", candidates), make_costs(blocks, "macs", candidates)
    for selection in (LagrangianSelection(round_to=step), GlobalSelection(per_parameter=True, round_to=step)):
        keep = select_both(selection, blocks, scores, sparsity, macs_removed, params, candidates)
        assert sum(layers_macs(candidates, blocks, keep).values()) <= (1 - Fraction(str(macs_removed))) * sum(macs.dense.values())
        assert stored_params(blocks, keep) <= (1 - Fraction(str(sparsity))) * sum(params.dense.values())
        alone = selection(blocks, scores, sparsity, params)
        if sum(layers_macs(candidates, blocks, alone).values()) <= (1 - Fraction(str(macs_removed))) * sum(macs.dense.values()):
            assert all(torch.equal(a, b) for a, b in zip(keep, alone))


@pytest.mark.slow
def test_both_budgets_bind():
    """A layer of many positions, where multiply-accumulates are, and a layer of one, where parameters are: alone, parameters leave the
    first dense; with both, it gives way, and the second takes what parameters are left."""
    blocks = [Block("early", 0, 0, 20, 0, 20), Block("late", 0, 0, 60, 0, 60)]
    candidates = SimpleNamespace(
        matrices={b.layer: LayerMatrix(b.layer, torch.empty(b.shape), 1) for b in blocks}, positions={"early": 100, "late": 1}
    )
    scores = [torch.arange(b.rank, 0, -1).double() for b in blocks]
    params, selection = make_costs(blocks, "params", candidates), LagrangianSelection()
    one = kept_ranks(selection(blocks, scores, 0.8, params))
    both = kept_ranks(select_both(selection, blocks, scores, 0.8, 0.85, params, candidates))
    assert one == [20, 3] and both == [1, 6]  # of 800 parameters 40 a component early and 120 late, of 6,540 MACs 4,000 and 120
    with pytest.raises(InputError, match="^macs_removed=0.5: it needs budget=params"):
        compose_job("macs_removed=0.5", "budget=macs")
    with pytest.raises(InputError, match="^macs_removed=0.5: method=alds can meet only one budget$"):
        compose_job("macs_removed=0.5", "method=alds")
    with pytest.raises(InputError, match="^macs_removed=1.0: must be a share"):
        compose_job("macs_removed=1")
    for other in ("rounds.keep_factor=0.5", "selection=joint"):
        with pytest.raises(InputError, match="^macs_removed=0.5: .* know one budget only"):
            compose_job("macs_removed=0.5", other)
    assert "macs_removed=0.5" in compose_job("macs_removed=0.5").options.split()
