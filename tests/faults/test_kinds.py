"""Faults that were found by trying others of a kind: each test is one example of its kind."""

import pandas as pd
import pytest
import torch
from shell import run_here
from torch import nn

import lrp
from lrp.errors import InputError
from lrp.model.vgg16 import VGG16

X = torch.randn(120, 12, generator=torch.Generator().manual_seed(0))


class Three(nn.Module):
    """Three layers, of which the network asks what they are."""

    def __init__(self, ask):
        super().__init__()
        self.ask = ask
        self.a, self.b, self.c = (nn.Linear(12, 12) for _ in range(3))

    def forward(self, x):
        for layer in self.children():
            if self.ask == "runs" and (layer is self.c or isinstance(layer, nn.Linear)):
                x = layer(x)
            elif self.ask == "follows":
                x = layer(x)
                x = x.relu() if type(layer) is nn.Linear else x
            elif self.ask == "random":
                x = layer(x) + torch.rand(1)
        return x


def test_a_network_that_asks_what_its_layers_are():
    """Layers that would not run are left alone; where something else changes, that is refused; chance is no change."""
    model = Three("runs").eval()
    small, report = lrp.compress(model, X, 0.5, method="svd_uniform")
    assert list(report.what.str.startswith("left alone: the network asks of what type it is")) == [True, True, False]
    assert torch.allclose(small.a(X), model.a(X)) and not torch.allclose(small(X), model.c(X))
    with pytest.raises(InputError, match="it gives something else once its layers are of another type"):
        lrp.compress(Three("follows").eval(), X, 0.5, method="svd_uniform")
    assert list(lrp.compress(Three("random").eval(), X, 0.5, method="svd_uniform")[1].what) == ["low rank"] * 3


@pytest.mark.parametrize("words", [{}, {"method": "singular_vectors", "estimator": "exact"}, {"method": "svd_llm"}])
def test_a_network_may_write_into_what_it_is_given(words):
    class Doubling(nn.Module):
        def __init__(self, writes):
            super().__init__()
            torch.manual_seed(0)
            self.writes, self.layers = writes, nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))

        def forward(self, x):
            return self.layers(x.mul_(2) if self.writes else x * 2)

    given = X.clone()
    states = [lrp.compress(Doubling(writes).eval(), given, 0.5, **words)[0].state_dict() for writes in (True, False)]
    assert torch.equal(given, X) and all(map(torch.equal, states[0].values(), states[1].values()))


def test_a_weight_that_is_held_outside_of_its_layer(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(12, 12), nn.Linear(12, 12)
            self.held = [self.b.weight]

        def forward(self, x):
            return self.b(nn.functional.linear(self.a(x), self.held[0]))

    small, report = lrp.compress(Twice().eval(), X, 0.5, method="svd_uniform")
    assert report.what[1] == "left alone: its weight is also held outside of the layer"
    lrp.save(small, tmp_path / "a.safetensors")
    assert torch.equal(lrp.load(tmp_path / "a.safetensors", Twice)(X), small(X))


class Dataset(torch.utils.data.Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, i):
        return X[i] if i != 7 else X[i][:5]


def broken():
    yield X
    raise OSError("gone")


NET = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
NAN = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
NAN[0].bias.data.fill_(float("nan"))


@pytest.mark.parametrize("call, sentence", [
    (lambda: lrp.compress(NAN, X, 0.5, method="alds"), "first example is not a number"),
    (lambda: lrp.compress(NET, torch.utils.data.DataLoader(Dataset(), batch_size=5), 0.5), "^calibration: batch 1 cannot be read .Runtime"),
    (lambda: lrp.compress(NET, broken(), 0.5), "^calibration: batch 1 cannot be read .OSError: gone.$"),
    (lambda: lrp.compress(NET, X.to(torch.float8_e4m3fn), 0.5), "cannot run on inputs"),
    (lambda: lrp.save(NET, "a\0b"), "is no path of a file"),
    (lambda: lrp.save(NET, "x" * 300), "is no path of a file"),
    (lambda: lrp.load("x" * 300, NET), "is no path of a file"),
    (lambda: lrp.save(NET, "a.safetensors", 3), "^report=int: give the report"),
    (lambda: lrp.hold_rank(NET, {"0": 3}, "glorot", 3), "^generator=3: give a torch.Generator$"),
    (lambda: lrp.compress(NET, X, "0.5"), "must be a share in .0, 1., not a text"),
])  # fmt: skip
def test_one_sentence(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()


def test_layers_without_numbers_and_constants_among_the_arguments():
    empty = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 0), nn.Linear(0, 3))
    report = lrp.compress(empty, X, 0.5, method="alds")[1]
    assert list(report.what[1:]) == ["left alone: its weight holds no numbers"] * 2

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(12, 12), nn.Linear(12, 12)
            self.b.register_forward_pre_hook(lambda module, args, kwargs: (args, {}), with_kwargs=True)

        def forward(self, x):
            return self.b(self.a(x), scale=3)

    assert list(lrp.compress(Constant().eval(), X, 0.5, method="svd_llm")[1].what) == ["low rank"] * 2


