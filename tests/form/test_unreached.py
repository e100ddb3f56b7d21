"""Layers of which the perturbations of inputs say nothing, and inputs that say nothing."""

import pytest
import torch
from torch import nn

import lrp
from lrp.errors import InputError
from lrp.layer.compressed import Compressed


class Frozen(nn.Module):
    """The first two layers run without gradients; what follows reads them as they are, or rounded."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.a, self.b, self.c = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        if self.how == "no_grad":
            with torch.no_grad():
                x = self.b(self.a(x).relu()).relu()
        else:
            x = self.b(self.a(x).relu()).relu()
            x = x.detach() if self.how == "detach" else (x * 8).round() / 8
        return self.fc(self.c(x).relu().mean((2, 3)))


def forms_of(model):
    return {name: module.form for name, module in model.named_modules() if isinstance(module, Compressed)}


@pytest.mark.parametrize("how", ["detach", "round"])
def test_forms_that_look_at_inputs_need_a_gradient(how, caplog):
    """Scored exactly, a layer behind which gradients end has perturbations of its outputs; of its inputs nothing is known."""
    torch.manual_seed(0)
    model, x = Frozen(how).eval(), torch.randn(16, 3, 8, 8)
    options = {"estimator": "exact", "decomposition": "svd", "compensation": "none"}
    small, _ = lrp.compress(model, x, 0.6, **options)
    found = forms_of(small)
    assert all(found.get(name, "pivoted") in ("matrix", "pivoted") for name in "ab")
    assert "layer a, layer b: no gradient flows there" in caplog.text
    with pytest.raises(InputError, match=r"^forms=\['tucker2'\]: no layer of this network can be stored so; add matrix$"):
        lrp.compress(model, x, 0.6, forms="tucker2", exclude=["c", "fc"], **options)


def test_no_grad_inside_a_traced_network_is_scored_like_any_other():
    """The graph that scores run holds no such thing: outputs and inputs are scored on the same network."""
    torch.manual_seed(0)
    model, x = Frozen("no_grad").eval(), torch.randn(48, 3, 8, 8)
    layers = [model.a, nn.ReLU(), model.b, nn.ReLU(), model.c, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.fc]
    reports = [lrp.compress(network, x, 0.6, compensation="none")[1] for network in (model, nn.Sequential(*layers).eval())]
    assert reports[0]["what"].tolist() == reports[1]["what"].tolist() and reports[0]["rank"].tolist() == reports[1]["rank"].tolist()


@pytest.mark.parametrize("forms", [["tucker2"], ["spatial"], ["nested"], ["tucker2_pivoted"], "auto"], ids=str)
def test_constant_inputs(forms):
    """A layer behind one that gives nothing reads a constant: its covariance is rounding, and its bias is all that counts."""
    for seed in range(3):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 12, 3), nn.Tanh(), nn.Flatten(), nn.Linear(300, 5)
        ).eval()
        model[0].weight.data.zero_()
        x = torch.randn(16, 3, 7, 7)
        small, _ = lrp.compress(model, x, 0.5, forms=forms, exclude=["5"])
        assert torch.allclose(small(x), model(x), atol=1e-3)
    for method in ("hosvd", "input_tucker"):
        small, _ = lrp.compress(model, x * 0, 0.5, method=method)
        assert small(x).isfinite().all()


def test_layers_that_no_form_fits_stay_dense():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)).eval()
    x = torch.randn(8, 3, 6, 6)
    small, report = lrp.compress(model, x, 0.2, forms="tucker2")
    assert forms_of(small) == {"0": "tucker2"} and report["what"][1].startswith("left dense")
    with pytest.raises(InputError, match="^forms: no choice of them costs less than 1,280 of 1,712 params, and the budget is 171$"):
        lrp.compress(model, x, 0.9, forms="tucker2")
    with pytest.raises(InputError, match="no layer of this network can be stored so; add matrix"):
        lrp.compress(nn.Linear(9, 9), torch.randn(8, 9), 0.5, forms=["spatial", "tucker2"])
