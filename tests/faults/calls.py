"""Bad calls of lrp's functions: "refused" with an InputError, "works", or "either"; never another exception."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import lrp


class Call(NamedTuple):
    """A call and what has to come of it."""

    name: str
    run: Callable[[], object]
    expected: str = "refused"


class Does(nn.Module):
    """A Linear whose output goes through a function of the test's."""

    def __init__(self, then: Callable[[Any], Any], *more: nn.Module) -> None:
        super().__init__()
        self.a, self.then, self.more = nn.Linear(12, 12), then, nn.Sequential(*more)

    def forward(self, x: Any) -> Any:
        return self.then(self.more(self.a(x)))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(12, 12)

    def forward(self, x: Any, y: Any) -> Any:
        return self.a(x) + y


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)]
    return nn.Sequential(*layers).eval()


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12)).eval()


def filled(model: nn.Module, value: float) -> nn.Module:
    for parameter in model.parameters():
        parameter.data.fill_(value)
    return model


def raises(error: BaseException) -> Callable[[Any], Any]:
    def then(x: Any) -> Any:
        raise error

    return then


def compress(model: Any = None, x: Any = None, sparsity: Any = 0.5, **options: Any) -> object:
    model = network() if model is None else model
    return lrp.compress(model, images() if x is None else x, sparsity, **{"samples": 256, "scoring_images": 4, **options})


def images() -> torch.Tensor:
    return torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def vectors() -> torch.Tensor:
    return torch.randn(16, 12, generator=torch.Generator().manual_seed(0))


def calibration_calls() -> Iterator[Call]:
    x = images()
    refused = {
        "none": [],
        "a text": "images/",
        "a dictionary": {"x": x},
        "a list of numpy": [x.numpy()],
        "5": 5,
        "dictionaries": [{"image": x}],
        "texts": ["a"],
        "scalars": [torch.tensor(1.0)],
        "no examples": x[:0],
        "one image without a batch": x[0],
        "NaN": x * torch.nan,
        "inf": torch.full_like(x, torch.inf),
        "uint8": (x * 50).to(torch.uint8),
        "float64": x.double(),
        "one channel": x[:, :1],
        "too small": x[..., :2, :2],
        "shapes that differ": [x[:4], torch.zeros(4, 3, 9, 9)],
        "types that differ": [x[:4], x[:4].double()],
        "empty batches": [x[:0]] * 5000,
        "on meta": x.to("meta"),
        "complex": x.to(torch.complex64),
    }
    works = {"numpy": x.numpy(), "with gradients": x.clone().requires_grad_(), "channels_last": x.to(memory_format=torch.channels_last)}
    either = {"one example": x[:1], "zeros": torch.zeros_like(x), "1e30": x * 1e30, "a set": {x}}
    for expected, values in (("refused", refused), ("works", works), ("either", either)):
        for name, value in values.items():
            yield Call(f"calibration: {name}", lambda value=value: compress(None, value), expected)
    yield Call("calibration: None", lambda: lrp.compress(network(), None))


def option_calls() -> Iterator[Call]:
    for value in (1, 1.0, -0.1, 2, float("nan"), float("inf"), "0.5", None, True, [0.5], 50):
        yield Call(f"sparsity={value!r}", lambda value=value: compress(sparsity=value))
    for value, expected in (
        (torch.tensor(0.5), "either"),
        (np.float32(0.5), "works"),
        (0, "works"),
        (1e-12, "works"),
        (0.9999999, "either"),
    ):
        yield Call(f"sparsity={value!r}", lambda value=value: compress(sparsity=value), expected)
    bad = {
        "blocking": ["foo", 4, "", "../model/vgg16", []],
        "scorer": ["foo", "../estimator/exact"],
        "estimator": ["foo", 1],
        "selection": ["foo", type],
        "decomposition": ["foo"],
        "compensation": ["foo"],
        "recovery": ["foo", "finetune"],
        "method": ["foo", 3],
        "budget": ["foo", None],
        "exclude": ["nothing", ["x*"], [1], 5, ["*"]],
        "images": [0, -1, 1.5, "8", True],
        "scoring_images": [0, None, -1],
        "samples": [0, -1, 1.5],
        "batch_size": [1, 0],
        "macs_removed": [1, -0.5, float("nan")],
        "output": ["logits", lambda r: r["x"], lambda r: None],
    }
    for option, values in bad.items():
        for value in values:
            yield Call(f"{option}={value!r}", lambda option=option, value=value: compress(**{option: value}))
    yield Call("macs_removed and budget", lambda: compress(budget="macs", macs_removed=0.5))
    for option, value in (("exclude", "0"), ("images", 10**12), ("batch_size", 10**9), ("exclude", None), ("scorer", None)):
        yield Call(f"{option}={value!r}", lambda option=option, value=value: compress(**{option: value}), "either")


