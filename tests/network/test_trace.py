"""Graphs of networks as a batch calls them."""

import pytest
import torch
from torch import nn

import lrp
from lrp.network.trace import default_of, placeholders, run_node, trace


class Switches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(12, 12)

    def forward(self, x, mask=None, double=True, scale=1.0):
        x = self.a(x) if mask is None else self.a(x * mask)
        return x * 2 * scale if double else x * scale


def run_graph(graph, model, inputs):
    """What a graph gives for a batch, node by node."""
    values = placeholders([*graph.nodes], inputs)
    for node in graph.nodes:
        if node not in values:
            values[node] = default_of(node) if node.op == "placeholder" else run_node(node, values, dict(model.named_modules()), None)
    return values[node]


X, MASK = torch.randn(5, 12), torch.ones(5, 1)
CALLS = [
    X, {"x": X, "mask": None}, {"x": X, "mask": MASK, "double": False}, {"x": X, "double": True, "scale": 0.5}, (X, None, False, 3.0),
    (X, MASK), {"x": X, "double": False},
]  # fmt: skip


@pytest.mark.parametrize("inputs", CALLS)
def test_arguments_without_tensors_are_constants(inputs):
    """A proxy is not None, and true."""
    model = Switches()
    args = inputs if isinstance(inputs, tuple) else () if isinstance(inputs, dict) else (inputs,)
    expected = model(*args, **(inputs if isinstance(inputs, dict) else {}))
    assert torch.equal(run_graph(trace(model, inputs), model, inputs), expected)


def test_a_mask_that_is_none():
    x = torch.randn(64, 12)
    for calibration in ({"x": x, "mask": None}, [{"x": x[:32], "mask": None}, {"mask": None, "x": x[32:]}]):
        _, report = lrp.compress(Switches(), calibration, 0.4, samples=256, scoring_images=4)
        assert [*report.layer] == ["a"] and not report.what[0].startswith("left alone")


class Remembers(nn.Module):
    """Makes a tensor at its first call and keeps it, in one of the ways in which people do that."""

    def __init__(self, how):
        super().__init__()
        self.first, self.last, self.how = nn.Linear(6, 8), nn.Linear(8, 3), how
        self.kept, self.several, self.mean = None, {}, torch.zeros(8)

    def forward(self, x):
        if self.how == "attribute":
            if self.kept is None:
                self.kept = torch.linspace(0, 1, x.shape[1])
            return self.last(self.first(x + self.kept[:, None]).relu()).mean(1)
        if self.how == "dict":
            if "kept" not in self.several:
                self.several["kept"] = torch.linspace(0, 1, x.shape[1])
            return self.last(self.first(x + self.several["kept"][:, None]).relu()).mean(1)
        if self.how == "new":
            if not hasattr(self, "late"):
                self.late = torch.linspace(0, 1, 4)  # no length of the input: a constant of the graph
            return self.last(self.first(x + self.late[:, None]).relu()).mean(1)
        h = self.first(x).relu()
        self.mean = 0.9 * self.mean + 0.1 * h.detach().mean((0, 1))
        return self.last(h - self.mean).mean(1)


@pytest.mark.parametrize("how", ["attribute", "dict", "new", "mean"])
def test_what_a_forward_keeps_is_not_the_tracers(how):
    """A proxy that stayed in the network made its next call fail."""
    torch.manual_seed(0)
    model, x = Remembers(how).eval(), torch.randn(64, 4, 6)
    small, _ = lrp.compress(model, x, 0.5)
    assert not any(isinstance(value, torch.fx.Proxy) for each in (model, small) for value in [*vars(each).values(), *each.several.values()])
    assert torch.isfinite(small(x)).all()
    if how == "attribute":
        model(x)  # a network that was run once was never traced with nothing kept
        again, _ = lrp.compress(model, x, 0.5)
        assert torch.equal(small(x), again(x))
