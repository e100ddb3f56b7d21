"""What is counted as parameters and multiply-accumulates against what torch counts and what is stored; budgets hold."""

from fractions import Fraction

import pytest
import torch
import yaml
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lrp.config.paths import CONF
from lrp.cost.costs import make_costs
from lrp.cost.count import block_macs, count_macs, count_params, layers_macs
from lrp.decomposition.base import decompose
from lrp.errors import InputError
from lrp.layer.build import build
from lrp.matrices import Block, LayerMatrix, cut
from lrp.network.survey import Candidates, find_candidates
from lrp.selection.global_ import GlobalSelection

BLOCKINGS = [instantiate(yaml.safe_load(file.read_text())) for file in sorted(CONF.glob("blocking/*.yaml"))]
NETWORKS = {"small_vgg": (3, 32, 32), "residual": (3, 8, 8), "depthwise": (3, 9, 10), "tokens": (3, 5, 4)}


@pytest.fixture(params=NETWORKS)
def network(request):
    return request.getfixturevalue(request.param), torch.randn(1, *NETWORKS[request.param]).double()


def prepare(model, x, blocking):
    candidates = find_candidates(model, x)
    blocks = cut(blocking, candidates.matrices)
    return candidates, blocks, decompose(candidates.matrices, blocks)


def random_masks(blocks, share, seed):
    generator = torch.Generator().manual_seed(seed)
    keep = [torch.rand(b.rank, generator=generator) < share for b in blocks]
    return [torch.ones_like(mask) if block.is_dense(int(mask.sum())) else mask for block, mask in zip(blocks, keep)]


@pytest.mark.parametrize("blocking", BLOCKINGS, ids=lambda b: b.name)
def test_macs_are_those_that_torch_counts(network, blocking):
    model, x = network
    candidates, blocks, factors = prepare(model, x, blocking)
    dense = sum(candidates.positions[name] * m.weight.numel() for name, m in candidates.matrices.items())
    rest = count_macs(model, x) - dense  # of what is not compressed
    assert sum(layers_macs(candidates, blocks, [torch.ones(b.rank, dtype=bool) for b in blocks]).values()) == dense
    for seed, share in enumerate((0.0, 0.15, 0.5)):
        keep = random_masks(blocks, share, seed)
        assert count_macs(build(model, factors, keep), x) - rest == sum(layers_macs(candidates, blocks, keep).values())


def test_zero_filling_is_counted():
    """5 columns from the fourth on touch three channels of 3 entries: 9 run."""
    assert block_macs(Block("a", 0, 0, 4, 4, 10), None, 3, 7) == 7 * 4 * 9
    assert block_macs(Block("a", 0, 0, 4, 4, 10), 2, 3, 7) == 7 * 2 * (4 + 9)
    assert block_macs(Block("a", 0, 0, 4, 3, 9), 2, 3, 7) == 7 * 2 * (4 + 6)


@pytest.mark.parametrize("budget", ["params", "macs"])
@pytest.mark.parametrize("blocking", BLOCKINGS, ids=lambda b: b.name)
def test_the_budget_holds_in_what_runs(network, blocking, budget):
    model, x = network
    candidates, blocks, factors = prepare(model, x, blocking)
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


def test_as_few_components_as_possible_are_dropped(residual):
    """In multiply-accumulates: with the last one dropped restored, the budget is exceeded."""
    candidates, blocks, factors = prepare(residual, torch.randn(1, 3, 8, 8).double(), BLOCKINGS[0])
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


@st.composite
def problems(draw):
    """Blocks of a few layers, their scores, and the candidates' part that costs read."""
    matrices, positions = {}, {}
    for i in range(draw(st.integers(1, 4))):
        name = f"layer{i}"
        rows, channels, kernel = draw(st.integers(1, 40)), draw(st.integers(1, 8)), draw(st.sampled_from([1, 2, 9]))
        layer = nn.Conv1d(channels, rows, kernel)
        matrices[name] = LayerMatrix(name, layer.weight.detach().flatten(1), kernel)
        positions[name] = draw(st.integers(1, 50))
    blocks = cut(type(draw(st.sampled_from(BLOCKINGS)))(draw(st.integers(1, 4))), matrices)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    scores = [torch.rand(b.rank, generator=generator, dtype=torch.float64) for b in blocks]
    if draw(st.booleans()):
        scores = [(3 * score).round() for score in scores]  # ties
    return blocks, scores, Candidates(matrices, positions, {}, {})


def charged(costs, blocks, keep):
    """What masks cost, counted anew from the rule: layers wholly kept as they are, other blocks whole or factored."""
    total = 0
    for name, places in costs.blocks.items():
        if all(bool(keep[i].all()) for i in places):
            total += costs.dense[name]
        else:
            total += sum(costs.whole[i] if bool(keep[i].all()) else int(keep[i].sum()) * costs.unit[i] for i in places)
    return total


def check(costs, blocks, keep, sparsity):
    """What every selection has to fulfil."""
    assert charged(costs, blocks, keep) <= (1 - Fraction(str(sparsity))) * sum(costs.dense.values())
    for name, places in costs.blocks.items():
        dense = all(bool(keep[i].all()) for i in places)
        limit = costs.break_even.get(name)
        # a block stored whole counts as the least rank at which it is
        assert dense or limit is None or sum(min(int(keep[i].sum()), costs.limit[i] + 1) for i in places) <= limit
        for i in places:
            rank = int(keep[i].sum())
            assert bool(keep[i].all()) or rank <= costs.limit[i]
            assert not blocks[i].is_dense(rank) or bool(keep[i].all())


def value(scores, keep):
    return sum(float(score[mask].sum()) for score, mask in zip(scores, keep))


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


def test_the_unit_of_the_budget_is_checked():
    with pytest.raises(InputError, match="budget=flops: params or macs"):
        make_costs([Block("a", 0, 0, 2, 0, 2)], "flops")
