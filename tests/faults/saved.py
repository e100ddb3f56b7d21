"""Damaged files of saved networks: ``lrp.load`` gives the network that was saved, or a sentence."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from faults.damage import damaged, described_by, parts, renamed, together
from faults.folders import folders
from faults.outcomes import Counts
from torch import nn

import lrp
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.method.hap import Hap

LONGEST = 600  # characters of a sentence


def small_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 16, 10)
    )


def saved_networks(folder: Path) -> list[bytes]:
    """The bytes of saved networks of one architecture: two sparsities, other blocks, fused, blocks in another order, single weights
    removed, clusters, filters removed."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    model, images = small_network().eval(), torch.randn(16, 3, 8, 8)
    options: dict[str, Any] = {"samples": 512, "scoring_images": 4}
    half = lrp.compress(model, images, 0.5, forms="matrix", **options)[0]  # its description is what HOSTILE changes
    more = lrp.compress(model, images, 0.7, **options)[0]
    other = lrp.compress(model, images, 0.5, blocking="square", scorer="magnitude", **options)[0]
    new: list[dict[str, Any]] = [
        {"blocking": "clustered", "scorer": "magnitude"}, {"decomposition": "entries", "scorer": "magnitude"}, {"method": "messi"},
    ]  # fmt: skip
    newer = [lrp.compress(model, images, 0.5, **{"method": "singular_vectors", **options, **each})[0] for each in new]
    newer.append(lrp.compress(model, images, 0.5, method=Hap(FirstOrderEstimator(), probes=2))[0])
    found = []
    for network in (half, more, other, lrp.fuse(half), *newer):
        lrp.save(network, folder / "network.safetensors")
        found.append((folder / "network.safetensors").read_bytes())
    return found


