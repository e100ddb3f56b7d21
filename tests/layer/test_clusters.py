"""Layers in clusters against the dense layer with the reconstructed weight, alone, tied, in files and exported."""

import copy

import pytest
import torch
from torch import nn

import lrp
from lrp.errors import InputError
from lrp.form.clusters import clustered_form
from lrp.layer.build import kind_of, replace_tied
from lrp.matrices import Block

RANKS = [2, None, 0]  # of the clusters
SIZES = [4, 3, 2]
LAYERS = {
    "linear": (nn.Linear(7, 9), torch.randn(5, 3, 7)),
    "linear, no bias": (nn.Linear(7, 9, bias=False), torch.randn(5, 7)),
    "embedding": (nn.Embedding(9, 6, padding_idx=2), torch.arange(20).view(4, 5) % 9),
    "conv": (nn.Conv2d(9, 6, (3, 2), padding=1, stride=2), torch.randn(2, 9, 6, 7)),
    "conv, circular": (nn.Conv2d(9, 6, 3, padding=1, padding_mode="circular", bias=False), torch.randn(2, 9, 6, 7)),
    "conv 1d": (nn.Conv1d(9, 6, 3, padding="same", dilation=2), torch.randn(2, 9, 8)),
}


def clustered(dense, sizes=SIZES, ranks=RANKS, seed=0):
    """A layer with values of its own, its points in a random order."""
    matrix = kind_of(dense).matrix("", dense)
    form = clustered_form(dense, matrix)
    (M, N), blocks, start = matrix.shape, [], 0
    for i, size in enumerate(sizes):
        span = (start, start + size)
        blocks.append(Block("", i, *span, 0, N) if form.by_rows else Block("", i, 0, M, span[0] * matrix.kernel, span[1] * matrix.kernel))
        start += size
    layer = form(dense, list(zip(blocks, ranks)))
    generator = torch.Generator().manual_seed(seed)
    layer.set_members(torch.randperm(start, generator=generator))
    layer.initialise(generator)
    return layer


def slow_matrix(layer):
    """The matrix block by block, and then every point brought to its place."""
    M, N = layer.rows, layer.columns
    stored, members, kernel = torch.zeros(M, N).double(), layer.members.tolist(), N // layer.points
    for rows in layer.ranges:
        at = 0
        for part in rows.factored:
            U = layer.U[rows.key][:, at : at + part.rank]
            part.block.of(stored).copy_(U @ layer.V[part.key])
            at += part.rank
        for part in rows.whole:
            part.block.of(stored).copy_(layer.W[part.key])
    result = torch.empty_like(stored)
    for place, point in enumerate(members):
        if layer.by_rows:
            result[point] = stored[place]
        else:
            result[:, point * kernel : (point + 1) * kernel] = stored[:, place * kernel : (place + 1) * kernel]
    return result


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_it_runs_as_the_dense_layer(name, alike):
    dense, x = copy.deepcopy(LAYERS[name][0]).double(), LAYERS[name][1]
    x = x.double() if x.is_floating_point() else x
    layer = clustered(dense, [3, 3, 3], [1, 1, 1]) if alike else clustered(dense)
    twin = copy.deepcopy(dense)
    with torch.no_grad():
        W = slow_matrix(layer)
        twin.weight.copy_(kind_of(dense).as_weight(dense, W))
    assert torch.allclose(layer.weight_matrix(), W) and layer.weight.shape == dense.weight.shape
    for mode in (True, False):
        assert torch.allclose(layer.train(mode)(x), twin(x))
    layer(x).square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in layer.parameters())
    if not isinstance(dense, nn.Embedding):
        scale, shift = torch.randn(len(W)).double(), torch.randn(len(W)).double()
        y, ones = layer(x), [1] * (x.dim() - 2 if "conv" in name else 0)
        layer.scale_rows(scale, shift)
        assert torch.allclose(layer(x), y * scale.view(-1, *ones) + shift.view(-1, *ones))
    assert "another order" in layer.plain_layers() and all(q.numel() == layer.points for q in layer.buffers())


