"""Convolutions in Tucker-2 form whose core is in spatial form: four thin convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.layer.compressed import filled, parameter_maker
from lrp.layer.compressed_conv import CompressedConv
from lrp.layer.spatial import spatial_svd
from lrp.layer.tucker2 import balance_triple, hosvd
from lrp.matrices import LayerMatrix

Four = tuple[Tensor, Tensor, Tensor, Tensor]


class NestedConv2d(CompressedConv):
    """A Conv2d (input (B, C_in, H, W), output (B, M, H', W')) as 1 x 1 to q channels, k_h x 1 to s, 1 x k_w to r, 1 x 1 to all.

    Stored are ``P`` (groups q, C_in of a group), ``A`` (groups s, q, k_h), ``B`` (groups r, s, k_w) and ``U`` (M, r), balanced pair by
    pair: q C_in + groups s (k_h q + k_w r) + r M numbers.

    Attributes:
        ranks: (q, s, r) of each group.
    """

    form = "nested"
    dense = nn.Conv2d
    convolve = staticmethod(F.conv2d)
    own = (*CompressedConv.own, "ranks", "P", "A", "B", "U")

    def _hold(self, held: tuple[int, int, int], like: Tensor) -> None:
        q, s, r = self.ranks = (int(held[0]), int(held[1]), int(held[2]))
        empty = parameter_maker(like)
        self.P = empty(self.groups * q, self.in_channels // self.groups)
        self.A = empty(self.groups * s, q, self.kernel_size[0])
        self.B = empty(self.groups * r, s, self.kernel_size[1])
        self.U = empty(self.rows, r)

    def stored(self) -> dict[str, Any]:
        """The ranks."""
        return {"ranks": list(self.ranks)}

    @classmethod
    def held(cls, matrix: LayerMatrix, stored: dict[str, Any]) -> tuple[int, int, int]:
        """The ranks.

        Raises:
            ValueError: Where the layer cannot have them.
        """
        ranks = stored["ranks"]
        if not isinstance(ranks, list) or len(ranks) != 3 or not all(type(rank) is int for rank in ranks):
            raise ValueError(f"layer {matrix.name}: its ranks are not three integers")
        most = matrix.channels, matrix.kernel * min(ranks[0], ranks[2]), matrix.shape[0] // matrix.groups
        if not all(1 <= rank <= limit for rank, limit in zip(ranks, most)):
            raise ValueError(f"layer {matrix.name}: its ranks are {ranks}")
        return ranks[0], ranks[1], ranks[2]

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M, H', W')."""
        (q, _, r), groups = self.ranks, self.groups
        x = self.convolve(input, self.P.view(groups * q, self.in_channels // groups, 1, 1), None, 1, 0, 1, groups)
        x = self._along_sides(x, self.A, self.B)
        return self.convolve(x, self.U.view(self.rows, r, 1, 1), self.bias, 1, 0, 1, groups)

    def fours(self) -> list[Four]:
        """U (M of a group, r), B (r, s, k_w), A (s, q, k_h) and P (q, C_in of a group) of each group."""
        return list(zip(*(part.chunk(self.groups) for part in (self.U, self.B, self.A, self.P))))

    @torch.no_grad()
    def set_fours(self, fours: Sequence[Four]) -> None:
        """Store these, of each group as ``fours`` gives them, balanced."""
        for held, (U, B, A, P) in zip(self.fours(), fours, strict=True):
            for _ in range(3):  # each step balances three of the four
                U, K, inner = balance_triple(U, B, A.flatten(1))
                B, A = K, inner.view_as(A)
                outer, K, P = balance_triple(B.permute(0, 2, 1).flatten(0, 1), A, P)
                A, B = K, outer.unflatten(0, (len(B), -1)).transpose(1, 2)
            for parameter, values in zip(held, (U, B, A, P)):
                parameter.copy_(values)

    @torch.no_grad()
    def set_matrix(self, weight: Tensor) -> None:
        """Store the truncated higher-order SVD of a layer matrix (M, N), its core cut to spatial rank."""
        (q, s, r), (height, width) = self.ranks, self.kernel_size
        fours = []
        for U, K, P in hosvd(weight, self.groups, height * width, q, r):
            B, A = spatial_svd(K.reshape(r, -1), height, width, s)
            fours.append((U, F.pad(B, (0, 0, 0, s - B.shape[1])), F.pad(A, (0, 0, 0, 0, 0, s - len(A))), P))
        self.set_fours(fours)

    def weight_matrix(self) -> Tensor:
        """The layer matrix (M, N)."""
        return torch.cat([torch.einsum("mr,rsw,sqh,qc->mchw", *four).flatten(1) for four in self.fours()])

    @torch.no_grad()
    def scale_rows(self, scale: Tensor, shift: Tensor) -> None:
        """As of ``Compressed``."""
        self.U.mul_(scale[:, None].to(self.U))
        self._set_bias(scale, shift)

    @torch.no_grad()
    def plain_layers(self) -> list[nn.Module] | str:
        """Four convolutions; none with a padding mode other than zeros, which torch's own layer cannot do for one side."""
        if self.padding_mode != "zeros":
            return f"padding_mode={self.padding_mode}"
        (q, _, r), groups = self.ranks, self.groups
        return [
            filled(nn.Conv2d(self.in_channels, groups * q, 1, groups=groups, bias=False), self.P, None),
            *self._plain_sides(groups * q, self.A, self.B),
            filled(nn.Conv2d(groups * r, self.rows, 1, groups=groups, bias=self.bias is not None), self.U, self.bias),
        ]

    def __repr__(self) -> str:
        return f"NestedConv2d({self.in_channels}, {self.rows}, ranks={self.ranks}, bias={self.bias is not None})"
