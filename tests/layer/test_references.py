"""Layers that a network holds outside of its tree of modules."""

import functools

import pytest
import torch
from torch import nn

import lrp
from lrp.layer.compressed import Compressed
from lrp.layer.references import replace_references

HELD = {
    "list": lambda layer: [layer],
    "nested": lambda layer: {"x": [("y", {"z": layer})]},
    "tuple": lambda layer: (layer, 3),
    "set": lambda layer: {layer},
    "dict key": lambda layer: {layer: "key"},
    "partial": lambda layer: functools.partial(layer),
    "partial argument": lambda layer: functools.partial(lambda module, x: module(x), layer),
    "bound method": lambda layer: layer.forward,
    "object": lambda layer: Holder(layer),
    "unregistered module": lambda layer: [nn.Sequential(layer)],
}


class Holder:
    def __init__(self, layer):
        self.inner = [layer]
        self.itself = self


class Net(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.a, self.b = nn.Linear(12, 14), nn.Linear(14, 5)
        self.held, self.how = HELD[how](self.a), how

    def forward(self, x):
        h = self.held
        layer = {
            "list": lambda: h[0], "nested": lambda: h["x"][0][1]["z"], "tuple": lambda: h[0], "set": lambda: next(iter(h)),
            "dict key": lambda: next(iter(h)), "partial": lambda: h, "partial argument": lambda: h, "bound method": lambda: h,
            "object": lambda: h.inner[0], "unregistered module": lambda: h[0],
        }[self.how]()  # fmt: skip
        return self.b(layer(x).relu())


@pytest.mark.parametrize("how", HELD)
def test_every_reference_is_replaced(how):
    net, x = Net(how), torch.randn(3, 12)
    new = nn.Linear(12, 14)
    old, net.a = net.a, new
    before = net(x)
    replace_references(net, old, new)
    after = net(x)
    assert torch.equal(after, net.b(new(x).relu())) and not torch.equal(before, after)


@pytest.mark.parametrize("how", ["list", "partial", "object"])
def test_compressed_fused_and_held_networks_run_their_new_layers(how):
    net, x = Net(how), torch.randn(64, 12)
    small, report = lrp.compress(net, x, 0.5, scorer="magnitude", compensation="none")
    assert report.attrs["macs"] == report.attrs["macs_layers"] and isinstance(small.a, Compressed)
    held = lrp.hold_rank(Net(how), {"a": 2})
    held(x).sum().backward()
    assert all(p.grad is not None for p in held.a.parameters())


def test_what_a_closure_holds_is_left_alone():
    class Closed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(12, 14), nn.Linear(14, 5)
            layer = self.a
            self.call = lambda x: layer(x)

        def forward(self, x):
            return self.b(self.call(x))

    _, report = lrp.compress(Closed(), torch.randn(64, 12), 0.5, scorer="magnitude", compensation="none")
    assert dict(zip(report.layer, report.what))["a"].startswith("left alone: ")
