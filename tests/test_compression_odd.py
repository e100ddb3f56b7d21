"""``lrp.compress`` on networks and examples that are unusual and still common."""

import gc
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

import lrp
from lrp.compensation.least_squares import LeastSquares
from lrp.layer.compressed import Compressed
from lrp.matrices import Factors
from lrp.network.frozen import FrozenNetwork

pytestmark = pytest.mark.slow

X = torch.randn(200, 12)


class Two(nn.Module):
    """Two Linear layers, whose output ``last`` changes; ``first`` is what the first of them reads."""

    def __init__(self, last=lambda y: y, first=lambda x: x, types=(torch.float32, torch.float32)):
        super().__init__()
        self.a, self.b = nn.Linear(12, 16).to(types[0]), nn.Linear(16, 12).to(types[1])
        self.last, self.first, self.types = last, first, types

    def forward(self, x):
        return self.last(self.b(self.a(self.first(x).to(self.types[0])).relu().to(self.types[1])))


class Views(Two):
    """Buffers that share their memory with others, one that is written into."""

    def __init__(self):
        super().__init__()
        base = torch.randn(40)
        self.register_buffer("base", base)
        self.register_buffer("part", base[:12])
        self.register_buffer("expanded", torch.ones(1).expand(12))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return super().forward(x * self.part + self.expanded)


class SparseBuffer(Two):
    def __init__(self):
        super().__init__()
        self.register_buffer("mix", torch.eye(12).to_sparse())

    def forward(self, x):
        return torch.sparse.mm(self.mix, super().forward(x).T).T


WORKS = {
    "one number an example": Two(lambda y: y[:, 0]),
    "double outputs": Two(lambda y: y.double()),
    "half and single": Two(types=(torch.float16, torch.float32)),
    "single and bfloat16": Two(types=(torch.float32, torch.bfloat16)),
    "half that casts": Two(types=(torch.float16, torch.float16)),
    "a double layer": Two(types=(torch.float64, torch.float32)),
    "buffers that are views": Views(),
    "small values": Two(lambda y: y * 1e-30),
    "asks for gradients": Two(first=lambda x: x.clone().requires_grad_()),
    "fills": Two(first=lambda x: x.clone().fill_(1.0) + x),
    "a sparse value inside": Two(lambda y: y.to_sparse().to_dense()),
    "a sparse buffer": SparseBuffer(),
}


@pytest.mark.parametrize("name", WORKS)
def test_compressed_like_any_other(name):
    small, report = lrp.compress(WORKS[name], X, 0.5)
    assert any(isinstance(module, Compressed) for module in small.modules()) and report.attrs["sparsity_params"] >= 0.5
    assert all(bool(p.isfinite().all()) for p in small.parameters())
    assert [p.dtype for p in small.b.parameters()][0] == WORKS[name].b.weight.dtype and small(X).shape == WORKS[name](X).shape


def test_precision_changes_nothing_but_rounding():
    """A network of two precisions is scored like its twin of one."""
    mixed = Two(types=(torch.float64, torch.float32))
    plain = Two()
    plain.load_state_dict(mixed.state_dict())
    (_, a), (_, b) = (lrp.compress(model, X, 0.5) for model in (mixed, plain))
    assert list(a["rank"]) == list(b["rank"])


class Locked(Two):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Reentrant(Two):
    def forward(self, x):
        return checkpoint(self.b, self.a(x).relu(), use_reentrant=True)


