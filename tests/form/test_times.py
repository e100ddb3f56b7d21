"""A budget of milliseconds, and ways that are not faster than the dense layer, with times made up."""

import copy
import itertools
import logging

import numpy as np
import pytest
import torch
from helpers import refused
from torch import nn

import lrp
from lrp.config.method import make_method
from lrp.cost import layer_time
from lrp.cost.break_even import WORTH
from lrp.cost.timing import Timing
from lrp.evidence import Evidence
from lrp.form.known import FORMS
from lrp.layer.compressed import Compressed
from lrp.layer.spatial import SpatialConv2d
from lrp.search.coordinate import CoordinateSearch
from lrp.selection.lagrangian import LagrangianSelection

LINEAR = [name for name in FORMS if name != "spatial_pivoted"]  # whose time is not linear in what it holds
CALL, ENTRY = 2000, 10  # nanoseconds of each call and of each number that a layer holds


def seconds(layer):
    """How long a layer takes here: linear in its parameters, and spatial layers are slow."""
    held = sum(p.numel() for name, p in layer.named_parameters() if name != "bias")
    if not held:
        return 0.0
    return 1e-9 * (CALL + ENTRY * held) * (5 if isinstance(layer, SpatialConv2d) else 1)


@pytest.fixture
def clock(monkeypatch):
    """The layers of each measurement."""
    seen = []

    def made_up(functions, device, **options):
        seen.append([function.layer for function in functions])
        return [Timing(seconds(function.layer), 0.0, seconds(function.layer)) for function in functions]

    monkeypatch.setattr(layer_time, "alternate", made_up)
    return seen


def network():
    """Two layers of one shape, and three others."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU()]
    layers += [nn.Conv2d(12, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 6)]
    return nn.Sequential(*layers).eval(), torch.randn(24, 3, 8, 8)


def fitted(model, x, **options):
    shared = {"budget": "milliseconds", "macs_removed": None, "exclude": (), "samples": 500, "forms": LINEAR}
    selection = LagrangianSelection(break_even=options.pop("break_even", "params"), batch_size=2)
    return make_method("output_aware", {"selection": selection}, {**shared, **options}).fit(Evidence(model, x))


def taken(model, names):
    layers = [model.get_submodule(name) for name in names]
    return sum(seconds(layer) for layer in layers if any(name != "bias" for name, _ in layer.named_parameters()))


def test_every_way_is_predicted_exactly(clock):
    """Against the clock itself: of ways in all forms, each one that is not slower than the dense layer is there, and no other."""
    model, x = network()
    found = fitted(model, x)
    assert len(clock) == 4  # of five layers two are alike
    untimed = fitted(model, x, budget="params").choices
    for name, held in found.choices.items():
        dense = model.get_submodule(name)
        limit = 1e9 * seconds(dense)
        for choices, before in zip(held, untimed[name], strict=True):
            slow = 5 if choices.form == "spatial" else 1
            times = np.where(before.params, slow * (CALL + ENTRY * before.params), 0)
            stays = (times < limit - 1e-6) | (before.params == dense.weight.numel())
            assert np.array_equal(before.params[stays], choices.params)
            assert np.allclose(choices.nanoseconds, times[stays], rtol=0, atol=1)
            for i in range(0, len(choices.loss), max(1, len(choices.loss) // 5)):
                layer = choices.plan(i).build(copy.deepcopy(dense))
                held = sum(p.numel() for name, p in layer.named_parameters() if name != "bias")
                assert held == choices.params[i] and abs(1e9 * seconds(layer) * (held > 0) - choices.nanoseconds[i]) <= 1
    assert all(choices.nanoseconds is None for held in untimed.values() for choices in held)


@pytest.mark.parametrize(("forms", "sparsity"), [(["matrix"], 0.5), (["tucker2", "matrix"], 0.9), ("auto", 0.3), ("auto", 0.0)], ids=str)
def test_the_budget_is_never_exceeded(forms, sparsity, clock, caplog):
    caplog.set_level(logging.INFO)
    model, x = network()
    small, report = lrp.compress(model, x, sparsity, budget="milliseconds", forms=forms)
    names = [name for name, layer in model.named_children() if [*layer.parameters()]]
    before, after = taken(model, names), taken(small, names)
    assert after <= (1 - sparsity) * before * (1 + 1e-6) and after > 0.5 * (1 - sparsity) * before
    assert report.attrs["milliseconds"] == pytest.approx(1e3 * after, rel=1e-4)
    assert report.attrs["milliseconds_dense"] == pytest.approx(1e3 * before, rel=1e-4)
    assert "measuring the times of 5 layers at batch 64 took" in caplog.text
    assert f"sparsity {sparsity:g}: by prediction the layers take " in caplog.text
    assert "predicted milliseconds" in str(report) and f"sparsity {sparsity:g} of milliseconds asked for" in str(report)
    assert small(x).isfinite().all() and (sparsity > 0 or torch.equal(small(x), model(x)))


def test_one_form_by_brute_force(clock):
    """Two layers, all pairs of their ways: nothing within the budget loses less than what is chosen, but for the knapsack's last step."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 9)).eval(), torch.randn(40, 8)
    found = fitted(model, x, forms=["matrix"])
    ways = {}
    for name, (choices,) in found.choices.items():
        dense = model.get_submodule(name)
        plans = [choices.plan(i) for i in range(len(choices.loss))]
        times = [seconds(plan.build(copy.deepcopy(dense))) if plan.params else 0.0 for plan in plans]
        ways[name] = [(time, loss, plan.params) for time, loss, plan in zip(times, choices.loss, plans)]
    total = sum(seconds(model.get_submodule(name)) for name in ways)
    for sparsity in (0.1, 0.4, 0.6, 0.8):
        plan = found.plan(sparsity)
        pairs = [pair for pair in itertools.product(*ways.values()) if sum(way[0] for way in pair) <= (1 - sparsity) * total + 1e-12]
        best = min(pairs, key=lambda pair: sum(way[1] for way in pair))
        assert [layer.params for layer in plan.layers.values()] == [way[2] for way in best]


