"""The selection by one threshold against one that drops components one by one and counts anew each time."""

from fractions import Fraction

import pytest
import torch
from helpers import BLOCKINGS, prepared
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import charged, check, problems, value

from lrp.cost.costs import Costs, make_costs
from lrp.decomposition.entries import EntryBlock
from lrp.decomposition.filters import FilterBlock
from lrp.errors import InputError
from lrp.matrices import Block
from lrp.selection.global_ import GlobalSelection


def slow(blocks, scores, sparsity, per_parameter):
    """Position after position in the order, with the parameters counted from scratch."""
    places = [(i, j) for i, b in enumerate(blocks) for j in range(b.rank)]
    value = lambda at: float(scores[at[0]][at[1]]) / (sum(blocks[at[0]].shape) if per_parameter else 1)  # noqa: E731
    order = sorted(places, key=value)  # sorted() is stable: ties stay in order of position
    budget = (1 - Fraction(str(sparsity))) * sum(b.size for b in blocks)
    for count in range(len(order) + 1):
        dropped = set(order[:count])
        ranks = [sum((i, j) not in dropped for j in range(b.rank)) for i, b in enumerate(blocks)]
        if sum(min(r * sum(b.shape), b.size) for r, b in zip(ranks, blocks)) <= budget:
            break
    keep = [torch.tensor([(i, j) not in dropped for j in range(b.rank)]) for i, b in enumerate(blocks)]
    return [torch.ones(b.rank, dtype=bool) if int(k.sum()) * sum(b.shape) >= b.size else k for b, k in zip(blocks, keep)]


def blocks_of(shapes):
    return [Block(f"layer{i}", 0, 0, p, 0, q) for i, (p, q) in enumerate(shapes)]


