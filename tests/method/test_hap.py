"""Hessian-aware pruning of filters: the trace, the order, the implants, and the network as a file."""

import itertools

import pytest
import torch
from cases import Depthwise, Residual, Untraceable
from deployed import described, file_refused, rewrite
from helpers import close, randomise, same_state
from torch import nn
from torch.nn import functional as F

import lrp
from lrp.config.parts import make
from lrp.cost.count import count_macs, count_params
from lrp.evidence import Evidence
from lrp.layer.filters import Filters
from lrp.method.hap import Hap
from lrp.network import gradients


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(2, 6, 3, 2, 1), nn.Conv2d(6, 5, 3, padding=1), nn.Linear(5, 3)

    def forward(self, x):
        return self.fc(torch.tanh(self.conv2(torch.tanh(self.conv1(x)))).mean((2, 3)))


def small(count=16):
    model, x = Small().double().eval(), torch.randn(count, 2, 7, 6).double()
    return model, x, torch.arange(count) % 3


def hap(**options):
    return Hap(make("estimator", "first_order"), **{"probes": 4, **options})


def fitted(model, x, y=None, **options):
    evidence = Evidence(model, x)
    evidence.labels = y
    return hap(**options).fit(evidence)


def exact_traces(model, x, y, names):
    """From the whole Hessian of one weight after the other."""
    found = {}
    for name in names:
        weight = model.get_submodule(name).weight

        def loss(w, name=name):
            return F.cross_entropy(torch.func.functional_call(model, {f"{name}.weight": w}, (x,)), y)

        H = torch.autograd.functional.hessian(loss, weight.detach()).reshape(weight.numel(), -1)
        found[name] = H.diagonal().view(len(weight), -1).sum(1)
    return found


def test_the_mean_over_all_sign_vectors_is_the_trace(monkeypatch):
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Tanh(), nn.Linear(2, 2, bias=False)).double().eval()
    x, y, names = torch.randn(6, 2).double(), torch.arange(6) % 2, ["0", "2"]
    signs = iter([torch.tensor(half)[None] for v in itertools.product([1, -1], repeat=8) for half in (v[:4], v[4:])])
    monkeypatch.setattr(gradients, "random_signs", lambda shape, generator: next(signs))
    found, slow = gradients.hessian_traces(model, names, x, y, lambda out: out, probes=256), exact_traces(model, x, y, names)
    assert all(close(found[name], slow[name]) for name in names) and next(signs, None) is None


def test_random_probes_come_near_and_own_labels_are_the_likeliest():
    model, x, y = small(8)
    slow = exact_traces(model, x, y, ["conv1"])["conv1"]
    found = gradients.hessian_traces(model, ["conv1"], x, y, lambda out: out, probes=300)["conv1"]
    assert (found - slow).norm() < 0.5 * slow.norm()
    one, other = (gradients.hessian_traces(model, ["fc"], x, labels, lambda out: out, 2)["fc"] for labels in (None, model(x).argmax(1)))
    assert torch.equal(one, other)


def test_the_order_is_that_of_the_importance_and_keeps_a_filter_of_each_layer():
    model, x, y = small()
    method = fitted(model, x, y, most=0.9)
    table = method.score_table()
    for _, row in table.iterrows():
        w = model.get_submodule(row.layer).weight[row.component].detach()
        assert row.score == pytest.approx(row.trace / w.numel() * float(w.square().sum()), rel=1e-9)
    assert set(table.layer) == {"conv1", "conv2"}, "the outputs stay"
    order = [(name, row) for unit in method.order() for name, rows in unit.rows.items() for row in rows]
    ranked = sorted(zip(table.score, zip(table.layer, table.component)))
    assert order == [place for _, place in ranked if place in order]
    assert [sum(name == layer for name, _ in order) for layer in ("conv1", "conv2")] == [5, 4]
    with pytest.raises(lrp.InputError, match=r"^sparsity=0.99: method=hap can remove at most 0\.\d+ of this network's params$"):
        method.plan(0.99)


@pytest.mark.parametrize("budget", ["params", "macs"])
@pytest.mark.parametrize("implant", ["none", "zero", "fitted"])
def test_what_a_plan_says_is_what_is_built(budget, implant):
    model, x, y = small()
    method = fitted(model, x, y, implant=implant, q=0.5, budget=budget)
    before = method.plan(0.0)
    assert before.untouched and torch.equal(method.compress(before)[0](x), model(x))
    for sparsity in (0.3, 0.6):
        plan = method.plan(sparsity)
        built = method.compress(plan)[0]
        layers = [built.conv1, built.conv2, built.fc]
        assert plan.params == sum(sum(p.numel() for key, p in layer.named_parameters() if key != "bias") for layer in layers)
        assert plan.macs == count_macs(built, x[:1])
        dense = (
            (model.conv1.weight.numel() + model.conv2.weight.numel() + model.fc.weight.numel())
            if budget == "params"
            else count_macs(model, x[:1])
        )
        assert (plan.params if budget == "params" else plan.macs) <= (1 - sparsity) * dense
        assert any(isinstance(layer, Filters) and layer.centred for layer in layers) == (implant != "none")


