"""The singular value decomposition of every block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from lrp.errors import InputError
from lrp.matrices import Block, Factors, LayerMatrix


def decompose(matrices: Mapping[str, LayerMatrix], blocks: Sequence[Block]) -> list[Factors]:
    """The thin SVD of each block, computed and kept in float64 on the CPU.

    Raises InputError, with the layer's name, for a weight that is not finite.
    """
    for name, matrix in matrices.items():
        if not bool(torch.isfinite(matrix.weight).all()):
            raise InputError(f"layer {name}: its weight holds values that are not finite, so it cannot be decomposed")
    result = []
    for block in blocks:
        dense = block.of(matrices[block.layer].weight).to("cpu", torch.float64)
        U, S, Vh = torch.linalg.svd(dense, full_matrices=False)
        result.append(Factors(block, U, S, Vh))
    return result
