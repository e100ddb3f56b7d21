"""Every selection holds the budget; the Lagrangian one against all choices there are; uniform budgets; the energy scorer."""

from fractions import Fraction
from itertools import product
from types import SimpleNamespace

import pytest
import torch
import yaml
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from test_costs import check, problems, value

from lrp.config.build import compose_job
from lrp.config.paths import CONF
from lrp.cost.costs import make_costs
from lrp.cost.count import layers_macs, stored_params
from lrp.errors import InputError
from lrp.matrices import Block, Factors
from lrp.scorer.energy import Energy
from lrp.selection.frontier import candidate_ranks
from lrp.selection.global_ import GlobalSelection
from lrp.selection.lagrangian import LagrangianSelection
from lrp.selection.two_budgets import select_both
from lrp.selection.uniform import UniformSelection

SELECTIONS = [GlobalSelection, UniformSelection, LagrangianSelection]
SPARSITIES = [0, 0.01, 0.2, 0.37, 0.5, 0.77, 0.9, 0.99]


def kept_ranks(keep):
    return [int(mask.sum()) for mask in keep]


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


# Two budgets


@settings(max_examples=40, deadline=None)
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


def test_both_budgets_bind():
    """A layer of many positions, where multiply-accumulates are, and a layer of one, where parameters are: alone, parameters leave the
    first dense; with both, it gives way, and the second takes what parameters are left."""
    blocks = [Block("early", 0, 0, 20, 0, 20), Block("late", 0, 0, 60, 0, 60)]
    candidates = SimpleNamespace(
        matrices={b.layer: SimpleNamespace(kernel=1, weight=torch.empty(b.shape)) for b in blocks}, positions={"early": 100, "late": 1}
    )
    scores = [torch.arange(b.rank, 0, -1).double() for b in blocks]
    params, selection = make_costs(blocks, "params", candidates), LagrangianSelection()
    one = kept_ranks(selection(blocks, scores, 0.8, params))
    both = kept_ranks(select_both(selection, blocks, scores, 0.8, 0.85, params, candidates))
    assert one == [20, 3] and both == [1, 6]  # of 800 parameters 40 a component early and 120 late, of 6,540 MACs 4,000 and 120
    with pytest.raises(InputError, match="^macs_removed=0.5: it needs budget=params"):
        compose_job("macs_removed=0.5", "budget=macs")
    with pytest.raises(InputError, match="^macs_removed=0.5: method=alds knows one budget only$"):
        compose_job("macs_removed=0.5", "method=alds")
    with pytest.raises(InputError, match="^macs_removed=1.0: a sparsity"):
        compose_job("macs_removed=1")
    for other in ("rounds.keep_factor=0.5", "selection=joint"):
        with pytest.raises(InputError, match="^macs_removed=0.5: .* know one budget only"):
            compose_job("macs_removed=0.5", other)
    assert "macs_removed=0.5" in compose_job("macs_removed=0.5").options.split()


# Uniform


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


# Lagrangian


def layer_choices(scores, costs, step):
    """Of each layer all ways to store it, as (cost, score): every combination of its blocks' ranks that is valid."""
    choices = []
    for name, places in costs.blocks.items():
        options = [candidate_ranks(costs.limit[i], len(scores[i]), step) for i in places]
        points = []
        for combination in product(*options):
            ranks = [0] * len(scores)
            for i, rank in zip(places, combination):
                ranks[i] = rank
            if costs.is_dense(name, ranks) and any(rank < len(scores[i]) for i, rank in zip(places, combination)):
                continue  # above the break-even rank; as dense it is among the others
            kept = sum(float(scores[i].sort(descending=True)[0][:rank].sum()) for i, rank in zip(places, combination))
            points.append((costs.layer(name, ranks), kept))
        choices.append(points)
    return choices


def best(choices, budget):
    """The most score within the budget, over all combinations of the layers' choices."""
    totals = {0: 0.0}
    for points in choices:
        sums = {}
        for (had, kept), (cost, score) in product(totals.items(), points):
            if had + cost <= budget:
                sums[had + cost] = max(sums.get(had + cost, 0.0), kept + score)
        totals = sums
    return max(totals.values())


def largest_step(choices):
    """The largest gain of score between neighbours on the upper hull of any layer."""
    largest = 0.0
    for points in choices:
        at = (0, 0.0)
        while any(score > at[1] + 1e-12 for _, score in points):
            after = max(((s - at[1]) / (c - at[0]), c, s) for c, s in points if s > at[1] + 1e-12)
            largest = max(largest, after[2] - at[1])
            at = after[1:]
    return largest


