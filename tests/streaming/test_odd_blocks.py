"""Networks and folders that are not as the blocks of a plain network: the right result, or one sentence."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import lrp
from lrp.streaming import run as streaming
from lrp.streaming import spool
from lrp.streaming.loading import INDEX


class Pair(nn.Module):
    """A block that may read something besides, and gives it on."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x, more=0.0):
        return self.b(torch.tanh(self.a(x))) + more, x


class Network(nn.Module):
    def __init__(self, count: int = 3) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 4)
        self.tied = nn.Linear(8, 4, bias=False)
        self.tied.weight = self.last.weight
        self.blocks = nn.ModuleList(Pair() for _ in range(count))

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x, _ = block(x)
        return self.last(x).mean(1) + self.tied(x).mean(1)


class Between(Network):
    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = torch.relu(block(x)[0])
        return self.last(x).mean(1)


class Residual(Network):
    def forward(self, x):
        x, more = self.first(x), 0.0
        for block in self.blocks:
            x, more = block(x, more)
        return self.last(x).mean(1)


class Behind(Network):
    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x, more = block(x)
        return self.last(x + more).mean(1)


class LastButOne(Network):
    def forward(self, x):
        before = x = self.first(x)
        for block in self.blocks:
            before, x = x, block(x, before)[0]
        return self.last(x).mean(1)


