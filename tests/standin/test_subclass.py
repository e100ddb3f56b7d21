"""Subclasses that do no harm, and those that do."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lrp
from lrp.standin.replace import put_back, stand_ins, with_stand_ins


class Named(nn.Linear):
    """As a Linear, with an attribute of its own."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.note = "mine"


class Direct(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class Keyword(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(input=x, weight=self.weight, bias=self.bias, stride=self.stride, padding=self.padding, dilation=self.dilation)


class Same(nn.Conv2d):
    """As timm's Conv2dSame: the padding depends on the input's size."""

    def forward(self, x):
        around = []
        for size, kernel, stride, dilation in zip(x.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True):
            missing = max((math.ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            around = [missing // 2, missing - missing // 2, *around]
        return F.conv2d(F.pad(x, around), self.weight, self.bias, self.stride, (0, 0), self.dilation, self.groups)


class Causal(nn.Conv1d):
    def forward(self, x):
        return super().forward(F.pad(x, ((self.kernel_size[0] - 1) * self.dilation[0], 0)))


class Padded(nn.Conv2d):
    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(F.pad(input, (1, 0, 1, 0)), weight, bias)


class Activated(nn.Linear):
    def forward(self, x):
        return torch.relu(super().forward(2 * x))


class Normed(nn.Conv2d):
    """As detectron2's: a norm and an activation behind the function, and casts by what the weight is."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.norm = nn.BatchNorm2d(self.out_channels)

    def forward(self, x):
        x = x.to(self.weight.dtype).to(self.weight.device)
        return torch.relu(self.norm(F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)))


class Scaled(nn.Linear):
    def forward(self, x):
        return F.linear(x * x.shape[-1] ** -0.5, self.weight, bias=self.bias) + 1


class Standardised(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class Normalised(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight / self.weight.norm(), self.bias)


class Masked(nn.Conv2d):
    """Writes its weight, which a compressed layer does not have."""

    def forward(self, x):
        self.weight.data *= 0.5
        return super().forward(x)


class Clamped(nn.Linear):
    def forward(self, x):
        return F.linear(x.clamp(-3, 3), self.weight, self.bias)


class Reading(nn.Linear):
    """Reads the weight once more."""

    def forward(self, x):
        return F.linear(x, self.weight, self.bias) * self.weight.norm()


class Biased(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight, self.bias) + self.bias


class OnlyInEval(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight, None if self.training else self.bias)


class Unbiased(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight)


class Twice(nn.Linear):
    def forward(self, x):
        return super().forward(super().forward(x))


class Unstrided(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, padding=self.padding)


class Unwrapped(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Labelled(nn.Linear):
    def forward(self, x, label):
        return super().forward(x + label)


KNOWN = {
    "named": (lambda: Named(4, 5), "subclass"),
    "direct": (lambda: Direct(4, 5, bias=False), "subclass"),
    "keyword": (lambda: Keyword(3, 4, 3, 2, 1), "subclass"),
    "unwrapped": (lambda: Unwrapped(4, 6, 3, padding="same", groups=2), "subclass"),
    "same": (lambda: Same(3, 4, 3, 2), "same_padding"),
    "same, two sides": (lambda: Same(4, 6, (3, 5), (2, 1), dilation=2, groups=2, bias=False), "same_padding"),
    "causal": (lambda: Causal(3, 4, 3, dilation=2), "around"),
    "padded": (lambda: Padded(3, 4, 3, bias=False), "around"),
    "normed": (lambda: Normed(3, 4, 3, padding=1), "around"),
    "unwrapped, another padding mode": (lambda: Unwrapped(3, 4, 3, padding=1, padding_mode="circular"), "around"),
    "scaled": (lambda: Scaled(4, 5), "around"),
    "clamped": (lambda: Clamped(4, 5), "around"),
    "activated": (lambda: Activated(4, 5), "around"),
}
UNKNOWN = [
    Standardised(3, 4, 3), Normalised(3, 4), Masked(3, 4, 3), Reading(3, 4), Biased(3, 4), OnlyInEval(3, 4), Unbiased(3, 4), Twice(4, 4),
    Unstrided(3, 4, 3, 2), Labelled(3, 4),
    nn.utils.parametrizations.weight_norm(Named(3, 4)), nn.utils.spectral_norm(Named(3, 4)),
]  # fmt: skip


def inputs(layer):
    if isinstance(layer, nn.Linear):
        return [torch.randn(2, 6, layer.in_features).double()]
    return [torch.randn(2, layer.in_channels, *[size + i for i in range(len(layer.kernel_size))]).double() for size in (12, 13, 16)]


@pytest.mark.parametrize("name", KNOWN)
def test_the_same_outputs_and_gradients(name):
    make, kind = KNOWN[name]
    dense = make().double()
    dense.weight.requires_grad_(True)
    other = with_stand_ins(dense)
    assert stand_ins(other) == {"": kind}
    assert any(parameter is dense.weight for parameter in other.parameters())
    for x in inputs(dense):
        found = []
        for layer in (dense, other):
            given = x.clone().requires_grad_()
            output = layer(given)
            found.append([output, *torch.autograd.grad(output.square().sum(), [given, dense.weight])])
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("layer", UNKNOWN, ids=lambda layer: type(layer).__name__)
def test_others_stay(layer):
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    assert with_stand_ins(layer) is layer
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("name", KNOWN)
def test_put_back_as_it_was(name):
    model = nn.Sequential(KNOWN[name][0]())
    other = with_stand_ins(model)
    back = put_back(copy.deepcopy(other), model)
    assert type(back[0]) is type(model[0]) and back.state_dict().keys() == model.state_dict().keys() and not stand_ins(back)
    assert stand_ins(other)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.same, self.norm = Same(3, 12, 3, 2, bias=False), nn.BatchNorm2d(12)
        self.causal, self.activated, self.named = Causal(12, 12, 3), Activated(12, 16), Named(16, 16)
        self.scaled, self.own = Scaled(16, 16), Normalised(16, 16)

    def forward(self, x):
        x = self.causal(F.relu(self.norm(self.same(x))).flatten(2)).transpose(1, 2)
        return self.own(torch.relu(self.scaled(self.named(self.activated(x))))).mean(1)


@pytest.fixture(scope="module")
def compressed():
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(40, 3, 9, 8)
    return (model, x, *lrp.compress(model, x, 0.5))


def test_a_network_of_them(compressed, tmp_path):
    model, x, small, report = compressed
    what = dict(zip(report.layer, report.what, strict=True))
    assert what.pop("own") == "left alone: a subclass of Linear with a forward of its own (Normalised)"
    assert list(what) == ["same.conv", "causal.inner", "activated.inner", "named", "scaled.inner"]
    assert not any(text.startswith("left alone") for text in what.values()) and small.named.note == "mine"
    uncompensated = lrp.compress(model, x, 0.5, compensation="none")[0]
    assert (small(x) - model(x)).norm() < (uncompensated(x) - model(x)).norm()
    lrp.save(small, tmp_path / "a.safetensors")
    assert torch.equal(lrp.load(tmp_path / "a.safetensors", Net)(x), small(x))
    assert torch.allclose(lrp.as_plain(small)(x), small(x), atol=1e-6)
    torch.save(small, tmp_path / "a.pt")
    assert torch.equal(torch.load(tmp_path / "a.pt", weights_only=False)(x), small(x))


@pytest.mark.long
def test_exported_and_compiled(compressed, tmp_path):
    x, small = compressed[1], compressed[2]
    assert torch.allclose(torch.export.export(small, (x,)).module()(x), small(x), atol=1e-6)
    assert torch.allclose(torch.compile(small, backend="eager", fullgraph=True)(x), small(x), atol=1e-6)
    lrp.export_onnx(small, x[:1], tmp_path / "a.onnx")