@pytest.mark.parametrize("budget", ["params", "milliseconds"])
@pytest.mark.parametrize("forms", [["spatial", "pivoted"], ["matrix", "spatial"]], ids=str)
def test_no_layer_is_slower_than_it_was(forms, budget, clock):
    """With break_even=measured, whatever the budget counts: layers are dense, empty, or faster by more than what is noise."""
    model, x = network()
    found = fitted(model, x, forms=forms, budget=budget, break_even="measured")
    for sparsity in (0.1, 0.5) if budget == "milliseconds" else (0.05,):
        plan = found.plan(sparsity)
        assert plan.milliseconds is not None and plan.milliseconds[0] <= plan.milliseconds[1]
        small = plan.build()
        for name in found.choices:
            layer = small.get_submodule(name)
            if isinstance(layer, Compressed) and taken(small, [name]):
                assert seconds(layer) < WORTH * seconds(model.get_submodule(name)) + 1e-9
    for name, held in found.choices.items():
        dense = held[0].plan(len(held[0].loss) - 1)
        assert dense.untouched and "and faster" in dense.summary()["what"], name


def test_matrix_alone_has_break_even_ranks_as_before(monkeypatch, clock):
    """No times of forms are measured: the ranks are bisected, and the components selected, by what has always done so."""
    from lrp.cost import break_even
    from lrp.method.singular_vectors import SingularVectorsFitted

    monkeypatch.setattr(break_even, "alternate", lambda functions, device, **options: [Timing(1.0, 0.0, 1.0), Timing(0.5, 0.0, 0.5)])
    model, x = network()
    found = fitted(model, x, forms=["matrix"], budget="params", break_even="measured")
    assert isinstance(found, SingularVectorsFitted) and set(found.costs.break_even) == set(found.evidence.matrices) and not clock
    assert found.plan(0.5).milliseconds is None


def test_what_is_refused(clock):
    model, x = network()

    def compress(**options):
        return lrp.compress(model, x, 0.5, budget="milliseconds", **options)

    for method in ("alds", "hosvd", "input_tucker"):
        refused(lambda: compress(method=method), "budget=milliseconds: choose one of params, macs")
    for options, why in (
        ({"scorer": "magnitude"}, "scorer=magnitude knows params and macs alone; choose one of these, or set scorer=noise_to_signal"),
        ({"selection": "global"}, "selection=global knows params and macs alone; choose one of these, or set selection=lagrangian"),
        ({"method": "svd_uniform"}, "knows params and macs alone"),
        ({"macs_removed": 0.5}, "macs_removed=0.5: it needs budget=params"),
    ):
        refused(lambda: compress(**options), why)
    with pytest.raises(lrp.InputError, match="^budget=flops: choose one of params, macs, milliseconds$"):
        lrp.compress(model, x, 0.5, budget="flops")
    only = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(432, 5)).eval()
    text = refused(lambda: lrp.compress(only, x, 0.9, budget="milliseconds", forms="tucker2"), "forms: no choice of them costs less than")
    assert "nanoseconds, and the budget is" in text


def test_what_is_chosen_is_confirmed(monkeypatch):
    """Times that rise in steps, which no prediction knows: of what is chosen every layer was timed, and none exceeds the budget."""

    def steps(layer):
        held = sum(p.numel() for name, p in layer.named_parameters() if name != "bias")
        return 1e-9 * (CALL + 40 * ENTRY * -(-held // 40)) * (1.5 if isinstance(layer, Compressed) and held > 60 else 1)

    slower = [1.0]

    def made_up(functions, device, **options):
        slower[0] *= 1.5  # what else the machine does; all layers of one measurement suffer alike
        return [Timing(0.0, 0.0, slower[0] * steps(function.layer)) for function in functions]

    monkeypatch.setattr(layer_time, "alternate", made_up)
    model, x = network()
    found = fitted(model, x)
    scale = {name: found.clock.known[found.clock._keys[name]].dense / steps(model.get_submodule(name)) for name in found.choices}
    for sparsity in (0.2, 0.5, 0.7):
        plan = found.plan(sparsity)
        small = plan.build()
        times = {name: steps(small.get_submodule(name)) for name in found.choices}  # an empty layer takes the time of a call
        assert plan.milliseconds[0] == pytest.approx(sum(scale[name] * times[name] for name in times) / 1e6, rel=1e-6)
        assert plan.milliseconds[0] <= (1 - sparsity) * plan.milliseconds[1] * (1 + 1e-6)


def test_a_search_measures_times_once(clock):
    """What it finds on one half of the examples and on all of them runs equally long."""
    model, x = network()
    search = CoordinateSearch(steps=[{"scorer": [{"depth": 1.0}, {"depth": 2.0}]}])
    lrp.compress(model, x, 0.5, budget="milliseconds", search=search)
    several = [layers for layers in clock if len(layers) > 2]  # a few ways of every form of a layer; pairs confirm what was chosen
    assert len(several) == 4