GIVEN = "give a function that picks real numbers of every example, such as logits"
REFUSED = {
    "scalar": (lambda: Two(lambda y: y.mean()), f"output: the output is a single number; {GIVEN}"),
    "indices": (lambda: Two(lambda y: y.argmax(1)), f"output: the output is numbers of type int64; {GIVEN}"),
    "sparse": (lambda: Two(lambda y: y.to_sparse()), f"output: the output is a sparse_coo tensor; {GIVEN}"),
    "nested": (
        lambda: Two(lambda y: torch.nested.as_nested_tensor(list(y))),
        f"output: the output is a nested tensor; {GIVEN}",
    ),
    "checkpoint": (
        Reentrant,
        "it runs torch.utils.checkpoint with use_reentrant=True.*; use_reentrant=False can be used, and estimator='exact'",
    ),
    "complex": (lambda: Two(torch.fft.rfft), f"output: the output is numbers of type complex64; {GIVEN}"),
    "other rows": (lambda: Two(lambda y: y.T), "the network gives 12 outputs for 2 examples|the network gives 12 outputs for 8 examples"),
    "large values": (lambda: Two(first=lambda x: x * 1e30), "Two: a matrix of its values cannot be decomposed|not finite"),
    "a lock": (Locked, r"model=Locked: it cannot be copied \(cannot pickle"),
    "meta": (lambda: Two().to("meta"), "model=Two: it has weights on the device meta, which hold no values"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(3)), "model=Sequential: it has lazy layers without weights"),
    "script": (lambda: torch.jit.script(nn.Sequential(nn.Linear(12, 3))), "TorchScript cannot be taken apart"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.parametrize("name", REFUSED)
def test_one_sentence(name):
    make, match = REFUSED[name]
    with pytest.raises(lrp.InputError, match=match) as error:
        lrp.compress(make(), X, 0.5)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["array", "dataset", "labelled dataset"])
def test_arrays_and_datasets(kind):
    model = Two()
    data = {"array": X.numpy(), "dataset": TensorDataset(X), "labelled dataset": TensorDataset(X, torch.zeros(200))}[kind]
    (a, _), (b, _) = (lrp.compress(model, given, torch.tensor(0.5)) for given in (data, X))
    assert all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_what_is_no_calibration():
    with pytest.raises(lrp.InputError, match="calibration=ndarray: cannot be read as a tensor"):
        lrp.compress(Two(), np.array(["a", "b"]))
    with pytest.raises(lrp.InputError, match="a batch holds a sparse_coo tensor; give dense ones"):
        lrp.compress(Two(), X.to_sparse())
    with pytest.raises(lrp.InputError, match=r"inputs=lambda batch: ... says what of a batch goes into the network"):
        lrp.compress(nn.Linear(11, 3), [(X, X)])


def test_a_default_device_of_the_caller():
    model = Two()
    torch.set_default_device("meta")
    try:
        small, _ = lrp.compress(model, X, 0.5)
    finally:
        torch.set_default_device(None)  # "cpu" would stay in force as a mode
    assert all(torch.equal(p, q) for p, q in zip(small.parameters(), lrp.compress(model, X, 0.5)[0].parameters(), strict=True))


def test_scoring_frees_what_it_held():
    """The hooks of a batch held their tensors, which held the hooks: every batch of every call stayed in memory."""

    def held():
        gc.collect()
        return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

    model = Two()
    lrp.compress(model, X, 0.5)
    before = held()
    for _ in range(3):
        lrp.compress(model, X, 0.5)
    assert held() <= before + 5


class Late(Two):
    def __init__(self):
        super().__init__()
        self.late = None

    def forward(self, x):
        self.late = nn.Linear(12, 12) if self.late is None else self.late
        return super().forward(self.late(x))


class Overwrites(Two):
    def forward(self, x):
        h = self.a(x).relu()
        h *= 3
        return self.b(h)


def test_modules_that_are_made_late_and_values_that_are_overwritten():
    with pytest.raises(lrp.InputError, match=r"model=Late: it makes modules when it first runs \(late\); run it once on an example first"):
        lrp.compress(Late(), X)
    with pytest.raises(lrp.InputError, match="model=Overwrites: it writes into a value that a gradient needs"):
        lrp.compress(Overwrites(), X)
    lrp.compress(Overwrites(), X, estimator="exact", decomposition="svd", compensation="none")


def test_examples_that_are_all_the_same_are_one():
    _, report = lrp.compress(Two(), X[:1].repeat(200, 1), 0.5)
    assert any("has 1 for 12 columns" in warning or "has 1 for 16 columns" in warning for warning in report.warnings)