class Growing(nn.Module):
    """Blocks that give another shape than they read, with buffers."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [(3, 4), (4, 8)]
        self.blocks = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(m, n, 3, 2, 1), nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, n, 1)) for m, n in sizes)
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.blocks(x).mean((2, 3)))


def dense(model, file):
    save_file({name: value.clone() for name, value in model.state_dict().items() if name != "tied.weight"}, file)
    return file


@pytest.fixture
def given(tmp_path):
    torch.manual_seed(0)
    return dense(Network(), tmp_path / "dense.safetensors"), torch.randn(20, 3, 6)


def compress(given, to, sparsity=0.5, make=Network, **options):
    file, x = given
    return lrp.compress_blocks(make, file, x, sparsity, to, **{"blocks": "blocks", **options})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (Between, "^blocks=blocks.1: it does not read what blocks.0 gives, but what something between them makes of it$"),
        (Residual, "^blocks=blocks.1: it reads more of what blocks before it give than the first tensor of the one before$"),
        (LastButOne, "^blocks=blocks.2: it reads more of what blocks before it give than the first tensor of the one before$"),
        (Behind, "^blocks=blocks.2: behind it .* more than its first tensor is read$"),
    ],
)
@pytest.mark.parametrize("count", [1, 20])
def test_what_does_not_go_from_block_to_block_alone_is_refused(given, tmp_path, make, sentence, count):
    """It would be compressed for what it does not read, and nobody would see that. Of one example nothing can be compared."""
    with pytest.raises(lrp.InputError, match=sentence):
        compress((given[0], given[1][:count]), tmp_path / "small", make=make)


@pytest.mark.parametrize("blocks", ["blocks", ["blocks.1"]])
def test_blocks_that_give_another_shape(tmp_path, blocks):
    torch.manual_seed(0)
    model, x = Growing().eval(), torch.randn(12, 3, 8, 8)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(), part.running_var.uniform_(0.5, 2)
    given = dense(model, tmp_path / "dense.safetensors"), x
    report = compress(given, tmp_path / "small", make=Growing, blocks=blocks)
    small = lrp.load_blocks(tmp_path / "small", Growing)
    outside = ["head"] if blocks == "blocks" else ["head", "blocks.0"]
    parts = {"blocking": "none", "decomposition": "svd", "selection": "lagrangian", "compensation": "least_squares"}
    whole, table = lrp.compress(
        model, x, 0.5, method="singular_vectors", scorer="perturbation", scoring_images=32, exclude=outside, forms="auto", **parts
    )
    assert report["rank"].tolist() == table.set_index("layer")["rank"][report["layer"]].tolist()
    torch.testing.assert_close(small(x), whole(x), rtol=1e-3, atol=1e-4)


def test_layers_are_found_in_modules_for_which_others_stand(tmp_path):
    """Attention of torch, which is no Linear layer; what did not change is itself again."""
    torch.manual_seed(0)

    def make():
        layers = [nn.TransformerEncoderLayer(8, 2, 12, batch_first=True) for _ in range(2)]
        return nn.Sequential(nn.Linear(6, 8), nn.Sequential(*layers), nn.Linear(8, 4))

    model = make().eval()
    given = dense(model, tmp_path / "dense.safetensors"), torch.randn(20, 3, 6)
    report = compress(given, tmp_path / "small", 0.9, make=make, blocks="1")
    assert "1.0.self_attn.q_proj" in set(report["layer"])
    compress(given, tmp_path / "same", 0.0, make=make, blocks="1")
    same = lrp.load_blocks(tmp_path / "same", make)
    assert isinstance(same[1][0].self_attn, nn.MultiheadAttention)
    torch.testing.assert_close(same(given[1]), model(given[1]))


def test_names_of_blocks_and_of_what_is_excluded(given, tmp_path):
    assert set(compress(given, tmp_path / "one", blocks="blocks.1")["layer"]) == {"blocks.1.a", "blocks.1.b"}
    assert set(compress(given, tmp_path / "text", exclude="blocks.0")["layer"]) == {f"blocks.{k}.{name}" for k in (1, 2) for name in "ab"}
    numbered = dense(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4), nn.Flatten()), tmp_path / "numbered.safetensors")
    make = lambda: nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4), nn.Flatten())  # noqa: E731
    assert compress((numbered, given[1]), tmp_path / "numbers", make=make, blocks=["0", "1"])["layer"].tolist() == ["0", "1"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"exclude": ["blocks"]}, "^blocks=blocks.0, blocks.1, blocks.2: they hold no layer to compress, or all are excluded$"),
        ({"compensation": "surgeon"}, "^compensation=surgeon: it needs the whole network, and blocks are held one at a time$"),
        ({"blocks": []}, r"^blocks=\[\]: names no block$"),
        ({"blocks": None}, "^blocks=null: the network has no such module"),
        ({"make": lambda: None}, "^model=NoneType: give a function that makes a torch.nn.Module$"),
        (
            {"make": lambda: nn.ModuleDict({"blocks": nn.ModuleList([nn.ReLU()])})},
            "^calibration: the network cannot run on inputs of shape",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(given, tmp_path, options, sentence):
    with pytest.raises(lrp.InputError, match=sentence):
        compress(given, tmp_path / "small", **options)


def test_a_file_is_no_folder(given, tmp_path):
    for folder in (given[0], given[0] / "small"):
        with pytest.raises(lrp.InputError, match="^folder=.*: .*dense.safetensors is a file, not a folder$"):
            compress(given, folder)


def test_weights_of_another_shape_are_refused(given, tmp_path):
    class Wider(Network):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(8, 5)
            self.tied.weight = self.last.weight

    with pytest.raises(lrp.InputError, match=r"^weights: last.weight is \(4, 8\) there and \(5, 8\) in the network$"):
        compress(given, tmp_path / "small", make=Wider)
    compress(given, tmp_path / "small")
    with pytest.raises(lrp.InputError, match=r"^folder=.*: last.(weight|bias) is .* there and .* in the network$"):
        lrp.load_blocks(tmp_path / "small", Wider)
    with pytest.raises(lrp.InputError, match="^folder=.*: it is for another architecture: it lacks blocks.3.a.weight"):
        lrp.load_blocks(tmp_path / "small", lambda: Network(4))
    index = json.loads((tmp_path / "small" / INDEX).read_text())
    (tmp_path / "small" / INDEX).write_text(json.dumps(index | {"rest": ".."}))
    with pytest.raises(lrp.InputError, match="is damaged$"):
        lrp.load_blocks(tmp_path / "small", Network)


def test_what_is_tied_stays_tied_and_can_be_trained(given, tmp_path):
    compress(given, tmp_path / "small")
    small = lrp.load_blocks(tmp_path / "small", Network)
    assert small.tied.weight is small.last.weight and all(parameter.requires_grad for parameter in small.parameters())


def test_the_configuration_of_a_network_stays_as_it_is(given, tmp_path):
    class Config:
        use_cache = True

    class Configured(Network):
        config = Config()

        def forward(self, x):
            assert not self.config.use_cache
            return super().forward(x)

    compress(given, tmp_path / "small", make=Configured)
    assert Config.use_cache and Configured.config.use_cache


def test_a_kill_in_a_second_call_leaves_no_network_of_two(given, tmp_path, monkeypatch):
    """Blocks of one sparsity beside those of another."""
    to = tmp_path / "small"
    compress(given, to, make=Network)
    finish = streaming.Work.finish

    def killed(work, name):
        finish(work, name)
        if name == "compress0":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(streaming.Work, "finish", killed)
        compress(given, to, 0.9)
    with pytest.raises(lrp.InputError, match=f"{INDEX}: no such file$"):
        lrp.load_blocks(to, Network)


def test_blocks_of_an_earlier_call_go(given, tmp_path):
    to = tmp_path / "small"
    for blocks in (["blocks.0", "blocks.1"], ["blocks.0"]):
        compress(given, to, blocks=blocks)
    assert sorted(file.name for file in to.glob("block-*")) == ["block-00000.safetensors"]


def test_a_kill_at_the_end_leaves_nothing_that_passes_for_work(given, tmp_path, monkeypatch):
    """The work is removed file by file, and what is left of it must not be gone on with."""
    to, remove = tmp_path / "small", shutil.rmtree

    def killed(folder, **options):
        if (told := folder / "made_from.txt").exists():
            told.unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(spool.shutil, "rmtree", killed)
        compress(given, to)
    lrp.load_blocks(to, Network)
    assert spool.shutil.rmtree is remove
    rows = compress(given, to, 0.9)
    assert rows["rank"].tolist() == compress(given, tmp_path / "other", 0.9)["rank"].tolist()
    assert not [each for each in to.iterdir() if each.is_dir()]


def test_work_for_another_architecture_is_not_gone_on_with(given, tmp_path, monkeypatch):
    class Other(Network):
        pass

    monkeypatch.setattr(streaming.Run, "compress", lambda *_: None)
    compress(given, tmp_path / "small")
    with pytest.raises(lrp.InputError, match="unfinished work of another call"):
        compress(given, tmp_path / "small", make=Other)


class Shares(Network):
    """Its last block holds a weight of its first."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks[2].b.weight = self.blocks[0].b.weight


