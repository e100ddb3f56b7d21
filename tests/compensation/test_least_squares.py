"""Least squares over whole networks: closer to the dense one, stored, counted, refused."""

import copy
import dataclasses

import pytest
import torch
from cases import Encoder, Untraceable
from helpers import given_network
from torch import nn
from torch.nn import functional as F

import lrp
from lrp.batches import Batches
from lrp.compensation import least_squares
from lrp.compensation.least_squares import LeastSquares
from lrp.compensation.none import NoCompensation
from lrp.compression import compress
from lrp.cost.count import count_params
from lrp.deploy.saving import load, save
from lrp.errors import InputError
from lrp.evidence import Evidence
from lrp.layer.base import LowRank
from lrp.layer_statistics.sums import Sums
from lrp.method.singular_vectors import SingularVectors


def read(y):
    return torch.cat(y, 1) if isinstance(y, tuple) else y.flatten(1)


def fit(model, x, compensation, **options):
    parts = {"blocking": "none", "scorer": "relative_error", "estimator": "first_order", "selection": "global", "decomposition": "svd"}
    made = {name: lrp.config.parts.make(name, options.pop(name, part)) for name, part in parts.items()}
    made["estimator"] = dataclasses.replace(made["estimator"], output_fn=read)
    return SingularVectors(**made, compensation=compensation, **options).fit(Evidence(model, x, scoring_images=4))


@torch.no_grad()
def distance(a, b, x):
    return float((read(a(x)) - read(b(x))).square().sum(1).mean())


@pytest.fixture(params=["residual", "depthwise", "tokens", "untraceable", "keywords", "encoder"])
def network(request):
    return given_network(request, 12)


@pytest.mark.slow
@pytest.mark.parametrize(("blocking", "metric"), [("none", "gradient"), ("alds", "gradient"), ("square", "plain")])
def test_closer_to_the_dense_network(network, blocking, metric):
    model, x = network
    x = torch.cat([x, 0.8 * x.roll(1, 0) + 0.2 * x.flip(0)])
    decomposition = "svd" if metric == "plain" else "two_sided"
    plain = fit(model, x, NoCompensation(), blocking=blocking, decomposition=decomposition)
    least = fit(model, x, LeastSquares(metric=metric), blocking=blocking, decomposition=decomposition)
    for sparsity in (0.2, 0.6):
        plan = plain.plan(sparsity)
        keep = least.plan(sparsity)
        assert plan.rows == keep.rows
        without, _ = plain.compress(plan)
        with_, seconds = least.compress(keep)
        assert seconds > 0 and distance(model, with_, x) < distance(model, without, x)
        names = [n for n, m in with_.named_modules() if isinstance(m, LowRank)]
        assert names == [n for n, m in without.named_modules() if isinstance(m, LowRank)]
        held = dict(without.named_parameters())
        for name, p in with_.named_parameters():
            assert p.grad is None and p.requires_grad and p.dtype == torch.float64 and p.isfinite().all()
            assert held[name].shape == p.shape if name in held else name.endswith(".bias")


@pytest.mark.slow
def test_every_layer_is_refitted(network, monkeypatch):
    model, x = network
    seen = []
    monkeypatch.setattr(least_squares, "refit", lambda module, *rest: seen.append(module))
    fitted = fit(model, x, LeastSquares())
    compressed, _ = fitted.compress(fitted.plan(0.4))
    names = {module: name for name, module in compressed.named_modules()}
    assert sorted(names[module] for module in seen) == sorted(fitted.evidence.survey.matrices)


@pytest.mark.slow
def test_nothing_is_compensated_where_nothing_was_removed(residual):
    x = torch.randn(6, 3, 9, 8).double()
    fitted = fit(residual, x, LeastSquares())
    same, _ = fitted.compress(fitted.plan(0.0))
    assert all(torch.equal(a, b) for a, b in zip(same.state_dict().values(), residual.state_dict().values(), strict=True))
    again = copy.deepcopy(residual)
    LeastSquares(ridge=0.0)(again, fitted.evidence.survey, x, fitted.statistics)  # and if it is, nothing changes
    assert distance(residual, again, x) < 1e-16