@st.composite
def tiny_problems(draw):
    """A few layers of at most two blocks, with few ranks; macs made up: the dense layer may be cheaper than its blocks whole."""
    blocks = []
    for i in range(draw(st.integers(1, 4))):
        for j in range(draw(st.integers(1, 2))):
            p, q = draw(st.integers(1, 8)), draw(st.integers(1, 8))
            blocks.append(Block(f"layer{i}", j, 0, p, 0, q))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9999)))
    decay = draw(st.sampled_from([0.0, 0.5, 2.0]))
    scores = [torch.rand(b.rank, generator=generator, dtype=torch.float64) for b in blocks]
    scores = [score * torch.arange(1, len(score) + 1).double() ** -decay for score in scores]
    if draw(st.booleans()):
        scores = [(4 * score).round() for score in scores]
    costs = make_costs(blocks)
    if draw(st.booleans()):
        for i, block in enumerate(blocks):
            wasted = draw(st.integers(0, 3))
            costs.whole[i] += wasted
            costs.unit[i] += wasted
            costs.limit[i] = min(costs.limit[i], (costs.whole[i] - 1) // costs.unit[i])
    return blocks, scores, costs


@settings(max_examples=150, deadline=None)
@given(tiny_problems(), st.fractions(0, 1, max_denominator=1000).filter(lambda s: s < 1), st.integers(1, 3))
def test_lagrangian_against_all_choices(problem, sparsity, step):
    blocks, scores, costs = problem
    keep = LagrangianSelection(round_to=step)(blocks, scores, sparsity, costs)
    check(costs, blocks, keep, sparsity)
    choices = layer_choices(scores, costs, step)
    most = best(choices, (1 - sparsity) * sum(costs.dense.values()))
    assert most - largest_step(choices) - 1e-9 <= value(scores, keep) <= most + 1e-9
    ranks = kept_ranks(keep)  # nothing that is left would raise a block
    stored = sum(costs.layer(name, ranks) for name in costs.blocks)
    for i, (rank, score) in enumerate(zip(ranks, scores)):
        higher = [r for r in candidate_ranks(costs.limit[i], len(score), step) if r > rank]
        if higher:
            raised = [*ranks[:i], higher[0], *ranks[i + 1 :]]
            more = costs.layer(blocks[i].layer, raised) - costs.layer(blocks[i].layer, ranks)
            assert stored + more > (1 - sparsity) * sum(costs.dense.values())


@settings(max_examples=100, deadline=None)
@given(tiny_problems(), st.floats(1e-4, 1), st.integers(1, 3))
def test_lagrangian_is_the_optimum_where_a_multiplier_meets_the_budget(problem, mu, step):
    blocks, scores, costs = problem
    choices = layer_choices(scores, costs, step)
    budget = sum(max(points, key=lambda point: point[1] - mu * point[0])[0] for points in choices)
    total = sum(costs.dense.values())
    if budget > 0:
        keep = LagrangianSelection(round_to=step)(blocks, scores, 1 - Fraction(budget, total), costs)
        assert value(scores, keep) == pytest.approx(best(choices, budget), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    tiny_problems(), st.fractions(0, 1, max_denominator=1000).filter(lambda s: s < 1), st.integers(1, 3),
    st.lists(st.integers(0, 4), min_size=4, max_size=4),
)  # fmt: skip
def test_lagrangian_with_break_even_ranks(problem, sparsity, step, ranks):
    """Of layers of one block as close to the optimum as without; of several never above it."""
    blocks, scores, costs = problem
    costs.break_even.update(zip(costs.blocks, ranks))
    keep = LagrangianSelection(round_to=step)(blocks, scores, sparsity, costs)
    check(costs, blocks, keep, sparsity)
    choices = layer_choices(scores, costs, step)
    most = best(choices, (1 - sparsity) * sum(costs.dense.values()))
    assert value(scores, keep) <= most + 1e-9
    if all(len(places) == 1 for places in costs.blocks.values()):
        assert value(scores, keep) >= most - largest_step(choices) - 1e-9


def test_lagrangian_by_hand():
    """Of 200 parameters 120 stay, a component has 20: the six highest would leave b at rank 2, but whole it gains nine more."""
    blocks = [Block("a", 0, 0, 10, 0, 10), Block("b", 0, 0, 10, 0, 10)]
    scores = [torch.tensor([9.0, 8, 7, 6, *[0] * 6]), torch.tensor([5.0] * 10)]
    assert kept_ranks(LagrangianSelection()(blocks, scores, 0.4)) == [1, 10]  # 59, against 40 by rank 4 and 2
    assert kept_ranks(LagrangianSelection()(blocks, scores, 0.5)) == [0, 10]  # 50, against 35
    assert kept_ranks(LagrangianSelection()(blocks, scores, 0.55)) == [4, 0]  # 30: whole does not fit


def test_equal_scores_rise_in_order_of_position():
    blocks = [Block(f"layer{i}", 0, 0, 10, 0, 10) for i in range(4)]
    scores = [torch.tensor([1.0, *[0] * 9])] * 4
    assert kept_ranks(LagrangianSelection()(blocks, scores, 0.9)) == [1, 1, 0, 0]


def test_negative_scores_stay_out():
    blocks = [Block("a", 0, 0, 10, 0, 10), Block("b", 0, 0, 10, 0, 10)]
    scores = [torch.tensor([1.0, *[-1.0] * 9]), torch.tensor([1.0, 1.0, *[-1.0] * 8])]
    assert kept_ranks(LagrangianSelection()(blocks, scores, 0.2)) == [1, 2]
    assert kept_ranks(LagrangianSelection()(blocks, scores, 0)) == [10, 10]


# What all of them refuse, and their options


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


# The energy scorer


def test_energy_sums_to_one_in_each_layer():
    blocks = [Block("a", 0, 0, 4, 0, 6), Block("a", 1, 0, 4, 6, 8), Block("b", 0, 0, 3, 0, 3), Block("zero", 0, 0, 2, 0, 2)]
    norms = [torch.rand(b.rank, dtype=torch.float64).sort(descending=True)[0] for b in blocks]
    norms[3] = torch.zeros(2, dtype=torch.float64)
    factors = [Factors(b, torch.empty(b.shape[0], b.rank), S, torch.empty(b.rank, b.shape[1])) for b, S in zip(blocks, norms)]
    scores = Energy()(dict.fromkeys(["a", "b", "zero"]), factors, None)
    assert float(scores[0].sum() + scores[1].sum()) == pytest.approx(1) and float(scores[2].sum()) == pytest.approx(1)
    assert torch.equal(scores[3], torch.zeros(2, dtype=torch.float64))
    assert float(scores[0][0] / scores[1][0]) == pytest.approx(float(norms[0][0] / norms[1][0]) ** 2)
