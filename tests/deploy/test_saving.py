"""Networks in files: what comes back is what was saved."""

import copy
import os

import pandas as pd
import pytest
import torch
from cases import Grouped, TiedTokens
from deployed import DEPLOYED, deployed, described, file_refused
from torch import nn

import lrp
from lrp.layer.compressed import Compressed


@pytest.mark.slow
@pytest.mark.parametrize("blocking", ["none", "square"])
@pytest.mark.parametrize("name", DEPLOYED)
def test_round_trip(name, blocking, tmp_path):
    dense, compressed, x = deployed(name, blocking=blocking)
    path = tmp_path / "new" / "model.safetensors"
    lrp.save(compressed, path)
    loaded = lrp.load(path, DEPLOYED[name][0])
    assert any(isinstance(m, Compressed) for m in loaded.modules())
    with torch.no_grad():
        assert torch.equal(loaded(x), compressed(x))
        assert torch.equal(copy.deepcopy(loaded)(x), compressed(x))
    assert [k for k in loaded.state_dict()] == [k for k in compressed.state_dict()]
    pd.testing.assert_frame_equal(pd.DataFrame(loaded.lrp_report), pd.DataFrame(compressed.lrp_report), check_dtype=False)
    assert loaded.lrp_report.attrs == compressed.lrp_report.attrs and str(loaded.lrp_report) == str(compressed.lrp_report)
    before = copy.deepcopy(dense.state_dict())
    again = lrp.load(path, dense.train())  # the architecture as a network, which stays as it is
    assert all(m.training for m in dense.modules()) and not any(isinstance(m, Compressed) for m in dense.modules())
    assert all(torch.equal(before[k], v) for k, v in dense.state_dict().items()) and torch.equal(again(x), loaded(x))
    assert os.listdir(path.parent) == ["model.safetensors"]
    lrp.save(loaded, path)  # over the old one, and once more around
    assert torch.equal(lrp.load(path, DEPLOYED[name][0])(x), loaded(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg", "resnet"])
def test_fused_networks_round_trip(name, tmp_path):
    dense, compressed, x = deployed(name)
    for i, model in enumerate((dense, compressed)):
        fused = lrp.fuse(model)
        lrp.save(fused, tmp_path / f"{i}.safetensors")
        loaded = lrp.load(tmp_path / f"{i}.safetensors", DEPLOYED[name][0])
        assert torch.equal(loaded(x), fused(x))
        assert not any(isinstance(m, nn.BatchNorm2d) for m in loaded.modules())
        assert torch.equal(copy.deepcopy(loaded)(x), fused(x))


@pytest.mark.slow
def test_what_is_loaded_is_in_eval_mode(tmp_path):

    _, compressed, _ = deployed("resnet")
    for model in (compressed, lrp.fuse(compressed)):
        lrp.save(model, tmp_path / "a.safetensors")
        assert [name for name, m in lrp.load(tmp_path / "a.safetensors", DEPLOYED["resnet"][0]).named_modules() if m.training] == []


def test_a_dense_network_and_one_without_report(tmp_path):
    dense, x = Grouped().eval(), torch.randn(2, 4, 9)
    lrp.save(dense, tmp_path / "a.safetensors")
    loaded = lrp.load(tmp_path / "a.safetensors", Grouped)
    assert torch.equal(loaded(x), dense(x)) and not hasattr(loaded, "lrp_report")


@pytest.mark.slow
def test_a_layer_that_lost_everything(tmp_path):
    _, compressed, x = deployed("grouped", sparsity=0.999)
    lrp.save(compressed, tmp_path / "a.safetensors")
    assert torch.equal(lrp.load(tmp_path / "a.safetensors", Grouped)(x), compressed(x))


@pytest.mark.slow
def test_tied_weights_are_written_once(tmp_path):
    model, tokens = TiedTokens().eval(), torch.randint(50, (4, 7))
    compressed, _ = lrp.compress(model, tokens, 0.5, scoring_images=2, images=4, exclude="embedding")
    path = tmp_path / "a.safetensors"
    lrp.save(compressed, path)
    description, tensors = described(path)
    assert description["same"] == {"output.weight": "embedding.weight"} and "output.weight" not in tensors
    loaded = lrp.load(path, TiedTokens)
    assert loaded.output.weight is loaded.embedding.weight and torch.equal(loaded(tokens), compressed(tokens))


def test_an_architecture_that_ties_what_the_file_holds_apart(tmp_path):
    apart = TiedTokens()
    apart.output.weight = nn.Parameter(torch.randn(50, 20))
    lrp.save(apart, tmp_path / "a.safetensors")

    file_refused(tmp_path / "a.safetensors", TiedTokens, "another architecture")


def test_values_that_are_not_finite(tmp_path):
    model = nn.Linear(3, 3)
    model.register_buffer("limit", torch.tensor([float("nan"), -float("inf")]))
    lrp.save(model, tmp_path / "a.safetensors")
    limit = lrp.load(tmp_path / "a.safetensors", copy.deepcopy(model)).limit
    assert limit[0].isnan() and limit[1] == -float("inf")


@pytest.mark.slow
def test_half_precision_stays_half(tmp_path):
    _, compressed, x = deployed("vgg")
    sizes = []
    for i, model in enumerate((compressed, copy.deepcopy(compressed).half(), copy.deepcopy(compressed).bfloat16(), compressed.double())):
        path = tmp_path / f"{i}.safetensors"
        lrp.save(model, path)
        sizes.append(path.stat().st_size)
        loaded, kind = lrp.load(path, DEPLOYED["vgg"][0]), model.classifier.weight.dtype
        assert {k: v.dtype for k, v in loaded.state_dict().items()} == {k: v.dtype for k, v in model.state_dict().items()}
        assert torch.equal(loaded(x.to(kind)), model(x.to(kind)))
    assert sizes[1] < 0.7 * sizes[0]


def test_mixed_precision(tmp_path):
    model = nn.Sequential(nn.Linear(8, 8).half(), nn.Linear(8, 8))
    lrp.save(model, tmp_path / "a.safetensors")
    loaded = lrp.load(tmp_path / "a.safetensors", lambda: nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)))
    assert (loaded[0].weight.dtype, loaded[1].weight.dtype) == (torch.float16, torch.float32)


