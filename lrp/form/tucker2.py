"""Convolutions in Tucker-2 form: channels in, a small kernel, channels out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lrp.decomposition.metric import metric_factors, roots
from lrp.form.base import Choices, ScoredLayer, lost_after, rank_grid
from lrp.layer.build import kind_of
from lrp.layer.tucker2 import Tucker2, project
from lrp.layer_statistics.regression import Regression
from lrp.matrices import LayerMatrix

STALLED = 1e-3  # of what is lost: rounds that win less than this are not worth their time
MOST_ROUNDS = 5
STEPS = 8  # of conjugate gradients for the input side, in each round


@dataclass(frozen=True)
class Tucker2Plan:
    """A convolution with q input and r output ranks in each group.

    Attributes:
        matrix: The layer's matrix (M, N).
        positions: How often the layer computes its output for one example.
        places: How many positions its input has for one example.
        ranks: (q, r).
        sides: Of each group the perturbations of the output side's components and those of the input side's, (R,) each.
    """

    matrix: LayerMatrix
    positions: int
    places: int
    ranks: tuple[int, int]
    sides: Sequence[tuple[Tensor, Tensor]]

    @property
    def untouched(self) -> bool:
        """Never: the dense layer is no Tucker-2 layer."""
        return False

    @property
    def params(self) -> int:
        """Parameters stored for the layer's weight."""
        return int(_params(self.matrix, *self.ranks))

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one example, as the layer runs."""
        return int(_macs(self.matrix, self.positions, self.places, *self.ranks))

    def build(self, dense: nn.Module) -> nn.Module:
        """The layer with the components of both sides whose perturbations are the largest, and the best core between them."""
        form = kind_of(dense).form(dense, Tucker2.form)
        assert form is not None and issubclass(form, Tucker2)
        layer = form(dense, self.ranks)
        q, r = self.ranks
        triples = []
        for part, (out, into) in zip(self.matrix.weight.double().chunk(self.matrix.groups), self.sides, strict=True):
            U = torch.linalg.svd(part, full_matrices=False).U[:, _largest(out, r)]
            P = channel_components(part, self.matrix.kernel)[0].T[_largest(into, q)]
            triples.append(project(part, self.matrix.kernel, U, P))
        layer.set_triples(triples)
        return layer.train(dense.training)

    def rows(self) -> list[dict[str, Any]]:
        """One row for the output side and one for the input side."""
        (M, N), (q, r) = self.matrix.shape, self.ranks
        groups, rows = self.matrix.groups, self.matrix.shape[0] // self.matrix.groups
        sides = ((f"{M}x{N}", r, min(rows, N)), (f"{groups * self.matrix.channels}x{rows * self.matrix.kernel}", q, self.matrix.channels))
        return [
            {"layer": self.matrix.name, "block": i, "shape": shape, "kept": kept, "full": full, "dense": False, "form": Tucker2.form}
            for i, (shape, kept, full) in enumerate(sides)
        ]

    def summary(self) -> dict[str, Any]:
        """The report's row of the layer."""
        return {
            "shape": "x".join(str(n) for n in self.matrix.shape),
            "what": f"tucker2, {self.ranks[0]} in and {self.ranks[1]} out",
            "blocks": 1,
            "rank": self.ranks[1],
            "full_rank": min(self.matrix.shape[0] // self.matrix.groups, self.matrix.shape[1]),
            "params_after": self.params,
            "macs_after": self.macs,
        }


class Tucker2Form:
    """W = U K P: 1 x 1 to q channels, the kernel from q to r channels, 1 x 1 to all (Kim et al., ICLR 2016), each group alike.

    What a pair (q, r) loses is taken to be the sum of what each side loses: of the output side the perturbations of the components of
    the layer matrix's SVD, of the input side those of the SVD of the channel unfolding.
    """

    name: ClassVar[str] = "tucker2"
    perturbations: ClassVar[bool] = True
    channels: ClassVar[bool] = True

    def fits(self, dense: nn.Module, matrix: LayerMatrix) -> bool:
        """A convolution with a kernel of more than one entry and more than one input channel."""
        return kind_of(dense).form(dense, self.name) is not None and matrix.kernel > 1 and matrix.channels > 1

    def choices(self, layer: ScoredLayer) -> Choices:
        """Every pair of ranks of a grid that is smaller than the dense layer."""
        matrix = layer.matrix
        assert layer.perturbations is not None and layer.channels is not None
        out, into = lost_after(layer.perturbations), lost_after(layer.channels)
        r, q = np.meshgrid(rank_grid(len(out) - 1, layer.step), rank_grid(matrix.channels - 1, layer.step), indexing="ij")
        smaller = _params(matrix, q, r) < matrix.weight.numel()
        q, r = q[smaller], r[smaller]
        total = out[0] if out[0] > 0 else 1.0
        loss = layer.loss(np.minimum((out[r] + into[q]) / total, 1.0))
        sides = list(zip(layer.perturbations, layer.channels))

        def plan(i: int) -> Tucker2Plan:
            return Tucker2Plan(matrix, layer.positions, layer.places, (int(q[i]), int(r[i])), sides)

        return Choices(self.name, _params(matrix, q, r), _macs(matrix, layer.positions, layer.places, q, r), loss, plan)

    def refit(self, module: Tucker2, fit: Regression, gradients: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """Group by group."""
        triples = []
        kernel = module.K[0, 0].numel()
        for group in range(module.groups):
            rows = fit.rows_of(group)
            best, metric = fit.solution(group)
            G = None if gradients is None else gradients[rows, rows].to(fit.C)
            U, K, P = fit_tucker2(best, metric, G, kernel, *module.ranks)
            triples.append((U, K, P))
            yield rows, U @ (P.T @ K).flatten(1)
        module.set_triples(triples)


def channel_components(weight: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """The components of the channel unfolding of a group's matrix (M, C k): directions (C, R) and what they hold, (R, M, k)."""
    unfolded = weight.unflatten(1, (-1, kernel)).transpose(0, 1)  # (C, M, k)
    U, S, Vh = torch.linalg.svd(unfolded.flatten(1), full_matrices=False)
    return U, (S[:, None] * Vh).view(-1, *unfolded.shape[1:])


def fit_tucker2(
    best: Tensor, metric: Tensor, G: Tensor | None, kernel: int, q: int, r: int, rounds: int = MOST_ROUNDS
) -> tuple[Tensor, Tensor, Tensor]:
    """U (M, r), K (r, q, k) and P (q, C) that make tr(G D metric D^T) small, D = best - U K P (M, C k).

    The input side begins with the principal directions of the channels as G sees them, inputs of different entries of the kernel taken
    as unrelated. Given it, U and K are one reduced-rank regression, the best there is; given U and K, P is linear least squares, which
    conjugate gradients bring closer. The error never rises; it stops where it stalls.
    """
    root = torch.eye(len(best)).to(best) if G is None else roots(G)[0]
    H = root @ best
    square = metric.unflatten(0, (-1, kernel)).unflatten(2, (-1, kernel))  # (C, k, C, k)
    channel = torch.einsum("ckdk->cd", square)
    total = float((H @ metric * H).sum())
    P = _principal(H, channel, kernel, q)
    found, kept = None, -1.0
    for at in range(rounds):
        U, K, now = _outer_side(best, metric, G, P, kernel, r)
        if found is not None and now - kept < STALLED * (total - kept):
            return (U, K, P) if now > kept else found
        found, kept = (U, K, P), now
        if at < rounds - 1:
            P = torch.linalg.qr(_inner_side(root @ U, K, P, H, metric, channel).T).Q.T
    assert found is not None, "there is at least one round"
    return found


def _principal(H: Tensor, channel: Tensor, kernel: int, q: int) -> Tensor:
    """P (q, C), orthonormal: rows span the channel directions of H (rows, C k) that carry the most in the channels' covariance."""
    T = H.unflatten(1, (-1, kernel)).transpose(1, 2).flatten(0, 1)  # (rows k, C)
    if len(T) > T.shape[1]:
        T = torch.linalg.qr(T).R
    vectors = torch.linalg.eigh(T @ channel @ T.T).eigenvectors.flip(1)[:, :q]
    basis = (vectors.T @ T).T
    return torch.linalg.qr(torch.cat([basis, torch.eye(len(basis), q - basis.shape[1]).to(basis)], 1)).Q.T


def _outer_side(best: Tensor, metric: Tensor, G: Tensor | None, P: Tensor, kernel: int, r: int) -> tuple[Tensor, Tensor, float]:
    """The best U (M, r) and K (r, q, k) for a P (q, C), and how much of the total they keep."""
    M, q = len(best), len(P)
    PC = (P @ metric.view(P.shape[1], -1)).view(q * kernel, -1)  # (q k, C k)
    Cp = (PC.view(q * kernel, -1, kernel).transpose(1, 2) @ P.T).transpose(1, 2).reshape(q * kernel, q * kernel)
    crossed = best @ PC.T  # (M, q k)
    eps = 1e-10 * float(Cp.diagonal().mean().clamp(min=torch.finfo(Cp.dtype).tiny))
    W = torch.linalg.solve(Cp + eps * torch.eye(len(Cp)).to(Cp), crossed.T).T
    U, S, V = metric_factors(W, W @ Cp @ W.T, G)
    U, V = _padded(U, r, 1), _padded(V, r, 0)
    return U.view(M, r), V.view(r, q, kernel), float(S[:r].square().sum())


def _padded(x: Tensor, size: int, dim: int) -> Tensor:
    """The first ``size`` along a dimension, zeros where there are fewer."""
    if x.shape[dim] >= size:
        return x.narrow(dim, 0, size)
    shape = list(x.shape)
    shape[dim] = size - x.shape[dim]
    return torch.cat([x, x.new_zeros(shape)], dim)


def _inner_side(RU: Tensor, K: Tensor, P: Tensor, H: Tensor, metric: Tensor, channel: Tensor) -> Tensor:
    """P closer to the least squares solution for U and K: conjugate gradients on tr(E metric E^T), E = RU K P - H, preconditioned by the
    channels' covariance as if inputs of different entries of the kernel were unrelated."""
    basis, R = torch.linalg.qr(RU)
    core = torch.einsum("sr,rqk->sqk", R, K)  # the outputs' part of the error that P cannot reach does not count
    target = basis.T @ H
    left = torch.linalg.cholesky(_regular(torch.einsum("sqk,spk->qp", core, core)))
    right = torch.linalg.cholesky(_regular(channel))

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


def _regular(A: Tensor) -> Tensor:
    """A positive definite matrix near a positive semidefinite one."""
    return A + 1e-8 * float(A.diagonal().mean().clamp(min=torch.finfo(A.dtype).tiny)) * torch.eye(len(A)).to(A)


def _largest(scores: Tensor, count: int) -> Tensor:
    """The places of the largest, of equal ones the first, in rising order."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def _params(matrix: LayerMatrix, q: Any, r: Any) -> Any:
    """Numbers stored at q input and r output ranks of each group."""
    return matrix.groups * q * matrix.channels + matrix.groups * r * q * matrix.kernel + matrix.shape[0] * r


def _macs(matrix: LayerMatrix, positions: int, places: int, q: Any, r: Any) -> Any:
    """Multiply-accumulates for one example."""
    return places * matrix.groups * q * matrix.channels + positions * (matrix.groups * r * q * matrix.kernel + matrix.shape[0] * r)
