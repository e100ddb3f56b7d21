"""The weight of a low-rank layer, for code that looks at it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lrp.errors import InputError
from lrp.layer.hold_rank import at_rank


@pytest.fixture(params=[nn.Linear(6, 5), nn.Conv2d(4, 6, 3, groups=2), nn.Conv1d(3, 4, 2)], ids=["linear", "grouped", "1d"])
def layer(request):
    return at_rank(request.param.double(), 2)


def test_looking_costs_nothing(layer, monkeypatch):
    def never(self):
        raise AssertionError("the weight was made")

    dense = layer.weight_matrix()
    monkeypatch.setattr(type(layer), "weight_matrix", never)
    weight = layer.weight
    assert weight.dtype == torch.float64 and weight.device == dense.device and weight.ndim == weight.dim() == len(weight.shape)
    assert weight.shape[0] == len(weight) == weight.size(0) and weight.numel() == dense.numel() and weight.is_floating_point()
    assert torch.ones(2).to(weight).dtype == torch.float64 and torch.ones(2).type_as(weight).dtype == torch.float64
    assert torch.zeros_like(weight).shape == weight.shape and weight.new_zeros(3).dtype == torch.float64
    assert isinstance(weight, torch.Tensor) and weight.grad is None


def test_values_are_those_of_the_factors(layer):
    weight, dense = layer.weight, layer.weight_matrix().view(layer.weight.shape)
    assert torch.equal(weight.clone(), dense) and torch.equal(weight.flatten(1), dense.flatten(1)) and torch.equal(weight[0], dense[0])
    assert torch.equal(weight * 2, dense * 2) and torch.equal(2 * weight, 2 * dense) and bool((weight == dense).all())
    assert torch.equal(weight.data.clone(), dense) and not weight.detach().clone().requires_grad
    assert "tensor(" in repr(weight)
    F.linear(torch.ones(1, weight[0].numel()).double(), weight.flatten(1)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for name, p in layer.named_parameters() if name != "bias")


WRITES = {
    "copy_": lambda w: w.copy_(torch.zeros(())),
    "data": lambda w: w.data.mul_(2),
    "detached": lambda w: w.detach().zero_(),
    "init": nn.init.zeros_,
    "index": lambda w: w.__setitem__(0, 1.0),
    "augmented": lambda w: w.__iadd__(1),
    "out": lambda w: torch.add(w, w, out=w),
    "data set": lambda w: setattr(w, "data", torch.zeros(1)),
    "requires_grad_": lambda w: w.requires_grad_(False),
    "init by name": lambda w: nn.init.normal_(tensor=w),
    "init of torch": nn.init.kaiming_uniform_,
    "into a row": lambda w: w[0].zero_(),
    "into a column of its data": lambda w: w.data[:, 0].fill_(9.0),
    "into another shape": lambda w: w.view(-1).zero_(),
    "into its transpose": lambda w: w.transpose(0, 1).zero_(),
    "into a chunk": lambda w: w.chunk(2)[0].zero_(),
    "a row added to": lambda w: w[0].__iadd__(1),
}


@pytest.mark.parametrize("how", WRITES)
def test_writing_is_refused(layer, how):
    with pytest.raises(InputError, match="the weight of a low-rank layer is made from its factors and cannot be written"), torch.no_grad():
        WRITES[how](layer.weight)


def test_a_weight_cannot_be_set():
    layer = at_rank(nn.Linear(4, 4), 1)
    with pytest.raises(InputError, match="^weight=Parameter: the weight of a compressed layer is made from its factors and cannot be set"):
        layer.weight = nn.Parameter(torch.ones(4, 4))
    assert "weight" not in layer._parameters
