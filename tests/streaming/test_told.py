"""Blocks that are told more of each example than what the block before gives, such as which of its tokens count."""

import pytest
import torch
import torch.distributed as dist
from forked import together
from safetensors.torch import load_file, save_file
from torch import nn

import lrp
from lrp.batches import Batches
from lrp.streaming.calls import Call
from lrp.streaming.cut import Cut
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


class Free(nn.Module):
    """Blocks as a function has them called."""

    def __init__(self, block, called, count=3):
        super().__init__()
        self.blocks, self.head, self.called = nn.ModuleList(block() for _ in range(count)), nn.Linear(6, 5), called

    def forward(self, x, *given):
        for i, block in enumerate(self.blocks):
            x = self.called(block, i, x, *given)
        return self.head(x)


class Plain(Block):
    def forward(self, x, told=0.0):
        return super().forward(x, (1.0, told))


class Beside(nn.Module):
    """What it is told lies beside what it reads: both need as many rows."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Linear(7, 16), nn.Linear(16, 6)

    def forward(self, x, told):
        return x + self.narrow(torch.tanh(self.wide(torch.cat([x, told], 1))))


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


def compare(make, calibration, folder, blocks, ends, shown, forms="auto", sparsity=0.5):
    """A network compressed block by block, and whole, on the same examples, all positions of which are looked at; its outputs on ``shown``
    are returned."""
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)  # as they come the layers hardly do anything
    save_file({name: value.clone() for name, value in model.state_dict().items()}, folder / "dense.safetensors")
    given = {"images": 40, "scoring_images": 32, "samples": 2000}
    report = lrp.compress_blocks(
        make, folder / "dense.safetensors", calibration, sparsity, folder / "small", blocks=blocks, forms=forms, **given
    )
    whole, table = lrp.compress(model, calibration, sparsity, exclude=ends, scoring_images=32, samples=2000, forms=forms, **PARTS)
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


def test_what_is_the_same_where_it_differs_is_not_the_same(tmp_path):
    """Two things that blocks are told: alike in the one batch in which either differs from what it was."""
    x, a, c = torch.randn(40, 6).double(), torch.zeros(40, 1).double(), torch.ones(40, 1).double()
    a[8:16] = c[8:16] = torch.rand(8, 1).double()

    def made():
        return Free(Plain, lambda block, i, x, *given: block(x, given[i % 2])).double()

    compare(made, (x, a, c), tmp_path, "blocks", ["head"], lambda model: model(x, a, c))


CALLED = {
    "as long as a batch": (Plain, lambda block, i, x, a: block(x, torch.ones(8, 1).to(x).mean(0))),
    "as many as a batch holds": (Plain, lambda block, i, x, a: block(x, torch.ones(8).to(x).sum() * a)),
    "a row for each, the same for all": (Beside, lambda block, i, x, a: block(x, torch.full_like(a, 0.3))),
    "one row where all are the same": (Plain, lambda block, i, x, a: block(x, a[:1] if len(a) > 1 and bool((a == a[:1]).all()) else a)),
}


@pytest.mark.parametrize("name", CALLED)
def test_what_blocks_are_called_with(tmp_path, name):
    block, called = CALLED[name]
    x, a = torch.randn(40, 6).double(), torch.rand(40, 1).double()
    a[8:24] = 0.5  # two batches of one value
    compare(lambda: Free(block, called).double(), (x, a), tmp_path, "blocks", ["head"], lambda model: model(x, a))


def test_a_constant_as_long_as_a_batch(tmp_path):
    class Wide(Plain):
        def forward(self, x, told=None):
            return super().forward(x) + told.sum() / 8

    x = torch.randn(40, 6).double()
    made = lambda: Free(Wide, lambda block, i, x: block(x, torch.ones(8).to(x))).double()  # noqa: E731
    compare(made, x, tmp_path, "blocks", ["head"], lambda model: model(x))


@pytest.mark.parametrize(
    ("called", "sentence"),
    [
        (lambda block, i, x, a: block(x, a - a.mean(0)), "depends on the other examples of a batch"),
        (lambda block, i, x, a: block(x, a.T), "depends on the examples otherwise than by a row for each"),
        (lambda block, i, x, a: block(x, None if len(a) == 1 else a), "differs between batches in what does not run over the examples"),
        (lambda block, i, x, a: block(x, object()), "it is called with a object, which cannot be compared from one batch to the next"),
        (lambda block, i, x, a: block(x, len(a)), "depends on the number of examples"),
    ],
)
def test_what_cannot_be_kept_for_each_example_is_refused(tmp_path, called, sentence):
    class Takes(Plain):
        def forward(self, x, told=None):
            return super().forward(x, told if isinstance(told, torch.Tensor) and told.shape == (len(x), 1) else 0.0)

    made = lambda: Free(Takes, called)  # noqa: E731
    save_file(made().state_dict(), tmp_path / "dense.safetensors")
    given = torch.randn(20, 6), torch.rand(20, 1)
    with pytest.raises(lrp.InputError, match=f"^blocks=blocks.0: .*{sentence}"):
        lrp.compress_blocks(made, tmp_path / "dense.safetensors", given, 0.5, tmp_path / "small", blocks="blocks")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("forms", ["auto", "matrix"])
def test_what_is_chosen_does_not_turn_on_rounding(tmp_path, seed, forms):
    """Five blocks, of which some stay dense and are compensated for what comes before them."""
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(seed)).double()
    made = lambda: Free(Plain, lambda block, i, x: block(x), 5).double()  # noqa: E731
    compare(made, x, tmp_path, "blocks", ["head"], lambda model: model(x), forms, (0.2, 0.35, 0.45, 0.55)[seed])


def test_a_block_of_no_layer_that_fits_stays_dense(tmp_path):
    class Conv(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 12, 3, padding=1), nn.Conv2d(12, 4, 3, padding=1)

        def forward(self, x):
            return x + self.b(torch.relu(self.a(x)))

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.Sequential(Conv(), nn.Sequential(nn.Flatten(2), nn.Linear(25, 25), nn.Unflatten(2, (5, 5))), Conv())
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.blocks(x).mean((2, 3)))

    x = torch.randn(40, 4, 5, 5).double()
    compare(lambda: Mixed().double(), x, tmp_path, "blocks", ["head"], lambda model: model(x), ["tucker2"], 0.2)
    save_file(Network().state_dict(), tmp_path / "dense.safetensors")
    given = torch.randn(8, 6), torch.rand(8, 1), torch.rand(8, 6)
    with pytest.raises(lrp.InputError, match=r"^forms=\['tucker2'\]: no layer of this network can be stored so; add matrix$"):
        lrp.compress_blocks(Network, tmp_path / "dense.safetensors", given, 0.5, tmp_path / "no", blocks="blocks", forms="tucker2")
    for forms in ({"matrix"}, ["nope"]):
        with pytest.raises(lrp.InputError, match="^forms=.*: give auto, or a list of "):
            lrp.compress_blocks(Network, tmp_path / "dense.safetensors", given, 0.5, tmp_path / "bad", blocks="blocks", forms=forms)
    assert not (tmp_path / "bad").exists()


def test_a_block_that_is_told_nothing_can_be_traced():
    """What folds batch norms needs its graph."""
    torch.fx.symbolic_trace(Cut(Plain(), Call((), {}, False)))


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
        lrp.InputError, match="^blocks=blocks.1: what it is called with besides depends on the examples otherwise than by a row"
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
