"""In which ways the layers of each block can be stored, and which of them are chosen; until then they are kept on the disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Sized
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from lrp.cost.costs import kept_share, make_costs
from lrp.entries import read_entry, write_entry
from lrp.errors import InputError
from lrp.files import write_text
from lrp.matrices import Block
from lrp.method.forms import WithForms, check_any
from lrp.selection.choices import choose
from lrp.streaming.spool import Work


def write_ways(work: Work, k: int, blocks: Sequence[Block], scores: Sequence[Tensor], ways: WithForms | None) -> None:
    """Keep what was found of one block of the network: the scores of the ``blocks`` of its layers, and what each way to store these
    costs and loses."""
    held = {str(i): score.double().cpu() for i, score in enumerate(scores)}
    if ways is not None:
        for what in ("params", "loss"):
            held |= {f"{what} {layer}": torch.from_numpy(values) for layer, values in ways.of_all(what).items()}
    write_entry(work.folder / f"scores{k}.safetensors", held, work.key)
    write_text(work.folder / f"scores{k}.json", json.dumps([asdict(replace(block, order=None)) for block in blocks]))


def read_scores(work: Work, k: int) -> tuple[list[Block], list[Tensor]]:
    """Of one block of the network the blocks of its layers, and the scores of their components.

    Raises:
        InputError: For scores that cannot be read.
    """
    blocks, held = _read(work, k)
    return blocks, [held[str(i)] for i in range(len(blocks))]


def chosen(work: Work, names: Sequence[str], method: Any, sparsity: float) -> tuple[dict[str, int], bool]:
    """Which way each layer is stored, by block of the network and layer; and whether anything goes. ``names``: of the blocks.

    Raises:
        InputError: Where there is no layer, where none fits a form, and where no choice is small enough.
    """
    ways: dict[str, tuple[Any, Any]] = {}
    for k in range(len(names)):
        blocks, held = _read(work, k)
        for layer in dict.fromkeys(block.layer for block in blocks):
            ways[f"{k} {layer}"] = held[f"params {layer}"].numpy(), held[f"loss {layer}"].numpy()
    _check_layers(names, ways)
    check_any(method.usable_forms, (len(loss) for _, loss in ways.values()))
    dense = sum(int(params.max()) for params, _ in ways.values())
    found = choose(ways, kept_share(sparsity) * dense, "params")
    return found, sum(int(ways[name][0][at]) for name, at in found.items()) < dense


def kept(work: Work, names: Sequence[str], method: Any, sparsity: float) -> tuple[dict[str, Tensor], bool]:
    """The same where layers are matrices alone: masks of the components that stay, by block of the network, layer and place.

    Raises:
        InputError: Where there is no layer.
    """
    blocks, scores = list[Block](), list[Tensor]()
    for k in range(len(names)):
        own, found = read_scores(work, k)
        blocks += [replace(block, layer=f"{k} {block.layer}") for block in own]
        scores += found
    _check_layers(names, blocks)
    keep = method.selection(blocks, scores, sparsity, make_costs(blocks))
    return {f"{block.layer} {block.index}": mask for block, mask in zip(blocks, keep)}, not all(bool(mask.all()) for mask in keep)


def _check_layers(names: Sequence[str], layers: Sized) -> None:
    if not len(layers):
        raise InputError("blocks", ", ".join(names[:4]), "they hold no layer to compress, or all are excluded")


def _read(work: Work, k: int) -> tuple[list[Block], Mapping[str, Tensor]]:
    held = read_entry(work.folder / f"scores{k}.safetensors", work.key)
    told = json.loads((work.folder / f"scores{k}.json").read_text(encoding="utf-8"))
    if held is None or not {str(i) for i in range(len(told))} <= held.keys():
        raise InputError("folder", work.folder, "its scores are damaged; remove it")
    return [Block(**each) for each in told], held
