"""Decompositions turn every block into components; one file each, called with a block and what was measured at its layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lrp.decomposition.svd import Svd
from lrp.layer_statistics.base import LayerStatistics
from lrp.matrices import Block, Factors, LayerMatrix, check_weights

PLAIN = Svd()


def decompose(
    matrices: Mapping[str, LayerMatrix],
    blocks: Sequence[Block],
    decomposition: Any = PLAIN,
    statistics: Mapping[str, LayerStatistics] | None = None,
) -> list[Factors]:
    """The factors of each block, computed and kept in float64 on the CPU; a block uses its own part of the ``statistics``.

    A weight that is not finite raises an InputError with the layer's name.
    """
    check_weights(matrices)
    weights = {name: matrix.weight.to("cpu", torch.float64) for name, matrix in matrices.items()}
    counts = dict.fromkeys(matrices, 0)
    for block in blocks:
        counts[block.layer] += 1
    found, norms = [], {}
    for block in blocks:
        U, S, V = decomposition(weights[block.layer], block, statistics and statistics[block.layer])
        if block.layer not in norms and counts[block.layer] == 1:
            norms[block.layer] = float(S[0])
        found.append((block, U, S, V))
    for name, count in counts.items():
        if count > 1:
            matrix = matrices[name]
            rows, columns = matrix.shape
            wholes = [Block(name, g, g * rows // matrix.groups, (g + 1) * rows // matrix.groups, 0, columns) for g in range(matrix.groups)]
            norms[name] = max(decomposition.norm(weights[name], whole, statistics and statistics[name]) for whole in wholes)
    return [Factors(block, U, S, V, norms[block.layer], decomposition.name) for block, U, S, V in found]
