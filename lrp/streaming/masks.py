"""The scores of each block's components, which lie on the disk, and what is kept by them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from lrp.cost.costs import make_costs
from lrp.entries import read_entry, write_entry
from lrp.errors import InputError
from lrp.files import write_text
from lrp.matrices import Block
from lrp.streaming.spool import Work


def write_scores(work: Work, k: int, blocks: Sequence[Block], scores: Sequence[Tensor]) -> None:
    """Keep the scores of one block of the network: of the ``blocks`` of its layers."""
    held = {str(i): score.double().cpu() for i, score in enumerate(scores)}
    write_entry(work.folder / f"scores{k}.safetensors", held, work.key)
    write_text(work.folder / f"scores{k}.json", json.dumps([asdict(replace(block, order=None)) for block in blocks]))


def read_scores(work: Work, k: int) -> tuple[list[Block], list[Tensor]]:
    """Of one block of the network the blocks of its layers, and the scores of their components.

    Raises:
        InputError: For scores that cannot be read.
    """
    held = read_entry(work.folder / f"scores{k}.safetensors", work.key)
    told = json.loads((work.folder / f"scores{k}.json").read_text(encoding="utf-8"))
    if held is None or len(held) != len(told):
        raise InputError("folder", work.folder, "its scores are damaged; remove it")
    return [Block(**each) for each in told], [held[str(i)] for i in range(len(told))]


def kept(work: Work, names: Sequence[str], selection: Any, sparsity: float) -> dict[str, Tensor]:
    """Masks of the components that stay, by block of the network, layer and place; ``names``: of the blocks.

    Raises:
        InputError: Where there is no layer.
    """
    blocks, scores = list[Block](), list[Tensor]()
    for k in range(len(names)):
        own, found = read_scores(work, k)
        blocks += [replace(block, layer=f"{k} {block.layer}") for block in own]
        scores += found
    if not blocks:
        raise InputError("blocks", ", ".join(names[:4]), "they hold no layer to compress, or all are excluded")
    keep = selection(blocks, scores, sparsity, make_costs(blocks))
    return {f"{block.layer} {block.index}": mask for block, mask in zip(blocks, keep, strict=True)}
