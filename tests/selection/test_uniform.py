"""The same budget in every layer."""

from fractions import Fraction
from math import floor, prod
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import SPARSITIES, kept_ranks, problems
from torch import nn

from lrp.blocking.none import Unblocked
from lrp.cost.costs import make_costs
from lrp.decomposition.entries import EntryBlock
from lrp.matrices import Block, LayerMatrix
from lrp.network.survey import Candidates, find_candidates
from lrp.partition import cut
from lrp.selection.erk import ErkSelection
from lrp.selection.global_ import GlobalSelection
from lrp.selection.uniform import UniformSelection
from lrp.selection.uniform_plus import UniformPlusSelection


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


NETWORK = {"stem": (8, 3, 3, 3), "narrow": (4, 8, 1, 1), "middle": (16, 8, 3, 3), "wide": (64, 16, 3, 1), "last": (10, 64)}


def network_costs(shapes=NETWORK, basis=EntryBlock):
    """Blocks of layers with weights of these shapes, and their costs."""
    matrices = {
        name: LayerMatrix(name, torch.zeros(n, *sides).flatten(1), prod(sides[1:]), kernel_size=sides[1:])
        for name, (n, *sides) in shapes.items()
    }
    blocks = [basis(**vars(block)) for block in cut(Unblocked(), matrices)]
    return blocks, make_costs(blocks, "params", Candidates(matrices, dict.fromkeys(matrices, 1), {}, {}))


def slow_erk(shapes, share):
    """Densities by bisection of the scale: min(1, scale * sum / prod) of each layer, which together are the budget."""
    budget, low, high = share * sum(map(prod, shapes.values())), 0.0, 1e9
    for _ in range(200):
        scale = (low + high) / 2
        found = {name: min(1.0, scale * sum(sides) / prod(sides)) for name, sides in shapes.items()}
        low, high = (scale, high) if sum(found[name] * prod(shapes[name]) for name in shapes) < budget else (low, scale)
    return found


@pytest.mark.parametrize("sparsity", [0, 0.01, 0.2, 0.5, 0.8, 0.9, 0.99])
def test_erk_adds_up_and_is_what_bisection_finds(sparsity):
    blocks, costs = network_costs()
    assert costs.sides == NETWORK
    share = 1 - Fraction(str(sparsity))
    shares = ErkSelection().shares(costs, share)
    assert sum(part * prod(NETWORK[name]) for name, part in shares.items()) == share * sum(map(prod, NETWORK.values())), "exactly"
    slow = slow_erk(NETWORK, float(share))
    for name, part in shares.items():
        assert 0 <= part <= 1 and float(part) == pytest.approx(slow[name], abs=1e-9)
    scores = [torch.rand(block.rank, dtype=torch.float64) for block in blocks]
    for block, mask in zip(blocks, ErkSelection()(blocks, scores, sparsity, costs)):
        assert int(mask.sum()) == floor(shares[block.layer] * block.size)


def test_erk_knows_the_sides_of_a_network_as_it_runs():
    """Of a real network: a density is that of torch's own shapes."""
    model = nn.Sequential(nn.Conv2d(3, 6, (3, 5)), nn.Flatten(), nn.Linear(6 * 6 * 4, 7))
    candidates = find_candidates(model, torch.zeros(1, 3, 8, 8))
    costs = make_costs(cut(Unblocked(), candidates.matrices), "params", candidates)
    assert costs.sides == {"0": tuple(model[0].weight.shape), "2": tuple(model[2].weight.shape)}


@pytest.mark.parametrize("sparsity", [0, 0.1, 0.5, 0.8, 0.9, 0.93])
def test_uniform_plus_spares_the_first_convolution_and_a_fifth_of_the_last(sparsity):
    shapes = NETWORK | {"last": (2, 64)}
    blocks, costs = network_costs(shapes)
    share = 1 - Fraction(str(sparsity))
    shares = UniformPlusSelection().shares(costs, share)
    assert shares["stem"] == 1 and shares["last"] >= Fraction(1, 5)
    assert sum(part * prod(shapes[name]) for name, part in shares.items()) == share * sum(map(prod, shapes.values()))
    assert shares["narrow"] == shares["middle"] == shares["wide"] and shares["last"] == max(shares["wide"], Fraction(1, 5))
    keep = UniformPlusSelection()(blocks, [torch.rand(block.rank) for block in blocks], sparsity, costs)
    assert bool(keep[0].all()) and int(keep[-1].sum()) >= floor(Fraction(1, 5) * 128)


def test_uniform_plus_where_nothing_is_spared(caplog):
    """A network of Linear layers begins like the others; a budget that both parts exceed is said, and held."""
    _, costs = network_costs({"first": (300, 784), "second": (100, 300), "last": (10, 100)})
    shares = UniformPlusSelection().shares(costs, Fraction(1, 50))
    assert shares["first"] == shares["second"] < Fraction(1, 50) and shares["last"] == Fraction(1, 5)
    assert not caplog.records
    _, costs = network_costs()
    shares = UniformPlusSelection().shares(costs, Fraction(1, 100))
    assert sum(part * costs.dense[name] for name, part in shares.items()) == Fraction(sum(costs.dense.values()), 100)
    assert shares["stem"] == 5 * shares["last"] < 1 and shares["wide"] == 0
    assert "a sparsity of 0.99 leaves less than the first convolution and a fifth of the last layer take" in caplog.text
