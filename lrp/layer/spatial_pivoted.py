"""Convolutions in spatial form of which some inputs are read themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.layer.compressed import parameter_maker
from lrp.layer.compressed_conv import CompressedConv
from lrp.layer.pivoting import check_order, pivot, unpivot
from lrp.layer.spatial import Pair, SpatialConv2d
from lrp.matrices import LayerMatrix


class SpatialPivotedConv2d(CompressedConv):
    """A Conv2d (input (B, C_in, H, W), output (B, M, H', W')) as k_h x 1 to r channels, then 1 x k_w to all, whose first factor is in
    pivoted storage: r (k_h C_in + k_w M - r) numbers.

    Stored are ``U`` (M, r, k_w), and ``D`` (k_h C_in - r, r), what the entries (channel, row of the kernel) that are not read themselves
    count in each of the r that are; ``places`` (k_h C_in,) says which entry is which. The first factor is made of these as the layer
    runs, so that it multiplies as often as the spatial form.

    Attributes:
        rank: r.
    """

    form = "spatial_pivoted"
    dense = nn.Conv2d
    convolve = staticmethod(F.conv2d)
    own = (*CompressedConv.own, "rank", "U", "D", "places")
    places: Tensor

    def _hold(self, held: int, like: Tensor) -> None:
        self.rank = int(held)
        empty, entries = parameter_maker(like), self.in_channels * self.kernel_size[0]
        self.U = empty(self.rows, self.rank, self.kernel_size[1])
        self.D = empty(entries - self.rank, self.rank) if self.rank < entries else None
        self.register_buffer("places", torch.zeros(entries, dtype=torch.int32, device=like.device))

    def stored(self) -> dict[str, Any]:
        """The rank and the height of the kernel, which the matrix does not tell."""
        return {"rank": self.rank, "height": self.kernel_size[0]}

    @classmethod
    def held(cls, matrix: LayerMatrix, stored: dict[str, Any]) -> int:
        """The rank.

        Raises:
            ValueError: Where the layer cannot have it.
        """
        if matrix.groups != 1:
            raise ValueError(f"layer {matrix.name}: it is grouped")
        return SpatialConv2d.held(matrix, stored)

    def _first(self) -> Tensor:
        """The first factor (r, C_in, k_h)."""
        D = self.U.new_empty(0, self.rank) if self.D is None else self.D
        return unpivot(D, self.places).T.reshape(self.rank, self.in_channels, self.kernel_size[0])

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M, H', W')."""
        return self._along_sides(input, self._first(), self.U, self.bias)

    @torch.no_grad()
    def set_pairs(self, pairs: Sequence[Pair]) -> None:
        """Store U (M, r, k_w) and V (r, C_in, k_h), given as the only ones of a list."""
        ((U, V),) = pairs
        D, places, T = pivot(V.flatten(1).T)
        if self.D is not None:
            self.D.copy_(D)
        self.places.copy_(places)
        self.U.copy_(torch.einsum("mrw,ar->maw", U.to(T), T))

    def check_loaded(self) -> None:
        """As of ``Compressed``.

        Raises:
            ValueError: Where ``places`` is no order.
        """
        check_order(self.places, len(self.places))

    def weight_matrix(self) -> Tensor:
        """The layer matrix (M, N)."""
        return torch.einsum("mrw,rch->mchw", self.U, self._first()).flatten(1)

    @torch.no_grad()
    def scale_rows(self, scale: Tensor, shift: Tensor) -> None:
        """As of ``Compressed``."""
        self.U.mul_(scale[:, None, None].to(self.U))
        self._set_bias(scale, shift)

    @torch.no_grad()
    def plain_layers(self) -> list[nn.Module] | str:
        """Two convolutions, as of the spatial form at this rank, which hold r^2 numbers more; none with a padding mode other than zeros."""
        if self.padding_mode != "zeros":
            return f"padding_mode={self.padding_mode}"
        return self._plain_sides(self.in_channels, self._first(), self.U, self.bias)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.rows}, rank={self.rank}, bias={self.bias is not None})"
