"""Layers in blocks that are cut from the layer matrix in another order of its input channels or outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lrp.layer.base import LowRank
from lrp.layer.pivoting import check_order
from lrp.layer.stored import RowRange
from lrp.matrices import Block, LayerMatrix, Rank
from lrp.order import Order, column_order


class Permuted(LowRank):
    """A low-rank layer that takes its input channels into the order in which its blocks lie, and its outputs back from it.

    Stored beside the blocks, as buffers, which are no parameters: ``order`` (C_in,), the input channels in the order of the blocks, and
    ``places`` (M,), where each output is among the rows of the blocks; None where the order is the layer's own. ``lrp.fuse`` takes an
    ``order`` into the layer before, where that is the only one it concerns.
    """

    form = "permuted"
    family: ClassVar[str | None] = "matrix"
    file_format = 5
    own = (*LowRank.own, "order", "places")
    order: Tensor | None
    places: Tensor | None

    def _hold(self, held: Sequence[tuple[Block, Rank]], like: Tensor) -> None:
        found = held[0][0].order
        if found is not None:  # or the layer keeps the order that it has (``set_rank``)
            order, rows = (None if part is None else torch.tensor(part, device=like.device) for part in (found.channels, found.rows))
            self.register_buffer("order", None if order is None else order.int())
            self.register_buffer("places", None if rows is None else rows.argsort().int())
        super()._hold([(replace(block, order=None), rank) for block, rank in held], like)

    def stored(self) -> dict[str, Any]:
        """As of ``LowRank``, and of which sides there is an order."""
        return {**super().stored(), "orders": [self.order is not None, self.places is not None]}

    @classmethod
    def held(cls, matrix: LayerMatrix, stored: dict[str, Any]) -> list[tuple[Block, Rank]]:
        """As of ``LowRank``; what the orders are comes with the tensors.

        Raises:
            ValueError: Where the layer has none, or cannot have one.
        """
        orders = stored["orders"]
        if not isinstance(orders, list) or [type(each) for each in orders] != [bool, bool] or matrix.groups != 1:
            raise ValueError(f"layer {matrix.name}: its orders are {str(orders)[:40]}")
        channels, rows = (tuple(range(size)) if given else None for size, given in zip((matrix.channels, matrix.shape[0]), orders))
        order = Order(channels, matrix.kernel, rows)
        return [(replace(block, order=order), rank) for block, rank in super().held(matrix, stored)]

    def check_loaded(self) -> None:
        """As of ``Compressed``.

        Raises:
            ValueError: Where an order is none.
        """
        if self.order is not None:
            check_order(self.order, len(self.order))
        if self.places is not None:
            check_order(self.places, self.rows)

    def arranged(self, matrix: Tensor) -> Tensor:
        """A matrix (M, N) as the blocks count its rows and columns."""
        rows, columns = self._row_order(), self._column_order()
        matrix = matrix if rows is None else matrix[rows.to(matrix.device)]
        return matrix if columns is None else matrix[:, columns.to(matrix.device)]

    def columns_back(self, matrix: Tensor) -> Tensor:
        """A matrix (r, N) whose columns are as the blocks count them, as the layer reads them."""
        columns = self._column_order()
        return matrix if columns is None else matrix[:, columns.argsort().to(matrix.device)]

    def _scale(self, scale: Tensor) -> None:
        order = self._row_order()
        super()._scale(scale if order is None else scale[order.to(scale.device)])

    def rows_of(self, rows: RowRange) -> slice | Tensor:
        """The outputs of the layer that a row range gives."""
        order, span = self._row_order(), slice(rows.start, rows.stop)
        return span if order is None else order[span].cpu()

    @torch.no_grad()
    def reorder_rows(self, order: Tensor) -> bool:
        """As of ``Compressed``."""
        if self.places is None:
            return super().reorder_rows(order)
        self.places = self.places[order]
        if self.bias is not None:
            self.bias.copy_(self.bias[order])
        return True

    @torch.no_grad()
    def plain_layers(self) -> str:
        """As of ``Compressed``: torch has no layer that reorders."""
        return "its blocks lie in another order, and torch has no layer that reorders"

    def weight_matrix(self) -> Tensor:
        """The layer matrix (M, N) that the stored blocks amount to."""
        matrix = self.columns_back(super().weight_matrix())
        return matrix if self.places is None else matrix.index_select(0, self.places)

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output."""
        dim = -1 - getattr(self, "dims", 0)
        if self.order is not None:
            input = input.index_select(dim, self.order)
        out = super().forward(input)
        if self.places is None:
            return out
        out = out.index_select(dim, self.places)
        return out if self.bias is None else out + self.bias.view(-1, *[1] * (-1 - dim))

    def _bias_of(self, rows: RowRange) -> Tensor | None:
        """Where outputs are in another order, the bias is added behind them."""
        return super()._bias_of(rows) if self.places is None else None

    def _column_order(self) -> Tensor | None:
        return None if self.order is None else column_order(self.order.long(), self.columns // len(self.order))

    def _row_order(self) -> Tensor | None:
        return None if self.places is None else self.places.long().argsort()
