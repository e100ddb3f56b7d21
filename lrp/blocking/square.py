"""The largest square blocks that fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lrp.matrices import Block, LayerMatrix


@dataclass(frozen=True)
class SquareBlocking:
    """Blocks of side min(M, N) cut from the top left (section 3.2 of the paper).

    The last block may be smaller than the side: nothing is dropped, nothing is padded.
    """

    name: ClassVar[str] = "square"

    def __call__(self, matrices: Mapping[str, LayerMatrix]) -> list[Block]:
        """The blocks of all layers, layer by layer in the order of ``matrices``."""
        blocks = []
        for name, matrix in matrices.items():
            M, N = matrix.shape
            side = min(M, N)
            corners = [(row, col) for row in range(0, M, side) for col in range(0, N, side)]
            for index, (row, col) in enumerate(corners):
                blocks.append(Block(name, index, row, min(row + side, M), col, min(col + side, N)))
        return blocks
