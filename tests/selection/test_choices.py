"""The choice among ways to store each layer, against all combinations."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrp.cost.costs import kept_share, make_costs
from lrp.errors import InputError
from lrp.matrices import Block
from lrp.selection import choices
from lrp.selection.choices import choose
from lrp.selection.lagrangian import LagrangianSelection


@st.composite
def several_ways(draw):
    """Of up to four layers up to twelve ways each, one of which costs nothing and one of which loses nothing."""
    ways = {}
    for i in range(draw(st.integers(1, 4))):
        count = draw(st.integers(0, 10))
        cost = [0, *(draw(st.integers(1, 60)) for _ in range(count)), 61]
        loss = [10.0, *(draw(st.integers(0, 100)) / 10 for _ in range(count)), 0.0]
        ways[f"layer{i}"] = np.array(cost), np.array(loss)
    return ways


def total(ways, chosen, which):
    return sum(ways[name][which][at] for name, at in chosen.items())


@settings(max_examples=60, deadline=None)
@given(several_ways(), st.integers(0, 250))
def test_against_all_combinations(ways, budget):
    """Within the budget; at most one step of a hull from the least loss; exact where it meets a point of the hull."""
    chosen = choose(ways, budget)
    assert total(ways, chosen, 0) <= budget and [*chosen] == [*ways]
    fitting = [c for c in product(*(range(len(cost)) for cost, _ in ways.values())) if total(ways, dict(zip(ways, c)), 0) <= budget]
    least = min(total(ways, dict(zip(ways, c)), 1) for c in fitting)
    largest = max(float(np.max(loss) - np.min(loss)) for _, loss in ways.values())
    assert least - 1e-9 <= total(ways, chosen, 1) <= least + largest + 1e-9


def test_within_one_percent_of_dynamic_programming():
    """On ways as layers have them: many, with losses that fall convexly."""
    generator = np.random.default_rng(0)
    for _ in range(5):
        ways = {}
        for i in range(5):
            cost = np.arange(0, 61)
            noise = 1 + 0.2 * generator.random(61)
            ways[str(i)] = cost, generator.random() * np.exp(-cost / generator.uniform(5, 20)) * noise
        for budget in (40, 100, 200):
            table = np.zeros(budget + 1)
            for cost, loss in ways.values():
                table = np.array([min(table[b - c] + v for c, v in zip(cost, loss) if c <= b) for b in range(budget + 1)])
            assert total(ways, choose(ways, budget), 1) <= 1.01 * table[budget]


@settings(max_examples=40, deadline=None)
@given(several_ways(), several_ways(), st.integers(0, 250))
def test_more_ways_of_the_hull_never_predict_worse(first, second, budget):
    """The union's relaxation is below either's; whole choices may differ by the one step that did not fit."""
    both = {n: tuple(np.concatenate([first[n][i], second[n][i]]) for i in (0, 1)) for n in first.keys() & second.keys()}
    for single in (first, second):
        alone = {name: single[name] for name in both}
        step = max(float(np.max(loss) - np.min(loss)) for _, loss in both.values())
        assert total(both, choose(both, budget), 1) <= total(alone, choose(alone, budget), 1) + step + 1e-9


def test_matrices_alone_are_the_lagrangian(monkeypatch):
    """The ranks of one block a layer: as ``LagrangianSelection`` chooses them, at every sparsity; with exchanges never worse."""
    generator = torch.Generator().manual_seed(0)
    blocks = [Block("a", 0, 0, 20, 0, 30), Block("b", 0, 0, 9, 0, 50), Block("c", 0, 0, 40, 0, 40)]
    scores = [torch.rand(block.rank, generator=generator).double() ** 3 for block in blocks]
    costs, ways = make_costs(blocks), {}
    for i, (block, score) in enumerate(zip(blocks, scores)):
        kept = torch.cat([torch.zeros(1), score.sort(descending=True).values.cumsum(0)]).numpy()
        ranks = [*range(costs.limit[i] + 1), block.rank]
        cost = [min(rank * costs.unit[i], block.size) for rank in ranks[:-1]] + [block.size]
        ways[block.layer] = np.array(cost), float(score.sum()) - kept[ranks]
    for sparsity in (0.1, 0.33, 0.5, 0.8, 0.95):
        masks = LagrangianSelection()(blocks, scores, sparsity, costs)
        exchanged = choose(ways, kept_share(sparsity) * sum(costs.dense.values()))
        with monkeypatch.context() as patch:
            patch.setattr(choices, "EXCHANGES", 0)
            chosen = choose(ways, kept_share(sparsity) * sum(costs.dense.values()))
        assert total(ways, exchanged, 1) <= total(ways, chosen, 1)
        ranks = [int(mask.sum()) for mask in masks]
        assert [block.rank if at == len(ways[name][0]) - 1 else at for block, (name, at) in zip(blocks, chosen.items())] == ranks


def test_a_budget_below_the_least():
    with pytest.raises(InputError, match="^forms: no choice of them costs less than 7 of 9, and the budget is 5$"):
        choose({"a": (np.array([7, 9]), np.array([1.0, 0.0]))}, 5)


def test_where_the_budget_admits_it_nothing_goes():
    """A part that counts for nothing stays as long as there is room for it."""
    ways = {"a": (np.array([0, 4, 6, 9]), np.array([2.0, 0.0, 1.0, 0.0])), "b": (np.array([0, 5]), np.array([1.0, 0.0]))}
    assert choose(ways, 14) == {"a": 3, "b": 1}
    assert choose(ways, 13) == {"a": 1, "b": 1}
