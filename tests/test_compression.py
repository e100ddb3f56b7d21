"""``lrp.compress``: one call, on networks of many kinds."""

import copy
import inspect
import logging

import numpy as np
import pandas as pd
import pytest
import torch
from cases import Odd, TwoNames, Wrapped
from helpers import given_network, small
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lrp
from lrp.cost.count import count_macs, count_params
from lrp.evidence import Evidence
from lrp.layer.base import LowRank
from lrp.layer.compressed import Compressed
from lrp.method.singular_vectors import SingularVectors
from lrp.standin.replace import with_stand_ins

NETWORKS = {"narrow_vgg": (3, 32, 32), "residual": (3, 8, 8), "depthwise": (3, 9, 10), "tokens": (3, 5, 4), "encoder": (5, 6)}


PAPER = {"scorer": "perturbation", "selection": "global", "decomposition": "svd", "compensation": "none"}


def modes(model):
    return {name: module.training for name, module in model.named_modules() if not isinstance(module, (nn.ParameterDict, nn.Identity))}


def what(report):
    return dict(zip(report["layer"], report["what"]))


@pytest.fixture(params=[pytest.param("narrow_vgg", marks=pytest.mark.long), "residual", "depthwise", "tokens", "encoder"])
def network(request):
    return given_network(request, 8)


@pytest.mark.slow
def test_both_budgets(network):
    model, x = network
    compressed, report = small(model, x, 0.5, macs_removed=0.7)
    dense, rest = report.attrs["macs_layers_dense"], count_macs(model, x[:1]) - report.attrs["macs_layers_dense"]
    assert count_macs(compressed, x[:1]) - rest <= 0.3 * dense * (1 + 1e-12)
    assert report.attrs["sparsity_macs"] >= 0.7 - 1e-12 and report.attrs["sparsity_params"] >= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["params", "macs"])
def test_a_smaller_network_and_a_report(network, budget):
    model, x = network
    before, was = copy.deepcopy(model.state_dict()), modes(model)
    compressed, report = small(model, x, 0.6, budget=budget, blocking="square")
    assert modes(model) == was and not hasattr(model, "lrp_report")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert any(isinstance(m, Compressed) for m in compressed.modules())
    assert compressed(x).shape == model(x).shape and compressed(x).isfinite().all()
    a = report.attrs
    assert a[f"sparsity_{budget}"] >= 0.6 and a["budget"] == budget and a["sparsity"] == 0.6
    assert (a["params_total"], a["params_total_dense"]) == (count_params(compressed), count_params(model))
    assert (a["macs"], a["macs_dense"]) == (count_macs(compressed, x[:1]), count_macs(model, x[:1]))
    assert isinstance(report, pd.DataFrame) and compressed.lrp_report is report
    standing = with_stand_ins(model)
    holders = [n for n, m in standing.named_modules() if any(p is not None and p.dim() > 1 for p in m._parameters.values())]
    assert list(report["layer"]) == holders
    chosen = report[~report["what"].str.startswith("left alone")]
    assert chosen["params_after"].sum() == a["params"] and chosen["macs_after"].sum() == a["macs_layers"]
    assert chosen["params_before"].sum() == a["params_dense"] and chosen["macs_before"].sum() == a["macs_layers_dense"]
    rest = set(report["layer"]) - set(chosen["layer"])
    for line in chosen.to_dict("records"):
        layer = compressed.get_submodule(line["layer"])
        weights = [p for n, p in layer.named_parameters() if n != "bias"]
        assert sum(p.numel() for p in weights) == line["params_after"] <= line["params_before"]
        assert line["what"].startswith("left dense") or isinstance(layer, Compressed)
    for name in rest:
        assert type(compressed.get_submodule(name)) is type(standing.get_submodule(name))
    for line in [*holders, "asked", "whole network"]:
        assert line in str(report)
    assert "<table" in report._repr_html_()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["residual", "encoder"])
def test_modes_are_those_of_the_original(name, request):
    model = request.getfixturevalue(name).train()
    inner = model.bn1 if name == "residual" else model.encoder.layers[0]
    inner.eval()
    was = modes(model)
    before = copy.deepcopy(model.state_dict())
    compressed, _ = small(model, torch.randn(8, *NETWORKS[name]).double(), 0.7)
    assert modes(model) == was
    now = modes(compressed)
    assert {k: now[k] for k in was} == was
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_modes_and_weights_survive_a_failure(residual):
    residual.train()
    was = modes(residual)
    with pytest.raises(lrp.InputError):
        small(residual, torch.randn(8, 4, 8, 8).double())
    assert modes(residual) == was


