"""Timing in turn."""

import pytest
import torch
from torch import nn

from lrp.cost import timing
from lrp.cost.timing import BATCHES, LATENCY_COLUMNS, alternate, measure_latency, repeat_to

CPU = torch.device("cpu")


def test_functions_are_timed_in_turn():
    order = []
    alternate([lambda: order.append("a"), lambda: order.append("b"), lambda: order.append("c")], CPU, seconds=0, least=4)
    assert order == list("abc") * 6  # two rounds do not count


@pytest.fixture
def clock(monkeypatch):
    """A clock that only ``clock(seconds)`` moves on."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_medians_quartiles_and_the_least(clock):
    """Of the rounds that count; an outlier moves neither."""
    times = iter([9, 9, 1, 2, 3, 4, 100])
    (found,) = alternate([lambda: clock(next(times))], CPU, seconds=0, least=5)
    assert (found.median, found.spread, found.least) == (3, 2, 1)


def test_rounds_are_bounded(clock):
    """At most ``most`` rounds, at least ``least``, and between these until the seconds are over; two do not count."""
    for seconds, expected in ((60, 7), (0, 3), (5, 5)):
        order = []
        alternate([lambda: (order.append(1), clock(1))], CPU, seconds=seconds, least=3, most=7)  # noqa: B023 - called at once
        assert len(order) == 2 + expected


def test_repeat_to():
    x = torch.arange(3.0)[:, None]
    assert repeat_to(x, 7).flatten().tolist() == [0, 1, 2, 0, 1, 2, 0] and repeat_to(x, 2).flatten().tolist() == [0, 1]
    images = repeat_to(torch.randn(2, 3, 4, 4), 5)
    assert images.shape == (5, 3, 4, 4) and images.is_contiguous(memory_format=torch.channels_last)


def test_columns(clock):
    """In milliseconds, of each batch size; the dense network takes twice as long."""

    class Slow(nn.Module):
        def __init__(self, seconds):
            super().__init__()
            self.seconds = seconds

        def forward(self, x):
            clock(self.seconds * len(x))
            return x

    row = measure_latency(Slow(0.002), Slow(0.001), torch.randn(2, 4))
    assert set(row) == set(LATENCY_COLUMNS) and row["latency_threads"] == torch.get_num_threads() and row["latency_device"] == "cpu"
    for size in BATCHES:
        assert row[f"latency_{size}"] == pytest.approx(size) and row[f"latency_dense_{size}"] == pytest.approx(2 * size)
        assert row[f"latency_{size}_iqr"] == pytest.approx(0, abs=1e-9)
