"""A network compressed block by block is the one that is compressed whole, and it is never held whole."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import lrp
from lrp.blocking.none import Unblocked
from lrp.decomposition.base import decompose
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.evidence import Evidence
from lrp.partition import cut
from lrp.streaming import run as streaming
from lrp.streaming.skeleton import Skeleton
from lrp.streaming.ways import read_scores

PARTS = {"blocking": "none", "decomposition": "svd", "selection": "lagrangian", "compensation": "least_squares"}

OUTSIDE = ["first", "last", "tied", "head"]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(10, 24), nn.Linear(24, 10, bias=False)

    def forward(self, x, scale, shift=0.0):
        return (x + scale * self.narrow(torch.tanh(self.wide(x) + shift)), "more")


class Network(nn.Module):
    """What blocks are called with besides, a tuple that they give, tied weights, a buffer that no file holds."""

    def __init__(self, count=3) -> None:
        super().__init__()
        self.first = nn.Linear(6, 10)
        self.blocks = nn.ModuleList(Block() for _ in range(count))
        self.last, self.tied = nn.Linear(10, 10), nn.Linear(10, 10)
        self.tied.weight = self.last.weight
        self.head = nn.Linear(10, 5)
        self.register_buffer("scale", torch.tensor([0.7]), persistent=False)

    def forward(self, x):
        x = self.first(x)
        for i, block in enumerate(self.blocks):
            x, _ = block(x, self.scale.to(x), shift=0.1 * i)
        return self.head(self.tied(torch.relu(self.last(x))).mean(1))


def make():
    return Network().double()


@pytest.fixture
def given(tmp_path):
    """(the network, the folder with its weights in two files and an index, examples)"""
    torch.manual_seed(0)
    model, folder = make().eval(), tmp_path / "dense"
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    folder.mkdir()
    state = {name: value for name, value in model.state_dict().items() if name != "tied.weight"}
    shards = {name: f"{'a' if 'blocks.1' in name else 'b'}.safetensors" for name in state}
    for file in set(shards.values()):
        save_file({name: value for name, value in state.items() if shards[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    return model, folder, torch.randn(40, 3, 6).double()


def compress(given, to, sparsity=0.5, **options):
    _, folder, x = given
    return lrp.compress_blocks(make, folder, x, sparsity, to, **{"blocks": "blocks", "batch_size": 16, **options})


def test_what_a_block_freed_is_given_back(given, tmp_path, monkeypatch):
    """After each block of each pass, or memory would grow with the depth of the network."""
    seen = []
    monkeypatch.setattr(streaming, "give_back", lambda: seen.append(sorted(file.name for file in (tmp_path / "small/work").glob("*.done"))))
    compress(given, tmp_path / "small")
    finished = [sum(name.startswith(("forward", "backward", "compress")) for name in names) for names in seen]
    assert finished == [1, 2, 3, 4, 5, 6, 7, 8, 9], "three passes over three blocks"


@pytest.mark.parametrize("forms", ["auto", "matrix", ["pivoted"]])
def test_it_is_what_compressing_the_whole_gives(given, tmp_path, forms):
    """The same metric: the network has no more outputs than are differentiated."""
    model, _, x = given
    report = compress(given, tmp_path / "small", forms=forms)
    whole, table = lrp.compress(
        model,
        x,
        0.5,
        method="singular_vectors",
        scorer="perturbation",
        scoring_images=32,
        exclude=OUTSIDE,
        forms=forms,
        **PARTS,
    )
    assert list(report["what"]) == [table.set_index("layer")["what"][name] for name in report["layer"]]
    small = lrp.load_blocks(tmp_path / "small", make)
    ranks = table.set_index("layer")["rank"]
    assert {layer: rank for layer, rank in zip(report["layer"], report["rank"])} == {name: ranks[name] for name in report["layer"]}
    torch.testing.assert_close(small(x), whole(x), rtol=1e-7, atol=1e-7)
    assert float((small(x) - model(x)).detach().abs().max()) > 1e-3


def test_scores_are_those_of_the_whole_network(given, tmp_path, monkeypatch):
    """Gradients are found from one block at a time."""
    model, _, x = given
    kept = {}
    monkeypatch.setattr(streaming.Run, "compress", lambda run, *_: kept.update(run=run))
    compress(given, tmp_path / "small")
    evidence = Evidence(model, x, scoring_images=32).of(FirstOrderEstimator(), OUTSIDE, 100)
    factors = decompose(evidence.matrices, cut(Unblocked(), evidence.matrices))
    expected = {factor.block.layer: moments.second.sum(1) for factor, moments in zip(factors, evidence.moments(factors), strict=True)}
    for k in range(3):
        blocks, scores = read_scores(kept["run"].work, k)
        for block, score in zip(blocks, scores, strict=True):
            torch.testing.assert_close(score, expected[f"blocks.{k}.{block.layer.removeprefix('block.')}"], rtol=1e-8, atol=0)


def test_what_is_excluded_is_left_alone(given, tmp_path):
    report = compress(given, tmp_path / "small", exclude=["blocks.1", "*.wide"])
    assert set(report["layer"]) == {"blocks.0.narrow", "blocks.2.narrow"}


def test_nothing_removed_is_the_network_itself(given, tmp_path):
    compress(given, tmp_path / "same", 0.0)
    assert torch.equal(lrp.load_blocks(tmp_path / "same", make)(given[2]), given[0](given[2]))


def test_one_block_is_held_at_a_time(given, tmp_path, monkeypatch):
    seen = []

    def watched(skeleton, number, block=Skeleton.block):
        held = block(skeleton, number)
        seen.append([name for name, value in skeleton.model.named_parameters() if not value.is_meta])
        return held

    monkeypatch.setattr(Skeleton, "block", watched)
    compress(given, tmp_path / "small")
    assert len(seen) == 9 and not any(seen)  # forward, backward, compress: before each of them nothing is held


@pytest.mark.parametrize("step", ["forward1", "behind", "backward1", "compress1"])
def test_a_kill_costs_one_block(given, tmp_path, monkeypatch, step):
    compress(given, tmp_path / "whole")

    class Killed(BaseException):
        pass

    finish = streaming.Work.finish

    def killed(work, name):
        if name == step:
            raise Killed
        finish(work, name)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(streaming.Work, "finish", killed)
        compress(given, tmp_path / "small")
    done = []
    monkeypatch.setattr(streaming.Work, "finish", lambda work, name: (done.append(name), finish(work, name)))
    compress(given, tmp_path / "small")
    assert done[0] == step
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "small" / file.name).read_bytes() == file.read_bytes(), file.name
    assert not (tmp_path / "small" / "work").exists()


def test_work_of_another_call_is_refused(given, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming.Run, "compress", lambda *_: None)
    compress(given, tmp_path / "small")
    with pytest.raises(
        lrp.InputError, match="^folder=.*: its folder work holds unfinished work of another call; finish that, or remove it$"
    ):
        compress(given, tmp_path / "small", 0.6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"blocks": "layers"}, "^blocks=layers: the network has no such module; .* blocks$"),
        ({"blocks": ["blocks.1", "blocks.0"]}, "^blocks=blocks.1: it is not the first to run; give each block once, as they run$"),
        ({"blocks": ["blocks.0", "blocks.2", "blocks.1"]}, "^blocks=blocks.0, blocks.2, blocks.1: they run as blocks.0, blocks.1, blocks"),
        ({"batch_size": 0}, "^batch_size=0"),
        ({"exclude": ["blocks.7.wide"]}, "^exclude=blocks.7.wide: fits nothing in the blocks$"),
    ],
)
def test_what_cannot_be_is_refused(given, tmp_path, options, sentence):
    with pytest.raises(lrp.InputError, match=sentence):
        compress(given, tmp_path / "small", **options)


def test_files_that_are_not_whole_are_refused(given, tmp_path):
    model, folder, x = given
    (folder / "a.safetensors").unlink()
    with pytest.raises(lrp.InputError, match="weights=.*a.safetensors: no such file"):
        compress(given, tmp_path / "small")
    save_file({"first.weight": torch.zeros(2)}, tmp_path / "one.safetensors")
    with pytest.raises(lrp.InputError, match="the files lack .*, which the network has"):
        lrp.compress_blocks(make, tmp_path / "one.safetensors", x, 0.5, tmp_path / "small", blocks="blocks")
    with pytest.raises(lrp.InputError, match="^model=Network: give a function"):
        lrp.compress_blocks(model, folder, x, 0.5, tmp_path / "small", blocks="blocks")
    with pytest.raises(lrp.InputError, match="lrp.blocks.json: no such file"):
        lrp.load_blocks(tmp_path, make)


@pytest.mark.parametrize("name", ["../b.safetensors", "/etc/passwd", "sub/b.safetensors", ".."])
def test_an_index_names_files_beside_it_alone(given, tmp_path, name):
    index = given[1] / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"first.weight": name}}))
    with pytest.raises(lrp.InputError, match="which does not lie beside it$|a folder, not a file$"):
        compress(given, tmp_path / "small")