def test_fitted_implants_are_the_regression_on_the_centre():
    """And they lose less of what the layer gave than zeros."""
    model, x, y = small(64)
    methods = {name: fitted(model, x, y, implant=name, q=1.0, ridge=0.0) for name in ("zero", "fitted")}
    built = {name: method.compress(method.plan(0.3))[0] for name, method in methods.items()}
    layer = built["fitted"].conv1
    assert isinstance(layer, Filters) and layer.centred and layer.rows == 6, "with q=1 nothing goes"
    read = x[:, :, ::2, ::2].movedim(1, -1).reshape(-1, 2)
    wanted = F.conv2d(x, model.conv1.weight[layer.centred], None, 2, 1).movedim(1, -1).reshape(len(read), -1)
    assert close(layer.P, torch.linalg.lstsq(read, wanted.detach()).solution.T)
    assert not built["zero"].conv1.P.any() and torch.equal(built["zero"].conv1.W, layer.W)


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_a_layer_of_filters_is_the_convolution_with_its_matrix(mode):
    dense, x = nn.Conv2d(3, 6, (3, 5), (2, 1), (1, 2), padding_mode=mode).double(), torch.randn(2, 3, 9, 8).double()
    form = next(form for form in lrp.layer.build.kind_of(dense).forms if form.form == "filters" and form.dense is nn.Conv2d)
    layer = form(dense, ([1, 4], [3, 0]))
    layer.set_rows(dense.weight.detach().flatten(1)[[1, 4]], torch.randn(2, 3).double())
    (plain,) = layer.plain_layers()
    assert close(layer(x), plain(x)) and close(layer(x[0]), plain(x)[0]) and not layer.weight_matrix()[[2, 5]].any()
    scale, shift = torch.rand(6).double(), torch.rand(6).double()
    y = layer(x) * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
    layer.scale_rows(scale, shift)
    assert close(layer(x), y)


@pytest.mark.parametrize("make_network, shape", [(Residual, (3, 9, 8)), (Depthwise, (3, 10, 9)), (Untraceable, (3, 9, 8))])
def test_a_narrow_network_is_written_and_read(make_network, shape, tmp_path):
    model, x = randomise(make_network()), torch.randn(8, *shape).double()
    found, report = lrp.compress(model, (x,), 0.4, method=hap(implant="fitted", q=0.5))
    assert count_params(found) < count_params(model) and report.attrs["sparsity_params"] >= 0.4
    lrp.save(found, tmp_path / "n.safetensors")
    again = lrp.load(tmp_path / "n.safetensors", make_network)
    assert torch.equal(again(x), found(x)) and same_state(again, found)
    lrp.save(again, tmp_path / "m.safetensors")
    assert (tmp_path / "n.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_files_that_do_not_fit_are_refused(tmp_path):
    model, x = randomise(Residual()), torch.randn(8, 3, 9, 8).double()
    file = tmp_path / "n.safetensors"
    found, _ = lrp.compress(model, x, 0.5, method=hap())
    lrp.save(found, file)
    description, _ = described(file)
    assert description["format"] == 5 and description["narrow"]["bn"]["type"] == "BatchNorm2d"
    whole = tmp_path / "whole.safetensors"
    lrp.save(model, whole)
    assert described(whole)[0]["format"] == 1, "others can be read by older versions"
    wider = Residual()
    wider.stem = nn.Conv2d(3, 7, 3, padding=1, bias=False)
    file_refused(file, wider, "its layer stem had out_channels=6 instead of 7 before it was narrowed")
    for change, match in (
        ({"out_channels": 9}, "its description is damaged"),
        ({"out_channels": 0}, "its description is damaged"),
        ({"out_channels": 2.0}, "its description is damaged"),
        ({"groups": 2}, "its description is damaged"),
    ):
        rewrite(file, lambda description, tensors, change=change: description["narrow"]["stem"]["to"].update(change))
        file_refused(file, Residual(), match)
        lrp.save(found, file)
    rewrite(file, lambda description, tensors: description["narrow"].pop("bn"))
    file_refused(file, Residual(), "the file holds bn")
    lrp.save(found, file)
    rewrite(file, lambda description, tensors: description.update(narrow={"fc": {"type": "Conv9d", "from": {}, "to": {}}}))
    file_refused(file, Residual(), "it has a Conv9d fc, this one a Linear")


def test_bad_options_are_one_sentence():
    model, x, _ = small()
    for options, match in (
        ({"implant": "seven"}, "^method.implant=seven: choose one of zero, fitted, none"),
        ({"q": 1.5}, "^method.q=1.5"), ({"most": 1.0}, "^method.most=1.0"), ({"probes": 0}, "^method.probes=0"),
        ({"labels": "none"}, "^method.labels=none: choose one of auto, given, own"), ({"budget": "milliseconds"}, "^budget=milliseconds"),
    ):  # fmt: skip
        with pytest.raises(lrp.InputError, match=match):
            hap(**options)
    with pytest.raises(lrp.InputError, match="^method.labels=given: the calibration holds no labels"):
        fitted(model, x, labels="given")
    with pytest.raises(lrp.InputError, match="its labels must be 16 integers"):
        fitted(model, x, torch.full((16,), 3))
    with pytest.raises(lrp.InputError, match="one output"):
        fitted(nn.Sequential(nn.Flatten(), nn.Linear(84, 4), nn.Linear(4, 1)).double(), x)


def test_every_parameter_of_the_layers_is_read():
    """DDP waits for the gradient of each: without implants there are no empty parameters for them."""
    torch.manual_seed(0)
    dense, x = randomise(Residual()).float(), torch.randn(8, 3, 9, 8)
    small, _ = lrp.compress(dense, x, 0.5, method="hap")
    assert any(isinstance(module, Filters) for module in small.modules())
    small(x).square().sum().backward()
    assert all(parameter.numel() and parameter.grad is not None for parameter in small.parameters())
