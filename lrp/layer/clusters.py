"""Low-rank layers whose rows, indices or input channels lie in another order: cluster by cluster."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from lrp.layer.base import LowRank
from lrp.layer.pivoting import check_order
from lrp.matrices import Block, LayerMatrix, Rank


class Clustered(LowRank):
    """A layer matrix in clusters of points, each of low rank by itself: as ``LowRank``, but the blocks are those of the matrix whose points
    lie in the order of the clusters. Points are the rows of a Linear, the indices of an Embedding (columns of its matrix), or the input
    channels of a convolution (a column for each entry of the kernel); a block spans all rows, or all columns, that are not points.

    ``order`` (points,) int32 says where in that order each output or index lies; of a convolution, which input channel lies at each place.
    """

    form = "clusters"
    file_format = 5
    turned = "clusters_transposed"
    own = (*LowRank.own, "order")
    by_rows: ClassVar[bool] = False  # whether the points are rows of the matrix
    gathers: ClassVar[bool] = False  # whether ``order`` is by what the input is gathered
    ordered_output: ClassVar[bool] = False
    order: Tensor

    @property
    def points(self) -> int:
        """How many there are."""
        return self.rows if self.by_rows else self.columns

    def _hold(self, held: Any, like: Tensor) -> None:
        super()._hold(held, like)
        if "order" not in self._buffers:  # at another rank the order stays
            self.register_buffer("order", torch.arange(self.points, dtype=torch.int32, device=like.device))

    @classmethod
    def held(cls, matrix: LayerMatrix, stored: dict[str, Any]) -> list[tuple[Block, Rank]]:
        """The blocks and their ranks.

        Raises:
            ValueError: For blocks that are no clusters.
        """
        found = super().held(matrix, stored)
        M, N = matrix.shape
        for block, _ in found:
            whole = (block.col_start, block.col_stop) == (0, N) if cls.by_rows else (block.row_start, block.row_stop) == (0, M)
            if not whole or block.col_start % matrix.kernel or block.col_stop % matrix.kernel or matrix.groups > 1:
                raise ValueError(f"layer {matrix.name}: block {block.index} is no cluster")
        return found

    def check_loaded(self) -> None:
        """As of ``Compressed``.

        Raises:
            ValueError: Where ``order`` is none.
        """
        check_order(self.order, self.points)

    @property
    def members(self) -> Tensor:
        """Which point lies at each place (points,) int64."""
        return self.order.long() if self.gathers else self.order.long().argsort()

    @torch.no_grad()
    def set_members(self, members: Tensor) -> None:
        """Set which point lies at each place; before ``fill``."""
        self.order.copy_(members if self.gathers else members.argsort())

    def arranged(self, matrix: Tensor) -> Tensor:
        """As of ``LowRank``."""
        return self._gathered(matrix, self.members.to(matrix.device))

    def _gathered(self, matrix: Tensor, which: Tensor) -> Tensor:
        return matrix[which] if self.by_rows else matrix.unflatten(1, (self.points, -1))[:, which].flatten(1)

    def weight_matrix(self) -> Tensor:
        """The layer matrix (M, N), its points in their own order."""
        return self._gathered(super().weight_matrix(), self.members.argsort())

    def share(self, other: LowRank, dense: Any) -> None:
        """As of ``LowRank``; the order as well.

        Raises:
            ValueError: Where the other stores other blocks.
        """
        super().share(other, dense)
        assert isinstance(other, Clustered)
        self.order = other.order

    def _scale(self, scale: Tensor) -> None:
        super()._scale(scale[self.members.to(scale.device)] if self.ordered_output else scale)

    def reorder_rows(self, order: Tensor) -> bool:
        """As of ``Compressed``; not where rows are what the clusters are of."""
        return not self.by_rows and super().reorder_rows(order)

    def _in_order(self, parts: list[Tensor]) -> Tensor:
        """Outputs (..., points), of cluster after cluster, in the order of the layer, and the bias."""
        y = torch.cat(parts, -1).index_select(-1, self.order)
        return y if self.bias is None else y + self.bias

    @torch.no_grad()
    def plain_layers(self) -> str:
        """As of ``Compressed``: torch has no layer that reorders."""
        return "its clusters lie in another order, and torch has no layer that reorders"
