"""What every blocking is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

from torch import Tensor

from lrp.matrices import Block, LayerMatrix

# Of a layer, by its name: C (N, N) of the columns, or a diagonal (N,), and G^1/2 (M, M) of the rows; None: an identity.
Metrics = Mapping[str, tuple[Tensor | None, Tensor | None]]


class Blocking(Protocol):
    """How layer matrices are cut into blocks.

    Attributes:
        name: What tables call it.

    One that says ``reads_metric = True`` is asked by ``in_metric(matrices, metrics)`` instead, with the metrics in which the
    decomposition's components are the best; it looks at values, and so it is asked once.
    """

    name: ClassVar[str]

    def __call__(self, matrices: Mapping[str, LayerMatrix]) -> list[Block]:
        """The blocks of all layers, layer by layer in the order of ``matrices``: an exact partition of each matrix, numbered from 0."""
        ...
