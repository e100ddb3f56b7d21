"""Bad calls of what takes dicts, masks and rules of the user's, of ``lrp.fit``, ``lrp.as_plain`` and ``lrp.export_onnx``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from faults.calls import Call, compress, images, mlp, network, raises, vectors
from torch import nn

import lrp


class Tokens(nn.Module):
    """Tokens (B, L) with an attention mask to (B, L, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.a, self.b = nn.Embedding(20, 12), nn.Linear(12, 16), nn.Linear(16, 12)

    def forward(self, input_ids: Any, attention_mask: Any = None) -> Any:
        x = self.embed(input_ids)
        return self.b(self.a(x if attention_mask is None else x * attention_mask[..., None]).relu())


def ids(length: int = 6, count: int = 16) -> torch.Tensor:
    return torch.randint(0, 20, (count, length), generator=torch.Generator().manual_seed(0))


def tokens(calibration: Any, **options: Any) -> object:
    torch.manual_seed(0)
    return lrp.compress(Tokens(), calibration, 0.4, **{"samples": 256, "scoring_images": 4, **options})


def mask_calls() -> Iterator[Call]:
    x, ones = ids(), torch.ones(16, 6).long()
    refused = {
        "an empty dict": {},
        "a dict of texts": {"input_ids": "a"},
        "a dict of None": {"input_ids": None},
        "a keyword that there is not": {"input_ids": x, "nothing": x},
        "a keyword that is missing": {"attention_mask": ones},
        "a mask alone in a list": [{"attention_mask": ones}],
        "a number as keyword": {5: x},
        "a mask of zeros": {"input_ids": x, "attention_mask": 0 * ones},
        "a mask of another length": {"input_ids": x, "attention_mask": ones[:, :4]},
        "a mask of fewer examples": {"input_ids": x, "attention_mask": ones[:4]},
        "a mask of texts": {"input_ids": x, "attention_mask": "ones"},
        "a mask of NaN": {"input_ids": x, "attention_mask": torch.nan * ones},
        "batches with and without a mask": [{"input_ids": x, "attention_mask": ones}, {"input_ids": x}],
        "batches of other keywords": [{"input_ids": x}, {"ids": x}],
        "a dict and a tensor": [{"input_ids": x}, x],
        "lengths that differ without a mask": [{"input_ids": x}, {"input_ids": ids(9)}],
        "tokens that there are not": x + 100,
        "tokens below zero": x - 100,
        "tokens of float": x.float(),
        "no tokens": x[:, :0],
        "a tensor of strings": [["the cat", "the dog"]],
        "sparse": x.float().to_sparse(),
        "a list of lists of tensors": [[[x], [x]]],
    }
    works = {
        "a mask": {"input_ids": x, "attention_mask": ones},
        "None as mask": {"input_ids": x, "attention_mask": None},
        "tuples of a tuple": [((x,),)],
        "keywords in another order": [{"input_ids": x, "attention_mask": ones}, {"attention_mask": ones, "input_ids": x}],
        "a mask of booleans": {"input_ids": x, "attention_mask": ones.bool()},
        "lengths that differ": [{"input_ids": ids(n), "attention_mask": torch.ones(16, n).long()} for n in (6, 9, 3)],
    }
    either = {
        "a mask of fractions": {"input_ids": x, "attention_mask": ones / 2},
        "a mask of -1": {"input_ids": x, "attention_mask": -ones},
        "a mask of one token": {"input_ids": x, "attention_mask": torch.eye(16, 6).long()},
        "a mask of three dimensions": {"input_ids": x, "attention_mask": ones[:, None, None]},
    }
    for expected, values in (("refused", refused), ("works", works), ("either", either)):
        for name, value in values.items():
            yield Call(f"tokens: {name}", lambda value=value: tokens(value), expected)


def rule_calls() -> Iterator[Call]:
    x, v = ids(), vectors()
    refused = {
        "inputs of a text": "input_ids",
        "inputs of a number": 5,
        "inputs that raise": raises(KeyError("mine")),
        "inputs that give None": lambda batch: None,
        "inputs that give a text": lambda batch: "x",
        "inputs that give numbers": lambda batch: [1, 2],
        "inputs that give no tuple": lambda batch: (),
        "inputs that give another keyword": lambda batch: {"nothing": batch["x"]},
        "inputs of no examples": lambda batch: batch["x"][:0],
        "inputs that take two": lambda batch, more: batch["x"],
        "inputs that give the whole": lambda batch: batch,
    }
    for name, rule in refused.items():
        yield Call(name, lambda rule=rule: tokens([{"x": x, "y": "label"}], inputs=rule))
    yield Call("inputs that pick", lambda: tokens([{"x": x, "y": "label"}], inputs=lambda batch: batch["x"]), "works")
    yield Call("inputs that name", lambda: tokens([{"x": x}], inputs=lambda batch: ((), {"input_ids": batch["x"]})), "works")
    bad: dict[str, list[Any]] = {
        "budget_of": ["foo", None, 1, ["layers"]],
        "budget": ["milliseconds ", ["params"]],
        "search": ["foo", 3, [], type],
        "forms": ["foo", [], ["matrix", "foo"], 5, [None], {"matrix": 1}],
        "recovery": [3, lambda network, context: 1 / 0],
    }
    for option, values in bad.items():
        for value in values:
            yield Call(f"{option}={value!r}"[:60], lambda option=option, value=value: compress(**{option: value}))
    for option, value in (("forms", "auto"), ("budget_of", "network"), ("budget", "milliseconds"), ("search", "coordinate")):
        yield Call(f"{option}={value}", lambda option=option, value=value: compress(**{option: value}), "either")
    yield Call("a network's share that the layers cannot give", lambda: compress(None, None, 0.9999, budget_of="network"))
    fitted: list[Any] = []

    def fit() -> Any:
        if not fitted:
            fitted.append(lrp.fit(mlp(), v, samples=256))
        return fitted[0]

    for value in (1, -0.5, "a", None, float("nan"), [0.5]):
        yield Call(f"fit, then {value!r}", lambda value=value: fit().compress(value))
    yield Call("fit, then budget_of=foo", lambda: fit().compress(0.5, "foo"))
    yield Call("fit, twice", lambda: [fit().compress(0.5), fit().compress(0.3), fit().compress(0)], "works")
    for name, model, data in (
        ("None", None, v),
        ("a class", nn.Linear, v),
        ("no examples", mlp(), v[:0]),
        ("None as examples", mlp(), None),
    ):
        yield Call(f"fit: {name}", lambda model=model, data=data: lrp.fit(model, data))


def plain_calls(work: Path) -> Iterator[Call]:
    done, x = lrp.compress(network(), images(), 0.5, samples=256, forms="matrix")[0], images()
    for name, model in (("None", None), ("a dense network", mlp()), ("a class", nn.Linear), ("a state", done.state_dict())):
        yield Call(f"as_plain: {name}", lambda model=model: lrp.as_plain(model))
    yield Call("as_plain", lambda: lrp.as_plain(done), "works")
    yield Call("as_plain, twice", lambda: lrp.as_plain(lrp.as_plain(done)), "either")
    yield Call("as_plain, saved", lambda: lrp.save(lrp.as_plain(done), work / "plain.safetensors"))
    yield Call("as_plain, compressed", lambda: lrp.compress(lrp.as_plain(done), x, 0.5, samples=256), "either")
    yield Call("compressed again", lambda: lrp.compress(done, x, 0.5, samples=256), "either")
    file = work / "a.onnx"
    refused = {
        "a state": lambda: lrp.export_onnx(done.state_dict(), x, file),
        "a text": lambda: lrp.export_onnx(done, "x", file),
        "an empty tuple": lambda: lrp.export_onnx(done, (), file),
        "no examples": lambda: lrp.export_onnx(done, x[:0], file),
        "a scalar": lambda: lrp.export_onnx(done, torch.tensor(1.0), file),
        "another shape": lambda: lrp.export_onnx(done, x[:, :1], file),
        "integers": lambda: lrp.export_onnx(done, x.long(), file),
        "NaN": lambda: lrp.export_onnx(done, x * torch.nan, file),
        "a keyword that there is not": lambda: lrp.export_onnx(done, {"nothing": x}, file),
        "a number as keyword": lambda: lrp.export_onnx(done, {5: x}, file),
        "None as path": lambda: lrp.export_onnx(done, x, None),
        "a folder as path": lambda: lrp.export_onnx(done, x, work),
        "a path below a file": lambda: lrp.export_onnx(done, x, work / "file" / "a.onnx"),
        "tolerance of a text": lambda: lrp.export_onnx(done, x, file, tolerance="a"),
        "tolerance NaN": lambda: lrp.export_onnx(done, x, file, tolerance=float("nan")),
        "tolerance -1": lambda: lrp.export_onnx(done, x, file, tolerance=-1),
        "tolerance None": lambda: lrp.export_onnx(done, x, file, tolerance=None),
    }
    for name, run in refused.items():
        yield Call(f"export: {name}", run)


def more_calls(work: Path) -> Iterator[Call]:
    """Every one."""
    yield from mask_calls()
    yield from rule_calls()
    yield from plain_calls(work)
