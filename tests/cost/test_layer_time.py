"""Times of layers, predicted from a few that are measured."""

import numpy as np
import pytest
import torch
from torch import nn

from lrp.cost import layer_time
from lrp.cost.layer_time import SAMPLES, measure_layer, spread
from lrp.cost.timing import Timing


class Way(nn.Module):
    """A layer of one parameter that is to take so long."""

    def __init__(self, seconds):
        super().__init__()
        self.weight, self.seconds = nn.Parameter(torch.zeros(1)), seconds

    def forward(self, x):
        assert x.shape == (4, 3)
        return x


@pytest.fixture
def timed(monkeypatch):
    """The layers that were timed, of which each says how long it takes."""
    seen = []

    def made_up(functions, device, **options):
        for function in functions:
            function()
        seen.extend(function.layer for function in functions)
        return [Timing(function.layer.seconds, 0.0, function.layer.seconds) for function in functions]

    monkeypatch.setattr(layer_time, "alternate", made_up)
    return seen


def test_linear_times_are_predicted_exactly(timed):
    """Two forms, one with a column that costs nothing; a few ways of each are timed, once, with the dense layer."""
    generator = np.random.default_rng(0)
    work = [generator.integers(1, 1000, (300, 4)) * [10**6, 1, 10**3, 1], generator.integers(1, 50, (5, 1))]
    costs = [np.array([3.0, 2e-6, 0.5, 0.0, 7.0]), np.array([0.0, 0.25])]
    times = [cost[0] + each @ cost[1:] for each, cost in zip(work, costs)]
    found = measure_layer(Way(1e-6), (1, 3), 4, work, lambda form, at: Way(1e-9 * times[form][at]))
    assert found.dense == pytest.approx(1000)
    for form, each in enumerate(work):
        assert np.allclose(found.predict(form, each), times[form], rtol=1e-6)
    assert len(timed) == 1 + SAMPLES + 5


def test_a_time_that_would_fall_with_work_does_not(timed):
    """No term is negative, so that no way is predicted to take less than nothing."""
    work = np.arange(1, 21)[:, None]
    found = measure_layer(Way(1.0), (1, 3), 4, [work], lambda form, at: Way(1.0 / (at + 1)))
    assert found.terms[0].min() >= 0 and found.predict(0, work).min() > 0


def test_a_form_without_a_way(timed):
    found = measure_layer(Way(2e-9), (1, 3), 4, [np.zeros((0, 2))], lambda form, at: nn.Identity())
    assert found.dense == pytest.approx(2) and len(found.predict(0, np.zeros((0, 2)))) == 0 and len(timed) == 1


def test_ways_that_are_timed_lie_apart():
    """Of a grid of two ranks the corners come first; of few or equal points each place once."""
    grid = np.stack(np.meshgrid(np.arange(1, 12), np.arange(1, 12)), -1).reshape(-1, 2)
    corners = {tuple(map(int, grid[i])) for i in spread(grid, 4)}
    assert corners == {(1, 1), (1, 11), (11, 1), (11, 11)}
    assert len({*spread(grid, 8)}) == 8
    assert sorted(spread(np.array([[5], [5], [7]]), 8)) == [0, 2] and spread(np.zeros((0, 3)), 8) == []


def test_real_layers():
    """With the clock: finite times above zero."""
    dense = nn.Conv2d(3, 8, 3, padding=1).eval()
    work = np.array([[rank * 35, rank] for rank in range(1, 6)])

    def build(form, at):
        return nn.Sequential(nn.Conv2d(3, at + 1, 3, padding=1), nn.Conv2d(at + 1, 8, 1))

    found = measure_layer(dense, (1, 3, 9, 9), 2, [work], build)
    assert found.dense > 0 and np.isfinite(found.predict(0, work)).all() and found.predict(0, work).min() > 0
