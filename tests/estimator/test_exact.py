"""Exact scores against deleting one component and running the whole network."""

from types import SimpleNamespace

import pytest
import torch
from helpers import SCORERS, close, factors_of, slow_differences

from lrp.blocking.alds import AldsBlocking
from lrp.blocking.none import Unblocked
from lrp.blocking.square import SquareBlocking
from lrp.entries import read_tensors, write_entry
from lrp.estimator.exact import ExactEstimator

SHAPES = {"narrow_vgg": (5, 3, 32, 32), "residual": (5, 3, 16, 16), "depthwise": (4, 3, 16, 16), "tokens": (4, 3, 5, 4)}


@pytest.mark.parametrize("blocking", [Unblocked(), AldsBlocking(), SquareBlocking()], ids=lambda b: b.name)
@pytest.mark.parametrize("network", SHAPES)
def test_exact_is_the_definition(network, blocking, request):
    model = request.getfixturevalue(network)
    x = torch.randn(SHAPES[network]).double()
    matrices, factors = factors_of(model, blocking)
    moments, _ = ExactEstimator()(model, factors, x)
    perturbation = SCORERS["perturbation"](factors, SimpleNamespace(matrices=matrices, moments=lambda _: moments))
    variance = SCORERS["variance"](factors, SimpleNamespace(matrices=matrices, moments=lambda _: moments))
    for i in range(0, len(factors), 9 if network == "narrow_vgg" else 1):
        difference = slow_differences(model, factors[i], x)
        assert close(perturbation[i], difference.square().sum(2).mean(1))
        assert close(variance[i], difference.var(1, correction=0).sum(1))


@pytest.mark.parametrize("memory_limit", [1.0, 1e-9])
def test_a_killed_run_goes_on_after_the_last_finished_layer(tmp_path, residual, monkeypatch, memory_limit):
    x = torch.randn(2, 3, 8, 8).double()
    _, factors = factors_of(residual, Unblocked())
    estimator = ExactEstimator(memory_limit)
    undisturbed, _ = estimator(residual, factors, x)
    real, seen = ExactEstimator._block, []

    def dies_at_third(self, network, known, factor, *rest):
        seen.append(factor.block.layer)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(self, network, known, factor, *rest)

    monkeypatch.setattr(ExactEstimator, "_block", dies_at_third)
    with pytest.raises(KeyboardInterrupt):
        estimator(residual, factors, x, tmp_path)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) == 2
    described, marked = read_tensors(files[1])
    marked["moments"] += 1000  # proof that the stored layer is read, not computed again
    write_entry(files[1], marked, described["made_from"])
    resumed, _ = estimator(residual, factors, x, tmp_path)
    assert torch.equal(resumed[0].second, undisturbed[0].second) and torch.equal(resumed[4].second, undisturbed[4].second)
    assert float(resumed[1].first.min()) > 400
