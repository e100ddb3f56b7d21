"""Blocks that are told more of each example than what the block before gives, such as which of its tokens count."""

import pytest
import torch
import torch.distributed as dist
from forked import together
from safetensors.torch import load_file, save_file
from torch import nn

import lrp
from lrp.batches import Batches
from lrp.streaming.skeleton import Skeleton
from lrp.streaming.weights import Weights

PARTS = {
    "method": "singular_vectors",
    "blocking": "none",
    "scorer": "perturbation",
    "selection": "lagrangian",
    "compensation": "least_squares",
}
SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 3}


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Linear(6, 16), nn.Linear(16, 6)

    def forward(self, x, told):
        return x + told[0] * self.narrow(torch.tanh(self.wide(x) + told[1]))


class Network(nn.Module):
    """Its even blocks are told one thing of each example, its odd ones another."""

    def __init__(self):
        super().__init__()
        self.blocks, self.head = nn.ModuleList(Block() for _ in range(4)), nn.Linear(6, 5)

    def forward(self, x, a, b):
        shift = torch.ones(1, 1, dtype=x.dtype)
        for i, block in enumerate(self.blocks):
            x = block(x, (a if i % 2 else b, shift))
        return self.head(x)


def compare(make, calibration, folder, blocks, ends, shown):
    """A network compressed block by block, and whole, on the same examples; its outputs on ``shown`` are returned."""
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)  # as they come the layers hardly do anything
    save_file({name: value.clone() for name, value in model.state_dict().items()}, folder / "dense.safetensors")
    given = {"images": 40, "scoring_images": 32, "samples": 300}
    report = lrp.compress_blocks(make, folder / "dense.safetensors", calibration, 0.5, folder / "small", blocks=blocks, **given)
    whole, table = lrp.compress(model, calibration, 0.5, exclude=ends, scoring_images=32, samples=300, forms="auto", **PARTS)
    small = lrp.load_blocks(folder / "small", make)
    ranks = table.set_index("layer")["rank"]
    assert len(report) and list(report["rank"]) == [ranks[name] for name in report["layer"]]
    with torch.no_grad():
        found, expected, dense = (shown(each) for each in (small, whole, model))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert float((found - dense).abs().max()) > 1e-3
    return found


def test_it_is_kept_for_each_example(tmp_path):
    x, a, b = torch.randn(40, 6).double(), torch.rand(40, 1).double(), torch.rand(40, 6).double()
    a[:20] = a[0]  # the same for all of some batches
    compare(lambda: Network().double(), (x, a, b), tmp_path, "blocks", ["head"], lambda model: model(x, a, b))


def test_what_a_batch_holds_beside_the_inputs(tmp_path):
    save_file(Network().state_dict(), tmp_path / "dense.safetensors")
    x, a, b = torch.randn(10, 6), torch.rand(10, 1), torch.rand(10, 6)
    whole = lrp.compress_blocks(Network, tmp_path / "dense.safetensors", (x, a, b), 0.5, tmp_path / "one", blocks="blocks")
    given = [{"x": x, "more": (a, b), "name": "what no network reads"}]
    found = lrp.compress_blocks(
        Network,
        tmp_path / "dense.safetensors",
        given,
        0.5,
        tmp_path / "two",
        blocks="blocks",
        inputs=lambda batch: (batch["x"], *batch["more"]),
    )
    assert found.equals(whole)


def test_what_several_blocks_read_is_kept_once(tmp_path):
    model = Network()
    save_file(model.state_dict(), tmp_path / "dense.safetensors")
    given = Batches.of((torch.randn(5, 6), torch.rand(5, 1), torch.rand(5, 6)), model=model)
    skeleton = Skeleton(model, [f"blocks.{i}" for i in range(4)], Weights(tmp_path / "dense.safetensors"))
    with skeleton.ends():
        skeleton.look(given, 2)
        (_, told), *_ = (skeleton.before(batch) for batch in given.split(2))
    assert [skeleton.told(i) for i in range(4)] == [["0.0"], ["1.0"]] * 2
    assert {name: tuple(value.shape) for name, value in told.items()} == {"0.0": (2, 6), "1.0": (2, 1)}


def test_what_belongs_to_no_example_is_refused(tmp_path):
    class Mean(Network):
        def forward(self, x, a, b):
            return super().forward(x, a.mean(0), b)

    save_file(Mean().state_dict(), tmp_path / "dense.safetensors")
    given = (torch.randn(8, 6), torch.rand(8, 1), torch.rand(8, 6))
    with pytest.raises(
        lrp.InputError, match="^blocks=blocks.1: what it is called with besides differs between batches in what does not run"
    ):
        lrp.compress_blocks(Mean, tmp_path / "dense.safetensors", given, 0.5, tmp_path / "small", blocks="blocks", batch_size=4)


@pytest.mark.slow
def test_two_processes_write_the_same_network(tmp_path):
    torch.manual_seed(0)
    model = Network().double()
    save_file(model.state_dict(), tmp_path / "dense.safetensors")
    given = (torch.randn(300, 6).double(), torch.rand(300, 1).double(), torch.rand(300, 6).double())

    def compress(folder, group=None):
        options = {"blocks": "blocks", "images": 300, "batch_size": 16, "group": group}
        return lrp.compress_blocks(
            lambda: Network().double(), tmp_path / "dense.safetensors", given, 0.5, tmp_path / folder, **options
        ).to_csv()

    whole = compress("whole")
    assert together(2, lambda _: compress("small", dist.group.WORLD), tmp_path / "group") == [whole] * 2
    for file in sorted((tmp_path / "whole").glob("*.safetensors")):
        for name, value in load_file(file).items():
            torch.testing.assert_close(load_file(tmp_path / "small" / file.name)[name], value, rtol=1e-6, atol=1e-9)


def texts(left=False, padding=0):
    """Dicts of eight texts each, as long as the longest of them and ``padding`` more; the last batch has no other padding."""
    generator = torch.Generator().manual_seed(1)
    for number in range(5):
        lengths = torch.randint(3, 9, (8,), generator=generator) if number < 4 else torch.full((8,), 8)
        longest = int(lengths.max())
        mask = (torch.arange(longest + padding) < lengths[:, None]).long()
        ids = torch.where(mask.bool(), torch.randint(1, 50, (8, longest + padding), generator=generator), 0)
        yield {"input_ids": ids.flip(1), "attention_mask": mask.flip(1)} if left else {"input_ids": ids, "attention_mask": mask}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "blocks", "left"), [("Bert", "bert.encoder.layer", False), ("Llama", "model.layers", True), ("GPT2", "transformer.h", False)]
)
def test_texts_of_several_lengths(tmp_path, kind, blocks, left):
    """Networks of transformers give their blocks no mask where nothing is padding."""
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(**SIZES, pad_token_id=0)

    def make():
        return getattr(transformers, f"{kind}ForSequenceClassification")(config).double()

    ends = [
        name
        for name, module in make().named_modules()
        if isinstance(module, nn.Embedding) or name in ("score", "classifier", "bert.pooler")
    ]
    found = compare(make, list(texts(left)), tmp_path, blocks, ends, lambda model: model(**next(texts(left))).logits)
    assert bool(found.isfinite().all())
