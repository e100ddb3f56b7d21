"""Low-rank layers against the dense layer with the reconstructed weight."""

import copy

import pytest
import torch
import yaml
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lrp.command_line import CONF
from lrp.decomposition import decompose
from lrp.layers import build, low_rank_layer, stored_params
from lrp.matrices import layer_matrices
from lrp.selection import GlobalSelection

BLOCKINGS = [instantiate(yaml.safe_load(file.read_text())) for file in sorted(CONF.glob("blocking/*.yaml"))]
LAYERS = {
    "plain": (nn.Conv2d(6, 10, 3, padding=1), (6, 9, 9)),
    "stride, no bias": (nn.Conv2d(7, 12, 3, stride=2, bias=False), (7, 9, 8)),
    "rectangle, dilation": (nn.Conv2d(5, 40, (1, 3), stride=(2, 1), padding=(0, 2), dilation=(1, 2)), (5, 9, 7)),
    "same": (nn.Conv2d(6, 8, 4, padding="same", dilation=2), (6, 10, 9)),
    "valid": (nn.Conv2d(3, 8, 3, padding="valid"), (3, 6, 6)),
    "reflect": (nn.Conv2d(6, 8, 3, padding=(1, 2), padding_mode="reflect"), (6, 7, 8)),
    "circular, same": (nn.Conv2d(6, 8, 3, padding="same", padding_mode="circular"), (6, 7, 8)),
    "pointwise": (nn.Conv2d(20, 9, 1), (20, 5, 5)),
    "linear": (nn.Linear(17, 30), (17,)),
    "linear, wide": (nn.Linear(40, 7, bias=False), (40,)),
    "linear over tokens": (nn.Linear(12, 12), (3, 5, 12)),
}


def prune(layer, blocking, keep_share, seed=0):
    """(factors, keep masks that are dense where factors would not be smaller, the weight they amount to)"""
    matrices = layer_matrices(nn.Sequential(layer))
    factors = decompose(matrices, blocking(matrices))
    generator = torch.Generator().manual_seed(seed)
    keep, weight = [], torch.zeros_like(layer.weight.flatten(1))
    for f in factors:
        mask = torch.rand(f.block.rank, generator=generator) < keep_share
        if f.block.is_dense(int(mask.sum())):
            mask[:] = True
        keep.append(mask)
        f.block.of(weight)[:] = (f.U[:, mask] * f.S[mask]) @ f.Vh[mask]
    return factors, keep, weight.view_as(layer.weight)


@pytest.mark.parametrize("share", [0.0, 0.15, 0.4, 0.8, 1.0])
@pytest.mark.parametrize("blocking", BLOCKINGS, ids=lambda b: b.name)
@pytest.mark.parametrize("name", LAYERS)
def test_equals_the_dense_layer_with_the_reconstructed_weight(name, blocking, share):
    layer, shape = copy.deepcopy(LAYERS[name][0]), LAYERS[name][1]
    x = torch.randn(2, *shape)
    with torch.no_grad():
        factors, keep, weight = prune(layer, blocking, share)
        pruned = low_rank_layer(layer, factors, keep)
        dense = copy.deepcopy(layer)
        dense.weight.copy_(weight)
        assert torch.allclose(pruned(x), dense(x), atol=1e-5)
        stored = sum(p.numel() for n, p in pruned.named_parameters() if n != "bias")
        assert stored == stored_params([f.block for f in factors], keep)
        if pruned is not layer:
            assert torch.allclose(pruned.weight_matrix(), weight.flatten(1), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 9), st.sampled_from([(1, 1), (3, 3), (1, 2)]), st.integers(1, 5),
    st.sampled_from(range(len(BLOCKINGS))), st.floats(0, 1), st.integers(0, 99),
)  # fmt: skip
def test_any_shape(out, channels, kernel, k, which, share, seed):
    layer = nn.Conv2d(channels, out, kernel, padding=1).double()
    blocking = type(BLOCKINGS[which])(k)
    with torch.no_grad():
        factors, keep, weight = prune(layer, blocking, share, seed)
        x = torch.randn(2, channels, 4, 4).double()
        expected = torch.nn.functional.conv2d(x, weight, layer.bias, padding=1)
        assert torch.allclose(low_rank_layer(layer, factors, keep)(x), expected, atol=1e-10)


def test_sparsity_zero_is_bit_for_bit_dense(small_vgg):
    matrices = layer_matrices(small_vgg)
    x = torch.randn(2, 3, 32, 32).double()
    for blocking in BLOCKINGS:
        factors = decompose(matrices, blocking(matrices))
        keep = GlobalSelection()([f.block for f in factors], [f.S for f in factors], 0)
        assert torch.equal(build(small_vgg, factors, keep)(x), small_vgg(x))


@pytest.mark.parametrize("blocking", BLOCKINGS, ids=lambda b: b.name)
def test_a_network_may_lose_everything(small_vgg, blocking):
    """The paper's layer collapse: biases are left, nothing crashes, the original is untouched."""
    before = copy.deepcopy(small_vgg.state_dict())
    matrices = layer_matrices(small_vgg)
    factors = decompose(matrices, blocking(matrices))
    pruned = build(small_vgg, factors, [torch.zeros(f.block.rank, dtype=bool) for f in factors])
    out = pruned(torch.randn(3, 3, 32, 32).double())
    assert torch.allclose(out, small_vgg.classifier.bias.expand(3, -1))
    assert not any(isinstance(m, nn.Conv2d) for m in pruned.modules())
    assert all(torch.equal(before[k], v) for k, v in small_vgg.state_dict().items())


def test_factors_are_balanced_and_train():
    layer = nn.Linear(20, 20)
    factors, keep, _ = prune(layer, BLOCKINGS[[b.name for b in BLOCKINGS].index("none")], 0.3)
    pruned = low_rank_layer(layer, factors, keep)
    U, V = pruned.U["0"], pruned.V["0_0"]
    assert torch.allclose(U.norm(dim=0), V.norm(dim=1), rtol=1e-5)
    pruned(torch.randn(4, 20)).sum().backward()
    assert U.grad is not None and V.grad is not None and pruned.bias.grad is not None


def test_state_and_copies_round_trip(small_vgg):
    matrices = layer_matrices(small_vgg)
    factors = decompose(matrices, BLOCKINGS[-1](matrices))
    keep = GlobalSelection()([f.block for f in factors], [f.S for f in factors], 0.7)
    pruned, x = build(small_vgg, factors, keep), torch.randn(2, 3, 32, 32).double()
    twin = copy.deepcopy(pruned)
    for parameter in twin.parameters():
        parameter.data.zero_()
    twin.load_state_dict(pruned.state_dict())
    assert torch.equal(twin(x), pruned(x))
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in small_vgg.parameters())
