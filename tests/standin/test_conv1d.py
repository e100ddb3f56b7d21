"""GPT-2 as it comes."""

import pytest
import torch
from torch import nn

import lrp
from lrp.standin.replace import with_stand_ins

transformers = pytest.importorskip("transformers")


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1, initializer_range=0.3
    )
    return transformers.GPT2LMHeadModel(config).eval()


def test_the_same_outputs_and_gradients():
    dense = transformers.pytorch_utils.Conv1D(5, 3).double()
    nn.init.normal_(dense.bias)
    other = with_stand_ins(dense)
    x = torch.randn(2, 4, 3).double()
    assert type(other) is nn.Linear and torch.allclose(other(x), dense(x)) and other.nf == 5
    for layer in (dense, other):
        layer(x).sin().sum().backward()
    assert torch.allclose(other.weight.grad.T, dense.weight.grad)
    assert not with_stand_ins(dense.requires_grad_(False)).weight.requires_grad


def test_a_subclass_stays():
    class Own(transformers.pytorch_utils.Conv1D):
        def forward(self, x):
            return 2 * super().forward(x)

    layer = Own(3, 3)
    assert with_stand_ins(layer) is layer


def test_gpt2(tmp_path):
    model, ids = gpt2(), torch.randint(40, (24, 10))
    compressed, report = lrp.compress(model, ids, 0.5, output=lambda result: result.logits)
    what = dict(zip(report.layer, report.what, strict=True))
    names = [name for name, module in model.named_modules() if type(module).__name__ == "Conv1D"]
    assert len(names) == 8 and not any(what[name].startswith("left alone") for name in names)
    assert compressed.generate(ids[:2], max_new_tokens=3, do_sample=False, pad_token_id=0).shape == (2, 13)
    lrp.save(compressed, tmp_path / "a.safetensors")
    loaded = lrp.load(tmp_path / "a.safetensors", gpt2)
    assert torch.equal(loaded(ids).logits, compressed(ids).logits) and loaded.lm_head.weight is loaded.transformer.wte.weight
    plain, again = lrp.as_plain(compressed), lrp.as_plain(loaded)
    torch.save(plain.state_dict(), tmp_path / "a.pt")
    again.load_state_dict(torch.load(tmp_path / "a.pt"))
    assert isinstance(plain.transformer.h[0].attn.c_attn, nn.Sequential)
    assert torch.equal(again(ids).logits, plain(ids).logits) and torch.allclose(plain(ids).logits, compressed(ids).logits, atol=1e-5)
