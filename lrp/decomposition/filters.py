"""Every output of a layer by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.layer_statistics.base import LayerStatistics
from lrp.matrices import Block, Factors


@dataclass(frozen=True)
class FilterBlock(Block):
    """A block whose components are its p rows, each of which costs q parameters."""

    @property
    def rank(self) -> int:
        """R = p."""
        return self.shape[0]

    @property
    def unit(self) -> int:
        """q."""
        return self.shape[1]


@dataclass(frozen=True)
class Rows(Factors):
    """The rows of a block in the order in which they are: U is the identity (p, p), V the block (p, q), S (p,) the norms of its rows."""

    form = "masked"

    @property
    def order(self) -> Tensor:
        """From the largest row to the smallest."""
        return self.S.argsort(descending=True, stable=True)

    @property
    def values(self) -> tuple[Tensor, ...]:
        """None: they are the block's, in whatever way it was decomposed."""
        return ()

    def dot(self, G: Tensor) -> Tensor:  # noqa: D102
        return (G * self.V).sum(1)

    def mean(self, D: Tensor) -> Tensor:
        """The row itself."""
        return D.mean(1)

    def stays(self, keep: Tensor) -> Tensor:
        """Which weights (p, q) stay where these components (R,) do."""
        return keep[:, None].expand(self.block.shape)


@dataclass(frozen=True)
class Filters:
    """Each output of a layer is a component: a filter of a convolution, a row of a Linear. What is removed is zero in a layer that stays as
    wide as it is, and the output keeps its bias: a sparsity counts the parameters that are not zero. Of a layer in blocks of columns a
    component is the part of a filter that reads these columns."""

    name: ClassVar[str] = "filters"
    needs: ClassVar[tuple[str, ...]] = ()
    form: ClassVar[str] = Rows.form

    def __call__(self, weight: Tensor, block: Block, statistics: LayerStatistics | None) -> Rows:
        """The rows of one block of the layer's matrix ``weight`` (M, N) float64."""
        rows = block.of(weight).clone()
        return Rows(FilterBlock(**vars(block)), torch.eye(len(rows), dtype=rows.dtype), rows.norm(dim=1), rows)

    def norm(self, weight: Tensor, block: Block, statistics: LayerStatistics | None) -> float:
        """The largest S of a block."""
        return float(block.of(weight).norm(dim=1).max())