def network_calls() -> Iterator[Call]:
    v = vectors()
    refused = {
        "None": None,
        "a class": nn.Linear,
        "a state_dict": mlp().state_dict(),
        "a function": lambda x: x,
        "no layers": nn.Sequential(nn.ReLU()),
        "nothing": nn.Sequential(),
        "two inputs": TwoInputs(),
        "a dictionary as output": Does(lambda y: {"out": y, "aux": None}),
        "KeyError": Does(raises(KeyError("mine"))),
        "a scalar as output": Does(lambda y: y.sum()),
        "a text as output": Does(lambda y: "y"),
        "None as output": Does(lambda y: None),
        "NaN as output": Does(lambda y: y * torch.nan),
        "NaN weights": filled(mlp(), torch.nan),
        "overflow": filled(mlp(), 3e38),
        "on meta": mlp().to("meta"),
        "complex": nn.Sequential(nn.Linear(12, 12, dtype=torch.complex64)),
    }
    either = {
        "1 x 1": nn.Sequential(nn.Linear(12, 1), nn.Linear(1, 12)),
        "zero weights": filled(mlp(), 0),
        "rank one": filled(mlp(), 1),
        "a constant": Does(lambda y: torch.zeros(len(y), 3)),
        "random": Does(lambda y: y + torch.rand(1)),
        "looks at the batch": Does(lambda y: y - y.mean(0)),
        "integers as output": Does(lambda y: y.argmax(1, keepdim=True)),
        "no gradients": Does(torch.no_grad()(lambda y: y * 2)),
        "lazy": nn.Sequential(nn.LazyLinear(12)),
        "only batch norm": nn.BatchNorm1d(12),
        "DataParallel": nn.DataParallel(mlp()),
        "bfloat16": mlp().bfloat16(),
        "half": mlp().half(),
        "double": mlp().double(),
        "scripted": torch.jit.script(mlp()),
        "compiled": torch.compile(mlp(), backend="eager"),
        "LSTM": nn.LSTM(12, 12),
        "weight norm": nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(12, 12)), nn.Linear(12, 12)),
    }
    works = {
        "one layer": nn.Linear(12, 12),
        "frozen": mlp().requires_grad_(False),
        "dropout": nn.Sequential(nn.Linear(12, 12), nn.Dropout(), nn.Linear(12, 12)),
    }
    for expected, values in (("refused", refused), ("either", either), ("works", works)):
        for name, value in values.items():
            yield Call(f"network: {name}", lambda value=value: lrp.compress(value, v, 0.5), expected)


def file_calls(work: Path) -> Iterator[Call]:
    done, file = lrp.compress(mlp(), vectors(), 0.5)[0], work / "a.safetensors"
    (work / "file").write_text("x")
    lrp.save(done, file)
    yield Call("save: to a new folder", lambda: lrp.save(done, work / "new" / "a.safetensors"), "works")
    yield Call("load", lambda: lrp.load(file, mlp), "works")
    for name, run in {
        "save: None": lambda: lrp.save(None, work / "n.safetensors"),
        "save: to None": lambda: lrp.save(done, None),
        "save: a state_dict": lambda: lrp.save(done.state_dict(), work / "s"),
        "load: nothing": lambda: lrp.load(work / "none", mlp),
        "load: None": lambda: lrp.load(None, mlp),
        "load: a folder": lambda: lrp.load(work, mlp),
        "load: a text as network": lambda: lrp.load(file, "x"),
        "load: None as network": lambda: lrp.load(file, None),
        "load: a class that needs words": lambda: lrp.load(file, nn.Linear),
        "load: another network": lambda: lrp.load(file, network),
        "load: a function that fails": lambda: lrp.load(file, lambda: 1 / 0),
        "load: a number": lambda: lrp.load(file, lambda: 3),
        "hold_rank: no such layer": lambda: lrp.hold_rank(mlp(), {"x": 3}),
        "hold_rank: 0": lambda: lrp.hold_rank(mlp(), {"0": 0}),
        "hold_rank: 13 of 12": lambda: lrp.hold_rank(mlp(), {"0": 13}),
        "hold_rank: 1.5": lambda: lrp.hold_rank(mlp(), {"0": 1.5}),
        "hold_rank: a ReLU": lambda: lrp.hold_rank(mlp(), {"1": 3}),
        "hold_rank: init": lambda: lrp.hold_rank(mlp(), {"0": 3}, init="foo"),
        "hold_rank: a list": lambda: lrp.hold_rank(mlp(), ["0"]),
        "hold_rank: None": lambda: lrp.hold_rank(None, {"0": 3}),
        "hold_rank: NaN": lambda: lrp.hold_rank(filled(mlp(), torch.nan), {"0": 3}),
        "fuse: None": lambda: lrp.fuse(None),
        "export: no inputs": lambda: lrp.export_onnx(done, None, work / "a.onnx"),
    }.items():
        yield Call(name, run)
    yield Call("hold_rank: nothing", lambda: lrp.hold_rank(mlp(), {}), "either")
    yield Call("fuse: one layer", lambda: lrp.fuse(nn.Linear(2, 2)), "either")


def calls(work: Path) -> Iterator[Call]:
    """Every call."""
    yield from calibration_calls()
    yield from option_calls()
    yield from network_calls()
    yield from file_calls(work)


def problem(call: Call) -> str:
    """What is wrong with what comes of a call; "": nothing."""
    try:
        call.run()
    except lrp.InputError as error:
        text = str(error)
        return "no sentence" if "\n" in text or len(text) > 600 else "refused" if call.expected == "works" else ""
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return "accepted" if call.expected == "refused" else ""
