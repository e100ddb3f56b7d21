"""Low rank in the metric of the inputs (C) and of the output gradients (G): the algebra behind activation and two_sided."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lrp.layer_statistics.base import quadratic
from lrp.layer_statistics.few_samples import FewSamples

GRADIENT_FLOOR = 1e-4  # of the largest eigenvalue of G: directions without gradients stay in the metric, or nothing would hold them
CUT = 1e-10  # of the largest eigenvalue of W C W^T: below it there is rounding alone


def roots(G: Tensor) -> tuple[Tensor, Tensor]:
    """G^1/2 and G^-1/2 (p, p) of a second moment, its eigenvalues raised to the floor; identities where G is zero."""
    values, vectors = torch.linalg.eigh(G)
    largest = float(values[-1])
    values = values.clamp(min=GRADIENT_FLOOR * largest) if largest > 0 else torch.ones_like(values)
    root = values.sqrt()
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T


class OutputMetric:
    """The metric G (M, M) of a layer's outputs, the second moment of the gradients with respect to them, and its ``roots``.

    ``keep``: whether the roots of the rows that were asked for stay here, for those who ask again.
    """

    def __init__(self, G: Tensor, keep: bool = False) -> None:
        self.G, self.keep = G, keep
        self._parts: dict[tuple[int | None, int | None], OutputMetric] = {}
        self._roots: tuple[Tensor, Tensor] | None = None

    def of(self, rows: slice | Tensor, like: Tensor) -> OutputMetric:
        """That of some rows alone, on the device of ``like`` and in its precision."""
        at = (rows.start, rows.stop) if isinstance(rows, slice) else None
        if at in self._parts:
            return self._parts[at]
        part = OutputMetric(self.G[rows][:, rows].to(like), self.keep)
        if self.keep and at is not None:
            self._parts[at] = part
        return part

    def roots(self) -> tuple[Tensor, Tensor]:
        """``roots(G)``."""
        found = roots(self.G) if self._roots is None else self._roots
        if self.keep:
            self._roots = found
        return found


@dataclass(frozen=True)
class Weighed:
    """A matrix W (p, q) as the metric of its rows weighs it.

    Attributes:
        H: G^1/2 W, or where this has more rows than columns its part R in B R, (min(p, q), q).
        basis: B (p, q), with orthonormal columns; None where H is all of it.
        inverse: G^-1/2 (p, p); None without a metric.
    """

    H: Tensor
    basis: Tensor | None
    inverse: Tensor | None

    def factors(self, energy: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """As of ``metric_factors``, the first ``rank`` components (None: all); ``energy`` is H C H^T, for the metric C of the columns."""
        energies, Q = torch.linalg.eigh(energy)
        del energy  # here and below: what follows takes several matrices of this size
        energies, Q = energies.flip(0).clamp(min=0), Q.flip(1)
        live = int((energies > CUT * energies[0]).sum())
        energies[live:] = 0
        if live < len(energies):
            rest = Q[:, live:]
            Q = torch.cat([Q[:, :live], rest @ torch.linalg.svd(rest.T @ self.H, full_matrices=False).U], dim=1)
            del rest
        Q, energies = Q[:, :rank], energies[:rank]
        V = Q.T @ self.H
        U = Q if self.basis is None else self.basis @ Q
        del Q
        return U if self.inverse is None else self.inverse @ U, energies.sqrt(), V


def weighed(W: Tensor, G: OutputMetric | None) -> Weighed:
    """W (p, q) in the metric G of its rows; None: the identity."""
    root, inverse = (None, None) if G is None else G.roots()
    return _reduced(W if root is None else root @ W, inverse)


def _reduced(H: Tensor, inverse: Tensor | None) -> Weighed:
    if len(H) <= H.shape[1]:
        return Weighed(H, None, inverse)
    basis, R = torch.linalg.qr(H)  # of the outputs only q dimensions are reached
    return Weighed(R, basis, inverse)


def factors_in(W: Tensor, C: Tensor | FewSamples, G: OutputMetric | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """As of ``metric_factors``, of the metric C (q, q) of the columns, a diagonal (q,) or few samples."""
    held = weighed(W, G)
    return held.factors(quadratic(held.H, C))


def metric_factors(W: Tensor, products: Tensor, G: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """U (p, R), S (R,) descending, V (R, q) with U V = W (p, q), R = min(p, q), in the metric of C (q, q), of which it takes
    ``products`` = W C W^T (p, p), and of G (p, p; None: the identity). The first r columns and rows are the best rank r: they
    minimise tr(G D C D^T), D = W - U_r V_r. Where C itself is at hand ``factors_in`` is less work.

    The basis is complete where C is singular: components without energy follow in the order of their weights' norm.
    """
    root, inverse = (None, None) if G is None else roots(G)
    del G
    energy = products if root is None else root @ products
    del products
    energy = energy if root is None else energy @ root
    H = W if root is None else root @ W
    del W, root
    held = _reduced(H, inverse)
    del H, inverse
    return held.factors(energy if held.basis is None else held.basis.T @ energy @ held.basis)


def metric_norm(products: Tensor, G: Tensor | None) -> float:
    """The largest S of a block."""
    root = None if G is None else roots(G)[0]
    energy = products if root is None else root @ products @ root
    return float(torch.linalg.eigvalsh(energy)[-1].clamp(min=0).sqrt())
