"""Decompositions turn every block into components; one file each, called with a block and what was measured at its layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from lrp.decomposition.svd import Svd
from lrp.group import ALONE, Group
from lrp.layer_statistics.base import LayerStatistics
from lrp.matrices import Block, Components, Factors, LayerMatrix
from lrp.network.arithmetic import check_weights
from lrp.shelf import Shelf

PLAIN = Svd()


class Decomposition(Protocol):
    """How a block is turned into components.

    Attributes:
        name: What tables call it.
        needs: Which statistics of the dense network it reads: of "inputs", "magnitudes", "gradients".

    One that has ``metric(block, statistics)`` says in which metric tr(G D C D^T) its components are the best: C (q, q), or a diagonal
    (q,), of the columns and G^1/2 (p, p) of the rows, None for an identity. Without it blockings that look at a metric take both so.

    One that says ``ties = True`` treats weights that several layers hold as well: it looks at weights alone, or at ``inputs`` and
    ``gradients`` together, in which the metrics of all these layers are added up (``lrp.layer_statistics.tied``).

    One whose components are not stored as U V gives ``Components`` of its own, and has their ``form`` (see ``form_of``).
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    def __call__(self, weight: Tensor, block: Block, statistics: LayerStatistics | None) -> tuple[Tensor, Tensor, Tensor] | Components:
        """U (p, R), S (R,) descending and V (R, q), U V the block of the layer's matrix ``weight`` (M, N), R = min(p, q); float64. Or
        components of another kind that add up to it.

        ``statistics`` are the layer's; None where nothing is needed.
        """
        ...

    def norm(self, weight: Tensor, block: Block, statistics: LayerStatistics | None) -> float:
        """The largest S of a block."""
        ...


def decompose(
    matrices: Mapping[str, LayerMatrix],
    blocks: Sequence[Block],
    decomposition: Decomposition = PLAIN,
    statistics: Mapping[str, LayerStatistics] | None = None,
    group: Group = ALONE,
) -> list[Any]:
    """The components of all blocks (``Factors``, unless the decomposition has a kind of its own), in their order, computed and kept in
    float64 on the CPU, large ones in a file; a block uses its own part of the ``statistics``. Each layer is decomposed by one process of
    the ``group``, for all.

    Raises:
        InputError: For a weight that is not finite, with the layer's name.
    """
    check_weights(matrices)
    places: dict[str, list[int]] = {}
    for i, block in enumerate(blocks):
        places.setdefault(block.layer, []).append(i)
    found: dict[int, Components] = {}
    shelf = Shelf()

    def of_layer(name: str) -> list[Components]:
        weight = matrices[name].weight.to("cpu", torch.float64)
        known = replace(statistics[name]) if statistics else None  # read from their file once
        parts = [_named(decomposition(weight, blocks[i], known), blocks[i]) for i in places[name]]
        if len(parts) == 1:
            norm = float(parts[0].S.max())
        else:
            norm = max(decomposition.norm(weight, whole, known) for whole in _groups(matrices[name]))
        return [replace(part, layer_norm=norm, decomposition=decomposition.name) for part in parts]

    for name, parts in group.shared_out(places, of_layer):  # layer by layer: of one alone there is a copy in double precision
        found |= {i: part.laid_on(shelf) for i, part in zip(places[name], parts)}
        del parts
    return [found[i] for i in range(len(blocks))]


def metrics_of(
    decomposition: Decomposition, matrices: Mapping[str, LayerMatrix], statistics: Mapping[str, LayerStatistics]
) -> dict[str, tuple[Tensor | None, Tensor | None]]:
    """Of each layer whose blocks may be cut in another order the metric of the decomposition: what its ``metric`` says of all columns."""
    find = getattr(decomposition, "metric", None)
    if find is None:
        return {}
    whole = {name: _groups(matrix)[0] for name, matrix in matrices.items() if matrix.reorders and not matrix.uses}
    return {name: find(block, statistics.get(name)) for name, block in whole.items()}


def form_of(decomposition: Any) -> str:
    """In what form a layer is stored that keeps some of a decomposition's components: "matrix", U V, unless it says otherwise."""
    return getattr(decomposition, "form", Factors.form)


def _named(part: Any, block: Block) -> Any:
    return part if isinstance(part, Components) else Factors(block, *part)


def _groups(matrix: LayerMatrix) -> list[Block]:
    """Each group of a layer as one block."""
    rows, columns = matrix.shape[0] // matrix.groups, matrix.shape[1]
    return [Block(matrix.name, g, g * rows, (g + 1) * rows, 0, columns) for g in range(matrix.groups)]
