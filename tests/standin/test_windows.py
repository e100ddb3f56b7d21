"""Attention in shifted windows that calls its Linear layers."""

import copy

import pytest
import torch
from helpers import close
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2, SwinTransformer

import lrp
from lrp.standin.replace import with_stand_ins
from lrp.standin.windows import ShiftedWindows


@pytest.mark.parametrize("kind", [ShiftedWindowAttention, ShiftedWindowAttentionV2])
def test_the_original_keeps_its_numbers(kind):
    module = kind(12, [4, 4], [0, 0], 3)
    torch.nn.init.ones_(module.qkv.bias)
    ShiftedWindows().make(module)
    assert bool((module.qkv.bias == 1).all())


@pytest.mark.parametrize("kind", [ShiftedWindowAttention, ShiftedWindowAttentionV2])
@pytest.mark.parametrize("shape", [(8, 8), (7, 10), (4, 4), (3, 9)])
@pytest.mark.parametrize("shift", [[0, 0], [2, 2], [1, 3]])
@pytest.mark.parametrize("bias", [True, False])
def test_it_computes_the_same(kind, shape, shift, bias):
    torch.manual_seed(0)
    module = kind(12, [4, 4], shift, 3, qkv_bias=bias, proj_bias=bias).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    assert ShiftedWindows().stands_for(module)
    other = ShiftedWindows().make(copy.deepcopy(module))
    x = torch.randn(2, *shape, 12).double().requires_grad_()
    a, b = module(x), other(x)
    assert close(b, a)
    if kind is ShiftedWindowAttentionV2 and bias:  # whose bias of the keys is held at zero by torchvision alone
        module.qkv.bias.requires_grad_(False)
        other.qkv.bias.requires_grad_(False)
    signs = torch.randn_like(a)
    ours, theirs = (
        torch.autograd.grad((y * signs).sum(), [x, *(p for p in net.parameters() if p.requires_grad)], allow_unused=True)
        for y, net in ((b, other), (a, module))
    )
    assert all(g is None or close(f, g) for f, g in zip(ours, theirs, strict=True) if g is None or float(g.abs().max()) > 1e-12)


def test_swin_as_it_comes(tmp_path):
    torch.manual_seed(0)

    def make():
        return SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=5).eval()

    model, x = make(), torch.randn(24, 3, 40, 40)
    assert close(with_stand_ins(model)(x), model(x), 1e-5)
    small, report = lrp.compress(model, x, 0.5)
    assert not any("qkv" in name or "proj" in name for name in report.layer[report.what.str.startswith("left alone")])
    lrp.save(small, tmp_path / "a.safetensors")
    assert torch.equal(lrp.load(tmp_path / "a.safetensors", make)(x), small(x))
