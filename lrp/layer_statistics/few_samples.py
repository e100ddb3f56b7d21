"""Second moments of a few samples, by a thin factor: products with them cost the samples, not the columns."""

from __future__ import annotations

import torch
from torch import Tensor

WORTHWHILE = 3  # columns for each sample, from which on a thin factor is faster
LEFT = 1e-6  # of the trace: less than this is left by the rounding of sums in single precision too
LEAST_RIDGE = 1e-4  # of the mean diagonal: with less, what is left would count


class FewSamples:
    """L L^T + ``ridge`` I (N, N), symmetric, of L (N, s) with s far below N. ``X @ metric`` works as with a tensor."""

    def __init__(self, L: Tensor, ridge: float = 0.0) -> None:
        self.L, self.ridge = L, ridge

    def __rmatmul__(self, X: Tensor) -> Tensor:
        """X (p, N) times the metric."""
        return torch.addmm(X, X @ self.L, self.L.T, beta=self.ridge)

    def quadratic(self, X: Tensor) -> Tensor:
        """X metric X^T (p, p) of X (p, N)."""
        XL = X @ self.L
        return torch.addmm(XL @ XL.T, X, X.T, alpha=self.ridge) if self.ridge else XL @ XL.T

    def raised(self, ridge: float) -> FewSamples:
        """The same with this much more on its diagonal."""
        return FewSamples(self.L, self.ridge + ridge)

    def diagonal(self) -> Tensor:
        """(N,)."""
        return self.L.square().sum(1) + self.ridge

    def part(self, support: Tensor) -> Tensor | FewSamples:
        """The rows and columns in ``support`` (N,), bool, of L L^T."""
        L = self.L[support]
        return FewSamples(L) if len(L) > L.shape[1] else L @ L.T

    def solved(self, X: Tensor) -> Tensor:
        """X (p, N) times the inverse of the metric (Woodbury)."""
        inner = self.L.T @ self.L
        inner.diagonal().add_(self.ridge)
        return (X - torch.cholesky_solve((X @ self.L).T, torch.linalg.cholesky(inner)).T @ self.L.T) / self.ridge

    def solved_within(self, X: Tensor) -> Tensor:
        """The same of the part of X that lies in the span of L; the rest of it counts as zero."""
        Q, R = torch.linalg.qr(self.L)
        inner = R @ R.T
        inner.diagonal().add_(self.ridge)
        return torch.cholesky_solve((X @ Q).T, torch.linalg.cholesky(inner)).T @ Q.T

    def channels(self, kernel: int) -> Tensor:
        """The sum over equal entries of the kernel, (N / kernel, N / kernel)."""
        parts = self.L.view(-1, kernel * self.L.shape[1])
        summed = parts @ parts.T
        summed.diagonal().add_(kernel * self.ridge)
        return summed

    def within(self, P: Tensor, kernel: int) -> Tensor | FewSamples:
        """(P x I) metric (P x I)^T (q k, q k) of an orthonormal P (q, N / k) and a kernel of k entries."""
        samples = self.L.shape[1]
        PL = (P @ self.L.view(-1, kernel * samples)).view(-1, samples)
        if len(PL) > samples:
            return FewSamples(PL, self.ridge)
        whole = PL @ PL.T
        whole.diagonal().add_(self.ridge)
        return whole


def thin_factors(C: Tensor, samples: int) -> list[Tensor]:
    """``thin_factor`` of each group of C (groups, N, N); empty where one of them has none."""
    found = []
    for own in C:
        L = thin_factor(own, samples)
        if L is None:
            return []
        found.append(L)
    return found


def thin_factor(C: Tensor, samples: int) -> Tensor | None:
    """L (N, s) with L L^T = C (N, N) but for a millionth of its trace, s at most ``samples``: a Cholesky factor with pivots, which ends
    where no more is left. None where it would not be thin, where more is left (C is known less well than its samples say: their mean is
    far larger than their spread), and of zeros."""
    if samples * WORTHWHILE > len(C):
        return None
    left = C.diagonal().clone()
    least, rank = LEFT * float(left.sum()), 0
    L = C.new_zeros(samples, len(C))
    while float(left.abs().sum()) > least:
        pivot = int(left.argmax())
        largest = float(left[pivot])
        if rank == samples or not largest > 0:
            return None
        L[rank] = (C[pivot] - L[:rank, pivot] @ L[:rank]) / largest**0.5
        left = left - L[rank].square()
        left[pivot] = 0
        rank += 1
    return L[:rank].T.contiguous() if rank else None
