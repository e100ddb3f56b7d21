"""The best ways to store a layer, one for every price of a parameter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lrp.cost.costs import Costs


def hull(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Indices of the points (n,) that maximise value - mu cost for some mu >= 0, cheapest first; of points at one place the first.

    The slopes between neighbours, as floats, never rise. Points within an edge count: they are best at its mu.
    """
    costs, values = cost.tolist(), value.tolist()
    kept: list[int] = []
    for at in np.lexsort((-value, cost)).tolist():
        if kept and costs[at] == costs[kept[-1]]:
            continue
        while len(kept) > 1:
            low, top = kept[-2:]
            if (values[top] - values[low]) / (costs[top] - costs[low]) >= (values[at] - values[top]) / (costs[at] - costs[top]):
                break
            kept.pop()
        kept.append(at)
    while len(kept) > 1 and values[kept[-1]] < values[kept[-2]]:
        kept.pop()
    return np.array(kept)


def candidate_ranks(limit: int, full: int, step: int) -> list[int]:
    """The ranks at which a block may be stored: multiples of ``step`` and those below it, up to ``limit``, and ``full``, whole."""
    return [*range(min(step, limit + 1)), *range(step, limit + 1, step), full]


class LayerFrontier:
    """A layer's ways to be stored on the upper hull of (cost, value), from nothing kept up to the layer left dense.

    ``cost`` (n,) int and ``value`` (n,), the sum of the kept scores, rise; ``ranks(k)`` are the ranks of its blocks at the
    k-th. Ranks of different blocks are chosen apart for each mu, so that the hulls of its blocks, merged by slope, hold all
    choices; the dense layer, which may cost less than its blocks stored whole, is one more.

    With a break-even rank the ways above it are left out. What is best below it may then lie on no block's hull: there, the
    ways that store no block whole are considered too, which is all there are for a layer of one block. Of several blocks, a
    mixture of some whole and some factored can be missed.
    """

    def __init__(self, name: str, values: Sequence[np.ndarray], costs: Costs, step: int) -> None:
        """``values`` (R + 1,), of all blocks of all layers: the sum of the r highest scores."""
        self.places = costs.blocks[name]
        self.full = [len(values[i]) - 1 for i in self.places]
        limited = name in costs.break_even
        self.climbs = [self._climb(values, costs, step, whole) for whole in ([True, False] if limited else [True])]
        points = []
        for which, (owner, rank, cost, value) in enumerate(self.climbs):
            limit = np.array(costs.limit)[owner]
            allowed = np.cumsum(rank > limit) < len(self.places)  # all whole is the dense layer, below
            if limited:
                before = np.zeros(len(owner), dtype=int)
                for j in np.unique(owner):
                    at = np.flatnonzero(owner == j)
                    before[at[1:]] = rank[at[:-1]]
                allowed &= np.cumsum(np.minimum(rank, limit + 1) - before) <= costs.break_even[name]
            at = np.flatnonzero(allowed)
            points += zip([which] * len(at), (at + 1).tolist(), np.cumsum(cost)[at].tolist(), np.cumsum(value)[at].tolist())
        points = [(0, 0, 0, 0.0), *points, (-1, 0, costs.dense[name], float(sum(values[i][-1] for i in self.places)))]
        cost, value = np.array([point[2] for point in points]), np.array([point[3] for point in points])
        at = hull(cost, value)
        self.points, self.cost, self.value = [points[i] for i in at], cost[at], value[at]

    def _climb(
        self, values: Sequence[np.ndarray], costs: Costs, step: int, whole: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Steps by falling slope, from nothing kept: which block rises, to which rank, for how much cost and value, (n,) each."""
        climbs = []
        for i in self.places:
            ranks = np.array(candidate_ranks(costs.limit[i], len(values[i]) - 1, step)[: None if whole else -1])
            charged = np.where(ranks > costs.limit[i], costs.whole[i], ranks * costs.unit[i])
            at = hull(charged, values[i][ranks])
            climbs.append((np.full(len(at) - 1, i), ranks[at[1:]], np.diff(charged[at]), np.diff(values[i][ranks[at]])))
        steps = [np.concatenate(parts) for parts in zip(*climbs)]
        order = np.argsort(-steps[3] / steps[2], kind="stable")
        owner, rank, cost, value = (part[order] for part in steps)
        return owner, rank, cost, value

    def ranks(self, k: int) -> dict[int, int]:
        """The ranks of the layer's blocks at the k-th point, by their places among all blocks."""
        which, count, _, _ = self.points[k]
        if which < 0:
            return dict(zip(self.places, self.full))
        owner, rank, _, _ = self.climbs[which]
        return dict.fromkeys(self.places, 0) | dict(zip(owner[:count].tolist(), rank[:count].tolist()))