@pytest.mark.slow
def test_the_parts_do_the_same(residual):
    from lrp.config.parts import make

    x = torch.randn(8, 3, 8, 8).double()
    compressed, _ = small(residual, x, 0.5, recovery="none", blocking="alds", budget="macs", **PAPER | {"scorer": "variance"})
    parts = {"blocking": "alds", "scorer": "variance", "estimator": "first_order", "selection": "global"}
    method = SingularVectors(**{name: make(name, chosen) for name, chosen in parts.items()}, budget="macs")
    fitted = method.fit(Evidence(residual, x[:4]))
    by_hand = fitted.build(fitted.select(0.5))
    assert compressed.state_dict().keys() == by_hand.state_dict().keys()
    assert all(torch.equal(value, by_hand.state_dict()[key]) for key, value in compressed.state_dict().items())


@pytest.mark.slow
def test_recovery_sees_all_images_and_scores_the_first(residual):
    x = torch.randn(12, 3, 8, 8).double()
    twin, _ = small(residual, x, scoring_images=4, images=8, batch_size=4, recovery="batchnorm", **PAPER)
    other = torch.cat([x[:8], 100 * x[8:]])  # beyond ``images``
    again, _ = small(residual, other, scoring_images=4, images=8, batch_size=4, recovery="batchnorm", **PAPER)
    assert torch.equal(twin(x), again(x))
    weights = lambda model: [p for n, p in model.named_parameters() if "bn" not in n]  # noqa: E731
    third, _ = small(residual, torch.cat([x[:4], 3 * x[4:]]), scoring_images=4, images=8, batch_size=4, recovery="batchnorm", **PAPER)
    assert all(torch.equal(a, b) for a, b in zip(weights(twin), weights(third), strict=True))
    assert not torch.equal(twin.bn.running_var, third.bn.running_var)
    expected, _ = small(residual, x, scoring_images=4, recovery="none")
    assert torch.equal(expected.bn.running_var, residual.bn.running_var)


@pytest.mark.slow
def test_calibration_in_any_form(residual):
    x = torch.randn(11, 3, 8, 8).double()
    labels = torch.zeros(11)
    forms = {
        "tensor": x, "loader": DataLoader(TensorDataset(x, labels), batch_size=3), "plain loader": DataLoader(x, batch_size=4),
        "list": list(x.split(5)), "pairs": [(x[:2], labels[:2]), [x[2:], labels[2:]]], "generator": (part for part in x.split(2)),
    }  # fmt: skip
    expected = small(residual, x)[0](x)
    for name, form in forms.items():
        assert torch.equal(small(residual, form)[0](x), expected), name


@pytest.mark.slow
def test_an_endless_loader_is_read_as_far_as_needed(residual):
    read = []

    def endless():
        while True:
            read.append(1)
            yield torch.randn(3, 3, 8, 8).double()

    small(residual, endless())
    assert len(read) == 3


@pytest.mark.slow
def test_every_reason():
    model, tokens = Odd().eval(), torch.randint(9, (8, 7))
    compressed, report = small(model, tokens, exclude=["body.0"])
    found = what(report)
    reasons = {
        "depthwise": "depthwise", "body.0": "excluded", "unused": "not called on the first calibration examples",
    }  # fmt: skip
    assert {name: found[name] for name in reasons} == {name: f"left alone: {reason}" for name, reason in reasons.items()}
    assert found["output"] == "tied to embedding"
    assert {name for name, line in found.items() if not line.startswith(("left", "tied"))} <= {
        "conv",
        "body.2",
        "twice",
        "alias_a",
        "lookup",
        "up",
    }
    assert compressed.output.weight is compressed.embedding.weight and compressed.alias_a is compressed.alias_b
    assert report.attrs["params_total"] == count_params(compressed) < count_params(model)
    assert compressed(tokens).shape == (8, 9)


@pytest.mark.slow
@pytest.mark.parametrize("exclude, left", [
    (["body.0"], {"body.0"}), ("body", {"body.0", "body.2"}), (["bod*"], {"body.0", "body.2"}), (["*.2", "conv"], {"body.2", "conv"}),
])  # fmt: skip
def test_exclude(exclude, left):
    _, report = small(Odd().eval(), torch.randint(9, (8, 7)), exclude=exclude)
    assert {name for name, line in what(report).items() if line == "left alone: excluded"} == left


