"""The regression of what a layer gave in the dense network on what it reads now."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from lrp.layer_statistics.few_samples import LEAST_RIDGE, FewSamples, thin_factors
from lrp.layer_statistics.sums import PANEL, Sums
from lrp.shelf import Shelf, read

CONSTANT = 1e-5  # of the inputs' second moment: below it a variance is rounding, and the inputs are a constant


class Regression:
    """The regression of a layer's dense outputs z on the inputs x' that it has now; a row belongs to one of its groups of inputs.

    Attributes:
        C: Cov(x') (groups, N, N), made of the ``sums``, which have no second moments afterwards; None where ``thin`` is in its place
        thin: L (N, s) of each group, L L^T = C, where there are few samples for the columns; empty where there are more
        A: Cov(z, x') (M, N)
        W: the dense layer's weight (M, N)
        rough: whether it is made to compare ridges alone: a layer that is fitted in turns may be left after the first, and need not hold
            what is found

    ``forget`` lets go of C, thin, A and W.
    """

    rough = False
    thin: Sequence[Tensor] = ()

    def __init__(self, sums: Sums, weight: Tensor, ridge: float) -> None:
        self.ridge = ridge
        assert sums.x is not None and sums.z is not None and sums.xx is not None and sums.zx is not None, "z was added with x"
        self.mean_x, self.mean_z = sums.x / sums.count, sums.z / sums.count
        self.C, sums.xx = sums.xx.div_(sums.count), None  # in place: of a wide layer it is larger than the network
        energy = self.C.diagonal(dim1=1, dim2=2).amax(1)
        for mean, C in zip(self.mean_x, self.C):
            for rows, part in zip(mean.split(PANEL), C.split(PANEL)):
                part -= rows[:, None] * mean
        constant = self.C.diagonal(dim1=1, dim2=2).amax(1) <= CONSTANT * energy
        self.C[constant] = 0
        groups = len(self.C)
        own = self.mean_z.unflatten(0, (groups, -1))  # (groups, M of a group)
        means = own[:, :, None] * self.mean_x[:, None, :]
        self.A, sums.zx = sums.zx.div_(sums.count), None
        self.A.unflatten(0, (groups, -1)).sub_(means)
        self.W = weight.to(self.C)
        self.groups, self.rows = groups, len(self.W)
        self.thin = thin_factors(self.C, sums.count) if ridge >= LEAST_RIDGE else ()
        if self.thin:
            self.C = None

    def with_ridges(self, shelf: Shelf) -> Callable[[float], Regression]:
        """Gives the same regression with another ridge of at least ``LEAST_RIDGE``, of which a layer that is fitted in turns may be left
        after the first: to compare ridges that is enough. This one is forgotten; what all of them need lies on the ``shelf``."""
        stored = {name: shelf.put(vars(self).pop(name)) for name in ("C", "A", "W") if vars(self)[name] is not None}
        thin, self.thin = [shelf.put(L) for L in self.thin], ()

        def made(ridge: float) -> Regression:
            result = copy.copy(self)
            vars(result).update({name: read(value) for name, value in stored.items()})
            result.thin = [read(L) for L in thin]
            result.ridge, result.rough = ridge, True
            return result

        return made

    def group(self, row: int) -> int:
        """The group that a row belongs to."""
        return row * self.groups // self.rows

    def rows_of(self, group: int) -> slice:
        """The rows of a group."""
        size = self.rows // self.groups
        return slice(group * size, (group + 1) * size)

    def arranged(self, rows: Tensor, columns: Tensor) -> Regression:
        """The same of a layer of one group whose rows and columns lie in another order; without its means."""
        result = copy.copy(self)
        result.A, result.W = self.A[rows][:, columns], self.W[rows][:, columns]
        if self.C is not None:
            result.C = self.C[:, columns] if self.C.dim() == 2 else self.C[:, columns][:, :, columns]
        result.thin = [L[columns] for L in self.thin]
        return result

    def covariance(self, group: int) -> Tensor | FewSamples:
        """C of a group (N, N)."""
        if self.thin:
            return FewSamples(self.thin[group])
        assert self.C is not None, "it is there where no thin factor is"
        return self.C[group]

    def solution(self, group: int) -> tuple[Tensor, Tensor | FewSamples]:
        """Without a bound on the rank: W* (M of the group, N); and C + lambda I (N, N)."""
        own = self.rows_of(group)
        return ridge_solve(self.A[own], self.covariance(group), self.W[own], self.ridge)

    def solutions(self) -> Iterator[tuple[slice, Tensor, Tensor | FewSamples]]:
        """The rows and the ``solution`` of each group; with the last one everything else is let go (``forget``)."""
        for group in range(self.groups):
            found = [(self.rows_of(group), *self.solution(group))]
            if group == self.groups - 1:
                self.forget()
            yield found.pop()  # so that it goes with whoever asked

    def forget(self) -> None:
        """Let go of everything but what ``bias`` needs; other regressions that were made of this one keep it."""
        del self.C, self.A, self.W
        self.thin = ()

    def within(self, rows: Tensor, support: Tensor) -> Tensor:
        """Where only the columns in ``support`` (N,) may be other than zero: what these rows (n,) of one group hold there (n, columns)."""
        C = self.covariance(self.group(int(rows[0])))
        part = C.part(support) if isinstance(C, FewSamples) else C[support][:, support]
        mean = float(part.diagonal().mean())  # lambda is that of the whole layer
        ridge = self.ridge * float(C.diagonal().mean()) / mean if mean > 0 else self.ridge
        A = self.A[rows][:, support]
        return ridge_solve(A, part, self.W[rows][:, support], ridge)[0]

    def bias(self, span: slice | Tensor, new: Tensor) -> Tensor:
        """The best bias of these rows once their weight is ``new``: it takes the mean."""
        first = span.start if isinstance(span, slice) else int(span[0])
        return self.mean_z[span] - new @ self.mean_x[self.group(first)]


class LookupRegression(Regression):
    """The same of a lookup, whose input nothing before it changes: what is wanted is the dense weight, in the metric of how often each
    index comes; there is no mean to take out, since there is no bias. And of a weight that several layers hold, in their metrics' sum.

    Attributes:
        C: the share of each index (1, N), or a metric of the columns (1, N, N)
    """

    def __init__(self, shares: Tensor, weight: Tensor, ridge: float) -> None:
        self.ridge, self.C, self.W = ridge, shares, weight.to(shares)
        self.groups, self.rows = len(shares), len(weight)
        self.A = self.W * shares if shares.dim() == 2 else self.W @ shares[0]

    def solution(self, group: int) -> tuple[Tensor, Tensor]:
        """The weight itself; and C + lambda I (N, N), or its diagonal (N,)."""
        C = self.C[0]
        if C.dim() == 1:
            return self.W, C + self.ridge * C.mean()
        return self.W, C + self.ridge * C.diagonal().mean() * torch.eye(len(C)).to(C)

    def within(self, rows: Tensor, support: Tensor) -> Tensor:
        """The weight itself: no column of a lookup can stand for another."""
        return self.W[rows][:, support]


def ridge_solve(A: Tensor, C: Tensor | FewSamples, W: Tensor, ridge: float) -> tuple[Tensor, Tensor | FewSamples]:
    """(A + lambda W) (C + lambda I)^-1 and C + lambda I, lambda being ``ridge`` times the mean diagonal of C. Where C is singular
    and lambda 0 the solution closest to W."""
    residual = A - W @ C  # solve for the change, which is small: exact where nothing has to change
    if isinstance(C, FewSamples):
        raised = C.raised(ridge * float(C.diagonal().mean()))
        return (W + raised.solved_within(residual) if raised.ridge > 0 else W), raised
    plain = C.diagonal().clone()
    raised = plain + ridge * C.diagonal().mean()
    C.diagonal().copy_(raised)  # for as long as the factor is made: a copy is large, and is not needed before the factor is gone
    factor, failed = torch.linalg.cholesky_ex(C)
    scale = float(C.diagonal().mean())
    C.diagonal().copy_(plain)
    solved = not int(failed) and not float(factor.diagonal().min()) ** 2 < 1e-12 * scale
    change = torch.cholesky_solve(residual.T, factor).T if solved else None
    del factor
    metric = C.clone()
    metric.diagonal().copy_(raised)
    if change is None:
        values, vectors = torch.linalg.eigh(metric)
        inverse = torch.where(values > 1e-10 * values[-1].clamp(min=torch.finfo(C.dtype).tiny), 1 / values, 0)
        change = (residual @ vectors * inverse) @ vectors.T
    return W + change, metric
