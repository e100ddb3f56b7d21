"""Low-rank transposed convolutions compute what dense ones with their weight do."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lrp
from lrp.layer.build import kind_of
from lrp.matrices import Block

OPTIONS = [
    {"kernel_size": kernel, "stride": stride, "padding": padding, "output_padding": more, "dilation": dilation, "groups": groups}
    for kernel, stride, padding, more, dilation, groups in itertools.product([1, 3], [1, 2], [0, 1, 3], [0, 1], [1, 2], [1, 2])
    if more < max(stride, dilation) and not (kernel == 1 and padding)
]


def low_rank(dense, rank):
    kind, groups = kind_of(dense), dense.groups
    rows, columns = dense.out_channels // groups, kind.matrix("", dense).shape[1]
    layer = kind.low_rank(dense, [(Block("", g, g * rows, (g + 1) * rows, 0, columns), rank) for g in range(groups)])
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("make, shape", [(nn.ConvTranspose1d, (9,)), (nn.ConvTranspose2d, (8, 9))], ids=["1d", "2d"])
def test_equals_the_dense_layer_with_its_weight(make, shape, rank):
    for options in OPTIONS:
        dense = make(4, 6, **options).double()
        layer = low_rank(dense, rank)
        dense.weight, dense.bias = nn.Parameter(layer.weight + 0), layer.bias
        x = torch.randn(2, 4, *shape).double()
        assert torch.allclose(layer(x), dense(x)) and torch.allclose(layer(x[0]), dense(x[0])), options
        if options["stride"] == 2:
            size = [n + 1 - options["output_padding"] for n in dense(x).shape[2:]]
            assert torch.allclose(layer(x, output_size=size), dense(x, output_size=size)), options


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up, self.norm = nn.Conv2d(3, 16, 3, 2, 1), nn.ConvTranspose2d(16, 12, 4, 2, 1, bias=False), nn.BatchNorm2d(12)
        self.out = nn.ConvTranspose2d(12, 2, 2, 2)

    def forward(self, x):
        return self.out(F.relu(self.norm(self.up(F.relu(self.down(x)))))).mean((2, 3))


@pytest.mark.parametrize(
    "options",
    [{}, {"method": "svd_energy", "budget": "macs"}, pytest.param({"estimator": "exact", "forms": "matrix"}, marks=pytest.mark.long)],
    ids=str,
)
def test_a_network_with_one(options, tmp_path):
    torch.manual_seed(0)
    model, x = UNet().eval(), torch.randn(30, 3, 8, 8)
    compressed, report = lrp.compress(model, x, 0.5, **options)
    assert report.set_index("layer").what["up"] == "low rank"
    a = report.attrs
    assert a["macs"] == a["macs_layers"] < a["macs_dense"] == a["macs_layers_dense"]  # as torch counts them while they run
    uncompensated = lrp.compress(model, x, 0.5, **options, compensation="none")[0]
    assert options.get("method") or (compressed(x) - model(x)).norm() < 0.5 * (uncompensated(x) - model(x)).norm()
    lrp.save(compressed, tmp_path / "a.safetensors")
    assert torch.equal(lrp.load(tmp_path / "a.safetensors", UNet)(x), compressed(x))
    lrp.export_onnx(compressed, x[:1], tmp_path / "a.onnx")
    plain = lrp.unfold(compressed)
    assert [type(layer) for layer in plain.up] == [nn.ConvTranspose2d, nn.Conv2d] and torch.allclose(plain(x), compressed(x), atol=1e-6)
    for network in (model, compressed):
        assert torch.allclose(lrp.fuse(network)(x), network(x), atol=1e-6)
