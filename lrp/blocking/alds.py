"""Groups of input channels, as in ALDS (Liebenwein et al., NeurIPS 2021), with one fixed number of groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lrp.errors import check_int
from lrp.matrices import Block, LayerMatrix
from lrp.partition import spans


@dataclass(frozen=True)
class AldsBlocking:
    """``k`` contiguous groups of input channels whose sizes differ by at most one (section 3.2 of the paper: k = 4).

    A layer with fewer than ``k`` input channels has one group per channel.

    Attributes:
        k: Groups of input channels, at least 1.
    """

    name: ClassVar[str] = "alds"
    k: int = 4

    def __post_init__(self) -> None:
        check_int("blocking.k", self.k, 1)

    def __call__(self, matrices: Mapping[str, LayerMatrix]) -> list[Block]:
        """The blocks of all layers, layer by layer in the order of ``matrices``."""
        blocks = []
        for name, matrix in matrices.items():
            groups = spans(matrix.channels, min(self.k, matrix.channels))
            for index, (start, stop) in enumerate(groups):
                blocks.append(Block(name, index, 0, matrix.shape[0], start * matrix.kernel, stop * matrix.kernel))
        return blocks
