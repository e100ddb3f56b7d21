"""Break-even ranks."""

import pytest
import torch
from helpers import prepared
from torch import nn

from lrp.cost.break_even import measure_break_even
from lrp.cost.costs import make_costs
from lrp.layer.base import LowRank
from lrp.selection.global_ import GlobalSelection


@pytest.mark.slow
@pytest.mark.parametrize("round_to", [1, 4])
def test_break_even_ranks_are_in_range(round_to):
    from lrp.blocking.square import SquareBlocking

    model = nn.Sequential(nn.Conv1d(4, 16, 3), nn.Flatten(), nn.Linear(96, 24), nn.Linear(24, 24))
    candidates, blocks, factors = prepared(model, torch.randn(1, 4, 8), SquareBlocking())
    costs = make_costs(blocks)
    found = measure_break_even(model, candidates, factors, costs, 4, round_to)
    assert list(found) == ["0", "2", "3"]
    assert all(0 <= rank <= sum(costs.limit[i] for i in costs.blocks[name]) for name, rank in found.items())


@pytest.mark.parametrize("threshold", [0, 1, 7, 20, 40, 999])
def test_the_break_even_rank_is_bisected(threshold, monkeypatch, request):
    """With times made up: a layer is faster up to a rank, and of one shape it is timed once."""
    import lrp.cost.break_even
    from lrp.blocking.none import Unblocked
    from lrp.cost.timing import Timing

    tried, ran = [], []

    def made_up(functions, device, **options):
        ran.clear()
        functions[1]()  # the low-rank layer: the hook below sees which
        rank = sum(len(V) for V in ran[-1].V.values())
        tried.append(rank)
        return [Timing(1.0, 0.0, 1.0), Timing(0.5 if rank <= threshold else 0.96, 0.0, 0.5)]

    watch = nn.modules.module.register_module_forward_hook(lambda module, *_: ran.append(module) if isinstance(module, LowRank) else None)
    request.addfinalizer(watch.remove)

    monkeypatch.setattr(lrp.cost.break_even, "alternate", made_up)
    model = nn.Sequential(nn.Linear(100, 80), nn.Linear(80, 100), nn.Linear(100, 80), nn.Linear(80, 100))
    candidates, blocks, factors = prepared(model, torch.randn(1, 100), Unblocked())
    costs = make_costs(blocks)
    limit = costs.limit[0]
    assert limit == 44
    found = measure_break_even(model, candidates, factors, costs, 2)
    assert found["0"] == found["2"] and found["1"] == found["3"]
    assert 0 <= min(threshold, limit) - found["0"] <= limit / 32 + 1
    assert len(tried) <= 2 * 6
    # what selection makes of it
    masks = GlobalSelection()(blocks, [f.S for f in factors], 0.5, make_costs(blocks, break_even=found))
    assert all(bool(mask.all()) or int(mask.sum()) <= found[block.layer] for mask, block in zip(masks, blocks))
