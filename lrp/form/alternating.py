"""The fit of a layer that has a thin input side: what it reads and what it makes of that, in turn."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lrp.decomposition.metric import OutputMetric, factors_in
from lrp.layer_statistics.few_samples import FewSamples
from lrp.layer_statistics.regression import Regression

STALLED = 1e-3  # of what is lost: rounds that win less than this are not worth their time
ENOUGH = 1e-3  # of the whole: where no more is lost, no round is
MOST_ROUNDS = 5
STEPS = 8  # of conjugate gradients for the input side, in each round


def rounds(fit: Regression) -> int:
    """How many are worth their time for a regression."""
    return 1 if fit.rough else MOST_ROUNDS


class Sides(NamedTuple):
    """A layer matrix U K (P x I) of M outputs and C inputs at each of k entries, with q input and r output ranks.

    Attributes:
        U: (M, r).
        K: (r, q, k).
        P: (q, C).
        lost: tr(G D metric D^T), D what is left of the target.
    """

    U: Tensor
    K: Tensor
    P: Tensor
    lost: float


def fit_sides(
    best: Tensor, metric: Tensor | FewSamples, G: OutputMetric | None, kernel: int, q: int, r: int | None, rounds: int = MOST_ROUNDS
) -> Sides:
    """The sides that make tr(G D metric D^T) small, D = best - U K (P x I), (M, C k); without a rank ``r`` U is the identity.

    The input side begins with the principal directions of the inputs as G sees them, inputs of different entries of the kernel taken
    as unrelated. Given it, U and K are one reduced-rank regression, the best there is (Izenman, 1975); given U and K, P is linear least
    squares, which conjugate gradients bring closer. The error never rises; it stops where it stalls, and where hardly anything is lost.
    """
    root, inverse = (torch.eye(len(best)).to(best),) * 2 if G is None else G.roots()
    H = root @ best  # from here on in the outputs' metric
    channel = (
        metric.channels(kernel)
        if isinstance(metric, FewSamples)
        else torch.einsum("ckdk->cd", metric.unflatten(0, (-1, kernel)).unflatten(2, (-1, kernel)))
    )
    read = H @ metric
    total = float((read * H).sum())
    P, found = _principal(H, channel, kernel, q), None
    for at in range(rounds):
        U, K, kept = _outer_side(read, metric, P, kernel, r)
        now = Sides(U, K, P, max(total - kept, 0.0))
        stalled = found is not None and found.lost - now.lost <= STALLED * found.lost
        found = now if found is None else min(found, now, key=lambda sides: sides.lost)
        if stalled or now.lost <= ENOUGH * total:
            break
        if at < rounds - 1 and total > 0:
            P = torch.linalg.qr(_inner_side(U, K, P, H, metric, channel).T).Q.T
    assert found is not None, "there is at least one round"
    if r is None:
        return found._replace(K=(inverse @ found.K.flatten(1)).view_as(found.K))
    return found._replace(U=inverse @ found.U)


def _principal(H: Tensor, channel: Tensor, kernel: int, q: int) -> Tensor:
    """P (q, C), orthonormal: rows span the input directions of H (rows, C k) that carry the most in the inputs' covariance."""
    T = H.unflatten(1, (-1, kernel)).transpose(1, 2).flatten(0, 1)  # (rows k, C)
    if len(T) > T.shape[1]:
        T = torch.linalg.qr(T).R
    vectors = torch.linalg.eigh(T @ channel @ T.T).eigenvectors.flip(1)[:, :q]
    basis = (vectors.T @ T).T
    return torch.linalg.qr(torch.cat([basis, torch.eye(len(basis), q - basis.shape[1]).to(basis)], 1)).Q.T


