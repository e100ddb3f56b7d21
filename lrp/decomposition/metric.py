"""Low rank in the metric of the inputs (C) and of the output gradients (G): the algebra behind activation and two_sided."""

from __future__ import annotations

import torch
from torch import Tensor

GRADIENT_FLOOR = 1e-4  # of the largest eigenvalue of G: directions without gradients stay in the metric, or nothing would hold them
CUT = 1e-10  # of the largest eigenvalue of W C W^T: below it there is rounding alone


def roots(G: Tensor) -> tuple[Tensor, Tensor]:
    """G^1/2 and G^-1/2 (p, p) of a second moment, its eigenvalues raised to the floor; identities where G is zero."""
    values, vectors = torch.linalg.eigh(G)
    largest = float(values[-1])
    values = values.clamp(min=GRADIENT_FLOOR * largest) if largest > 0 else torch.ones_like(values)
    root = values.sqrt()
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T


def metric_factors(W: Tensor, products: Tensor, G: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """U (p, R), S (R,) descending, V (R, q) with U V = W (p, q), R = min(p, q), in the metric of C (q, q), of which it takes
    ``products`` = W C W^T (p, p), and of G (p, p; None: the identity). The first r columns and rows are the best rank r: they
    minimise tr(G D C D^T), D = W - U_r V_r.

    The basis is complete where C is singular: components without energy follow in the order of their weights' norm.
    """
    root, inverse = (None, None) if G is None else roots(G)
    del G  # here and below: what follows takes several matrices of this size
    energy = products if root is None else root @ products
    del products
    H = W if root is None else root @ W
    energy = energy if root is None else energy @ root
    del W, root
    basis = None
    if len(H) > H.shape[1]:  # of the outputs only q dimensions are reached
        basis, H = torch.linalg.qr(H)
        energy = basis.T @ energy @ basis
    energies, Q = torch.linalg.eigh(energy)
    del energy
    energies, Q = energies.flip(0).clamp(min=0), Q.flip(1)
    live = int((energies > CUT * energies[0]).sum())
    energies[live:] = 0
    if live < len(energies):
        rest = Q[:, live:]
        Q = torch.cat([Q[:, :live], rest @ torch.linalg.svd(rest.T @ H, full_matrices=False).U], dim=1)
        del rest
    V = Q.T @ H
    del H
    U = Q if basis is None else basis @ Q
    del Q, basis
    return U if inverse is None else inverse @ U, energies.sqrt(), V


def metric_norm(products: Tensor, G: Tensor | None) -> float:
    """The largest S of a block."""
    root = None if G is None else roots(G)[0]
    energy = products if root is None else root @ products @ root
    return float(torch.linalg.eigvalsh(energy)[-1].clamp(min=0).sqrt())
