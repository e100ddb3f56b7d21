"""Timing in turn, jobs that know of one another, and break-even ranks."""

import multiprocessing
import os
import signal
import time

import pytest
import torch
from torch import nn

from lrp.cost.break_even import measure_break_even
from lrp.cost.costs import make_costs
from lrp.cost.timing import BATCHES, LATENCY_COLUMNS, alternate, measure_latency, repeat_to
from lrp.decomposition.base import decompose
from lrp.errors import InputError
from lrp.job.running import running
from lrp.matrices import cut
from lrp.network.survey import find_candidates
from lrp.selection.global_ import GlobalSelection

CPU = torch.device("cpu")


def test_functions_are_timed_in_turn():
    order = []
    timings = alternate([lambda: order.append("a"), lambda: order.append("b"), lambda: order.append("c")], CPU, seconds=0, least=4)
    assert order == list("abc") * 6  # two rounds do not count
    assert len(timings) == 3 and all(t.median >= 0 and t.spread >= 0 for t in timings)


def test_rounds_are_bounded():
    order = []
    alternate([lambda: order.append(1)], CPU, seconds=60, most=7)
    assert len(order) == 9
    slow, fast = alternate([lambda: time.sleep(0.004), lambda: time.sleep(0.001)], CPU, seconds=0.05)
    assert 0.004 <= slow.median < 0.1 and fast.median < slow.median


def test_repeat_to():
    x = torch.arange(3.0)[:, None]
    assert repeat_to(x, 7).flatten().tolist() == [0, 1, 2, 0, 1, 2, 0] and repeat_to(x, 2).flatten().tolist() == [0, 1]
    images = repeat_to(torch.randn(2, 3, 4, 4), 5)
    assert images.shape == (5, 3, 4, 4) and images.is_contiguous(memory_format=torch.channels_last)


def test_columns():
    row = measure_latency(nn.Linear(4, 4), nn.ReLU(), torch.randn(2, 4))
    assert set(row) == set(LATENCY_COLUMNS) and row["latency_threads"] == torch.get_num_threads() and row["latency_device"] == "cpu"
    assert all(row[f"latency_{size}"] > 0 for size in BATCHES)


# Jobs beside one another


def files(folder):
    return sorted(file.name for file in (folder / "running").glob("*.job"))


def test_ordinary_jobs_run_beside_one_another(tmp_path):
    with running(tmp_path, alone=False), running(tmp_path, alone=False), running(tmp_path, alone=False):
        assert len(files(tmp_path)) == 3
    assert files(tmp_path) == []
    with running(tmp_path, alone=True):
        assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("first, second", [(True, True), (True, False), (False, True)])
def test_a_job_that_measures_runs_alone(tmp_path, first, second):
    with running(tmp_path, alone=first):
        with pytest.raises(InputError, match="evaluation.latency=true") as error, running(tmp_path, alone=second):
            pass
        assert "\n" not in str(error.value) and len(files(tmp_path)) == 1
    with running(tmp_path, alone=second):
        pass
    assert files(tmp_path) == []


def test_a_job_that_fails_is_no_longer_running(tmp_path):
    with pytest.raises(KeyError), running(tmp_path, alone=True):
        raise KeyError
    with running(tmp_path, alone=True):
        pass


def hold(folder, alone, ready):
    with running(folder, alone):
        ready.set()
        time.sleep(60)


@pytest.mark.parametrize("alone", [True, False])
def test_a_killed_job_blocks_nobody(tmp_path, alone):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=hold, args=(tmp_path, alone, ready))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(InputError), running(tmp_path, alone=True):
            pass
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.join()
    left = files(tmp_path)
    assert len(left) == 1
    with running(tmp_path, alone=True):
        assert len(files(tmp_path)) == 1
    assert files(tmp_path) == []


# Break-even ranks


def prepared(model, x, blocking):
    candidates = find_candidates(model, x[:1])
    blocks = cut(blocking, candidates.matrices)
    return candidates, blocks, decompose(candidates.matrices, blocks)


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
def test_the_break_even_rank_is_bisected(threshold, monkeypatch):
    """With times made up: a layer is faster up to a rank, and of one shape it is timed once."""
    import lrp.cost.break_even
    from lrp.blocking.none import Unblocked
    from lrp.cost.timing import Timing

    tried = []

    def made_up(functions, device, **options):
        layer = functions[1].__closure__[0].cell_contents
        layer = layer if isinstance(layer, nn.Module) else functions[1].__closure__[1].cell_contents
        rank = sum(len(V) for V in layer.V.values())
        tried.append(rank)
        return [Timing(1.0, 0.0), Timing(0.5 if rank <= threshold else 0.96, 0.0)]

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
