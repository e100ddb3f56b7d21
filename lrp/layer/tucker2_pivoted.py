"""Tucker-2 convolutions that hold some of their channels themselves, on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.layer.compressed import parameter_maker
from lrp.layer.compressed_conv import CompressedConv
from lrp.layer.pivoting import check_order, pivot, reorder, unpivot
from lrp.layer.tucker2 import Triple, Tucker2
from lrp.matrices import LayerMatrix


class Tucker2Pivoted(CompressedConv):
    """A convolution W = U K P with q input and r output ranks, both thin factors in pivoted storage: q (C_in - q) + q r k + r (M - r)
    numbers, k entries of the kernel; at full ranks those of the dense layer.

    The input is q of its channels plus ``D`` (q, C_in - q) of the others; the output r channels as ``K`` (r, q, ...) gives them, and ``C``
    (M - r, r) of these; either is None at full rank.

    Attributes:
        ranks: (q, r).
    """

    form = "tucker2_pivoted"
    own = (*CompressedConv.own, "ranks", "D", "K", "C", "order", "places")
    order: Tensor
    places: Tensor

    def _hold(self, held: tuple[int, int], like: Tensor) -> None:
        self.ranks = (int(held[0]), int(held[1]))
        q, r = self.ranks
        empty = parameter_maker(like)
        self.D = empty(q, self.in_channels - q) if q < self.in_channels else None
        self.K = empty(r, q, *self.kernel_size)
        self.C = empty(self.rows - r, r) if r < self.rows else None
        self.register_buffer("places", torch.zeros(self.in_channels, dtype=torch.int32, device=like.device))
        self.register_buffer("order", torch.zeros(self.rows, dtype=torch.int32, device=like.device))

    def stored(self) -> dict[str, Any]:
        """The ranks."""
        return {"ranks": list(self.ranks)}

    @classmethod
    def held(cls, matrix: LayerMatrix, stored: dict[str, Any]) -> tuple[int, int]:
        """The ranks.

        Raises:
            ValueError: Where the layer cannot have them.
        """
        if matrix.groups != 1:
            raise ValueError(f"layer {matrix.name}: it is grouped")
        return Tucker2.held(matrix, stored)

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M, ...)."""
        (q, r), dim, one = self.ranks, -1 - self.dims, self._ones()
        more_in, more_out = self.in_channels - q, self.rows - r
        x = reorder(input, dim, self.places)
        kept = x.narrow(dim, 0, q)
        if self.D is not None:
            kept = kept + self.convolve(x.narrow(dim, q, more_in), self.D.view(q, more_in, *one))
        x, padding = self._padded(kept)
        inner = self.convolve(x, self.K, None, self.stride, padding, self.dilation)
        if self.C is not None:
            inner = torch.cat([inner, self.convolve(inner, self.C.view(more_out, r, *one))], dim)
        y = reorder(inner, dim, self.order)
        return y if self.bias is None else y + self.bias.view(-1, *one)

    @torch.no_grad()
    def set_triples(self, triples: Sequence[Triple]) -> None:
        """Store U K P, given as the only one of a list."""
        ((U, K, P),) = triples
        C, order, T = pivot(U)
        D, places, S = pivot(P.T)
        if self.C is not None:
            self.C.copy_(C)
        self.order.copy_(order)
        if self.D is not None:
            self.D.copy_(D.T)
        self.places.copy_(places.argsort().to(torch.int32))  # which channel is at each place
        self.K.copy_(torch.einsum("ar,rqk,bq->abk", T, K.to(T), S).view_as(self.K))

    def triples(self) -> list[Triple]:
        """U (M, r), K (r, q, k) and P (q, C_in)."""
        q, r = self.ranks
        C = self.K.new_empty(0, r) if self.C is None else self.C
        D = self.K.new_empty(q, 0) if self.D is None else self.D
        return [(unpivot(C, self.order), self.K.flatten(2), unpivot(D.T, self.places.argsort()).T)]

    def check_loaded(self) -> None:
        """As of ``Compressed``.

        Raises:
            ValueError: Where ``order`` or ``places`` is none.
        """
        check_order(self.order, self.rows)
        check_order(self.places, self.in_channels)

    def weight_matrix(self) -> Tensor:
        """The layer matrix (M, N)."""
        U, K, P = self.triples()[0]
        return U @ (P.T @ K).flatten(1)

    @torch.no_grad()
    def scale_rows(self, scale: Tensor, shift: Tensor) -> None:
        """As of ``Compressed``; the channels are chosen anew, since a scale may be zero."""
        U, K, P = (part.double() for part in self.triples()[0])
        self.set_triples([(U * scale.double()[:, None], K, P)])
        self._set_bias(scale, shift)

    @torch.no_grad()
    def plain_layers(self) -> list[nn.Module] | str:
        """Three convolutions, as of Tucker-2 at these ranks: torch has no layer that reorders, so that they hold q^2 + r^2 numbers more."""
        U, _, P = self.triples()[0]
        return self._plain_triple(P, self.K, U)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.rows}, ranks={self.ranks}, bias={self.bias is not None})"


class Tucker2PivotedConv1d(Tucker2Pivoted):
    """A Conv1d (input (B, C_in, L), output (B, M, L')) in pivoted Tucker-2 form."""

    dense = nn.Conv1d
    convolve = staticmethod(F.conv1d)


class Tucker2PivotedConv2d(Tucker2Pivoted):
    """A Conv2d (input (B, C_in, H, W), output (B, M, H', W')) in pivoted Tucker-2 form."""

    dense = nn.Conv2d
    convolve = staticmethod(F.conv2d)
