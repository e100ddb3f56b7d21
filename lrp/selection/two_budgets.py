"""A budget of parameters and one of multiply-accumulates at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from lrp.cost.costs import Costs, kept_share, make_costs
from lrp.cost.count import layers_macs, stored_params
from lrp.matrices import Block
from lrp.network.survey import Candidates
from lrp.selection.base import Selection

Answer = TypeVar("Answer")

STEPS = 10  # of the bisection over the mixture's weight
FINER = 16  # of the bisection over its budget
UNIT = 2**40  # the whole network's mixed cost, so that costs are whole numbers


def under_both(
    pick: Callable[[float, float], Answer],
    exceeded: Callable[[Answer], tuple[bool, bool]],
    value: Callable[[Answer], float],
    sparsity: float,
    macs_removed: float,
) -> Answer:
    """The answer that holds both budgets, the share ``sparsity`` of the parameters and ``macs_removed`` of the multiply-accumulates to go.

    ``pick(w, share)`` removes ``share`` of the mixture (1 - w) parameters + w multiply-accumulates, each as a share of the dense
    network's; ``exceeded`` says of an answer whether its parameters, and whether its multiply-accumulates, are more than allowed.

    If what is picked by parameters alone holds the other budget too, that is the answer. Otherwise w is found by bisection where both
    budgets bind, and of everything tried on the way the answer is what has the largest ``value``. (The multipliers of a Lagrangian with
    two constraints, Everett 1963.)
    """
    held: list[Answer] = []  # of what was tried, what both budgets admit

    def attempt(weight: float, share: float) -> tuple[bool, bool]:
        answer = pick(weight, share)
        over = exceeded(answer)
        if not any(over):
            held.append(answer)
        return over

    if not any(attempt(0.0, sparsity)):
        return held[0]
    shares = [float(kept_share(share)) for share in (sparsity, macs_removed)]
    attempt(1.0, max(sparsity, macs_removed))
    lightest, heaviest = 0.0, 1.0
    for _ in range(STEPS):
        weight = (lightest + heaviest) / 2
        parts = [(1 - weight) * shares[0], weight * shares[1]]
        low, high = min(parts), sum(parts)  # both budgets hold at the first; at least one is exceeded above the second
        beyond = (False, True)
        attempt(weight, 1 - low)
        for _ in range(FINER):
            middle = (low + high) / 2
            over = attempt(weight, 1 - middle)
            if any(over):
                high, beyond = middle, over
            else:
                low = middle
        if beyond[1]:  # multiply-accumulates bind, so they have to cost more
            lightest = weight
        else:
            heaviest = weight
    return max(held, key=value)


def select_both(
    selection: Selection,
    blocks: Sequence[Block],
    scores: Sequence[Tensor],
    sparsity: float,
    macs_removed: float,
    params: Costs,
    candidates: Candidates,
) -> list[Tensor]:
    """Masks (R,) of the components that stay, where the share ``sparsity`` of the parameters and ``macs_removed`` of the
    multiply-accumulates have to go: neither budget is ever exceeded, and of what ``under_both`` tries the largest sum of scores is kept.
    """
    macs = replace(make_costs(blocks, "macs", candidates), break_even=params.break_even)
    most = [kept_share(share) * sum(costs.dense.values()) for costs, share in ((params, sparsity), (macs, macs_removed))]

    def pick(weight: float, share: float) -> list[Tensor]:
        costs = params if weight == 0 else macs if weight == 1 else _mixed(params, macs, weight)
        return selection(blocks, scores, share, costs)

    def exceeded(keep: list[Tensor]) -> tuple[bool, bool]:
        return stored_params(blocks, keep) > most[0], sum(layers_macs(candidates, blocks, keep).values()) > most[1]

    def value(keep: list[Tensor]) -> float:
        return sum(float(score[mask].sum()) for score, mask in zip(scores, keep))

    return under_both(pick, exceeded, value, sparsity, macs_removed)


def _mixed(params: Costs, macs: Costs, weight: float) -> Costs:
    totals = [sum(costs.dense.values()) for costs in (params, macs)]

    def mix(a: int, b: int) -> int:
        return round(UNIT * ((1 - weight) * a / totals[0] + weight * b / totals[1]))

    return replace(
        params,
        unit=[mix(*pair) for pair in zip(params.unit, macs.unit)],
        whole=[mix(*pair) for pair in zip(params.whole, macs.whole)],
        limit=[min(pair) for pair in zip(params.limit, macs.limit)],
        dense={name: mix(params.dense[name], macs.dense[name]) for name in params.dense},
    )
