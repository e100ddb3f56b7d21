"""Options set by trial: what is tried, on which examples, and what is taken."""

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import pytest
import torch
from helpers import refused
from shell import check_refused, run_here
from torch import nn
from torch.nn import functional as F

import lrp
from lrp.batches import Batches
from lrp.compensation.none import NoCompensation
from lrp.config.method import make_method
from lrp.config.parts import make
from lrp.estimator.divergence import divergence
from lrp.evidence import Evidence
from lrp.method.base import FittedMethod
from lrp.search.coordinate import CoordinateSearch


@dataclass(frozen=True)
class Part:
    """Two options; the network is best at (3, -1)."""

    a: float = 0.0
    b: float = 0.0


@dataclass(frozen=True)
class Shifted:
    """A method whose "compressed" network is the dense one with its bias shifted, the less the better its options are."""

    part: Part = Part()
    name: str = "shifted"
    compensation: Any = NoCompensation()
    budget: str = "params"
    exclude: tuple = ()
    seen: Any = None  # the calibration examples of each fit

    def fit(self, evidence):
        self.seen.append(evidence.batches.whole())
        return ShiftedFit(self, evidence)


@dataclass(frozen=True)
class Made:
    sparsity: float
    seconds: float = 0.0
    untouched: bool = False


@dataclass
class ShiftedFit(FittedMethod):
    def plan(self, sparsity):
        return Made(sparsity)

    def compress(self, plan):
        part, small = self.method.part, nn.Linear(4, 3)
        small.load_state_dict(self.model.state_dict())
        with torch.no_grad():
            small.bias += torch.tensor([1.0, -1.0, 0.0]) * (abs(part.a - 3) + abs(part.b + 1 - (part.a > 2)) + plan.sparsity)
        return small, 0.0


STEPS = [{"part": [{"a": 1.0}, {"a": 3.0}, {"a": 5.0}]}, {"part": [{"b": -1.0}, {"b": 0.0}]}]


def search(steps=STEPS, images=4000, **options):
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3), torch.randn(11, 4)
    method = Shifted(seen=[], **options)
    fitted = CoordinateSearch(images, steps)(method, make("estimator", "first_order")).fit(Evidence(model, Batches.of(x)))
    return method, fitted, model, x


def test_takes_the_best_value_of_one_option_after_the_other():
    method, fitted, model, x = search()
    plan = fitted.plan(0.25)
    small, _ = fitted.compress(plan)
    assert fitted._fitted[0.25].method.part == Part(3.0, 0.0)
    assert [row["set"] for row in fitted.trials] == ["as set", "part.a=1.0", "part.a=3.0", "part.a=5.0", "part.a=3.0 part.b=-1.0"]
    assert [row["best"] for row in fitted.trials] == [False, False, True, False, False]
    assert {row["sparsity"] for row in fitted.trials} == {0.25}
    assert torch.allclose(small.bias - model.bias, torch.tensor([1.0, -1.0, 0.0]) * 0.25)


@pytest.mark.parametrize("images, half", [(4000, 5), (3, 3)])
def test_trials_are_calibrated_on_one_half_and_compared_on_the_other(images, half):
    """The divergences are those of examples that no trial has seen, against the definition; at the end all examples are calibrated on."""
    method, fitted, model, x = search(images=images)
    fitted.plan(0.0)
    assert all(torch.equal(seen, x[:half]) for seen in method.seen[:-1]) and torch.equal(method.seen[-1], x)
    first = ShiftedFit(method, None)
    first.evidence = Evidence(model, Batches.of(x))
    small, _ = first.compress(Made(0.0))
    with torch.no_grad():
        p, q = model(x[5 : 5 + half]).double().log_softmax(1), small(x[5 : 5 + half]).double().log_softmax(1)
    assert fitted.trials[0]["divergence"] == pytest.approx(float(F.kl_div(q, p, reduction="batchmean", log_target=True)), rel=1e-5)


def test_a_network_that_does_not_change_has_no_divergence():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).eval(), Batches.of(torch.randn(5, 4))
    assert divergence(model, model, x, make("estimator", "first_order")) == 0


def test_an_equal_method_is_not_tried_twice():
    method, fitted, *_ = search([{"part": [{"a": 1.0}, {"a": 1.0}, {"a": 0.0}]}])
    fitted.plan(0.5)
    assert len(fitted.trials) == 2


