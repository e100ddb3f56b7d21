"""Low-rank matrices in r (m + n - r) numbers: r of the rows themselves, and how the others are made of them."""

from __future__ import annotations

import torch
from torch import Tensor

from lrp.layer.compressed_conv import keep_order

LARGEST = 1.05  # of the entries of C that pivoting leaves
SWAPS = 2000


def pivot(U: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """C (m - r, r), order (m,) int32 and T (r, r) with U = [T; C T][order], for U (m, r), r <= m.

    The rows of U that become those of T are chosen so that no entry of C is larger than 1.05 (the volume of T cannot be made larger by
    an exchange of two rows: Goreinov et al., 2010), so that nothing is lost by rounding; U may lack rank.
    """
    m, r = U.shape
    Q, R = torch.linalg.qr(U.double())
    order = torch.linalg.lu_factor(Q).pivots.long().cpu() - 1
    rows = torch.arange(m)
    for i, j in enumerate(order.tolist()):  # LAPACK's list of exchanges
        rows[[i, j]] = rows[[j, i]]
    B = torch.linalg.solve(Q[rows[:r]].T, Q.T).T  # (m, r): the identity in the chosen rows
    for _ in range(SWAPS):
        at = int(B.abs().argmax())
        i, j = divmod(at, r)
        if float(B[i, j].abs()) <= LARGEST:
            break
        old = int(rows[j])
        new_row = B[i].clone()
        new_row[j] -= 1
        B = B - torch.outer(B[:, j], new_row) / B[i, j]
        where = int((rows == i).nonzero()[0])
        rows[j], rows[where] = i, old
    B = torch.linalg.solve(Q[rows[:r]].T, Q.T).T  # anew, without the rounding of all exchanges
    place = torch.empty(m, dtype=torch.int32)
    place[rows] = torch.arange(m, dtype=torch.int32)
    return B[rows[r:]], place.to(U.device), Q[rows[:r]] @ R


def check_order(order: Tensor, size: int) -> None:
    """That a buffer says of each of ``size`` places where it is.

    Raises:
        ValueError: Where it does not.
    """
    if order.dtype != torch.int32 or not torch.equal(order.sort().values.cpu(), torch.arange(size, dtype=torch.int32)):
        raise ValueError("the order of a pivoted layer is none")


def reorder(x: Tensor, dim: int, order: Tensor) -> Tensor:
    """x with what ``order`` says in each place of ``dim``; images stay in channels_last order."""
    return keep_order(x.index_select(dim, order), x)


def unpivot(C: Tensor, order: Tensor) -> Tensor:
    """[I; C][order] (m, r)."""
    return torch.cat([torch.eye(C.shape[1]).to(C), C]).index_select(0, order)