def held(network: nn.Module) -> tuple[dict[str, tuple[str, bytes]], str | None, str]:
    """All that a loaded network is: its tensors with their types, its report, its structure."""
    tensors = {
        name: (f"{t.dtype} {tuple(t.shape)}", t.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        for name, t in network.state_dict().items()
    }
    report = getattr(network, "lrp_report", None)
    return tensors, None if report is None else report.to_json() + json.dumps(report.attrs, sort_keys=True), str(network)


def outcome(file: Path, right: Any) -> str:
    """What ``lrp.load`` makes of a file: "refused", "the same", or what is wrong."""
    try:
        found = lrp.load(file, small_network)
    except lrp.InputError as error:
        return "refused" if "\n" not in str(error) and len(str(error)) <= LONGEST else f"no sentence: {str(error)[:200]!r}"
    except BaseException as error:  # whatever it is, it is no sentence
        return f"raises {type(error).__name__}: {str(error)[:200]}"
    return "the same" if held(found) == right else "another network"


def described(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    """A file whose description was changed so, its checksum taken away."""

    def made(data: bytes) -> bytes:
        header, tensors = parts(data)
        description = json.loads(header["__metadata__"]["lrp"])
        description.pop("sha256")
        text = change(description)
        header["__metadata__"]["lrp"] = text if isinstance(text, str) else json.dumps(description)
        return together(header, tensors)

    return made


def _first(description: dict[str, Any]) -> dict[str, Any]:
    return next(iter(description["layers"].values()))


def _block(number: int, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda d: _first(d)["blocks"][0].__setitem__(number, value)


def _narrow(kind: str = "Conv2d", **to: int) -> Callable[[dict[str, Any]], None]:
    sizes = {"in_channels": 3, "out_channels": 12, "groups": 1}
    return lambda d: d.update(narrow={"0": {"type": kind, "from": sizes, "to": {**sizes, **to}}})


HOSTILE = {
    "narrow numbers": lambda d: d.update(narrow=[3]),
    "narrow nothing": lambda d: d.update(narrow={"77": {"type": "Conv2d", "from": {}, "to": {}}}),
    "narrow os.system": _narrow("os.system"),
    "narrow to no filter": _narrow(out_channels=0),
    "narrow to 10^12 filters": _narrow(out_channels=10**12),
    "narrow into 5 groups": _narrow(groups=5),
    "blocks in no order": lambda d: _first(d).update(form="permuted", orders=[1, 2]),
    "blocks in an order": lambda d: _first(d).update(form="permuted", orders=[True, True]),
    "clusters": lambda d: _first(d).update(form="clusters"),
    "masked": lambda d: _first(d).update(form="masked"),
    "filters": lambda d: _first(d).update(form="filters"),
    "format 3": lambda d: d.update(format=3),
    "form os.system": lambda d: _first(d).update(form="os.system"),
    "ranks of a list of a form": lambda d: _first(d).update(form="pivoted", rank=[1]),
    "rank 10^12 of a form": lambda d: _first(d).update(form="pivoted", rank=10**12),
    "frozen nothing": lambda d: d.update(frozen=["77"]),
    "frozen numbers": lambda d: d.update(frozen=[3]),
    "format -1": lambda d: d.update(format=-1),
    "a text as format": lambda d: d.update(format="1"),
    "no format": lambda d: d.pop("format") and None,
    "a version that writes on the terminal": lambda d: d.update(format=9, version="\n\x1b[31m<script>"),
    "a list": lambda d: "[1]",
    "a number": lambda d: "5",
    "not JSON": lambda d: "{",
    "NaN": lambda d: '{"format": NaN}',
    "nested": lambda d: "[" * 50_000 + "]" * 50_000,
    "a huge number": lambda d: '{"format": ' + "9" * 6000 + "}",
    "rank 10^12": _block(4, 10**12),
    "rank -5": _block(4, -5),
    "rank 1.5": _block(4, 1.5),
    "rank true": _block(4, True),
    "rows from -5": _block(0, -5),
    "rows to 10^12": _block(1, 10**12),
    "no blocks": lambda d: _first(d).update(blocks=[]),
    "a block twice": lambda d: _first(d).update(blocks=2 * _first(d)["blocks"]),
    "200,000 blocks": lambda d: _first(d).update(blocks=[[i, i + 1, 0, 1, 1] for i in range(200_000)]),
    "blocks of a text": lambda d: _first(d).update(blocks="abcde"),
    "no layers": lambda d: d.update(layers=None),
    "a layer ../../etc/passwd": lambda d: d["layers"].update({"../../etc/passwd": _first(d)}),
    "a layer __class__": lambda d: d["layers"].update(__class__=_first(d)),
    "a layer forward": lambda d: d["layers"].update(forward=_first(d)),
    "a layer without a name": lambda d: d["layers"].update({"": _first(d)}),
    "type os.system": lambda d: _first(d).update(type="os.system"),
    "no options": lambda d: _first(d).update(options=None),
    "stride 10^9": lambda d: _first(d)["options"].update(stride=[10**9, 10**9]),
    "folded into nothing": lambda d: d.update(folded={"1": "77"}),
    "folded into itself": lambda d: d.update(folded={"1": "1"}),
    "folded __init__": lambda d: d.update(folded={"1": "__init__"}),
    "biased nothing": lambda d: d.update(biased=["77"]),
    "biased numbers": lambda d: d.update(biased=[3]),
    "same as nothing": lambda d: d.update(same={"a": "b"}),
    "a report of a list": lambda d: d.update(report=[]),
    "a report without totals": lambda d: d["report"].update(totals=None),
    "rows of a number": lambda d: d["report"].update(rows=5),
    "a config of a number": lambda d: d.update(config=5),
    "another entry": lambda d: d.update(code="import os"),
}


def saved(work: Path, share: float, seed: int) -> Counts:
    """Damage saved networks 2,000 times and folders of networks 300 times (times ``share``), and try every hostile description."""
    counts, chance = Counts("saved"), random.Random(seed)
    files, file = saved_networks(work), work / "damaged.safetensors"
    rights = []
    for data in files:
        file.write_bytes(data)
        rights.append(held(lrp.load(file, small_network)))

    def tell(found: str, what: str) -> None:
        counts.add("damaged files")
        counts.add("refused in a sentence", int(found == "refused"))
        counts.add("taken for another network", int(found == "another network"), what)
        counts.add("without a sentence", int(found not in ("refused", "the same", "another network")), f"{what}: {found}")

    def count(data: bytes, right: Any, what: str) -> None:
        file.write_bytes(data)
        tell(outcome(file, right), what)

    for _ in range(round(2000 * share)):
        number = chance.randrange(len(files))
        kind, data = damaged(files[number], chance)
        count(data, rights[number], kind)
    for number, data in enumerate(files):
        for other in files:
            if other != data:
                count(described_by(data, other), rights[number], "the description of another network")
        count(renamed(data, chance), rights[number], "two tensors exchanged")
    for name, change in HOSTILE.items():
        count(described(change)(files[0]), rights[0], f"a description with {name}")
    if importlib.util.find_spec("transformers") is not None:
        folders(work, round(300 * share), chance, tell)
    return counts
