"""Networks in files: what comes back is what was saved, and a file that does not fit is refused in one sentence."""

import copy
import json
import os

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import lrp
from lrp.layer.base import LowRank
from lrp.model.resnet20 import ResNet20
from lrp.model.vgg16 import VGG16


class Encoder(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(6, width)
        layer = nn.TransformerEncoderLayer(width, 2, dim_feedforward=2 * width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x)).mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.inner, self.output = nn.Embedding(50, 20), nn.Linear(20, 20), nn.Linear(20, 50, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens):
        return self.output(F.relu(self.inner(self.embedding(tokens)))).mean(1)


class Grouped(nn.Module):
    def __init__(self, groups: int = 2, stride: int = 1, kernel: int = 3, bias: bool = True, mode: str = "zeros") -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 8, kernel, stride, kernel // 2, groups=groups, bias=bias, padding_mode=mode)
        self.second = nn.Conv1d(8, 6, 3, padding="same")

    def forward(self, x):
        return self.second(F.relu(self.first(x))).mean(2)


NETWORKS = {
    "vgg": (lambda: VGG16(width=1 / 16), (3, 32, 32)), "resnet": (lambda: ResNet20(width=1 / 4), (3, 32, 32)),
    "encoder": (Encoder, (5, 6)), "grouped": (Grouped, (4, 9)),
}  # fmt: skip


def make(name, sparsity=0.6, **options):
    """(dense, compressed, inputs)"""
    build, shape = NETWORKS[name]
    dense, x = build().eval(), torch.randn(4, *shape)
    return dense, lrp.compress(dense, x, sparsity, scoring_images=2, images=4, **options)[0], x


def described(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["lrp"]), {name: file.get_tensor(name) for name in file.keys()}


def rewrite(path, change):
    description, tensors = described(path)
    change(description, tensors)
    save_file(tensors, path, {"lrp": json.dumps(description)})


def refused(path, model, match):
    with pytest.raises(lrp.InputError, match=match) as error:
        lrp.load(path, model)
    assert "\n" not in str(error.value) and str(path) in str(error.value) and len(str(error.value)) < 600


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """(the bytes of a file, inputs, outputs)"""
    torch.manual_seed(0)
    _, compressed, x = make("grouped")
    path = tmp_path_factory.mktemp("saved") / "a.safetensors"
    lrp.save(compressed, path)
    return path.read_bytes(), x, compressed(x).detach()


