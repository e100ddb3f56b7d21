"""Clusters of points, each near a subspace of its own: projective clustering, and exchanges at fixed sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from lrp.partition import spans

Assign = Callable[[Tensor, Tensor], Tensor]
ROUNDING = 1e-12  # of the cost: less is no gain


def subspace(points: Tensor, rank: int, weights: Tensor | None = None) -> Tensor:
    """The subspace (d, rank or less) that loses least of points (n, d, m), sum_i w_i ||x_i - B B^T x_i||^2: first singular vectors."""
    Y = (points if weights is None else points * weights.sqrt()[:, None, None]).transpose(1, 2).flatten(0, 1)
    if len(Y) < Y.shape[1]:
        return torch.linalg.svd(Y, full_matrices=False).Vh[:rank].T
    return torch.linalg.eigh(Y.T @ Y).eigenvectors.flip(1)[:, :rank]


def distances(points: Tensor, bases: Sequence[Tensor]) -> Tensor:
    """||x_i - B_l B_l^T x_i||^2 of points (n, d, m) and bases (d, j) each: (n, k)."""
    norms = points.square().sum((1, 2))
    kept = [torch.einsum("ndm,dj->njm", points, basis).square().sum((1, 2)) for basis in bases]
    return (norms[:, None] - torch.stack(kept, 1)).clamp(min=0)


def nearest(lost: Tensor, labels: Tensor) -> Tensor:
    """Each point in the cluster whose subspace is nearest; of equal ones the one that it is in."""
    best, now = lost.min(1), lost[torch.arange(len(lost)), labels]
    return torch.where(best.values < now, best.indices, labels)


def balanced(lost: Tensor, labels: Tensor) -> Tensor:
    """The assignment of least cost whose clusters stay as large as they are."""
    from scipy.optimize import linear_sum_assignment  # a second to load beside torch, for this method alone

    sizes = labels.bincount(minlength=lost.shape[1])
    seats = torch.arange(lost.shape[1]).repeat_interleave(sizes)
    _, columns = linear_sum_assignment(lost[:, seats].numpy())
    return seats[torch.from_numpy(columns)]


def exchanged(lost: Tensor, labels: Tensor) -> Tensor:
    """Points exchanged, pair of clusters by pair, in the best way that leaves the two as large as they are, as ``balanced`` for more points
    than an assignment can be solved for; never worse."""
    labels = labels.clone()
    for a, b in combinations(range(lost.shape[1]), 2):
        moves = lost[:, b] - lost[:, a]
        ours, theirs = (labels == a).nonzero()[:, 0], (labels == b).nonzero()[:, 0]
        ours, theirs = ours[moves[ours].argsort(stable=True)], theirs[moves[theirs].argsort(stable=True, descending=True)]
        count = min(len(ours), len(theirs))
        change = moves[ours[:count]] - moves[theirs[:count]]  # rises from one pair to the next
        swap = int((change < -ROUNDING * lost.mean()).sum())
        labels[ours[:swap]], labels[theirs[:swap]] = b, a
    return labels


def settle(
    points: Tensor, labels: Tensor, ranks: Sequence[int], assign: Assign, steps: int, weights: Tensor | None = None
) -> tuple[Tensor, list[float]]:
    """Alternate the subspaces of given ``ranks`` and the assignment of points (n, d, m) to them, from ``labels`` (n,), until nothing
    changes or for so many steps: labels, and sum_i w_i ||x_i - B_l B_l^T x_i||^2 after each fit of the subspaces, which never rises."""
    costs: list[float] = []
    for step in range(steps + 1):
        bases = [subspace(points[labels == each], rank, _part(weights, labels == each)) for each, rank in enumerate(ranks)]
        lost = distances(points, bases)
        lost = lost if weights is None else lost * weights[:, None]
        costs.append(float(lost[torch.arange(len(lost)), labels].sum()))
        if step == steps or (new := _filled(assign(lost, labels), lost, ranks)).equal(labels):
            break
        labels = new
    return labels, costs


def cluster(
    points: Tensor, count: int, rank: int, assign: Assign, restarts: int, steps: int, generator: torch.Generator
) -> tuple[Tensor, float]:
    """(k, j)-projective clustering of points (n, d, m): k = ``count`` subspaces of dimension j = ``rank`` that minimise
    sum_i min_l ||x_i - P_l x_i||^2, by expectation and maximisation from equal parts, the first contiguous, the others at random; the best
    of all. Labels (n,), and what is lost (MESSI: Maalouf et al., ICLR 2021, section 3)."""
    n = len(points)
    parts = torch.empty(n, dtype=torch.int64)
    for each, (start, stop) in enumerate(spans(n, count)):
        parts[start:stop] = each
    found: list[tuple[Tensor, float]] = []
    for start in range(restarts + 1):
        labels = parts if start == 0 else parts[torch.randperm(n, generator=generator)]
        labels, costs = settle(points, labels, [rank] * count, assign, steps)
        found.append((labels, costs[-1]))
        if count == 1:
            break
    return min(found, key=lambda pair: pair[1])


def _part(weights: Tensor | None, which: Tensor) -> Tensor | None:
    return None if weights is None else weights[which]


def _filled(labels: Tensor, lost: Tensor, ranks: Sequence[int]) -> Tensor:
    """The same with the worst points in clusters that have none, no more than their subspaces hold."""
    labels = labels.clone()
    for each, rank in enumerate(ranks):
        if bool((labels == each).any()):
            continue
        sizes = labels.bincount(minlength=len(ranks))
        own = lost[torch.arange(len(lost)), labels]
        worst = own.argsort(descending=True, stable=True)[: max(rank, 1)]
        free = [int(i) for i in worst if sizes[labels[i]] > len(worst)]
        labels[free] = each
    return labels