def test_equal_clusters_of_channels_are_one_grouped_convolution():
    dense = copy.deepcopy(LAYERS["conv"][0]).double()
    layer, calls = clustered(dense, [3, 3, 3], [2, 2, 2]), []
    form = type(layer)
    layer.convolve = lambda *args, **rest: calls.append(args[6:]) or form.convolve(*args, **rest)
    layer(torch.randn(1, 9, 6, 7).double())
    assert calls == [(3,), ()]  # the grouped one, and 1 x 1


def test_another_rank_keeps_the_order():
    layer = clustered(copy.deepcopy(LAYERS["linear"][0]).double())
    W, order = layer.weight_matrix().detach(), layer.order.clone()
    layer.set_rank(-1)
    assert torch.equal(layer.order, order) and torch.allclose(layer.weight_matrix(), W)
    layer.set_rank(2)
    assert torch.allclose(layer.weight_matrix()[layer.members[:4]], W[layer.members[:4]])  # it had rank 2


class Words(nn.Module):
    """An embedding whose table is an output layer's weight too, and a convolution between them."""

    def __init__(self, tied=True):
        super().__init__()
        self.words, self.conv, self.out = nn.Embedding(9, 6), nn.Conv1d(6, 6, 3, padding=1), nn.Linear(6, 9)
        if tied:
            self.out.weight = self.words.weight

    def forward(self, x):
        return self.out(torch.relu(self.conv(self.words(x).transpose(1, 2))).transpose(1, 2))


def network(tied=True):
    torch.manual_seed(0)
    model = Words(tied).eval()
    replace_tied(model, "words", clustered(model.words))
    model.conv = clustered(model.conv, [2, 4], [2, 1])
    if not tied:
        model.out = clustered(model.out)
    with torch.no_grad():
        for value in model.parameters():
            value.normal_()
    return model, torch.randint(0, 9, (4, 5))


def test_a_tied_head_holds_the_same_factors():
    model, x = network()
    assert model.out.U["0"] is model.words.U["0"] and torch.equal(model.out.order, model.words.order)
    table = model.words.weight_matrix().T
    assert torch.allclose(model.words(x), table[x], atol=1e-6)
    h = torch.randn(3, 6)
    assert torch.allclose(model.out(h), nn.functional.linear(h, table, model.out.bias), atol=1e-5)
    assert len(list(model.parameters())) == len(list(model.words.parameters())) + 1 + len(list(model.conv.parameters()))


@pytest.mark.parametrize("tied", [True, False])
def test_files(tied, tmp_path):
    model, x = network(tied)
    lrp.save(model, tmp_path / "net.safetensors")
    found = lrp.load(tmp_path / "net.safetensors", Words(tied))
    assert torch.equal(found(x), model(x)) and (found.out.U["0"] is found.words.U["0"]) == tied
    model.words.order[:] = 0
    lrp.save(model, tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match="damaged .the order"):
        lrp.load(tmp_path / "bad.safetensors", Words(tied))


@pytest.mark.long
def test_it_is_exported(tmp_path):
    """The exporter runs the file itself, at two sizes of a batch."""
    model, x = network()
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    assert torch.allclose(exported(x[:3]), model(x[:3]), atol=1e-5)
    assert lrp.export_onnx(model, x, tmp_path / "net.onnx") <= 1e-5


def test_a_file_with_blocks_that_are_no_clusters_is_refused():
    dense = nn.Linear(6, 9)
    form, matrix = kind_of(dense).form(dense, "clusters"), kind_of(dense).matrix("out", dense)
    with pytest.raises(ValueError, match="no cluster"):
        form.held(matrix, {"blocks": [[0, 9, 0, 3, 1], [0, 9, 3, 6, 1]]})
