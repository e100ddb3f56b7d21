"""Decompositions turn every block into components; one file each, called with a block and what was measured at its layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from lrp.decomposition.svd import Svd
from lrp.layer_statistics.base import LayerStatistics
from lrp.matrices import Block, Factors, LayerMatrix, check_weights

PLAIN = Svd()


class Decomposition(Protocol):
    """How a block is turned into components.

    Attributes:
        name: What tables call it.
        needs: Which statistics of the dense network it reads: of "inputs", "gradients".
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    def __call__(self, weight: Tensor, block: Block, statistics: LayerStatistics | None) -> tuple[Tensor, Tensor, Tensor]:
        """U (p, R), S (R,) descending and V (R, q), U V the block of the layer's matrix ``weight`` (M, N), R = min(p, q); float64.

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
) -> list[Factors]:
    """The factors of all blocks, in their order, computed and kept in float64 on the CPU; a block uses its own part of the ``statistics``.

    Raises:
        InputError: For a weight that is not finite, with the layer's name.
    """
    check_weights(matrices)
    weights = {name: matrix.weight.to("cpu", torch.float64) for name, matrix in matrices.items()}
    counts = dict.fromkeys(matrices, 0)
    for block in blocks:
        counts[block.layer] += 1
    found, norms = [], {}
    for block in blocks:
        U, S, V = decomposition(weights[block.layer], block, statistics[block.layer] if statistics else None)
        if block.layer not in norms and counts[block.layer] == 1:
            norms[block.layer] = float(S[0])
        found.append((block, U, S, V))
    for name, count in counts.items():
        if count > 1:
            matrix = matrices[name]
            rows, columns = matrix.shape
            wholes = [Block(name, g, g * rows // matrix.groups, (g + 1) * rows // matrix.groups, 0, columns) for g in range(matrix.groups)]
            own = statistics[name] if statistics else None
            norms[name] = max(decomposition.norm(weights[name], whole, own) for whole in wholes)
    return [Factors(block, U, S, V, norms[block.layer], decomposition.name) for block, U, S, V in found]