def test_all_that_is_left_are_biases(residual):
    """A network that lost every component gives its mean output."""
    x = torch.randn(20, 3, 9, 8).double()
    fitted = fit(residual, x, LeastSquares())
    nothing = fitted.build([torch.zeros(b.rank, dtype=torch.bool) for b in fitted.blocks])
    fitted.method.compensation(nothing, fitted.evidence.survey, x, fitted.statistics)
    assert torch.allclose(nothing(x), residual(x).mean(0).expand(20, -1), atol=1e-9)


def test_chunks_and_modes(residual, monkeypatch):
    """Batches of images change rounding alone; modes, gradients and the dense network stay."""
    x = torch.randn(7, 3, 9, 8).double()
    residual.train()
    residual.bn1.eval()
    residual.conv1.weight.grad = torch.ones_like(residual.conv1.weight)
    before = copy.deepcopy(residual.state_dict())
    fitted = fit(residual, x, LeastSquares(), selection="uniform")
    whole, _ = fitted.compress(fitted.plan(0.5))
    modes = [(n, m.training) for n, m in residual.named_modules()]
    assert [(n, whole.get_submodule(n).training) for n, _ in modes] == modes
    assert all(torch.equal(before[k], v) for k, v in residual.state_dict().items())
    assert torch.equal(residual.conv1.weight.grad, torch.ones_like(residual.conv1.weight))
    assert [n for n, p in residual.named_parameters() if p.grad is not None] == ["conv1.weight"]
    assert all(torch.equal(before[k], whole.state_dict()[k]) for k in before if ".running" in k or ".num_batches" in k)
    monkeypatch.setattr(Batches, "unit", 3)
    parts, _ = fitted.compress(fitted.plan(0.5))
    assert distance(whole.eval(), parts.eval(), x) < 1e-16


@pytest.mark.slow
def test_added_biases_survive_files(network, tmp_path):
    """Of dense and of low-rank layers, of one of rank 0; after a round and a second one too."""
    model, x = network
    for factor in (None, 0.75):
        fitted = fit(model, x, LeastSquares(), blocking="square", keep_factor=factor)
        compressed, _ = fitted.compress(fitted.plan(0.6))
        had = {n for n, m in model.named_modules() if getattr(m, "bias", None) is not None}
        biased = {n for n, m in compressed.named_modules() if getattr(m, "bias", None) is not None} - had
        assert biased == set(fitted.evidence.survey.matrices) - had
        save(compressed, tmp_path / "a.safetensors")
        again = load(tmp_path / "a.safetensors", model)
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in compressed.state_dict().items())
        assert distance(again, compressed, x) < 1e-20
        save(again, tmp_path / "b.safetensors")
        assert distance(load(tmp_path / "b.safetensors", model), compressed, x) < 1e-20
        if not isinstance(model, (Untraceable, Encoder)):
            fused = lrp.fuse(compressed)
            save(fused, tmp_path / "c.safetensors")
            assert distance(load(tmp_path / "c.safetensors", model), compressed, x) < 1e-16


@pytest.mark.slow
def test_a_report_counts_added_biases(residual):
    x = torch.randn(8, 3, 9, 8).double()
    options = {"compensation": "least_squares", "decomposition": "activation", "recovery": "none", "scoring_images": 4}
    compressed, report = compress(residual, x, 0.5, **options)
    assert report.attrs["params_total"] == count_params(compressed)
    assert report.attrs["params_total_dense"] == count_params(residual)


