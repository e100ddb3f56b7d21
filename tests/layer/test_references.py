"""Layers that a network holds outside of its tree of modules."""

import functools

import pytest
import torch
from torch import nn

import lrp
from lrp.layer.compressed import Compressed
from lrp.layer.references import out_of_reach, replace_references

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
    "method of an object": lambda layer: Holder(layer).run,
}
UNREACHED = {
    "closure": lambda layer: lambda x: layer(x),
    "closure in a list": lambda layer: [lambda x: layer(x)],
    "closure over a partial": lambda layer: (lambda held: lambda x: held(x))(functools.partial(layer)),
    "closure over a bound method": lambda layer: (lambda held: lambda x: held(x))(layer.forward),
    "closure of a function in a partial": lambda layer: functools.partial(lambda more, x: layer(x) + more, 1),
    "closure over a dict": lambda layer: (lambda held: lambda x: held["layer"](x))({"layer": layer}),
    "default": lambda layer: lambda x, held=layer: held(x),
    "slot": lambda layer: Slotted(layer),
    "frozenset": lambda layer: frozenset([layer]),
}


class Holder:
    def __init__(self, layer):
        self.inner = [layer]
        self.itself = self

    def run(self, x):
        return self.inner[0](x)


class Slotted:
    __slots__ = ("__inner",)

    def __init__(self, layer):
        self.__inner = layer


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
            "method of an object": lambda: h,
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


@pytest.mark.parametrize("how", HELD)
def test_what_is_replaced_is_in_reach(how):
    net = Net(how)
    assert out_of_reach(net, [net.a, net.b]) is None


class Unreached(nn.Module):
    def __init__(self, how="closure"):
        super().__init__()
        self.a, self.b = nn.Linear(12, 14), nn.Linear(14, 5)
        self.held = UNREACHED[how](self.a)

    def forward(self, x):
        return self.b(self.held(x))


@pytest.mark.parametrize("how", UNREACHED)
def test_what_cannot_be_replaced_is_refused(how):
    net = Unreached(how)
    assert out_of_reach(net, [net.b, net.a]) is net.a
    before = net.a
    with pytest.raises(lrp.InputError, match="hold_rank: layer a is also held where no other can be put"):
        lrp.hold_rank(net, {"b": 2, "a": 2})
    assert net.a is before and type(net.b) is nn.Linear
    assert type(lrp.hold_rank(net, {"b": 2}).b) is not nn.Linear  # the others can be


def test_closures_that_see_the_network_or_hooks_that_see_a_layer_are_none():
    net = Net("list")
    net.me = lambda: net
    net.a.register_forward_hook(lambda *_: net.a)
    assert out_of_reach(net, [net.a]) is None


def test_a_file_is_not_loaded_into_a_network_that_would_go_on_with_its_own_layer(tmp_path):
    lrp.save(lrp.hold_rank(Net("list"), {"a": 2}), tmp_path / "a.safetensors")
    for model in (Unreached, Unreached()):
        with pytest.raises(lrp.InputError, match="load .*: layer a is also held where no other can be put"):
            lrp.load(tmp_path / "a.safetensors", model)
    assert isinstance(lrp.load(tmp_path / "a.safetensors", Net("list")).a, Compressed)


def test_plain_layers_are_not_put_beside_one_that_a_closure_holds():
    net = lrp.hold_rank(Net("list"), {"a": 2})
    layer = net.a
    net.call = lambda x: layer(x)
    with pytest.raises(lrp.InputError, match="unfold: layer a is also held"):
        lrp.as_plain(net)
