"""Made selection problems, and what every selection has to fulfil."""

import dataclasses
from fractions import Fraction

import torch
from helpers import BLOCKINGS
from hypothesis import strategies as st
from torch import nn

from lrp.matrices import LayerMatrix
from lrp.network.survey import Candidates
from lrp.partition import cut


@st.composite
def blockings(draw):
    """Any blocking, with a number of groups of its own where it takes one."""
    blocking = draw(st.sampled_from(list(BLOCKINGS.values())))
    return dataclasses.replace(blocking, k=draw(st.integers(1, 5))) if hasattr(blocking, "k") else blocking


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
    blocks = cut(draw(blockings()), matrices)
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


SPARSITIES = [0, 0.01, 0.2, 0.37, 0.5, 0.77, 0.9, 0.99]


def kept_ranks(keep):
    return [int(mask.sum()) for mask in keep]