@pytest.mark.slow
def test_half_precision():
    """bfloat16 and float16 networks get parameters of their own precision, from sums that are kept in a better one."""
    for dtype in (torch.bfloat16, torch.float16):
        model = nn.Sequential(nn.Linear(12, 20, bias=False), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4)).to(dtype)
        x = torch.randn(64, 12).to(dtype)
        for sparsity in (0.4, 0.95):
            low, _ = fit(model, x, LeastSquares()).compress(fit(model, x, LeastSquares()).plan(sparsity))
            assert {p.dtype for p in low.parameters()} == {dtype} and low(x).dtype == dtype and low(x).isfinite().all()
    x = (300 + torch.randn(3000, 1, 4)).half()  # in float16 neither the sum nor its square
    sums = Sums()
    for part in x.split(500):
        sums.add(part, part[:, 0])
    exact = x[:, 0].double()
    for found, true in (
        (sums.flush().xx[0], exact.T @ exact),
        (sums.zx, exact.T @ exact),
        (sums.x[0], exact.sum(0)),
        (sums.z, exact.sum(0)),
    ):
        assert torch.allclose(found, true, rtol=1e-5)


@pytest.mark.slow
def test_autocast_of_the_caller(network):
    """What is around a compression does not lower its precision."""
    model, x = network
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            fitted = fit(model.float(), x.float(), LeastSquares())
            found.append(fitted.compress(fitted.plan(0.5))[0].state_dict())
    assert found[0].keys() == found[1].keys() and all(torch.equal(a, b) for a, b in zip(*(state.values() for state in found)))


def test_options():
    for options, text in (
        ({"ridge": -0.1}, "compensation.ridge=-0.1: must be a number"),
        ({"ridge": float("nan")}, "compensation.ridge=nan: must be a number"),
        ({"ridge": float("inf")}, "compensation.ridge=inf: must be a number"),
        ({"ridge": "much"}, "compensation.ridge=much: must be a number"),
        ({"ridge": True}, "compensation.ridge=True: must be a number"),
        ({"metric": "outputs"}, "compensation.metric=outputs: choose one of gradient, plain"),
        ({"metric": None}, "compensation.metric=null: choose one of gradient, plain"),
    ):
        with pytest.raises(InputError, match=f"^{text}") as error:
            LeastSquares(**options)
        assert "\n" not in str(error.value) and "e-300" not in str(error.value)
    assert LeastSquares(ridge=0).needs == ("outputs", "gradients") and LeastSquares(metric="plain").needs == ("outputs",)


class Tokens(nn.Module):
    """Two layers on all tokens: as (B, T, C), as (B T, C), or with time first."""

    def __init__(self, form="batch first") -> None:
        super().__init__()
        self.fc, self.out, self.form = nn.Linear(6, 8), nn.Linear(8, 3), form

    def forward(self, x):
        if self.form == "flat":
            return self.out(F.relu(self.fc(x.flatten(0, 1)))).view(len(x), -1)
        if self.form == "time first":
            return self.out(F.relu(self.fc(x.transpose(0, 1)))).transpose(0, 1).flatten(1)
        return self.out(F.relu(self.fc(x))).flatten(1)


@pytest.mark.parametrize("form", ["flat", "time first"])
def test_layers_inside_which_the_batch_is_not_first(form):
    x = torch.randn(50, 4, 6).double()
    plain, other = Tokens().double(), Tokens(form).double()
    other.load_state_dict(plain.state_dict())
    (a, _), (b, _) = (compress(model, x, 0.5, compensation="least_squares", images=50, samples=1000) for model in (plain, other))
    assert all(torch.allclose(p, q, atol=1e-8) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.slow
def test_networks_that_cannot_be_compensated_say_so():
    class Detached(Tokens):
        @torch.no_grad()
        def forward(self, x):
            return self.out(F.relu(self.fc(x)))

    x = torch.randn(5, 4, 6)
    options = {"scorer": "magnitude", "decomposition": "svd", "recovery": "none", "sparsity": 0.5}
    with pytest.raises(InputError, match="no gradient"):
        compress(Detached(), x[:, 0], compensation="least_squares", **options)
    compress(Detached(), x[:, 0], compensation=LeastSquares(metric="plain"), **options)
