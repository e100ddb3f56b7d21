"""The selection against one that drops components one by one and counts anew each time."""

from fractions import Fraction

import pytest
import torch

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


@pytest.mark.parametrize("sparsity", [1, -0.1, 1.5, float("nan"), "0.5"])
def test_bad_sparsity(sparsity):
    with pytest.raises(InputError, match=r"sparsity.grid=.*\[0, 1\)"):
        GlobalSelection()(blocks_of([(2, 2)]), [torch.ones(2)], sparsity)


def test_scores_that_are_not_finite_name_the_layer():
    with pytest.raises(InputError, match="layer1"):
        GlobalSelection()(blocks_of([(2, 2), (2, 2)]), [torch.ones(2), torch.tensor([1.0, float("nan")])], 0.5)
