"""Low-rank layers as plain layers of torch."""

import pytest
import torch
from torch import nn
from torch.ao.quantization import get_default_qconfig_mapping, quantize_dynamic
from torch.ao.quantization.quantize_fx import prepare_fx

import lrp
from lrp.layer.compressed import Compressed

X, IMAGES = torch.randn(96, 32), torch.randn(8, 3, 12, 12)


def small(layers, x, blocking="none"):
    options = {"blocking": blocking, "scorer": "magnitude", "compensation": "none", "selection": "uniform"}
    return lrp.compress(nn.Sequential(*layers), x, 0.5, **options)[0].eval()


@pytest.fixture
def linear():
    return lrp.compress(nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 10)), X, scorer="magnitude", compensation="none")[
        0
    ].eval()


@pytest.fixture
def conv():
    layers = [
        nn.Conv2d(3, 16, 3, padding=1, padding_mode="reflect"),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2),
        nn.Flatten(),
        nn.Linear(400, 10),
    ]
    return lrp.compress(nn.Sequential(*layers), IMAGES, 0.5, scorer="magnitude", compensation="none", selection="uniform")[0].eval()


def test_it_computes_the_same_with_plain_layers(linear, conv):
    for model, x in ((linear, X), (conv, IMAGES)):
        plain = lrp.unfold(model)
        assert torch.allclose(plain(x), model(x), atol=1e-5) and not any(isinstance(module, Compressed) for module in plain.modules())
        assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in model.parameters())
        plain(x).sum().backward()
        assert all(p.grad is None for p in model.parameters())


@pytest.mark.slow
def test_other_tools_see_the_factors(linear, conv):
    plain = lrp.unfold(linear)
    assert str(quantize_dynamic(plain, {nn.Linear})).count("DynamicQuantizedLinear") == 4
    assert torch.equal(torch.jit.script(plain)(X), plain(X))
    assert torch.equal(torch.fx.symbolic_trace(conv)(IMAGES), conv(IMAGES))
    prepare_fx(lrp.unfold(conv), get_default_qconfig_mapping("x86"), (IMAGES,))


def test_several_blocks_stay(caplog):
    model = small([nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 10)], X, "alds")
    plain = lrp.unfold(model)
    assert torch.equal(plain(X), model(X)) and "layer 0 stays as it is: it has several blocks" in caplog.text


def test_nothing_to_unfold():
    with pytest.raises(lrp.InputError, match="model=Linear: it has no low-rank layer"):
        lrp.unfold(nn.Linear(3, 4))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_told_to_take_plain_layers(linear):
    with pytest.raises(lrp.InputError, match=r"torch.jit.script knows no compressed layer; use torch.jit.trace, or script"):
        torch.jit.script(linear)
    assert any(isinstance(module, Compressed) for module in linear.modules())  # the network is as it was
    assert torch.equal(torch.jit.trace(linear, X)(X), linear(X))


@pytest.mark.parametrize("kind", ["encoder", "attention"])
def test_code_that_looks_at_layers_finds_what_it_looks_for(kind):
    """torch's encoder layers read the biases of attention and the weights of Linear layers."""

    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(32, 4, kdim=16, vdim=24, batch_first=True)

        def forward(self, x):
            return self.attention(x, x[..., :16], x[..., :24])[0]

    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    model = (nn.TransformerEncoder(layer, 2) if kind == "encoder" else Attends()).eval()
    x = torch.randn(48, 12, 32)
    small, _ = lrp.compress(model, x, 0.5)
    plain = lrp.as_plain(small)
    with torch.no_grad():
        assert torch.allclose(plain(x), small(x), atol=1e-5)
    chain = next(module for module in plain.modules() if isinstance(module, nn.Sequential) and len(module) == 2)
    name = next(name for name, module in plain.named_modules() if module is chain)
    assert chain.weight.shape == small.get_submodule(name).weight.shape and chain.in_features == small.get_submodule(name).in_features
    assert torch.allclose(chain.weight @ torch.eye(chain.in_features), small.get_submodule(name).weight_matrix(), atol=1e-6)


@pytest.mark.parametrize("within", [torch.inference_mode, lambda: torch.device("meta")])
def test_what_is_made_within_inference_mode_or_another_default_device_trains(tmp_path, within):
    """Tensors made in inference_mode would be refused by autograd ever after."""

    def dense():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.Flatten(), nn.Linear(32, 8)).eval()

    small = lrp.hold_rank(dense(), {"0": 3, "3": 3})
    model = dense()
    with within():
        lrp.save(small, tmp_path / "a.safetensors")
        made = [lrp.load(tmp_path / "a.safetensors", dense), lrp.fuse(small), lrp.unfold(small), lrp.hold_rank(model, {"0": 3})]
    for network in made:
        network(torch.randn(5, 4, 6)).sum().backward()
        assert any(parameter.grad is not None for parameter in network.parameters())


class Up(nn.Module):
    """Halves an image and asks for its size again."""

    def __init__(self, kernel):
        super().__init__()
        self.down, self.up, self.last = nn.Conv2d(3, 12, 3, 2, 1), nn.ConvTranspose2d(12, 12, kernel, 2, 1), nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, x):
        return self.last(self.up(self.down(x).relu(), output_size=[12, 12]))


def test_a_transposed_convolution_is_still_asked_for_a_size():
    torch.manual_seed(0)
    small, _ = lrp.compress(Up(4).eval(), IMAGES, 0.6)
    assert isinstance(small.up, Compressed)
    plain = lrp.as_plain(small)
    assert not isinstance(plain.up, Compressed) and torch.allclose(plain(IMAGES), small(IMAGES), atol=1e-5)
    assert torch.allclose(torch.jit.script(plain)(IMAGES), small(IMAGES), atol=1e-5)


def test_one_that_is_asked_for_another_size_than_its_own_stays_dense():
    small, report = lrp.compress(Up(3).eval(), IMAGES, 0.6)
    assert "of another size than its own" in report.set_index("layer").what["up"]
    assert small(IMAGES).shape == IMAGES.shape
