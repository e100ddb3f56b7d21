"""What a report warns of."""

import pytest
import torch
from torch import nn

import lrp

PLAIN = {"scorer": "magnitude", "compensation": "none"}


class Reads(nn.Module):
    """Reads the values of a weight at every call."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 64), nn.Linear(64, 12)

    def forward(self, x):
        return self.b(self.a(x).relu()) + (self.a.weight @ self.a.weight.T).mean()


def test_more_arithmetic_than_before_is_the_first_line(caplog):
    _, report = lrp.compress(Reads(), torch.randn(64, 12), 0.3, selection="uniform", **PLAIN)
    assert report.attrs["macs"] > report.attrs["macs_dense"]
    first = f"the whole network takes more multiply-accumulates than before: {report.attrs['macs_dense']:,} -> {report.attrs['macs']:,}"
    assert (
        str(report).splitlines()[0] == f"warning: {first}" and first in caplog.text and "more multiply-accumulates" in report._repr_html_()
    )


@pytest.mark.parametrize(
    "sparsity, match", [(0.999, "nothing is left of the compressed layers at sparsity 0.999"), (0.5, "few calibration samples")]
)
def test_what_is_left_and_what_was_seen(sparsity, match):
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12))
    _, report = lrp.compress(model, torch.randn(20, 12), sparsity)
    assert any(warning.startswith(match) for warning in report.warnings)


def test_empty_layers_are_named():
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12))
    with torch.no_grad():
        model[0].weight.mul_(1e-6)
    _, report = lrp.compress(model, torch.randn(200, 12), 0.6, **PLAIN)
    assert report.warnings == ["1 layer lost all components: 0"]


def test_nothing_to_warn_of_and_the_whole_network_first():
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12))
    _, report = lrp.compress(model, torch.randn(200, 12), 0.3)
    assert report.warnings == [] and str(report).startswith("whole network: parameters ")


def test_a_tied_weight_counts_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.inner, self.out = nn.Embedding(30, 12), nn.Linear(12, 12), nn.Linear(12, 30, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, x):
            return self.out(self.inner(self.embed(x)).mean(1))

    model = Tied()
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    for budget, said, macs in (("macs", "left alone: tied weight", 360), ("params", "tied to embed", 0)):  # by macs no tie is compressed
        _, report = lrp.compress(model, torch.randint(30, (64, 5)), 0.3, budget=budget, **PLAIN)
        of = report.set_index("layer")
        assert report.params_before.sum() == weights and of.params_before["out"] == of.params_after["out"] == 0
        assert of.params_before["embed"] == 360 and of.macs_before["out"] == macs and of.what["out"] == said
        assert report.macs_before.sum() == report.attrs["macs_dense"]
