"""In which ways the layers of each block can be stored, which lie on the disk, and which of them are chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor

from lrp.cost.costs import kept_share
from lrp.entries import read_entry, write_entry
from lrp.errors import InputError
from lrp.files import write_text
from lrp.matrices import Block
from lrp.method.forms import WithForms
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


def chosen(work: Work, names: Sequence[str], sparsity: float) -> dict[str, int]:
    """Which way each layer is stored, by block of the network and layer; ``names``: of the blocks.

    Raises:
        InputError: Where there is no layer, and where no choice fits.
    """
    ways, dense = {}, 0
    for k in range(len(names)):
        blocks, held = _read(work, k)
        for layer in dict.fromkeys(block.layer for block in blocks):
            params, loss = (held[f"{what} {layer}"].numpy() for what in ("params", "loss"))
            ways[f"{k} {layer}"] = params, loss
            dense += int(params.max())
    if not ways:
        raise InputError("blocks", ", ".join(names[:4]), "they hold no layer to compress, or all are excluded")
    return choose(ways, kept_share(sparsity) * dense, "params")


def _read(work: Work, k: int) -> tuple[list[Block], Mapping[str, Tensor]]:
    held = read_entry(work.folder / f"scores{k}.safetensors", work.key)
    told = json.loads((work.folder / f"scores{k}.json").read_text(encoding="utf-8"))
    if held is None or not {str(i) for i in range(len(told))} <= held.keys():
        raise InputError("folder", work.folder, "its scores are damaged; remove it")
    return [Block(**each) for each in told], held
