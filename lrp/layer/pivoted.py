"""Layers of low rank that hold some of their rows themselves."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.layer.compressed import Compressed, filled, parameter_maker
from lrp.layer.compressed_conv import CompressedConv
from lrp.layer.pivoting import check_order, pivot, reorder, unpivot
from lrp.matrices import LayerMatrix


class Pivoted(Compressed):
    """A layer matrix of rank r as r of its rows, V (r, N), and the others as combinations of these, C (M - r, r): r (M + N - r) numbers,
    and as many multiplications at each position.

    ``order`` (M,) says which of the rows [V x; C V x] each output is.

    Attributes:
        rank: r.
    """

    form = "pivoted"
    own = (*Compressed.own, "rank", "V", "C", "order")
    order: Tensor

    def _hold(self, held: int, like: Tensor) -> None:
        self.rank = int(held)
        empty = parameter_maker(like)
        self.V = empty(self.rank, self.columns)
        self.C = empty(self.rows - self.rank, self.rank)
        self.register_buffer("order", torch.zeros(self.rows, dtype=torch.int32, device=like.device))

    def stored(self) -> dict[str, Any]:
        """The rank."""
        return {"rank": self.rank}

    @classmethod
    def held(cls, matrix: LayerMatrix, stored: dict[str, Any]) -> int:
        """The rank.

        Raises:
            ValueError: Where the layer cannot have it.
        """
        rank = stored["rank"]
        if type(rank) is not int or matrix.groups != 1 or not 1 <= rank < min(matrix.shape[0], matrix.shape[1] + 1):
            raise ValueError(f"layer {matrix.name}: its rank is {rank}")
        return rank

    @torch.no_grad()
    def set_pair(self, U: Tensor, V: Tensor) -> None:
        """Store U V, (M, r) and (r, N)."""
        C, order, T = pivot(U)
        self.V.copy_(T @ V.to(T))
        self.C.copy_(C)
        self.order.copy_(order)

    def check_loaded(self) -> None:
        """As of ``Compressed``.

        Raises:
            ValueError: Where ``order`` is none.
        """
        check_order(self.order, self.rows)

    def weight_matrix(self) -> Tensor:
        """The layer matrix (M, N)."""
        return unpivot(self.C, self.order) @ self.V

    def as_pair(self) -> tuple[Tensor, Tensor]:
        """As of ``Compressed``; U holds the rows of an identity as well."""
        return unpivot(self.C, self.order), self.V

    @torch.no_grad()
    def scale_rows(self, scale: Tensor, shift: Tensor) -> None:
        """As of ``Compressed``; the rows are chosen anew, since a scale may be zero."""
        self.set_pair(unpivot(self.C.double(), self.order) * scale.double()[:, None], self.V.double())
        self._set_bias(scale, shift)

    @torch.no_grad()
    def plain_layers(self) -> list[nn.Module] | str:
        """Two layers, as of a matrix of this rank: torch has none that reorders, so that they hold r^2 numbers more."""
        return [self._thin(), self._pointwise(unpivot(self.C, self.order))]

    def _thin(self) -> nn.Module:
        """A plain layer with V that reads what this one reads."""
        raise NotImplementedError

    def _pointwise(self, U: Tensor) -> nn.Module:
        """A plain layer with U (M, r) and the bias that reads r components at each position."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.columns}, {self.rows}, rank={self.rank}, bias={self.bias is not None})"


class PivotedLinear(Pivoted):
    """A Linear (input (..., N), output (..., M)) in pivoted storage."""

    dense = nn.Linear
    attributes = ("in_features", "out_features")

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M)."""
        inner = F.linear(input, self.V)
        y = torch.cat([inner, F.linear(inner, self.C)], -1).index_select(-1, self.order)
        return y if self.bias is None else y + self.bias

    def _thin(self):
        return filled(nn.Linear(self.columns, self.rank, bias=False), self.V, None)

    def _pointwise(self, U):
        return filled(nn.Linear(self.rank, self.rows, bias=self.bias is not None), U, self.bias)


class _PivotedConv(CompressedConv, Pivoted):
    own = (*Pivoted.own, *CompressedConv.own)

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M, ...)."""
        x, padding = self._padded(input)
        filters = self.V.view(self.rank, self.in_channels, *self.kernel_size)
        inner = self.convolve(x, filters, None, self.stride, padding, self.dilation)
        outer = self.convolve(inner, self.C.view(self.rows - self.rank, self.rank, *self._ones()))
        y = reorder(torch.cat([inner, outer], -1 - self.dims), -1 - self.dims, self.order)
        return y if self.bias is None else y + self.bias.view(-1, *self._ones())

    def _thin(self):
        around: Any = (self.kernel_size, self.stride, self.padding, self.dilation)
        return filled(self.dense(self.in_channels, self.rank, *around, bias=False, padding_mode=self.padding_mode), self.V, None)

    def _pointwise(self, U):
        return filled(self.dense(self.rank, self.rows, 1, bias=self.bias is not None), U, self.bias)


class PivotedConv1d(_PivotedConv):
    """A Conv1d (input (B, C_in, L), output (B, M, L')) in pivoted storage."""

    dense = nn.Conv1d
    convolve: ClassVar[Any] = staticmethod(F.conv1d)


class PivotedConv2d(_PivotedConv):
    """A Conv2d (input (B, C_in, H, W), output (B, M, H', W')) in pivoted storage."""

    dense = nn.Conv2d
    convolve: ClassVar[Any] = staticmethod(F.conv2d)