@pytest.mark.parametrize("per_parameter", [False, True])
@pytest.mark.parametrize("sparsity", [0, 0.01, 0.1, 0.3, 0.5, 0.77, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("seed", range(3))
def test_against_slow(sparsity, per_parameter, seed):
    blocks = blocks_of([(6, 20), (10, 10), (3, 40), (1, 5), (12, 7), (8, 8)])
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.rand(b.rank, generator=generator, dtype=torch.float64) for b in blocks]
    if seed == 2:
        scores = [(score * 4).round() for score in scores]  # many ties
    keep = GlobalSelection(per_parameter=per_parameter)(blocks, scores, sparsity)
    assert [k.tolist() for k in keep] == [k.tolist() for k in slow(blocks, scores, sparsity, per_parameter)]
    assert sum(b.cost(int(k.sum())) for b, k in zip(blocks, keep)) <= (1 - Fraction(str(sparsity))) * sum(b.size for b in blocks)


def test_sparsity_zero_keeps_all():
    blocks = blocks_of([(6, 20), (10, 10)])
    assert all(bool(mask.all()) for mask in GlobalSelection()(blocks, [torch.rand(b.rank) for b in blocks], 0))


def test_kept_scores_are_above_dropped_ones():
    blocks = blocks_of([(20, 60), (30, 30), (10, 90)])
    scores = [torch.rand(b.rank) for b in blocks]
    keep = GlobalSelection()(blocks, scores, 0.8)
    dropped = torch.cat([s[~k] for s, k in zip(scores, keep)]).max()
    low_rank = [s[k].min() for s, k, b in zip(scores, keep, blocks) if k.any() and not b.is_dense(int(k.sum()))]
    assert low_rank and all(lowest >= dropped for lowest in low_rank)


def test_budget_is_read_as_written():
    """0.9 of 1,000 parameters leaves exactly 100: in floating point 1 - 0.9 leaves 99.999."""
    blocks = blocks_of([(1, 1)] * 1000)
    keep = GlobalSelection()(blocks, [torch.tensor([float(i)]) for i in range(1000)], 0.9)
    assert sum(int(mask.sum()) for mask in keep) == 100


@pytest.mark.parametrize("kind", [EntryBlock, FilterBlock])
def test_weights_and_filters_go_all_at_once(kind, monkeypatch):
    """As they would one after the other."""
    blocks = [kind(**vars(block)) for block in blocks_of([(4, 6), (3, 5), (1, 2)])]
    scores = [torch.rand(b.rank, generator=torch.Generator().manual_seed(i)).mul(8).round() for i, b in enumerate(blocks)]
    grid = (0, 0.01, 0.37, 0.5, 0.9, 0.999)
    together = [GlobalSelection()(blocks, scores, sparsity) for sparsity in grid]
    monkeypatch.setattr(Costs, "even", lambda *_: False)
    for masks, sparsity in zip(together, grid, strict=True):
        assert all(map(torch.equal, masks, GlobalSelection()(blocks, scores, sparsity)))
        kept = sum(int(mask.sum()) * b.unit for mask, b in zip(masks, blocks, strict=True))
        assert kept <= (1 - sparsity) * 41 + 1e-9 and kept > (1 - sparsity) * 41 - max(b.unit for b in blocks)


@pytest.mark.parametrize("sparsity", [1, -0.1, 1.5, float("nan"), "0.5"])
def test_bad_sparsity(sparsity):
    with pytest.raises(InputError, match=r"sparsity.grid=.*\[0, 1\)"):
        GlobalSelection()(blocks_of([(2, 2)]), [torch.ones(2)], sparsity)


def test_scores_that_are_not_finite_name_the_layer():
    with pytest.raises(InputError, match="layer1"):
        GlobalSelection()(blocks_of([(2, 2), (2, 2)]), [torch.ones(2), torch.tensor([1.0, float("nan")])], 0.5)


def test_as_few_components_as_possible_are_dropped(residual):
    """In multiply-accumulates: with the last one dropped restored, the budget is exceeded."""
    candidates, blocks, factors = prepared(residual, torch.randn(1, 3, 8, 8).double(), BLOCKINGS["alds"])
    costs = make_costs(blocks, "macs", candidates)
    scores = [f.S for f in factors]
    order = sorted((float(v), i) for i, score in enumerate(scores) for v in score)
    for sparsity in (0.2, 0.5, 0.8):
        budget = (1 - Fraction(str(sparsity))) * sum(costs.dense.values())
        cost = lambda ranks: sum(costs.layer(name, ranks) for name in costs.blocks)  # noqa: E731
        ranks, count = [b.rank for b in blocks], 0
        while cost(ranks) > budget:
            ranks[order[count][1]] -= 1
            count += 1
        keep = GlobalSelection()(blocks, scores, sparsity, costs)
        whole = costs.is_whole(blocks, ranks)
        assert [int(mask.sum()) for mask in keep] == [b.rank if w else r for b, r, w in zip(blocks, ranks, whole)]


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(
    problems(), st.sampled_from([0, 0.01, 0.2, 0.37, 0.5, 0.77, 0.9, 0.99]), st.sampled_from(["params", "macs"]),
    st.integers(1, 9), st.booleans(),
)  # fmt: skip
def test_any_selection(problem, sparsity, budget, step, per_parameter):
    blocks, scores, candidates = problem
    costs = make_costs(blocks, budget, candidates)
    exact = GlobalSelection(per_parameter=per_parameter)(blocks, scores, sparsity, costs)
    keep = GlobalSelection(per_parameter=per_parameter, round_to=step)(blocks, scores, sparsity, costs)
    for masks in (exact, keep):
        check(costs, blocks, masks, sparsity)
    if sparsity == 0:
        assert all(bool(mask.all()) for mask in keep)
    down = []
    for mask, score in zip(exact, scores):
        rank = int(mask.sum())
        lowered = rank if mask.all() or rank <= step else rank - rank % step
        down.append(torch.ones_like(mask) if mask.all() else torch.zeros_like(mask))
        if not mask.all():
            down[-1][torch.argsort(score, stable=True)[len(mask) - lowered :]] = True
    for mask, least, was in zip(keep, down, exact):
        assert mask.all() or int(mask.sum()) % step == 0 or int(mask.sum()) < step
        assert not (least & ~mask).any()  # nothing is lost against rounding down alone
        assert bool(was.all()) <= bool(mask.all())
    assert value(scores, keep) >= value(scores, down) - 1e-9
    # what was freed is spent: no factored block can be raised any more
    stored, budgeted = charged(costs, blocks, keep), (1 - Fraction(str(sparsity))) * sum(costs.dense.values())
    ranks = [int(mask.sum()) for mask in keep]
    for i, (mask, rank) in enumerate(zip(keep, ranks)):
        higher = rank + step - rank % step
        if step > 1 and not mask.all() and higher <= costs.limit[i]:
            assert stored + (higher - rank) * costs.unit[i] > budgeted


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(
    problems(), st.sampled_from([0, 0.01, 0.2, 0.5, 0.77, 0.9]), st.sampled_from(["params", "macs"]), st.integers(1, 9),
    st.lists(st.floats(0, 1), min_size=4, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4),
)  # fmt: skip
def test_any_break_even(problem, sparsity, budget, step, shares, measured):
    """A layer is wholly dense or no higher than its break-even rank, and is charged accordingly."""
    blocks, scores, candidates = problem
    limits = make_costs(blocks).limit
    sums = {name: sum(limits[i] for i, b in enumerate(blocks) if b.layer == name) for name in candidates.matrices}
    break_even = {name: int(share * sums[name]) for name, share, wanted in zip(sums, shares, measured) if wanted}
    costs = make_costs(blocks, budget, candidates, break_even)
    check(costs, blocks, GlobalSelection(round_to=step)(blocks, scores, sparsity, costs), sparsity)


def test_break_even_by_hand():
    """Two layers of 10 x 10, stored as factors up to rank 4. The second is not faster above rank 2, so at ranks 3 and 4 it is
    charged, and left, dense."""
    blocks = [Block("a", 0, 0, 10, 0, 10), Block("b", 0, 0, 10, 0, 10)]
    scores = [torch.arange(10.0), torch.arange(10.0) + 0.5]
    for limit, expected in {4: [3, 3], 2: [4, 2], 0: [1, 10]}.items():  # of 200 parameters 120 stay, a component has 20
        costs = make_costs(blocks, break_even={"b": limit})
        keep = GlobalSelection()(blocks, scores, 0.4, costs)
        assert [int(mask.sum()) for mask in keep] == expected
        check(costs, blocks, keep, 0.4)