def test_each_sparsity_is_searched_alone():
    _, fitted, *_ = search()
    plans = [fitted.plan(sparsity) for sparsity in (0.25, 0.5)]
    assert len(fitted.trials) == 10 and len(fitted._fitted) == 2
    assert [plan.sparsity for plan in plans] == [0.25, 0.5]


def test_what_it_refuses():
    torch.manual_seed(0)
    x, single = torch.randn(8, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    refused(lambda: CoordinateSearch(0), "search.images=0")
    for steps in ([], "scorer", [{"scorer": []}, {}], [{"scorer": [1]}], [{"scorer": [{}]}], [{"a": [], "b": []}]):
        refused(lambda steps=steps: CoordinateSearch(4, steps), "search.steps")
    refused(
        lambda: search([{"part": [{"c": 1.0}]}, {"other": [{"a": 1.0}]}]), "search=coordinate", "method=shifted has none of the options"
    )
    refused(lambda: search([{"part": [{"a": 0.0}]}]), "search=coordinate", "none of the options")
    method = replace(Shifted(), seen=[])
    few = Evidence(nn.Linear(4, 3), Batches.of(x[:1]))
    refused(lambda: CoordinateSearch(4, STEPS)(method, make("estimator", "first_order")).fit(few), "search=coordinate", "at least 2")
    refused(lambda: lrp.compress(single, x, 0.5, search="coordinate"), "search=coordinate", "the network has one output")
    refused(lambda: lrp.compress(single, x, 0.5, search="grid"), "search=grid", "coordinate, none")


@pytest.mark.long
def test_compress_with_a_search_is_not_worse():
    """On the half that it compares on; and the network is left as it is."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5)).train()
    x, found = torch.randn(64, 3, 8, 8), []
    for name in ("none", "coordinate"):
        small, report = lrp.compress(model, x, 0.6, search=name)
        assert report.attrs["sparsity_params"] >= 0.6 and small.training and model.training
        found.append(small)
    half = lrp.compress(model, x[:32], 0.6)[0]
    job = CoordinateSearch()
    shared = {"budget": "params", "macs_removed": None, "forms": None, "exclude": (), "samples": 65536}
    method = make_method("output_aware", {}, shared)
    fitted = job(method, method.estimator).fit(Evidence(model.eval(), Batches.of(x), scoring_images=64))
    fitted.plan(0.6)
    best = min(row["divergence"] for row in fitted.trials)
    assert fitted.trials[0]["divergence"] == pytest.approx(divergence(model, half, Batches.of(x[32:]), method.estimator), rel=1e-6)
    assert best <= fitted.trials[0]["divergence"] and len(fitted.trials) > 6


@pytest.mark.long
@pytest.mark.slow
def test_on_the_command_line(cache, tmp_path, capsys):
    """The row says that there was a search, the folder what it tried; a run with another search is another job."""
    words = [
        "method=output_aware",
        "search=coordinate",
        "search.steps=[{scorer: [{depth: 0}, {depth: 1}]}]",
        "sparsity.grid=[0.5,0.8]",
        "forms=matrix",
    ]
    rows = run_here(cache, tmp_path / "run", *words)
    assert all("search=coordinate" in options.split() for options in rows["options"])
    trials = pd.read_csv(tmp_path / "run" / "search.csv")
    assert list(trials) == ["sparsity", "set", "divergence", "best"] and list(trials["set"]) == ["as set", "scorer.depth=1"] * 2
    assert list(trials.groupby("sparsity")["best"].sum()) == [1, 1]
    refused(lambda: run_here(cache, tmp_path / "run", "method=output_aware", *words[-2:], "resume=true"), "search")
    rows.head(1).to_csv(tmp_path / "run" / "results.csv", index=False)  # killed before the second row: what the first one tried stays
    run_here(cache, tmp_path / "run", *words, "resume=true")
    assert pd.read_csv(tmp_path / "run" / "search.csv").equals(trials)
    check_refused(["search=grid"], "search=grid: no such option; choose one of coordinate, none", capsys)
    check_refused(["method=hosvd", "search=coordinate", "search.steps=[{scorer: [{depth: 1}]}]"], "method=hosvd has none", capsys)