def test_a_closure_that_calls_the_original_is_told():
    model = Two()
    layer = model.a
    model.first, model.a = (lambda x: layer(x)[:, :12]), nn.Linear(12, 16)
    model.add_module("other", layer)
    _, report = lrp.compress(model, X, 0.5)
    what = dict(zip(report.layer, report.what))
    assert what["other"] == "left alone: called through a closure, which every copy of the network shares with the original"


def test_compiled_modules_inside_are_taken_out():
    model = nn.Sequential(torch.compile(nn.Sequential(nn.Linear(12, 16), nn.ReLU())), nn.Linear(16, 12))
    small, report = lrp.compress(model, X, 0.5)
    assert list(report.layer) == ["0.0", "1"] and torch.allclose(small(X), small(X))
    assert not any("_orig_mod" in name for name, _ in small.named_modules()) and "_orig_mod" in model[0]._modules


def test_an_unfolded_network_is_not_written_as_one_that_loads(tmp_path):
    small, _ = lrp.compress(Two(), X, 0.5)
    with pytest.raises(lrp.InputError, match="save: lrp.unfold gave this network other layers"):
        lrp.save(lrp.unfold(small), tmp_path / "a.safetensors")
    with pytest.raises(lrp.InputError, match="is a folder; give the name of a file in it"):
        lrp.save(small, tmp_path)


class Forks(Two):
    """Which of two layers runs depends on the batch."""

    def __init__(self, when):
        super().__init__()
        self.other, self.when = nn.Linear(12, 16), when

    def forward(self, x):
        return self.b((self.a if self.when(x) else self.other)(x).relu())


@pytest.mark.parametrize(
    "when, reasons",
    [
        (lambda x: len(x) == 1, {"a": "it does not run on any batch of calibration examples"}),
        (lambda x: len(x) != 1, {"other": "it does not run on any batch of calibration examples"}),
        (lambda x: len(x) != 72, {"other": "not called on the first calibration examples"}),
    ],
)
def test_layers_that_some_examples_do_not_reach(when, reasons):
    """The report names each with its reason; the last batch of 200 has 72 examples."""
    _, report = lrp.compress(Forks(when), X, 0.5, scorer="magnitude", compensation=LeastSquares(metric="plain"))
    what = dict(zip(report.layer, report.what))
    assert {name: said for name, said in what.items() if "left alone" in said} == {n: f"left alone: {r}" for n, r in reasons.items()}


@pytest.mark.long
def test_what_scored_is_gone_before_layers_are_refitted():
    """Components, twice as large as the network, and its frozen copy."""
    held = []

    class Counts(LeastSquares):
        def __call__(self, *given):
            held.extend(thing for thing in gc.get_objects() if isinstance(thing, (Factors, FrozenNetwork)))
            super().__call__(*given)

    for options in ({}, {"forms": "matrix", "blocking": "square"}, {"method": "alds"}):
        gc.collect()
        lrp.compress(Two(), X, 0.5, compensation=Counts(), **options)
        assert not held


class Resized(nn.Module):
    """A network of images of any size, a list of one each, or of as many that are of one size."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3), nn.Linear(12, 5)

    def forward(self, images, targets=None):
        x = torch.stack([nn.functional.adaptive_avg_pool2d(image, 6) for image in images])
        return self.c(self.b(self.a(x).relu()).relu().mean((2, 3)))


def test_a_list_of_images_is_compressed_as_what_they_are_resized_to():
    torch.manual_seed(0)
    model, images = Resized(), [torch.randn(3, 8 + i % 5, 7 + i % 3) for i in range(40)]
    resized = torch.stack([nn.functional.adaptive_avg_pool2d(image, 6) for image in images])
    (a, _), (b, _), (c, _) = (
        lrp.compress(model, given, 0.5)
        for given in (resized, [images[:16], images[16:39], images[39:]], [(tuple(images[:9]), ({},) * 9), (tuple(images[9:]), ({},) * 31)])
    )
    for other in (b, c):
        for p, q in zip(a.state_dict().values(), other.state_dict().values(), strict=True):
            torch.testing.assert_close(p, q)