@pytest.fixture
def saved(grouped, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(grouped[0])
    return path


@pytest.mark.parametrize("blocking", ["none", "square"])
@pytest.mark.parametrize("name", NETWORKS)
def test_round_trip(name, blocking, tmp_path):
    dense, compressed, x = make(name, blocking=blocking)
    path = tmp_path / "new" / "model.safetensors"
    lrp.save(compressed, path)
    loaded = lrp.load(path, NETWORKS[name][0])
    assert any(isinstance(m, LowRank) for m in loaded.modules())
    with torch.no_grad():
        assert torch.equal(loaded(x), compressed(x))
        assert torch.equal(copy.deepcopy(loaded)(x), compressed(x))
    assert [k for k in loaded.state_dict()] == [k for k in compressed.state_dict()]
    pd.testing.assert_frame_equal(pd.DataFrame(loaded.lrp_report), pd.DataFrame(compressed.lrp_report), check_dtype=False)
    assert loaded.lrp_report.attrs == compressed.lrp_report.attrs and str(loaded.lrp_report) == str(compressed.lrp_report)
    before = copy.deepcopy(dense.state_dict())
    again = lrp.load(path, dense.train())  # the architecture as a network, which stays as it is
    assert all(m.training for m in dense.modules()) and not any(isinstance(m, LowRank) for m in dense.modules())
    assert all(torch.equal(before[k], v) for k, v in dense.state_dict().items()) and torch.equal(again(x), loaded(x))
    assert os.listdir(path.parent) == ["model.safetensors"]
    lrp.save(loaded, path)  # over the old one, and once more around
    assert torch.equal(lrp.load(path, NETWORKS[name][0])(x), loaded(x))


@pytest.mark.parametrize("name", ["vgg", "resnet"])
def test_fused_networks_round_trip(name, tmp_path):
    dense, compressed, x = make(name)
    for i, model in enumerate((dense, compressed)):
        fused = lrp.fuse(model)
        lrp.save(fused, tmp_path / f"{i}.safetensors")
        loaded = lrp.load(tmp_path / f"{i}.safetensors", NETWORKS[name][0])
        assert torch.equal(loaded(x), fused(x))
        assert not any(isinstance(m, nn.BatchNorm2d) for m in loaded.modules())
        assert torch.equal(copy.deepcopy(loaded)(x), fused(x))


def test_what_is_loaded_is_in_eval_mode(tmp_path):

    _, compressed, _ = make("resnet")
    for model in (compressed, lrp.fuse(compressed)):
        lrp.save(model, tmp_path / "a.safetensors")
        assert [name for name, m in lrp.load(tmp_path / "a.safetensors", NETWORKS["resnet"][0]).named_modules() if m.training] == []


def test_a_dense_network_and_one_without_report(tmp_path):
    dense, x = Grouped().eval(), torch.randn(2, 4, 9)
    lrp.save(dense, tmp_path / "a.safetensors")
    loaded = lrp.load(tmp_path / "a.safetensors", Grouped)
    assert torch.equal(loaded(x), dense(x)) and not hasattr(loaded, "lrp_report")


def test_a_layer_that_lost_everything(tmp_path):
    _, compressed, x = make("grouped", sparsity=0.999)
    lrp.save(compressed, tmp_path / "a.safetensors")
    assert torch.equal(lrp.load(tmp_path / "a.safetensors", Grouped)(x), compressed(x))


def test_tied_weights_are_written_once(tmp_path):
    model, tokens = Tied().eval(), torch.randint(50, (4, 7))
    compressed, _ = lrp.compress(model, tokens, 0.5, scoring_images=2, images=4)
    path = tmp_path / "a.safetensors"
    lrp.save(compressed, path)
    description, tensors = described(path)
    assert description["same"] == {"output.weight": "embedding.weight"} and "output.weight" not in tensors
    loaded = lrp.load(path, Tied)
    assert loaded.output.weight is loaded.embedding.weight and torch.equal(loaded(tokens), compressed(tokens))


def test_an_architecture_that_ties_what_the_file_holds_apart(tmp_path):
    apart = Tied()
    apart.output.weight = nn.Parameter(torch.randn(50, 20))
    lrp.save(apart, tmp_path / "a.safetensors")

    refused(tmp_path / "a.safetensors", Tied, "another architecture")


def test_values_that_are_not_finite(tmp_path):
    model = nn.Linear(3, 3)
    model.register_buffer("limit", torch.tensor([float("nan"), -float("inf")]))
    lrp.save(model, tmp_path / "a.safetensors")
    limit = lrp.load(tmp_path / "a.safetensors", copy.deepcopy(model)).limit
    assert limit[0].isnan() and limit[1] == -float("inf")


def test_half_precision_stays_half(tmp_path):
    _, compressed, x = make("vgg")
    sizes = []
    for i, model in enumerate((compressed, copy.deepcopy(compressed).half(), copy.deepcopy(compressed).bfloat16(), compressed.double())):
        path = tmp_path / f"{i}.safetensors"
        lrp.save(model, path)
        sizes.append(path.stat().st_size)
        loaded, kind = lrp.load(path, NETWORKS["vgg"][0]), model.classifier.weight.dtype
        assert {k: v.dtype for k, v in loaded.state_dict().items()} == {k: v.dtype for k, v in model.state_dict().items()}
        assert torch.equal(loaded(x.to(kind)), model(x.to(kind)))
    assert sizes[1] < 0.7 * sizes[0]


def test_mixed_precision(tmp_path):
    model = nn.Sequential(nn.Linear(8, 8).half(), nn.Linear(8, 8))
    lrp.save(model, tmp_path / "a.safetensors")
    loaded = lrp.load(tmp_path / "a.safetensors", lambda: nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)))
    assert (loaded[0].weight.dtype, loaded[1].weight.dtype) == (torch.float16, torch.float32)


def test_a_training_network_can_go_on(tmp_path):
    """Parameters of the loaded network train, and frozen ones of the architecture stay frozen."""
    _, compressed, x = make("grouped")
    lrp.save(compressed, tmp_path / "a.safetensors")
    loaded = lrp.load(tmp_path / "a.safetensors", Grouped)
    loaded(x).sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())


