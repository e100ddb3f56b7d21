"""What every selection fulfils, refuses and is configured with."""

import pytest
import torch
import yaml
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import SPARSITIES, check, problems

from lrp.config.paths import CONF
from lrp.cost.costs import make_costs
from lrp.errors import InputError
from lrp.matrices import Block
from lrp.selection.global_ import GlobalSelection
from lrp.selection.lagrangian import LagrangianSelection
from lrp.selection.uniform import UniformSelection

SELECTIONS = [GlobalSelection, UniformSelection, LagrangianSelection]


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
        for selection in SELECTIONS:
            keep = selection(per_parameter, round_to=step)(blocks, scores, sparsity, costs)
            check(costs, blocks, keep, sparsity)
            for score, mask in zip(scores, keep):
                assert mask.dtype == torch.bool and mask.shape == score.shape
                assert mask.all() or not mask.any() or score[mask].min() >= score[~mask].max()
                assert mask.all() or int(mask.sum()) % step == 0 or int(mask.sum()) < step
            if sparsity == 0:
                assert all(bool(mask.all()) for mask in keep)
            again = selection(per_parameter, round_to=step)(blocks, scores, sparsity, costs)
            assert all(torch.equal(a, b) for a, b in zip(keep, again))


@pytest.mark.parametrize("selection", SELECTIONS)
def test_bad_input(selection):
    blocks = [Block("a", 0, 0, 2, 0, 2), Block("b", 0, 0, 2, 0, 2)]
    for sparsity in (1, -0.1, float("nan"), "0.5"):
        with pytest.raises(InputError, match=r"sparsity.grid=.*\[0, 1\)"):
            selection()(blocks, [torch.ones(2)] * 2, sparsity)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="layer b: block 0 has scores that are not finite"):
            selection()(blocks, [torch.ones(2), torch.tensor([1.0, bad])], 0.5)
    with pytest.raises(InputError, match="selection.round_to=0: an integer of at least 1"):
        selection(round_to=0)
    with pytest.raises(InputError, match="selection.break_even=guess: params or measured"):
        selection(break_even="guess")


def test_configured_selections_have_the_same_keys():
    files = {file.stem: yaml.safe_load(file.read_text()) for file in CONF.glob("selection/*.yaml")}
    assert all(set(options) >= set(files["global"]) for options in files.values())
    for selection in SELECTIONS:
        assert instantiate(files[selection.name]) == selection()
