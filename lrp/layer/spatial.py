"""Convolutions in spatial form: one that is as high as the kernel and one column wide, then one that is as wide and one row high."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.layer.base import balance
from lrp.layer.compressed import parameter_maker
from lrp.layer.compressed_conv import CompressedConv
from lrp.matrices import LayerMatrix

Pair = tuple[Tensor, Tensor]


class SpatialConv2d(CompressedConv):
    """A Conv2d (input (B, C_in, H, W), output (B, M, H', W')) as k_h x 1 to r channels, then 1 x k_w to all (Jaderberg et al., BMVC 2014;
    Tai et al., ICLR 2016).

    Stored are ``V`` (groups r, C_in of a group, k_h) and ``U`` (M, r, k_w), balanced: r (k_h C_in + k_w M) numbers.

    Attributes:
        rank: Of each group.
    """

    form = "spatial"
    dense = nn.Conv2d
    convolve = staticmethod(F.conv2d)
    own = (*CompressedConv.own, "rank", "U", "V")

    def _hold(self, held: int, like: Tensor) -> None:
        self.rank = int(held)
        empty = parameter_maker(like)
        self.V = empty(self.groups * self.rank, self.in_channels // self.groups, self.kernel_size[0])
        self.U = empty(self.rows, self.rank, self.kernel_size[1])

    def stored(self) -> dict[str, Any]:
        """The rank and the height of the kernel, which the matrix does not tell."""
        return {"rank": self.rank, "height": self.kernel_size[0]}

    @classmethod
    def held(cls, matrix: LayerMatrix, stored: dict[str, Any]) -> int:
        """The rank.

        Raises:
            ValueError: Where the layer cannot have it.
        """
        rank, height = stored["rank"], stored["height"]
        if type(rank) is not int or type(height) is not int or height < 1 or matrix.kernel % height:
            raise ValueError(f"layer {matrix.name}: its rank or the height of its kernel is none")
        if not 1 <= rank <= min(matrix.channels * height, matrix.shape[0] // matrix.groups * (matrix.kernel // height)):
            raise ValueError(f"layer {matrix.name}: its rank is {rank}")
        return rank

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M, H', W')."""
        return self._along_sides(input, self.V, self.U, self.bias)

    def pairs(self) -> list[Pair]:
        """U (M of a group, r, k_w) and V (r, C_in of a group, k_h) of each group."""
        return list(zip(self.U.chunk(self.groups), self.V.chunk(self.groups)))

    @torch.no_grad()
    def set_pairs(self, pairs: Sequence[Pair]) -> None:
        """Store these, of each group as ``pairs`` gives them, balanced."""
        for held, (U, V) in zip(self.pairs(), pairs, strict=True):
            columns, rows = balance(U.transpose(1, 2).flatten(0, 1), V.flatten(1))
            held[0].copy_(columns.unflatten(0, (len(U), -1)).transpose(1, 2))
            held[1].copy_(rows.view_as(V))

    def weight_matrix(self) -> Tensor:
        """The layer matrix (M, N)."""
        return torch.cat([torch.einsum("mrw,rch->mchw", U, V).flatten(1) for U, V in self.pairs()])

    @torch.no_grad()
    def scale_rows(self, scale: Tensor, shift: Tensor) -> None:
        """As of ``Compressed``."""
        self.U.mul_(scale[:, None, None].to(self.U))
        self._set_bias(scale, shift)

    @torch.no_grad()
    def plain_layers(self) -> list[nn.Module] | str:
        """Two convolutions; none with a padding mode other than zeros, which torch's own layer cannot do for one side."""
        if self.padding_mode != "zeros":
            return f"padding_mode={self.padding_mode}"
        return self._plain_sides(self.in_channels, self.V, self.U, self.bias)

    def __repr__(self) -> str:
        return f"SpatialConv2d({self.in_channels}, {self.rows}, rank={self.rank}, bias={self.bias is not None})"


def spatial_svd(weight: Tensor, height: int, width: int, rank: int) -> Pair:
    """U (M, r, k_w) and V (r, C, k_h) of the best rank in the plain norm of a group's matrix (M, C k_h k_w)."""
    M = len(weight)
    W = weight.view(M, -1, height, width).permute(0, 3, 1, 2)  # (M, k_w, C, k_h)
    U, S, Vh = torch.linalg.svd(W.reshape(M * width, -1), full_matrices=False)
    return (U[:, :rank] * S[:rank]).view(M, width, rank).transpose(1, 2), Vh[:rank].view(rank, -1, height)