def test_the_size_is_that_of_the_tensors(tmp_path):
    dense = nn.Sequential(nn.Linear(700, 700), nn.ReLU(), nn.Linear(700, 700)).eval()
    compressed, _ = lrp.compress(dense, torch.randn(4, 700), 0.5, scorer="magnitude", scoring_images=2, images=4)
    for i, model in enumerate((dense, compressed, copy.deepcopy(compressed).half())):
        path = tmp_path / f"{i}.safetensors"
        lrp.save(model, path)
        held = sum(t.numel() * t.element_size() for t in model.state_dict().values())
        assert held > 9e5 and held <= path.stat().st_size <= 1.01 * held + 20_000


def test_views_of_one_memory_are_written_apart(tmp_path):
    """safetensors refuses tensors that share memory without being one."""
    model = nn.Module()
    both = torch.randn(6, 4)
    model.register_buffer("upper", both[:3])
    model.register_buffer("lower", both[3:])
    model.register_buffer("turned", both[:3].t())
    lrp.save(model, tmp_path / "a.safetensors")
    loaded = lrp.load(tmp_path / "a.safetensors", copy.deepcopy(model))
    assert torch.equal(loaded.upper, both[:3]) and torch.equal(loaded.lower, both[3:]) and torch.equal(loaded.turned, both[:3].t())


# Refusals


def test_missing_file(tmp_path):
    refused(tmp_path / "none.safetensors", Grouped, "no such file")
    refused(tmp_path, Grouped, "no such file")


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    refused(saved, Grouped, "damaged or no safetensors file")


def test_every_length_is_refused(saved):
    """Down to the last byte: nothing but InputError, and never a network."""
    data = saved.read_bytes()
    for length in [*range(0, len(data), 97), 7, 8, 9, len(data) - 1]:
        saved.write_bytes(data[:length])
        refused(saved, Grouped, "damaged or no safetensors file")


def test_garbage(saved):
    for data in (b"nothing of the kind", os.urandom(4000), b"\0" * 4000, b"PK\3\4" + b"a" * 100, saved.read_bytes() + b"more"):
        saved.write_bytes(data)
        refused(saved, Grouped, "damaged or no safetensors file")


def test_a_file_of_torch_save(tmp_path):
    torch.save(Grouped().state_dict(), tmp_path / "a.pt")
    refused(tmp_path / "a.pt", Grouped, "damaged or no safetensors file")


