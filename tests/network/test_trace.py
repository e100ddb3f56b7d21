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
