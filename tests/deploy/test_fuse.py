"""Batch norms folded away."""

import copy

import pytest
import torch
from deployed import exported, shaken
from torch import nn
from torch.nn import functional as F

import lrp
from lrp.network.trace import Folded


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.slow
@pytest.mark.parametrize("sparsity", [None, 0.5, 0.95])
@pytest.mark.parametrize("blocking", ["none", "square"])
@pytest.mark.parametrize("name, shape", [("narrow_vgg", (3, 32, 32)), ("residual", (3, 8, 8)), ("depthwise", (3, 9, 10))])
def test_fuse_computes_the_same(name, shape, blocking, sparsity, request):
    model, x = request.getfixturevalue(name), torch.randn(4, *shape).double()
    if sparsity is not None:
        model, _ = lrp.compress(model, x, sparsity, blocking=blocking, scoring_images=2, images=4, compensation="none")
    before = copy.deepcopy(model.state_dict())
    model.train()  # the copy is in eval mode all the same
    fused = lrp.fuse(model)
    assert all(m.training for m in model.modules() if not isinstance(m, nn.ParameterDict))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()) and norms(model)
    assert not fused.training and len(norms(fused)) == 0
    assert sum(isinstance(m, Folded) for m in fused.modules()) == len(norms(model))
    model.eval()
    with torch.no_grad():
        y = model(x)
        assert torch.allclose(fused(x), y, rtol=1e-10, atol=1e-10 * max(1.0, float(y.abs().max())))
        scale = max(1.0, float(y.abs().max()))
        assert torch.allclose(lrp.fuse(model.float())(x.float()).double(), y, atol=1e-5 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sequence", "resnet"])
def test_fuse_other_networks(name):
    model, x = exported(name, "square", 0.5)
    model, x = model.double(), x.double()
    fused = lrp.fuse(model)
    with torch.no_grad():
        assert not norms(fused) and torch.allclose(fused(x), model(x), atol=1e-10)
    assert not any(p.requires_grad for p in lrp.fuse(model.requires_grad_(False)).parameters())
    again = lrp.fuse(fused)
    assert torch.equal(again(x), fused(x))


@pytest.mark.slow
def test_a_fused_network_is_in_eval_mode():

    assert [name for name, m in lrp.fuse(exported("small")[0].train()).named_modules() if m.training] == []


def test_batch_norms_that_stay():
    """Before the layer, after a sum, after two layers, over tokens, without statistics, of a layer whose output is read twice."""

    class Stay(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.a, self.b, self.c = nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
            self.sum, self.shared, self.free = nn.BatchNorm1d(6), nn.BatchNorm1d(6), nn.BatchNorm1d(6, track_running_stats=False)

        def forward(self, x):
            y = self.b(self.a(self.first(x)))
            z = self.shared(y) + y
            return self.free(self.c(self.sum(z + x)))

    model, x = shaken(Stay().eval()), torch.randn(8, 6)
    fused = lrp.fuse(model)
    assert len(norms(fused)) == 4 and torch.allclose(fused(x), model(x), atol=1e-5)
    over_tokens = nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(5)).eval()
    assert len(norms(lrp.fuse(over_tokens))) == 1


def test_a_batch_norm_over_as_many_tokens_as_features():
    """Nothing but the input tells it from one over features: it is folded, and refused when tokens come."""
    model, x = shaken(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)).eval()), torch.randn(3, 5, 6)
    fused = lrp.fuse(model)
    assert torch.allclose(fused(x[0]), model(x[0]), atol=1e-5)
    with pytest.raises(lrp.InputError, match="over tokens"):
        fused(x)


def test_a_tied_layer_and_its_batch_norm():
    """Scaling the one weight would scale the other."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(F.relu(self.norm(self.a(x))))

    model, x = shaken(Tied().eval()), torch.randn(4, 6)

    assert torch.allclose(lrp.fuse(model)(x), model(x), atol=1e-5)


def test_a_network_that_cannot_be_traced():
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)

        def forward(self, x):
            return self.norm(self.layer(x)) if x.sum() > 0 else x

    with pytest.raises(lrp.InputError, match="fuse: torch.fx cannot trace") as error:
        lrp.fuse(Outer())
    assert "\n" not in str(error.value)
    without = Outer()
    without.norm = nn.Identity()
    x = torch.randn(4, 3).abs()
    assert torch.equal(lrp.fuse(without)(x), without.eval()(x))  # there is nothing to fold


def test_a_layer_that_a_closure_calls_is_refused():
    """The closure of a copy calls the layers of the original, which are in no place of the copy."""

    class Closed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            held = self.norm
            self.call = lambda x: held(x)

        def forward(self, x):
            return self.call(self.conv(x))

    with pytest.raises(lrp.InputError, match="fuse: torch.fx cannot trace the network .*is not installed as a submodule"):
        lrp.fuse(Closed())
