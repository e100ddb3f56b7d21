"""Convolutions in Tucker-2 form: 1 x 1 to few input channels, the kernel between few channels, 1 x 1 to all output channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.errors import InputError
from lrp.layer.compressed import parameter_maker
from lrp.layer.compressed_conv import CompressedConv
from lrp.matrices import LayerMatrix

BALANCING = 100  # rounds; each brings the norms closer, a few are enough unless they are many orders apart

Triple = tuple[Tensor, Tensor, Tensor]


class Tucker2(CompressedConv):
    """A convolution W = U K P, with q input and r output ranks of each group (Kim et al., ICLR 2016).

    Stored are ``P`` (groups q, C_in of a group), ``K`` (groups r, q, ...) and ``U`` (M, r): q C_in + groups r q k + r M numbers, with
    k entries of the kernel. They are balanced: an input rank's row of P is as long as its part of K, an output rank's column of U
    as its own. Padding comes after P: as P acts on every position alone, it commutes with every mode of padding.

    Attributes:
        ranks: (q, r) of each group.
    """

    form = "tucker2"
    own = (*CompressedConv.own, "ranks", "P", "K", "U")

    def _hold(self, held: tuple[int, int], like: Tensor) -> None:
        self.ranks = (int(held[0]), int(held[1]))
        q, r = self.ranks
        empty = parameter_maker(like)
        self.P = empty(self.groups * q, self.in_channels // self.groups)
        self.K = empty(self.groups * r, q, *self.kernel_size)
        self.U = empty(self.rows, r)

    def stored(self) -> dict[str, Any]:
        """The ranks."""
        return {"ranks": list(self.ranks)}

    @classmethod
    def held(cls, matrix: LayerMatrix, stored: dict[str, Any]) -> tuple[int, int]:
        """The ranks.

        Raises:
            ValueError: Where the layer cannot have them.
        """
        ranks = stored["ranks"]
        if not isinstance(ranks, list) or len(ranks) != 2 or not all(type(rank) is int for rank in ranks):
            raise ValueError(f"layer {matrix.name}: its ranks are not two integers")
        if not (1 <= ranks[0] <= matrix.channels and 1 <= ranks[1] <= matrix.shape[0] // matrix.groups):
            raise ValueError(f"layer {matrix.name}: its ranks are {ranks}")
        return ranks[0], ranks[1]

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M, ...)."""
        one, (q, r) = self._ones(), self.ranks
        filters = self.P.view(self.groups * q, self.in_channels // self.groups, *one)
        x = self.convolve(input, filters, None, 1, 0, 1, self.groups)
        x, padding = self._padded(x)
        x = self.convolve(x, self.K, None, self.stride, padding, self.dilation, self.groups)
        return self.convolve(x, self.U.view(self.rows, r, *one), self.bias, 1, 0, 1, self.groups)

    def triples(self) -> list[Triple]:
        """U (M of a group, r), K (r, q, k) and P (q, C_in of a group) of each group."""
        parts = zip(self.U.chunk(self.groups), self.K.flatten(2).chunk(self.groups), self.P.chunk(self.groups))
        return [(U, K, P) for U, K, P in parts]

    @torch.no_grad()
    def set_triples(self, triples: Sequence[Triple]) -> None:
        """Store these, of each group as ``triples`` gives them, balanced."""
        for held, given in zip(self.triples(), triples, strict=True):
            for parameter, values in zip(held, balance_triple(*given)):
                parameter.copy_(values)

    @torch.no_grad()
    def set_rank(self, ranks: tuple[int, int], grow: str = "orthogonal", generator: torch.Generator | None = None) -> None:
        """Hold the layer at (q, r) of each group from now on; also between two steps of training.

        The factors are those of the truncated higher-order SVD of the current weight. Where a rank grows, ``grow`` says what comes with
        it: ``orthogonal``, random directions with zeros behind them, which leave the function as it is and learn at once; ``svd``, the
        further directions of the same decomposition. The parameters are new: the optimiser has to be made anew.

        Raises:
            InputError: For ranks that the layer cannot have, for an unknown ``grow``, and for weights that are not finite.
        """
        q, r = self.check_ranks(ranks)
        if grow not in ("orthogonal", "svd"):
            raise InputError("grow", grow, "choose orthogonal or svd")
        weight = self.weight_matrix()
        if not bool(torch.isfinite(weight).all()):
            raise InputError("rank", ranks, "the layer's weight holds values that are not finite, so that it cannot be decomposed")
        keep = (min(q, self.ranks[0]), min(r, self.ranks[1])) if grow == "orthogonal" else (q, r)
        kernel = math.prod(self.kernel_size)
        made = [grown(triple, q, r, generator) for triple in hosvd(weight, self.groups, kernel, *keep)]
        self._hold((q, r), self.U.detach().requires_grad_(self.U.requires_grad))
        self.set_triples(made)

    def check_ranks(self, ranks: Any) -> tuple[int, int]:
        """(q, r).

        Raises:
            InputError: For anything else, and for ranks that the layer cannot have.
        """
        most = self.in_channels // self.groups, self.rows // self.groups
        numbers = (
            isinstance(ranks, tuple | list)
            and len(ranks) == 2
            and all(isinstance(rank, Integral) and not isinstance(rank, bool) for rank in ranks)
        )
        if not numbers or not all(1 <= rank <= limit for rank, limit in zip(ranks, most)):
            raise InputError("rank", ranks, f"a Tucker-2 layer needs two, (input, output), from (1, 1) to {most}")
        return int(ranks[0]), int(ranks[1])

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Glorot's uniform initialisation (Glorot and Bengio, 2010) of every factor; the bias is left as it is."""
        for parameter in (self.P, self.K, self.U):
            nn.init.xavier_uniform_(parameter, generator=generator)

    def weight_matrix(self) -> Tensor:
        """The layer matrix (M, N)."""
        return torch.cat([U @ (P.T @ K).flatten(1) for U, K, P in self.triples()])

    @torch.no_grad()
    def scale_rows(self, scale: Tensor, shift: Tensor) -> None:
        """As of ``Compressed``."""
        self.U.mul_(scale[:, None].to(self.U))
        self._set_bias(scale, shift)

    @torch.no_grad()
    def plain_layers(self) -> list[nn.Module] | str:
        """Three convolutions."""
        return self._plain_triple(self.P, self.K, self.U)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.rows}, ranks={self.ranks}, bias={self.bias is not None})"


