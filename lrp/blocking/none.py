"""No blocking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lrp.matrices import Block, LayerMatrix


@dataclass(frozen=True)
class Unblocked:
    """Every layer matrix is one block."""

    name: ClassVar[str] = "none"

    def __call__(self, matrices: Mapping[str, LayerMatrix]) -> list[Block]:
        """The blocks of all layers, layer by layer in the order of ``matrices``."""
        return [Block(name, 0, 0, matrix.shape[0], 0, matrix.shape[1]) for name, matrix in matrices.items()]