@pytest.mark.slow
def test_rows_of_another_network_are_not_joined(cache, tmp_path):
    """A checkpoint that was exchanged between a run and its resumption."""
    file = tmp_path / "a.pt"
    words = ["model.width=0.03125", "sparsity.grid=[0,0.5]", "method=svd_uniform", f"model.checkpoint={file}"]
    torch.save(VGG16(in_channels=1, width=0.03125).state_dict(), file)
    rows = run_here(cache, tmp_path / "run", *words)
    rows[:1].to_csv(tmp_path / "run" / "results.csv", index=False)
    torch.save(VGG16(in_channels=1, width=0.03125).state_dict(), file)
    with pytest.raises(InputError, match="are of other weights than now; choose another folder"):
        run_here(cache, tmp_path / "run", *words, "resume=true")
    assert len(pd.read_csv(tmp_path / "run" / "results.csv")) == 1


class Scaled(nn.Linear):
    """A subclass with more than its parent: a constant, and a method."""

    factor = 2.0

    def more(self):
        return self.factor + 1


class Uses(nn.Module):
    """A network that uses the constant of a layer, its method, or asks whether there is one."""

    def __init__(self, what):
        super().__init__()
        self.what, self.a, self.b = what, Scaled(12, 24), nn.Linear(24, 12)

    def forward(self, x):
        y = self.a(x)
        factor = {"constant": lambda: self.a.factor, "method": lambda: self.a.more(), "asks": lambda: 1 + hasattr(self.a, "more")}
        return self.b(y * factor[self.what]())


@pytest.mark.parametrize(("what", "left"), [("constant", 0), ("method", 1), ("asks", 1)])
def test_what_a_subclass_adds_is_there_or_the_layer_stays(what, left, tmp_path):
    model = Uses(what).eval()
    small, report = lrp.compress(model, X, 0.5)
    assert sum(text.startswith("left alone: type not supported (Scaled)") for text in report.what) == left
    assert (type(small.a) is Scaled) == bool(left)
    lrp.save(small, tmp_path / "a.safetensors")
    assert torch.equal(lrp.load(tmp_path / "a.safetensors", model=lambda: Uses(what))(X), small(X))


def test_a_network_that_refuses_to_set_a_layer_twice():
    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(12, 24), nn.Linear(24, 12)

        def __setattr__(self, name, value):
            if name in self.__dict__.get("_modules", ()):
                raise AttributeError(f"{name} is set")
            super().__setattr__(name, value)

        def forward(self, x):
            return self.b(self.a(x))

    small, report = lrp.compress(Once().eval(), X, 0.5)
    assert not any(text.startswith("left alone") for text in report.what) and type(small.a) is not nn.Linear


def test_random_numbers_of_the_caller_stay():
    model = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 12)).eval()
    state = torch.get_rng_state()
    small, _ = lrp.compress(model, X, 0.5)
    lrp.unfold(small)
    lrp.fuse(small)
    assert torch.equal(state, torch.get_rng_state())


def test_what_logits_do_not_use_is_said(caplog):
    from lrp.estimator.first_order import FirstOrderEstimator

    model = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 12)).eval()
    lrp.compress(model, X, 0.5, method="singular_vectors", estimator=FirstOrderEstimator(temperature=4.0))
    assert "output=logits does not use temperature=4.0" in caplog.text