def test_a_file_that_is_not_from_lrp(tmp_path):
    save_file(Grouped().state_dict(), tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", Grouped, "not written by lrp.save")
    save_file(Grouped().state_dict(), tmp_path / "a.safetensors", {"format": "pt"})
    refused(tmp_path / "a.safetensors", Grouped, "not written by lrp.save")


def test_a_newer_format(saved):
    rewrite(saved, lambda description, _: description.update(format=99, version="7.0", layers="of another kind"))
    refused(saved, Grouped, "lrp 7.0 in format 99.*up to format 1")


@pytest.mark.parametrize("other, match", [
    ({"kernel": 5}, r"first has kernel_size=\[3\] instead of \[5\]"),
    ({"stride": 2}, r"first has stride=\[1\] instead of \[2\]"),
    ({"groups": 1}, "first has groups=2 instead of 1"),
    ({"bias": False}, "first has bias=True instead of False"),
    ({"mode": "circular"}, "first has padding_mode=zeros instead of circular"),
])  # fmt: skip
def test_other_options(saved, other, match):
    assert {"first", "second"} == set(described(saved)[0]["layers"])
    refused(saved, lambda: Grouped(**other), f"another architecture.*{match}")


def test_another_width(tmp_path):
    """With low-rank layers, with dense ones, and with both apart from what is compressed."""
    _, compressed, _ = make("encoder")
    lrp.save(compressed, tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", lambda: Encoder(24), "another architecture")
    lrp.save(Encoder(), tmp_path / "b.safetensors")
    refused(tmp_path / "b.safetensors", lambda: Encoder(24), "another architecture: the file holds .*16.*24")


def test_missing_and_extra_layers(saved):
    def with_extra():
        model = Grouped()
        model.third = nn.Linear(3, 3)
        return model

    def without():
        model = Grouped()
        del model.second
        return model

    def replaced():
        model = Grouped()
        model.second = nn.Linear(8, 6)
        return model

    refused(saved, with_extra, r"this one has third.weight, third.bias, which the file lacks")
    refused(saved, without, r"it has a Conv1d second, this one lacks it")
    refused(saved, replaced, r"it has a Conv1d second, this one a Linear")
    refused(saved, nn.Identity, "another architecture")
    dense = Grouped()
    lrp.save(dense, saved)
    refused(saved, with_extra, "this one has third.weight")
    refused(saved, without, "it has second.(bias, second.weight|weight, second.bias), which this one lacks")


def test_another_batch_norm(tmp_path):
    _, compressed, _ = make("vgg")
    lrp.save(lrp.fuse(compressed), tmp_path / "a.safetensors")

    def without():
        model = VGG16(width=1 / 16)
        model.features[1] = nn.Identity()
        return model

    refused(tmp_path / "a.safetensors", without, "it has a batch norm features.1, this one a Identity")


def test_a_network_that_is_compressed_already(saved):
    """``model`` is meant to be the dense architecture."""
    refused(saved, make("grouped")[1], "another architecture")


DAMAGE = {
    "layers": lambda d, t: d.update(layers=[1]),
    "no layers": lambda d, t: d.pop("layers"),
    "layer": lambda d, t: d["layers"].update(first=3),
    "no type": lambda d, t: d["layers"]["first"].pop("type"),
    "no blocks": lambda d, t: d["layers"]["first"].pop("blocks"),
    "no options": lambda d, t: d["layers"]["first"].pop("options"),
    "short block": lambda d, t: d["layers"]["first"]["blocks"].__setitem__(0, [0, 4]),
    "empty block": lambda d, t: d["layers"]["first"]["blocks"].__setitem__(0, []),
    "words in a block": lambda d, t: d["layers"]["first"]["blocks"].__setitem__(0, ["a", "b", "c", "d", "e"]),
    "a block beyond the layer": lambda d, t: d["layers"]["first"]["blocks"][0].__setitem__(1, 400),
    "another rank": lambda d, t: d["layers"]["first"]["blocks"][0].__setitem__(4, 30),
    "a huge rank": lambda d, t: d["layers"]["first"]["blocks"][0].__setitem__(4, 10**15),
    "a fractional rank": lambda d, t: d["layers"]["first"]["blocks"][0].__setitem__(4, 1.5),
    "folded": lambda d, t: d.update(folded=3),
    "no folded": lambda d, t: d.pop("folded"),
    "folded nothing": lambda d, t: d.update(folded={"nothing": "first"}),
    "folded list": lambda d, t: d.update(folded={"second": ["first"]}),
    "same": lambda d, t: d.update(same=3),
    "no same": lambda d, t: d.pop("same"),
    "same list": lambda d, t: d.update(same={"first.bias": ["a"]}),
    "report": lambda d, t: d.update(report=3),
    "no report": lambda d, t: d.pop("report"),
    "report without rows": lambda d, t: d.update(report={"totals": {}}),
    "format word": lambda d, t: d.update(format="one"),
    "no format": lambda d, t: d.pop("format"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_description(saved, case):
    rewrite(saved, DAMAGE[case])
    refused(saved, Grouped, "damaged|another architecture")


@pytest.mark.parametrize("text", ["", "no json", "3", "[]", "null", '"word"', "{}"])
def test_a_description_that_is_none(saved, text):
    _, tensors = described(saved)
    save_file(tensors, saved, {"lrp": text})
    refused(saved, Grouped, "damaged|not written by lrp.save")


def test_a_dropped_block_of_the_description(saved):
    """It has to be noticed: the rows of a block that nobody stores would be missing from the output."""

    def drop(description, tensors):
        description["layers"]["second"]["blocks"].clear()
        for name in [name for name in tensors if name.startswith(("second.U", "second.V"))]:
            del tensors[name]

    rewrite(saved, drop)
    refused(saved, Grouped, "damaged|another architecture")


# Nothing half-written


def test_a_failed_save_leaves_the_old_file(saved, monkeypatch, grouped):
    import lrp.deploy.saving

    def fail(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(lrp.deploy.saving, "save_file", fail)
    with pytest.raises(OSError, match="no space"):
        lrp.save(Grouped(), saved)
    with pytest.raises(OSError, match="no space"):
        lrp.save(Grouped(), saved.parent / "b.safetensors")
    assert os.listdir(saved.parent) == [saved.name] and saved.read_bytes() == grouped[0]


def test_a_state_that_is_no_tensor(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    with pytest.raises(lrp.InputError, match="_extra_state"):
        lrp.save(nn.Sequential(Extra(3, 3)), tmp_path / "a.safetensors")
    assert os.listdir(tmp_path) == []
