"""Second moments of a few samples, by a thin factor: products with them cost the samples, not the columns."""

from __future__ import annotations

import torch
from torch import Tensor

WORTHWHILE = 3  # columns for each sample, from which on a thin factor is faster
ROUNDING = 1e-6  # of the trace: what sums in single precision leave beside the samples


class FewSamples:
    """L L^T + ``ridge`` I (N, N), symmetric, of L (N, s) with s far below N. ``X @ metric`` works as with a tensor."""

    def __init__(self, L: Tensor, ridge: float = 0.0) -> None:
        self.L, self.ridge = L, ridge

    def raised(self, ridge: float) -> FewSamples:
        """The same with this much more on its diagonal."""
        return FewSamples(self.L, self.ridge + ridge)

    def diagonal(self) -> Tensor:
        """(N,)."""
        return self.L.square().sum(1) + self.ridge

    def part(self, support: Tensor) -> Tensor:
        """Its rows and columns in ``support`` (N,), bool."""
        L = self.L[support]
        return L @ L.T + self.ridge * torch.eye(len(L)).to(L)

    def __rmatmul__(self, X: Tensor) -> Tensor:
        """X (p, N) times the metric."""
        return torch.addmm(X, X @ self.L, self.L.T, beta=self.ridge)

    def solved(self, X: Tensor) -> Tensor:
        """X (p, N) times the inverse of the metric (Woodbury)."""
        inner = self.L.T @ self.L
        inner.diagonal().add_(self.ridge)
        return (X - torch.cholesky_solve((X @ self.L).T, torch.linalg.cholesky(inner)).T @ self.L.T) / self.ridge

    def channels(self, kernel: int) -> Tensor:
        """The sum over equal entries of the kernel, (N / kernel, N / kernel)."""
        parts = self.L.view(-1, kernel * self.L.shape[1])
        summed = parts @ parts.T
        summed.diagonal().add_(kernel * self.ridge)
        return summed

    def within(self, P: Tensor, kernel: int) -> FewSamples:
        """(P x I) metric (P x I)^T (q k, q k) of an orthonormal P (q, N / k) and a kernel of k entries."""
        samples = self.L.shape[1]
        return FewSamples((P @ self.L.view(-1, kernel * samples)).view(-1, samples), self.ridge)


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
    """L (N, s) with L L^T = C (N, N) but for rounding, s at most ``samples``: a Cholesky factor with pivots, which ends where nothing is
    left. None where it would not be thin, where more is left than rounding, and of zeros."""
    N = len(C)
    left = C.diagonal().clone()
    total = float(left.sum())
    if samples * WORTHWHILE > N or not total > 0:
        return None
    L = C.new_zeros(samples, N)
    for at in range(samples):
        pivot = int(left.argmax())
        if float(left.sum()) <= ROUNDING * total:
            return L[:at].T.contiguous()
        column = C[pivot] - L[:at, pivot] @ L[:at]
        L[at] = column / left[pivot].sqrt()
        left = (left - L[at].square()).clamp_(min=0)
        left[pivot] = 0
    return L.T.contiguous() if float(left.sum()) <= ROUNDING * total else None
