"""Experts that transformers joins in one parameter, taken apart."""

import pytest
import torch

import lrp
from lrp.standin.experts import Experts
from lrp.standin.replace import stand_ins, with_stand_ins

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "num_experts_per_tok": 2, "max_position_embeddings": 32, "head_dim": 8,
}  # fmt: skip


def mixtral():
    config = transformers.MixtralConfig(**SIZES, num_local_experts=4, initializer_range=0.3)
    return transformers.MixtralForCausalLM(config).eval()


def networks():
    qwen = transformers.Qwen3MoeConfig(**SIZES, num_experts=4, moe_intermediate_size=12, initializer_range=0.3)
    gpt_oss = transformers.GptOssConfig(**SIZES, num_local_experts=4, initializer_range=0.3)
    yield mixtral()
    yield transformers.Qwen3MoeForCausalLM(qwen).eval()
    yield transformers.GptOssForCausalLM(gpt_oss).eval()


@pytest.mark.parametrize("dense", networks(), ids=lambda network: type(network).__name__)
def test_the_same_outputs_and_gradients(dense):
    ids = torch.randint(40, (3, 9))
    dense = dense.double()
    dense.config._experts_implementation = "eager"  # the others know no float64
    other = with_stand_ins(dense)
    assert stand_ins(other) == {"model.layers.0.mlp.experts": "transformers.Experts"}
    assert torch.allclose(other(ids).logits, dense(ids).logits)
    for network in (dense, other):
        network.zero_grad()
        network(ids).logits.sin().sum().backward()
    whole, parts = dense.model.layers[0].mlp.experts, other.model.layers[0].mlp.experts
    for e in range(4):
        expected = whole.down_proj.grad[e].T if whole.is_transposed else whole.down_proj.grad[e]
        assert torch.allclose(getattr(parts, str(e)).down.weight.grad, expected)


def test_experts_that_compute_something_else_stay():
    model = mixtral()
    experts = model.model.layers[0].mlp.experts
    kind = type(experts)

    class Doubled(kind):
        def forward(self, *args):
            return 2 * super().forward(*args)

    experts.__class__ = Doubled
    assert with_stand_ins(model) is model


def test_compressed_saved_and_loaded(tmp_path):
    model, ids = mixtral(), torch.randint(40, (8, 9))
    compressed, report = lrp.compress(
        model, ids, 0.5, output=lambda result: result.logits, method="svd_energy", decomposition="svd", compensation="none"
    )
    experts = report[report.layer.str.contains("experts")]
    assert len(experts) == 8 and "low rank" in set(experts.what)
    attention_and_head = report[~report.layer.str.contains("experts")].macs_before.sum()
    assert report.attrs["macs_dense"] >= attention_and_head + experts.macs_before.sum() > attention_and_head
    lrp.save(compressed, tmp_path / "a.safetensors")
    loaded = lrp.load(tmp_path / "a.safetensors", mixtral)
    assert isinstance(loaded.model.layers[0].mlp.experts, Experts)
    assert torch.equal(loaded(ids).logits, compressed(ids).logits)
    assert loaded.generate(ids[:1], max_new_tokens=2, do_sample=False, pad_token_id=0).shape == (1, 11)