def test_a_weight_that_two_blocks_hold(given, tmp_path):
    """Each would be compressed in its own way, and the network would hold more than before."""
    file = dense(Shares().eval(), tmp_path / "shares.safetensors")
    sentence = "^blocks=blocks.0: its layer blocks.0.b holds a weight that is also blocks.2.b.weight; exclude the layer$"
    with pytest.raises(lrp.InputError, match=sentence):
        compress((file, given[1]), tmp_path / "small", make=Shares)
    assert not (tmp_path / "small").exists()
    assert set(compress((file, given[1]), tmp_path / "small", make=Shares, exclude=["*.b"])["layer"]) == {f"blocks.{k}.a" for k in range(3)}


def test_two_calls_into_one_folder(given, tmp_path, monkeypatch):
    """The second is refused while the first one runs, and leaves it alone; afterwards it may."""
    asked = []

    def during(*args):
        with pytest.raises(lrp.InputError, match="^folder=.*small: another call is writing into it; wait for it, or give another$"):
            monkeypatch.undo()
            compress(given, tmp_path / "small", 0.3)
        asked.append(args)
        return begin(*args)

    begin = streaming.begin
    monkeypatch.setattr(streaming, "begin", during)
    first = compress(given, tmp_path / "small")
    assert len(asked) == 1 and not (tmp_path / "small" / "work").exists()
    assert first.equals(compress(given, tmp_path / "other"))
    states = [lrp.load_blocks(tmp_path / name, Network).state_dict() for name in ("small", "other")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert compress(given, tmp_path / "small", 0.3)["rank"].sum() > first["rank"].sum()


def test_files_that_changed_places_or_bits(given, tmp_path):
    """Each block's file is whole, but in another's place it is another network."""
    compress(given, tmp_path / "small")
    for name in ("rest.safetensors", "block-00001.safetensors"):
        bad = shutil.copytree(tmp_path / "small", tmp_path / name)
        data = bytearray((bad / name).read_bytes())
        data[-3] ^= 1
        (bad / name).write_bytes(data)
        with pytest.raises(lrp.InputError, match=f"^folder=.*: {name} is damaged, or not the file that was written with {INDEX}$"):
            lrp.load_blocks(bad, Network)
        (bad / name).unlink()
        with pytest.raises(lrp.InputError, match=f"^folder=.*: {name}: "):
            lrp.load_blocks(bad, Network)
    first, second = (tmp_path / "small" / f"block-0000{k}.safetensors" for k in range(2))
    first.rename(tmp_path / "kept"), second.rename(first), (tmp_path / "kept").rename(second)
    with pytest.raises(lrp.InputError, match="^folder=.*: block-00000.safetensors is damaged, or not the file"):
        lrp.load_blocks(tmp_path / "small", Network)
