"""Layer matrices cut into blocks, each entry into exactly one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch

from lrp.matrices import Block, LayerMatrix
from lrp.order import Order


def cut(blocking: Callable[[Mapping[str, LayerMatrix]], list[Block]], matrices: Mapping[str, LayerMatrix]) -> list[Block]:
    """The blocks into which ``blocking`` cuts the matrices, checked to partition them exactly.

    The groups of a grouped convolution are cut one by one, as matrices of their own: no block crosses from one to the next.
    """
    views, place = {}, {}
    for name, matrix in matrices.items():
        rows = matrix.shape[0] // matrix.groups
        for g in range(matrix.groups):
            view = f"{name}, group {g}" if matrix.groups > 1 else name
            reorders = matrix.reorders and matrix.groups == 1 and not matrix.uses
            views[view] = LayerMatrix(view, matrix.weight[g * rows : (g + 1) * rows], matrix.kernel, reorders=reorders)
            place[view] = (name, g * rows)
    blocks, count = [], dict.fromkeys(matrices, 0)
    for block in blocking(views):
        name, shift = place[block.layer]
        rows = (block.row_start + shift, block.row_stop + shift)
        blocks.append(replace(block, layer=name, index=count[name], row_start=rows[0], row_stop=rows[1]))
        count[name] += 1
    check_partition(matrices, blocks)
    return blocks


def check_partition(matrices: Mapping[str, LayerMatrix], blocks: Iterable[Block]) -> None:
    """Check that every entry of every matrix lies in exactly one block, and that blocks are numbered from 0 in each layer.

    Raises:
        ValueError: With the layer's name, where a blocking broke that.
    """
    found: dict[str, list[Block]] = {name: [] for name in matrices}
    for block in blocks:
        if block.index != len(found[block.layer]) or block.size <= 0:
            raise ValueError(f"layer {block.layer}: block {block.index} is empty or out of order")
        found[block.layer].append(block)
    for name, held in found.items():
        for order in {block.order for block in held} - {None}:
            _check_order(matrices[name], order, held)
        free = torch.ones(matrices[name].shape, dtype=torch.bool)  # one layer's at a time
        twice = False
        for block in held:
            part = replace(block, order=None).of(free)
            twice |= not bool(part.all()) or part.shape != block.shape
            part.fill_(False)
        if twice or bool(free.any()):
            raise ValueError(f"layer {name}: the blocks do not partition its matrix exactly")


def _check_order(matrix: LayerMatrix, order: Order | None, blocks: Iterable[Block]) -> None:
    assert order is not None
    sizes = {"channels": matrix.channels, "rows": matrix.shape[0]}
    for what, size in sizes.items():
        found = getattr(order, what)
        if found is not None and sorted(found) != list(range(size)):
            raise ValueError(f"layer {matrix.name}: the order of its {what} is none")
    if any(block.order != order for block in blocks) or order.kernel != matrix.kernel or not matrix.reorders:
        raise ValueError(f"layer {matrix.name}: its blocks are in different orders, or in one that it cannot have")


def spans(total: int, parts: int) -> list[tuple[int, int]]:
    """[0, total) in ``parts`` contiguous ranges whose sizes differ by at most one, larger ones first."""
    size, larger = divmod(total, parts)
    edges = [i * size + min(i, larger) for i in range(parts + 1)]
    return list(zip(edges[:-1], edges[1:]))