class Tucker2Conv1d(Tucker2):
    """A Conv1d (input (B, C_in, L), output (B, M, L')) in Tucker-2 form."""

    dense = nn.Conv1d
    convolve = staticmethod(F.conv1d)


class Tucker2Conv2d(Tucker2):
    """A Conv2d (input (B, C_in, H, W), output (B, M, H', W')) in Tucker-2 form."""

    dense = nn.Conv2d
    convolve = staticmethod(F.conv2d)


def hosvd(weight: Tensor, groups: int, kernel: int, q: int, r: int) -> list[Triple]:
    """U (M, r), K (r, q, k), P (q, C) of each group's part of a layer matrix: the truncated higher-order SVD (De Lathauwer et al.,
    2000), U and P with orthonormal columns and rows."""
    triples = []
    for part in weight.double().chunk(groups):
        W = part.unflatten(1, (-1, kernel))  # (M, C, k)
        U = torch.linalg.svd(part, full_matrices=False).U
        P = torch.linalg.svd(W.transpose(0, 1).flatten(1), full_matrices=False).U.T
        triples.append(project(part, kernel, _complete(U, r), _complete(P.T, q).T))
    return triples


def project(weight: Tensor, kernel: int, U: Tensor, P: Tensor) -> Triple:
    """The best core between orthonormal columns U (M, r) and rows P (q, C), for a group's matrix (M, C k)."""
    U, P = U.to(weight), P.to(weight)
    return U, torch.einsum("mr,mck,qc->rqk", U, weight.unflatten(1, (-1, kernel)), P), P


def _complete(basis: Tensor, rank: int) -> Tensor:
    """The first ``rank`` columns of an orthonormal basis, continued where it has fewer."""
    if basis.shape[1] >= rank:
        return basis[:, :rank]
    return torch.linalg.qr(torch.cat([basis, torch.eye(len(basis)).to(basis)], 1)).Q[:, :rank]


def grown(triple: Triple, q: int, r: int, generator: torch.Generator | None) -> Triple:
    """The same function at ranks (q, r): new rows of P and of K in output ranks are random and orthonormal, what is behind them zero."""
    U, K, P = balance_triple(*triple)
    more_q, more_r = q - len(P), r - U.shape[1]
    if more_q > 0:
        P = torch.cat([P, _orthonormal(P, more_q, generator) * float(P.norm(dim=1).mean())])
        K = F.pad(K, (0, 0, 0, more_q))
    if more_r > 0:
        flat = K.flatten(1)
        rows = _orthonormal(flat, min(more_r, max(flat.shape[1] - len(flat), 0)), generator) * float(flat.norm(dim=1).mean())
        K = torch.cat([K, F.pad(rows, (0, 0, 0, more_r - len(rows))).view(more_r, *K.shape[1:])])
        U = F.pad(U, (0, more_r))
    return U, K, P


def _orthonormal(rows: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Random orthonormal rows, orthogonal to ``rows``."""
    basis = torch.linalg.qr(rows.T).Q
    new = torch.randn(count, rows.shape[1], dtype=torch.float64, generator=generator).to(rows)
    for _ in range(2):  # once more, against rounding
        new = torch.linalg.qr((new - new @ basis @ basis.T).T).Q.T
    return new


def balance_triple(U: Tensor, K: Tensor, P: Tensor) -> Triple:
    """The same product with columns of U (M, r) as long as the rows K[i] (r, q, k), and rows of P (q, C) as long as K[:, j]; ranks
    with a zero on either side stay as they are."""
    for _ in range(BALANCING):
        out = _ratio(K.flatten(1).norm(dim=1), U.norm(dim=0))
        U, K = U * out, K / out[:, None, None]
        into = _ratio(K.transpose(0, 1).flatten(1).norm(dim=1), P.norm(dim=1))
        K, P = K / into[:, None], P * into[:, None]
        if max(float((factor - 1).abs().max()) for factor in (out, into)) < 1e-6:
            break
    return U, K, P


def _ratio(inner: Tensor, outer: Tensor) -> Tensor:
    """What to multiply the outer side by, and to divide the inner by, so that both are as long."""
    return torch.where((inner > 0) & (outer > 0), (inner / outer.where(outer > 0, 1.0)).sqrt(), 1.0)
