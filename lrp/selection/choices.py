"""One way to store each layer, out of many, under a budget."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from lrp.errors import InputError
from lrp.selection.frontier import hull

EXCHANGES = 100  # at most: each lowers the loss
ROUNDED = 1e-11  # of the largest loss: what differs by less is a tie, which rounding must not decide


def choose(ways: Mapping[str, tuple[np.ndarray, np.ndarray]], budget: Fraction | int, unit: str = "") -> dict[str, int]:
    """Of each layer which way it is stored, so that the losses are small and the costs within the budget.

    ``ways``: of each layer the costs (n,) of all ways, whole numbers, and the losses (n,). On the lower hull of each layer's ways a price
    of cost decides (the multiple-choice knapsack of Sinha and Zoltners, 1979; Lagrangian relaxation, Everett 1963); the least price
    whose choice fits is used, and what is left is spent on the change with the most loss avoided per cost that fits, hull or not. Then
    pairs of layers exchange cost as long as that lowers the loss. ``unit``: the word for what is counted, where a choice is refused.

    Raises:
        InputError: Where even the cheapest ways of all layers together exceed the budget.
    """
    step = ROUNDED * max((float(loss.max()) for _, loss in ways.values()), default=0.0)
    held = {name: (cost, np.rint(loss / step) * step if step else loss) for name, (cost, loss) in ways.items()}
    fronts = {name: _front(cost, loss) for name, (cost, loss) in held.items()}
    chosen = _choose({name: (cost[fronts[name]], loss[fronts[name]]) for name, (cost, loss) in held.items()}, budget, unit)
    return {name: int(fronts[name][at]) for name, at in chosen.items()}


def _choose(ways: Mapping[str, tuple[np.ndarray, np.ndarray]], budget: Fraction | int, unit: str) -> dict[str, int]:
    """The same among ways of which each costs more than the one before it, and loses less but for the last, which may lose as much.

    Raises:
        InputError: As ``choose``.
    """
    hulls = {name: hull(cost, -loss) for name, (cost, loss) in ways.items()}
    least = sum(int(ways[name][0][at[0]]) for name, at in hulls.items())
    if least > budget:
        total = sum(int(cost.max()) for cost, _ in ways.values())
        counted = f"{total:,} {unit}".strip()
        raise InputError(f"forms: no choice of them costs less than {least:,} of {counted}, and the budget is {int(budget):,}")
    names = list(ways)
    more = {name: np.diff(ways[name][0][at]) for name, at in hulls.items()}
    slope = {name: -np.diff(ways[name][1][at]) / more[name] for name, at in hulls.items()}
    owner = np.repeat(np.arange(len(names)), [len(more[name]) for name in names])
    order = np.argsort(-np.concatenate([slope[name] for name in names]), kind="stable")
    spent = least + np.cumsum(np.concatenate([more[name] for name in names])[order])
    taken = np.bincount(owner[order[: np.searchsorted(spent, int(budget), side="right")]], minlength=len(names))
    chosen = {name: int(hulls[name][taken[i]]) for i, name in enumerate(names)}
    _spend(ways, chosen, budget)
    _exchange(ways, chosen, budget)
    return chosen


def _spend(ways: Mapping[str, tuple[np.ndarray, np.ndarray]], chosen: dict[str, int], budget: Fraction | int) -> None:
    """Change ``chosen`` while that avoids loss and the budget admits it."""
    left = budget - sum(int(ways[name][0][at]) for name, at in chosen.items())
    best = {name: _best(*ways[name], chosen[name], left) for name in ways}
    while any(rise is not None for rise in best.values()):
        name = max((name for name, rise in best.items() if rise is not None), key=lambda name: best[name][0])  # type: ignore[index]
        rise = best[name]
        assert rise is not None
        left -= int(ways[name][0][rise[1]]) - int(ways[name][0][chosen[name]])
        chosen[name] = rise[1]
        for other in ways:  # less is left, and this layer stands elsewhere
            held = best[other]
            if other == name or held is not None and ways[other][0][held[1]] - ways[other][0][chosen[other]] > left:
                best[other] = _best(*ways[other], chosen[other], left)


def _best(cost: np.ndarray, loss: np.ndarray, at: int, left: Fraction | int) -> tuple[float, int] | None:
    """The loss avoided per cost by the best change from ``at`` that fits, and which it is; None where there is none."""
    more, gain = cost - cost[at], loss[at] - loss
    fits = np.flatnonzero((gain > 0) & (more <= int(left)))
    if not len(fits):
        return None
    rate = np.where(more[fits] > 0, gain[fits] / np.maximum(more[fits], 1), np.inf)
    best = np.lexsort((-gain[fits], -rate))[0]
    return float(rate[best]), int(fits[best])


def _exchange(ways: Mapping[str, tuple[np.ndarray, np.ndarray]], chosen: dict[str, int], budget: Fraction | int) -> None:
    """Change ``chosen`` in two layers at a time while that lowers the loss and the budget admits it."""
    for _ in range(EXCHANGES):
        left = int(budget) - sum(int(ways[name][0][at]) for name, at in chosen.items())
        best, move = 0.0, None
        for up in ways:
            cost, loss = ways[up]
            more, gain = cost - ways[up][0][chosen[up]], ways[up][1][chosen[up]] - loss
            for down in ways:
                room = ways[down][0][chosen[down]] + left - more  # what the other layer may cost then
                at = np.searchsorted(ways[down][0], room, side="right") - 1
                paid = ways[down][1][at] - ways[down][1][chosen[down]]
                net = np.where((at >= 0) & (up != down), gain - paid, -np.inf)
                if net.max() > best * (1 + 1e-12) + 1e-15 * loss.max():
                    i = int(net.argmax())
                    best, move = float(net[i]), {up: i, down: int(at[i])}
        if move is None:
            return
        chosen.update(move)


def _front(cost: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """The ways than which none costs no more and loses less, cheapest first; and last the dearest of those that lose least, which is the
    dense layer: where the budget admits it nothing goes, though it may have parts that count for nothing."""
    order = np.lexsort((loss, cost))
    least = np.minimum.accumulate(loss[order])
    first = np.concatenate([[True], least[1:] < least[:-1]])
    front, least_lost = order[first], np.flatnonzero(loss == loss.min())
    dearest = least_lost[cost[least_lost].argmax()]
    return front if cost[dearest] == cost[front[-1]] else np.append(front, dearest)
