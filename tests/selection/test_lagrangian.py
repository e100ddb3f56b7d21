"""The Lagrangian selection against all choices there are."""

from fractions import Fraction
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import check, kept_ranks, value

from lrp.cost.costs import make_costs
from lrp.matrices import Block
from lrp.selection.frontier import candidate_ranks
from lrp.selection.lagrangian import LagrangianSelection


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
        for i in range(len(blocks)):
            wasted = draw(st.integers(0, 3))
            costs.whole[i] += wasted
            costs.unit[i] += wasted
            costs.limit[i] = min(costs.limit[i], (costs.whole[i] - 1) // costs.unit[i])
    return blocks, scores, costs


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