@pytest.mark.slow
def test_a_training_network_can_go_on(tmp_path):
    """Parameters of the loaded network train, and frozen ones of the architecture stay frozen."""
    _, compressed, x = deployed("grouped", forms="matrix")
    lrp.save(compressed, tmp_path / "a.safetensors")
    loaded = lrp.load(tmp_path / "a.safetensors", Grouped)
    loaded(x).sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())


@pytest.mark.slow
def test_the_size_is_that_of_the_tensors(tmp_path):
    dense = nn.Sequential(nn.Linear(700, 700), nn.ReLU(), nn.Linear(700, 700)).eval()
    compressed, _ = lrp.compress(dense, torch.randn(4, 700), 0.5, scorer="magnitude", compensation="none")
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


def test_frozen_parameters_stay_frozen(tmp_path):
    """Whether a parameter is trained is part of what is saved; files of networks that are trained throughout stay in the first format."""
    _, compressed, x = deployed("small", forms="matrix")
    lrp.save(compressed, tmp_path / "a.safetensors")
    assert described(tmp_path / "a.safetensors")[0]["format"] == 1
    first = next(iter(dict(compressed.named_parameters())))
    compressed.get_parameter(first).requires_grad_(False)
    lrp.save(compressed, tmp_path / "b.safetensors")
    loaded = lrp.load(tmp_path / "b.safetensors", DEPLOYED["small"][0])
    assert [name for name, p in loaded.named_parameters() if not p.requires_grad] == [first] and torch.equal(loaded(x), compressed(x))
    assert all(p.requires_grad for p in lrp.load(tmp_path / "a.safetensors", DEPLOYED["small"][0]).parameters())


class Expanded(nn.Module):
    """One value for several entries, which torch does not write into, and a buffer that shares it."""

    def __init__(self, value=2.0):
        super().__init__()
        self.layer, scale = nn.Linear(6, 5), torch.full((1,), value)
        self.register_buffer("scale", scale)
        self.register_buffer("wide", scale.expand(6))
        self.weights = nn.Parameter(torch.full((1, 3), value).expand(4, 3))

    def forward(self, x):
        return self.layer(x * self.wide)


def test_one_value_for_several_entries(tmp_path):
    saved = Expanded(3.0)
    lrp.save(saved, tmp_path / "a.safetensors")
    loaded = lrp.load(tmp_path / "a.safetensors", Expanded)
    assert all(torch.equal(a, b) for a, b in zip(saved.state_dict().values(), loaded.state_dict().values(), strict=True))
    loaded.scale.fill_(5.0)
    assert loaded.wide.tolist() == [5.0] * 6  # they share their memory as before
    saved.wide = torch.arange(6.0)
    lrp.save(saved, tmp_path / "b.safetensors")
    file_refused(tmp_path / "b.safetensors", Expanded, "wide is one value for several entries here, and differing ones in the state")


def test_what_has_no_values_or_is_sparse(tmp_path):
    lazy, sparse = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3)), nn.Linear(3, 3)
    sparse.register_buffer("mix", torch.eye(3).to_sparse())
    file = tmp_path / "a.safetensors"
    with pytest.raises(lrp.InputError, match="model=Sequential: it has lazy layers without weights; run it once on an example first"):
        lrp.save(lazy, file)
    with pytest.raises(lrp.InputError, match="holds mix, a sparse_coo tensor, and a file holds dense ones"):
        lrp.save(sparse, file)
    lrp.save(nn.Linear(3, 3), file)
    for model in (lazy, nn.Linear(3, 3, device="meta")):
        with pytest.raises(lrp.InputError, match="lazy layers without weights|on the device meta, which hold no values"):
            lrp.load(file, model)