@pytest.mark.slow
def test_low_rank_layers_of_torchs_encoder_are_called(encoder):
    """Without gradients torch's encoder layers read ``linear1.weight`` themselves and never call the layer; one that is
    low-rank must not be read."""
    x = torch.randn(8, 5, 6).double()
    compressed, _ = small(encoder, x, 0.7, **PAPER)
    low = [name for name, m in compressed.named_modules() if isinstance(m, Compressed)]
    inside = [name for name in low if ".linear" in name]
    assert inside and all(compressed.get_submodule(name.rpartition(".")[0]).activation_relu_or_gelu == 0 for name in inside)
    expected = copy.deepcopy(with_stand_ins(encoder))
    for name in low:
        with torch.no_grad():
            expected.get_submodule(name).weight.copy_(compressed.get_submodule(name).weight)
    with torch.enable_grad():
        reference = expected(x)
    with torch.no_grad():
        assert torch.allclose(compressed(x), reference, atol=1e-12)
    calls = []
    for name in inside:  # in place of a hook, which would close the short cut by itself
        layer = compressed.get_submodule(name)
        layer.forward = lambda x, name=name, run=type(layer).forward, layer=layer: calls.append(name) or run(layer, x)
    with torch.inference_mode():
        compressed(x)
    assert sorted(calls) == sorted(inside)


@pytest.mark.slow
@pytest.mark.parametrize("wrap, output", [(lambda y: {"logits": y}, lambda r: r["logits"]), (lambda y: (0, y), lambda r: r[1])])
def test_networks_that_return_a_dict_or_a_tuple(residual, wrap, output):
    x = torch.randn(8, 3, 8, 8).double()
    compressed, _ = small(Wrapped(residual, wrap), x, output=output)
    assert torch.equal(output(compressed(x)), small(residual, x)[0](x))


def test_sparsity_zero_is_the_network(tokens):
    x = torch.randn(8, 3, 5, 4).double()
    compressed, report = small(tokens, x, 0)
    assert torch.equal(compressed(x), tokens(x))
    assert set(report["what"]) == {"left dense: would not be smaller"}


@pytest.mark.parametrize("layer, shape", [(nn.Linear(16, 16), (16,)), (nn.Conv2d(8, 8, 3), (8, 5, 5))])
def test_a_network_of_one_layer(layer, shape):
    """It has no place in another module in which a low-rank layer could be put."""
    x = torch.randn(8, *shape)
    compressed, _ = small(layer, x, exclude=None)
    assert isinstance(compressed, Compressed) and compressed(x).shape == layer(x).shape


@pytest.mark.slow
def test_objects_in_place_of_names(residual):
    from lrp.blocking.alds import AldsBlocking
    from lrp.selection.global_ import GlobalSelection

    x = torch.randn(8, 3, 8, 8).double()
    _, report = small(residual, x, blocking=AldsBlocking(k=2), selection=GlobalSelection(round_to=4))
    assert report.set_index("layer").loc["conv2", "blocks"] == 2
    model, _ = small(residual, x, selection=GlobalSelection(round_to=4))
    ranks = [len(V) for m in model.modules() if isinstance(m, LowRank) for V in m.V.values()]
    assert ranks and all(rank % 4 == 0 or rank < 4 for rank in ranks)


@pytest.mark.slow
def test_nothing_is_printed(residual, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        small(residual, torch.randn(64, 3, 8, 8).double(), images=64)
    assert capfd.readouterr().out == "" and not caplog.records


@pytest.mark.slow
def test_a_layer_under_two_names(tmp_path):
    """It runs once, so it is compressed, in both places; a batch norm is folded in both."""
    model, x = TwoNames().eval(), torch.randn(16, 3, 6, 6)
    model.bn.running_mean.uniform_(-1, 1)
    compressed, report = lrp.compress(model, x, 0.6, scoring_images=8)
    assert report["what"][0] == "spatial" and compressed.conv is compressed.block[0]
    fused = lrp.fuse(compressed)
    assert torch.allclose(fused(x), compressed(x), atol=1e-5)
    lrp.save(fused, tmp_path / "a.safetensors")
    assert torch.equal(lrp.load(tmp_path / "a.safetensors", TwoNames)(x), fused(x))
    assert str(copy.deepcopy(compressed).lrp_report) == str(report)
    with pytest.raises(lrp.InputError, match="load .*: model is a str"):
        lrp.load(tmp_path / "a.safetensors", "resnet18")


@pytest.mark.slow
def test_a_computed_weight_is_left_alone():
    model = nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 30)).eval()
    x = torch.randn(8, 3, 6, 6)
    compressed, report = lrp.compress(model, x, 0.5, scoring_images=4)
    assert report["what"][0] == "left alone: its weight is computed from other parameters"
    assert torch.allclose(lrp.fuse(model)(x), model(x), atol=1e-5)


