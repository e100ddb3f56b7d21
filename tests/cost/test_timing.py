"""Timing in turn."""

import time

import torch
from torch import nn

from lrp.cost.timing import BATCHES, LATENCY_COLUMNS, alternate, measure_latency, repeat_to

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
