"""What every blocking is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

from lrp.matrices import Block, LayerMatrix


class Blocking(Protocol):
    """How layer matrices are cut into blocks.

    Attributes:
        name: What tables call it.
    """

    name: ClassVar[str]

    def __call__(self, matrices: Mapping[str, LayerMatrix]) -> list[Block]:
        """The blocks of all layers, layer by layer in the order of ``matrices``: an exact partition of each matrix, numbered from 0."""
        ...