@pytest.mark.slow
def test_batches_of_recovery_and_what_is_untouched(residual):
    """No last batch of one example; where nothing is removed, nothing is re-estimated."""
    model, x = nn.Sequential(nn.Linear(8, 24), nn.BatchNorm1d(24), nn.Linear(24, 24)), torch.randn(33, 8)
    compressed, report = lrp.compress(model, x, np.float32(0.5), scoring_images=8, batch_size=32)
    assert report.attrs["sparsity"] == 0.5 and type(report.attrs["sparsity"]) is float
    with pytest.raises(lrp.InputError, match="recovery=batchnorm: Expected more than 1 value"):
        lrp.compress(model, x[:1], 0.5, recovery="batchnorm")
    x = torch.randn(8, 3, 16, 16).double()
    dense, _ = lrp.compress(residual, x, 0.0)
    assert torch.equal(dense(x), residual(x))


def test_a_share_of_the_whole_network():
    model = nn.Sequential(nn.Linear(40, 60), nn.ReLU(), nn.Linear(60, 5), nn.LayerNorm(5))
    model.register_parameter("more", nn.Parameter(torch.zeros(30, 30)))
    x = torch.randn(300, 40)
    total, layers = sum(p.numel() for p in model.parameters()), 60 * 40 + 60 * 5
    compressed, report = lrp.compress(model, x, 0.5, budget_of="network")
    assert total * 0.49 < sum(p.numel() for p in compressed.parameters()) <= total * 0.5
    assert report.warnings[0] == "24.5% of the parameters were left alone: 24.5% in the network (type not supported (Sequential))"
    assert "sparsity 0.5 of params of the network asked for" in str(report)
    _, same_share = lrp.compress(model, x, 0.5 * total / layers)
    assert list(same_share["rank"].dropna()) == list(report["rank"].dropna())
    for options, said in {
        ("sparsity", 0.8): "sparsity=0.8: with budget_of=network it must be below 0.7347, the share of the network's params that",
        ("budget_of", "all"): "budget_of=all: choose layers or network",
        ("budget", "milliseconds"): "budget_of=network: budget=milliseconds is known of the layers alone; set budget_of=layers",
    }.items():
        with pytest.raises(lrp.InputError, match=said):
            lrp.compress(model, x, **{"sparsity": 0.5, "budget_of": "network", options[0]: options[1]})


def test_fitted_once_and_compressed_often():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 8)), torch.randn(400, 12)
    fitted = lrp.fit(model, x)
    for sparsity in (0.3, 0.6, 0.3):
        (a, report), (b, other) = fitted.compress(sparsity), lrp.compress(model, x, sparsity)
        assert torch.equal(a(x), b(x)) and report.equals(other) and a.lrp_report is report
    with pytest.raises(lrp.InputError, match="sparsity=1: "):
        fitted.compress(1)


def test_an_embedding_alone():
    model, ids = nn.Embedding(50, 32), torch.randint(0, 50, (48, 10))
    small, report = lrp.compress(model, ids, 0.5)
    assert small(ids).shape == (48, 10, 32) and report.attrs["sparsity_params"] >= 0.5 and report.attrs["sparsity_macs"] == 0


def test_biases_that_compensation_adds_count_in_the_network():
    model = nn.Sequential(nn.Linear(40, 80, bias=False), nn.ReLU(), nn.Linear(80, 30, bias=False))
    small, _ = lrp.compress(model, torch.randn(500, 40), 0.5, budget_of="network")
    assert 0.5 <= 1 - count_params(small) / count_params(model) < 0.53


def test_fit_takes_what_compress_takes():
    compress, fit = (inspect.signature(function).parameters for function in (lrp.compress, lrp.fit))
    assert [str(p) for name, p in compress.items() if name not in ("sparsity", "budget_of")] == [str(p) for p in fit.values()]
