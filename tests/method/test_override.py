"""A method of one's own that compresses in its own way."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import lrp
from lrp.config.method import make_method
from lrp.method.base import FittedMethod
from lrp.search.coordinate import CoordinateSearch


@dataclass(frozen=True)
class Own:
    """Another method, whose networks it rounds to whole sixteenths."""

    inner: Any
    name: str = "own"

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def fit(self, evidence):
        fitted = self.inner.fit(evidence)
        return OwnFitted(self, fitted.evidence, inner=fitted)


@dataclass
class OwnFitted(FittedMethod):
    inner: Any = None

    def plan(self, sparsity):
        return self.inner.plan(sparsity)

    def compress(self, plan):
        small, seconds = self.inner.compress(plan)
        with torch.no_grad():
            for parameter in small.parameters():
                parameter.copy_((16 * parameter).round() / 16)
        return small, seconds


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 9)), torch.randn(200, 12)


@pytest.mark.parametrize("search", ["none", CoordinateSearch(100, [{"inner": [{"samples": 100}]}])], ids=["none", "coordinate"])
def test_what_it_overrides_is_what_runs(search):
    model, x = network()
    shared = {"budget": "params", "macs_removed": None, "forms": None, "exclude": (), "samples": 65536}
    own = Own(make_method("output_aware", {}, shared))
    plain, _ = lrp.compress(model, x, 0.4)
    options = {"method": own, "search": search}
    for small, report in (lrp.compress(model, x, 0.4, **options), lrp.fit(model, x, **options).compress(0.4)):
        assert report.attrs["sparsity_params"] >= 0.4
        assert all(torch.equal(16 * p, (16 * p).round()) for p in small.parameters())
    assert not all(torch.equal(16 * p, (16 * p).round()) for p in plain.parameters())


def test_values_are_let_go_of_before_the_compensation_of_the_last(monkeypatch):
    """The plan's at any sparsity, scores and components where no other sparsity is to come."""
    held, compensate = [], FittedMethod.compensate

    def look(self, built, plan):
        with pytest.raises(RuntimeError, match="can be built only once"):
            plan.build()
        held.append(len(self.factors))
        compensate(self, built, plan)

    monkeypatch.setattr(FittedMethod, "compensate", look)
    model, x = network()
    options = {"method": "output_aware", "forms": "matrix", "selection": "global"}
    once, report = lrp.compress(model, x, 0.4, **options)
    fitted = lrp.fit(model, x, **options)
    again = [fitted.compress(sparsity) for sparsity in (0.4, 0.6, 0.4)]
    assert held == [0, 2, 2, 2] and not report["what"].str.startswith("left").any()
    for small, same in (again[0], again[2]):
        assert str(same) == str(report) and torch.equal(small(x), once(x))
