"""Networks of transformers on batches as tokenizers give them: padding changes nothing."""

import dataclasses

import pytest
import torch
from helpers import assert_near

import lrp
from lrp.estimator.first_order import FirstOrderEstimator

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 64,
}  # fmt: skip


def network(kind):
    torch.manual_seed(0)
    if kind == "bert":
        model = transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES))
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, num_key_value_heads=2))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)  # as they come the layers hardly do anything
    return model.double().eval()


def batches(padding=0, garbage=3, as_tuple=False, left=False):
    """Six of eight texts, each as long as its longest and ``padding`` more, behind or before (``left``)."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        longest = int(torch.randint(5, 12, (), generator=generator))
        lengths = torch.randint(3, longest + 1, (8,), generator=generator).clamp_(max=longest)
        lengths[0] = longest
        words = torch.randint(1, 50, (8, longest), generator=generator)
        mask = (torch.arange(longest + padding) < lengths[:, None]).long()
        ids = torch.where(mask.bool(), torch.nn.functional.pad(words, (0, padding)), garbage)
        if left:
            starts = mask.shape[1] - mask.sum(1)
            order = (torch.arange(mask.shape[1]) - starts[:, None]) % mask.shape[1]
            ids, mask = ids.gather(1, order), mask.gather(1, order)
        yield (ids, mask) if as_tuple else transformers.BatchEncoding({"input_ids": ids, "attention_mask": mask})


@torch.no_grad()
def outputs(model):
    batch = next(batches())
    logits = model(**batch).logits
    return logits[batch["attention_mask"].bool()] if logits.dim() == 3 else logits


@pytest.mark.parametrize(("kind", "output"), [("bert", "hellinger"), ("llama", "logits")])
def test_more_padding_changes_nothing(kind, output):
    model = network(kind)
    # without the embeddings, beside whose scores those of the layers are rounding here
    exclude = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Embedding)]
    options = {"estimator": FirstOrderEstimator(output=output), "samples": 300, "exclude": exclude}
    small, report = lrp.compress(model, list(batches()), 0.5, **options)
    assert report.attrs["sparsity_params"] >= 0.5
    found = outputs(small)
    assert float((found - outputs(model)).abs().max()) > 1e-3
    for given in (
        {"calibration": batches(9, garbage=7)},
        {"calibration": list(batches(4, as_tuple=True)), "inputs": lambda b: (b[0], b[1])},
        {"calibration": list(batches(4, as_tuple=True)), "inputs": lambda b: ((b[0],), {"attention_mask": b[1]})},
    ):  # fmt: skip
        other, table = lrp.compress(model, sparsity=0.5, **given, **options)
        assert list(table["rank"].fillna(-1)) == list(report["rank"].fillna(-1))
        assert_near(outputs(other), found, 1e-6)


@pytest.mark.parametrize("method", ["output_aware", "lems", "zero_sum", "surgeon"])
def test_the_side_of_the_padding_changes_nothing(method):
    """But rounding: the positions of Llama are relative, so that the tokens that count give the same logits."""
    model = network("llama")
    exclude = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Embedding)]
    options = {"samples": 150, "exclude": exclude, "method": method, "sparsity": 0.5}
    small, report = lrp.compress(model, list(batches()), **options)
    for given in ({"padding": 5}, {"padding": 3, "left": True, "garbage": 7}):
        other, table = lrp.compress(model, list(batches(**given)), **options)
        assert list(table["rank"].fillna(-1)) == list(report["rank"].fillna(-1)), given
        assert_near(outputs(other), outputs(small), 1e-6)


def test_a_mask_is_not_dropped():
    with pytest.raises(
        lrp.InputError, match=r"\(8, \d+\), \(8, \d+\), and forward\(input_ids, attention_mask, .* may take more .*inputs=lambda batch"
    ):
        lrp.compress(network("bert"), list(batches(as_tuple=True)), 0.5)


def test_the_keyword_is_called_as_it_is():
    @dataclasses.dataclass
    class Hidden:
        value: torch.Tensor

    class Odd(torch.nn.Sequential):
        def forward(self, x):
            return Hidden(super().forward(x))

    model = Odd(torch.nn.Linear(4, 5), torch.nn.Linear(5, 3))
    with pytest.raises(lrp.InputError, match="^output=null: the network gives a Hidden; give a function that picks a tensor of it$"):
        lrp.compress(model, torch.randn(9, 4), 0.5)
    with pytest.raises(lrp.InputError, match="^output=.*lambda.*: it cannot read what the network returns"):
        lrp.compress(model, torch.randn(9, 4), 0.5, output=lambda result: result.values)
    with pytest.raises(lrp.InputError, match="^inputs=x: give a function"):
        lrp.compress(model, torch.randn(9, 4), 0.5, inputs="x")
    lrp.compress(model, torch.randn(9, 4), 0.5, output=lambda result: result.value)


def test_a_mask_that_lets_nothing_count():
    batch = {"input_ids": torch.randint(1, 50, (8, 6)), "attention_mask": torch.zeros(8, 6, dtype=torch.long)}
    with pytest.raises(lrp.InputError, match="^calibration: no token counts, attention_mask is 0 everywhere; give 1 where a token counts$"):
        lrp.compress(network("bert"), batch, 0.5)
