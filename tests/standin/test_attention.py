"""Attention that stands in for torch's computes what torch's does."""

import itertools

import pytest
import torch
from torch import nn

import lrp
from lrp.network.frozen import FrozenNetwork
from lrp.standin.attention import Attention
from lrp.standin.replace import with_stand_ins

B, L, E, HEADS = 3, 4, 8, 2
PADDING = [None, "bool", "float"]
MASKS = [None, "bool", "float", "every head"]


def attention(**options):
    layer = nn.MultiheadAttention(E, HEADS, **options).double()
    for name, parameter in layer.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter)
    return layer


def masks(padding, mask, whole):
    ends = torch.zeros(B, L, dtype=torch.bool)
    ends[0, -1] = ends[1, -2:] = True
    later = torch.ones(L, L, dtype=torch.bool).triu(1)
    given = {
        "key_padding_mask": {None: None, "bool": ends, "float": torch.randn(B, L).double()}[padding],
        "attn_mask": {
            None: None, "bool": later, "float": torch.zeros(L, L).double().masked_fill(later, -torch.inf),
            "every head": later.expand(B * HEADS, L, L),
        }[mask],
    }  # fmt: skip
    if not whole and padding is not None:
        given["key_padding_mask"] = given["key_padding_mask"][0]
    if not whole and mask == "every head":
        given["attn_mask"] = given["attn_mask"][:HEADS]
    return given


@pytest.mark.filterwarnings("ignore:Support for mismatched")
@pytest.mark.parametrize("whole", [True, False], ids=["a batch", "one example"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"kdim": 6, "vdim": 5}, {"add_bias_kv": True}, {"add_zero_attn": True, "add_bias_kv": True, "bias": False}],
    ids=str,
)
def test_the_same_outputs_weights_and_gradients(options, batch_first, whole):
    dense = attention(batch_first=batch_first, **options)
    other = with_stand_ins(dense)
    widths = (E, options.get("kdim", E), options.get("vdim", E))
    shapes = [(B, L, width) if batch_first else (L, B, width) for width in widths]
    inputs = [torch.randn(shape if whole else (L, shape[-1])).double() for shape in shapes]
    for padding, mask, weights, average, causal in itertools.product(PADDING, MASKS, [True, False], [True, False], [False, True]):
        if causal and mask is None:
            continue
        said = {"need_weights": weights, "average_attn_weights": average, "is_causal": causal, **masks(padding, mask, whole)}
        found = []
        for layer in (dense, other):
            given = [value.clone().requires_grad_() for value in inputs]
            output, seen = layer(*given, **said)
            found.append([output, *([] if seen is None else [seen]), *torch.autograd.grad(output.sin().sum(), given)])
        assert [value.shape for value in found[0]] == [value.shape for value in found[1]], said
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*found, strict=True)), said


def test_gradients_of_the_matrices():
    dense = attention()
    other = with_stand_ins(dense)
    x = torch.randn(L, B, E).double()
    for layer in (dense, other):
        layer(x, x, x)[0].square().sum().backward()
    joined = torch.cat([getattr(other, f"{name}_proj").weight.grad for name in "qkv"])
    assert torch.allclose(joined, dense.in_proj_weight.grad) and torch.equal(other.in_proj_weight, dense.in_proj_weight)
    assert torch.equal(other.in_proj_bias, dense.in_proj_bias) and with_stand_ins(attention(bias=False)).in_proj_bias is None


@pytest.mark.parametrize("weights", [True, False])
def test_dropout_draws_the_same(weights):
    dense = attention(dropout=0.5)
    other = with_stand_ins(dense)
    x = torch.randn(L, B, E).double()
    found = []
    for layer in (dense, other):
        torch.manual_seed(3)
        found.append(layer.train()(x, x, x, need_weights=weights)[0])
    assert torch.allclose(*found) and not torch.allclose(found[0], dense.eval()(x, x, x)[0])


def test_what_is_refused_as_torch_does():
    layer = with_stand_ins(attention())
    x = torch.randn(L, B, E).double()
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        layer(x, x, x, is_causal=True)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_encoders_call_it():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).double().eval()
    x = torch.randn(4, 5, 16).double()
    ends = torch.zeros(4, 5, dtype=torch.bool)
    ends[0, 3:] = ends[1, 4:] = True
    later = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    other = with_stand_ins(encoder)
    assert isinstance(other.layers[0].self_attn, Attention) and encoder.use_nested_tensor and not other.use_nested_tensor
    calls = []
    other.layers[1].self_attn.q_proj.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        assert torch.allclose(other(x), encoder(x))
        assert torch.allclose(other(x, src_key_padding_mask=ends)[~ends], encoder(x, src_key_padding_mask=ends)[~ends])
        assert torch.allclose(other(x, mask=later, is_causal=True), encoder(x, mask=later, is_causal=True))
        nested = torch.nested.nested_tensor([x[0, :3], x[1]])
        assert all(torch.allclose(a, b) for a, b in zip(other(nested).unbind(), encoder(nested).unbind(), strict=True))
    assert len(calls) == 4


def test_it_can_be_traced_exported_and_compiled():
    encoder = with_stand_ins(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval())
    x = torch.randn(2, 5, 16)
    q = with_stand_ins(nn.MultiheadAttention(16, 2, batch_first=True).eval())
    fixed = {"key_padding_mask": None, "need_weights": True, "attn_mask": None, "average_attn_weights": True, "is_causal": False}
    assert torch.equal(torch.fx.symbolic_trace(q, fixed)(x, x, x)[0], q(x, x, x)[0])
    assert torch.allclose(torch.export.export(encoder, (x,)).module()(x), encoder(x), atol=1e-6)
    assert torch.allclose(torch.compile(encoder, backend="eager", fullgraph=True)(x), encoder(x), atol=1e-6)


def test_a_vision_transformer(tmp_path):
    models = pytest.importorskip("torchvision.models")

    def make():
        return models.VisionTransformer(image_size=16, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3)

    model, x = make().eval(), torch.randn(40, 3, 16, 16)
    nn.init.normal_(model.heads.head.weight)
    assert FrozenNetwork(with_stand_ins(model), x[:1]).untraced is None
    compressed, report = lrp.compress(model, x, 0.4)
    layers = {f"encoder.layers.encoder_layer_0.self_attention.{name}_proj" for name in ("q", "k", "v", "out")}
    assert layers <= set(report.layer[~report.what.str.startswith("left alone")])
    assert report.attrs["params_total"] < 0.7 * report.attrs["params_total_dense"]
    lrp.save(compressed, tmp_path / "a.safetensors")
    assert torch.equal(lrp.load(tmp_path / "a.safetensors", make)(x), compressed(x))
    assert torch.allclose(lrp.unfold(compressed)(x), compressed(x), atol=1e-5)
