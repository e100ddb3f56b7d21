"""What users put on a layer, and what becomes of it."""

import pytest
import torch
from torch import nn

import lrp
from lrp.layer.base import LowRank
from lrp.layer.build import unsupported

X = torch.randn(64, 12)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12))


def small(model, **options):
    return lrp.compress(model, X, 0.4, **{"scorer": "magnitude", "compensation": "none", "selection": "uniform", **options})


def test_attributes_buffers_and_hooks_are_carried_over():
    model, seen = net(), []
    layer = model[0]
    layer.reads_from, layer.type = -1, "conv"  # as detectors of the YOLO family have them
    layer.register_buffer("gain", torch.tensor(2.0))
    layer.register_buffer("cache", torch.tensor(3.0), persistent=False)
    layer.register_forward_pre_hook(lambda _, args: (args[0].abs(),))
    layer.register_forward_hook(lambda module, args, kwargs, output: seen.append(module), with_kwargs=True)
    layer.register_full_backward_hook(lambda module, *_: seen.append("backward"))
    compressed, _ = small(model)
    new = compressed[0]
    assert isinstance(new, LowRank) and (new.reads_from, new.type) == (-1, "conv")
    assert float(new.gain) == 2 and list(dict(new.named_buffers())) == ["gain", "cache"] and "cache" not in new.state_dict()
    seen.clear()
    assert torch.equal(compressed(X), compressed(-X))
    compressed(X).sum().backward()
    assert seen[0] is new and "backward" in seen


def test_a_hook_that_changes_the_output_leaves_its_layer_alone():
    model = net()
    model[0].register_forward_hook(lambda _, args, output: output + 5)
    _, report = small(model)
    assert report.what[0] == "left alone: a forward hook changes its output"
    model = net()
    model[0].register_forward_hook(lambda _, args, output: [output.mul_(2)] and None)
    assert small(model)[1].what[0] == "left alone: a forward hook changes its output"


@pytest.mark.parametrize("how", ["closure", "bound"])
def test_a_forward_of_the_instance_leaves_it_alone(how):
    model = net()
    layer, old = model[0], model[0].forward
    layer.forward = (lambda x: old(x) * 3) if how == "closure" else (lambda self, x: nn.Linear.forward(self, x) * 3).__get__(layer)
    assert small(model)[1].what[0] == "left alone: its forward is its own, not that of Linear"


@pytest.mark.parametrize("name", ["rows", "blocks", "fill", "ranges"])
def test_names_that_low_rank_layers_use(name):
    layer = nn.Linear(3, 4)
    setattr(layer, name, 7)
    assert unsupported(layer) == f"it holds something called {name}, a name that compressed layers use"


def test_parameters_and_modules_of_its_own():
    layer = nn.Linear(3, 4)
    layer.gain = nn.Parameter(torch.ones(()))
    layer.norm = nn.ReLU()
    assert unsupported(layer) == "it holds parameters or modules of its own (gain, norm)"


@pytest.mark.parametrize("dense", [nn.Linear(4, 6), nn.Conv1d(4, 6, 3), nn.Conv2d(4, 6, 3, padding="same", padding_mode="reflect")])
def test_torchs_own_layers_are_supported(dense):
    assert unsupported(dense) is None
