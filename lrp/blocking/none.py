"""No blocking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lrp.errors import check_int
from lrp.matrices import Block, LayerMatrix


@dataclass(frozen=True)
class Unblocked:
    """Every layer matrix is one block. ``k`` is accepted, so that a sweep over blockings may set it, and not used."""

    name: ClassVar[str] = "none"
    k: int = 4

    def __post_init__(self) -> None:
        check_int("blocking.k", self.k, 1)

    def __call__(self, matrices: Mapping[str, LayerMatrix]) -> list[Block]:
        return [Block(name, 0, 0, matrix.shape[0], 0, matrix.shape[1]) for name, matrix in matrices.items()]