def _outer_side(read: Tensor, metric: Tensor | FewSamples, P: Tensor, kernel: int, r: int | None) -> tuple[Tensor, Tensor, float]:
    """The best U (M, r) and K (r, q, k) for an orthonormal P (q, C), and how much of the total they keep; ``read`` is H metric."""
    M, q = len(read), len(P)
    Cp = inner_metric(P, metric, kernel)
    W = regressed(through(P, read, kernel), Cp)  # (M, q k)
    if r is None:
        return torch.eye(M).to(read), W.view(M, q, kernel), float((W @ Cp * W).sum())
    U, S, V = factors_in(W, Cp)
    K = F.pad(V, (0, 0, 0, r - len(V))).view(r, q, kernel)  # a negative size cuts off
    return F.pad(U, (0, r - U.shape[1])), K, float(S[:r].square().sum())


def through(P: Tensor, read: Tensor, kernel: int) -> Tensor:
    """Rows (p, C k) as they are after P (q, C): (p, q k)."""
    return (P @ read.unflatten(1, (-1, kernel))).flatten(1)


def inner_metric(P: Tensor, metric: Tensor | FewSamples, kernel: int) -> Tensor | FewSamples:
    """The metric of what an orthonormal P (q, C) reads, (P x I) metric (P x I)^T (q k, q k)."""
    if isinstance(metric, FewSamples):
        return metric.within(P, kernel)
    size = len(P) * kernel
    PC = P @ metric.reshape(P.shape[1], -1)
    return (PC.view(size, -1, kernel).transpose(1, 2) @ P.T).transpose(1, 2).reshape(size, size)


def regressed(crossed: Tensor, metric: Tensor | FewSamples) -> Tensor:
    """X (p, s) with X metric = ``crossed``."""
    if isinstance(metric, FewSamples):
        return metric.solved(crossed)
    return torch.cholesky_solve(crossed.T, cholesky(metric, 1e-10)).T


def _inner_side(U: Tensor, K: Tensor, P: Tensor, H: Tensor, metric: Tensor | FewSamples, channel: Tensor) -> Tensor:
    """P closer to the least squares solution for U and K: conjugate gradients on tr(E metric E^T), E = U K P - H, preconditioned by the
    inputs' covariance as if inputs of different entries of the kernel were unrelated."""
    reached = U if U.shape[1] <= K[0].numel() else U @ K.flatten(1)
    basis = torch.linalg.qr(reached).Q  # the part of the error outside of this basis P cannot reach
    core = ((basis.T @ U) @ K.flatten(1)).view(-1, *K.shape[1:])
    target = basis.T @ H
    left = cholesky(torch.einsum("sqk,spk->qp", core, core))
    right = cholesky(channel)

    def pull(E: Tensor) -> Tensor:
        """The gradient for an error (r, C k)."""
        return torch.einsum("sqk,sck->qc", core, (E @ metric).unflatten(1, (-1, core.shape[2])))

    def push(D: Tensor) -> Tensor:
        return torch.einsum("sqk,qc->sck", core, D).flatten(1)

    def precondition(D: Tensor) -> Tensor:
        return torch.cholesky_solve(torch.cholesky_solve(D, left).T.contiguous(), right).T

    residual = pull(target - push(P))
    direction = z = precondition(residual)
    rz = float((residual * z).sum())
    for _ in range(STEPS):
        moved = pull(push(direction))
        curvature = float((direction * moved).sum())
        if not curvature > 0 or not rz > 0:
            break
        P = P + rz / curvature * direction
        residual = residual - rz / curvature * moved
        z = precondition(residual)
        before, rz = rz, float((residual * z).sum())
        direction = z + rz / before * direction
    return P


def cholesky(A: Tensor, share: float = 1e-8) -> Tensor:
    """The lower factor of a positive definite matrix near a positive semidefinite one, which rounding may have made indefinite."""
    scale = float(A.diagonal().abs().max())
    factor, failed = torch.linalg.cholesky_ex(A + max(share * scale, 1e-100) * torch.eye(len(A)).to(A))
    if not int(failed):
        return factor
    values, vectors = torch.linalg.eigh((A + A.T) / 2)
    return torch.linalg.cholesky((vectors * values.clamp(min=max(1e-8 * scale, 1e-100))) @ vectors.T)
