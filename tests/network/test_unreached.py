"""Layers through which no gradient flows."""

import contextlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lrp

pytestmark = pytest.mark.slow

REASON = "no gradient of the output reaches it, so it cannot be scored"
CUTS = {
    "detach": lambda g: g.sigmoid().detach(),
    "sign": torch.sign,
    "round": torch.round,
    "argmax": lambda g: F.one_hot(g.argmax(1), 16).to(g),
    "less": lambda g: (g > 0).to(g),
}


class Gated(nn.Module):
    def __init__(self, cut, around=contextlib.nullcontext):
        super().__init__()
        self.a, self.g, self.o, self.cut, self.around = nn.Linear(12, 16), nn.Linear(12, 16), nn.Linear(16, 5), cut, around

    def forward(self, x):
        with self.around():
            g = self.g(x)
        return self.o(self.a(x).relu() * self.cut(g.clone()))


def what(report):
    return dict(zip(report.layer, report.what))


class Branching(Gated):
    """One that torch.fx cannot trace: it would leave out that no gradient flows here."""

    def forward(self, x):
        return super().forward(x if bool(x.isfinite().all()) else x.nan_to_num())


NETWORKS = {name: (Gated, cut) for name, cut in CUTS.items()} | {
    "no_grad": (Branching, torch.sigmoid, torch.no_grad), "inference_mode": (Branching, torch.sigmoid, torch.inference_mode),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_they_are_left_alone_or_scored_exactly(name, caplog):
    kind, *given = NETWORKS[name]
    model, x = kind(*given), torch.randn(64, 12)
    _, report = lrp.compress(model, x, 0.5)
    assert what(report)["g"] == f"left alone: {REASON}" and f"layer g is left alone: {REASON}" in caplog.text
    assert "left alone" not in what(report)["a"]
    _, report = lrp.compress(model, x, 0.5, estimator="exact", decomposition="svd", compensation="none")
    assert what(report)["g"] in ("low rank", "pivoted")
    _, report = lrp.compress(model, x, 0.5, scorer="magnitude", decomposition="svd", compensation="none")
    assert not what(report)["g"].startswith("left alone")


def test_a_traced_network_has_gradients_under_no_grad():
    _, report = lrp.compress(Gated(torch.sigmoid, torch.no_grad), torch.randn(64, 12), 0.5)
    assert "left alone" not in what(report)["g"]


def test_a_gradient_on_some_examples_is_enough():
    class Rare(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.o = nn.Linear(12, 16), nn.Linear(16, 5)

        def forward(self, x):
            return self.o(self.a(x) * (x[:, :1] > 100))

    x = torch.randn(200, 12)
    x[150, 0] = 200.0
    _, report = lrp.compress(Rare(), x, 0.5, scoring_images=200)
    assert "left alone" not in what(report)["a"]
