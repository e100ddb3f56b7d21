"""The same sparsity in every layer but the first and the last."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from lrp.cost.costs import Costs
from lrp.selection.uniform import UniformSelection

log = logging.getLogger(__name__)

LAST = Fraction(1, 5)


@dataclass(frozen=True)
class UniformPlusSelection(UniformSelection):
    """As uniform, but the first layer stays whole where it is a convolution, and of the last one at least a fifth stays; the others make
    up for both. Of a network that begins with a Linear the first is treated like the others: it often holds most of the weights.

    The rule of Gale, Elsen and Hooker, "The state of sparsity in deep neural networks" (2019), as the paper of LAMP uses it. Where the
    budget does not hold these two parts, which the log says, nothing else stays and both shrink in proportion.
    """

    name: ClassVar[str] = "uniform_plus"

    def shares(self, costs: Costs, share: Fraction) -> dict[str, Fraction]:
        """As of ``UniformSelection.shares``."""
        budget, names = share * sum(costs.dense.values()), [*costs.dense]
        kept = {names[0]: Fraction(1)} if len(costs.sides[names[0]]) > 2 else {}
        rest = self._rest(costs, budget, kept)
        if names[-1] not in kept and rest < LAST:
            kept[names[-1]] = LAST
            rest = self._rest(costs, budget, kept)
        if rest < 0:
            held = sum(part * costs.dense[name] for name, part in kept.items())
            log.warning(
                "selection=%s: a sparsity of %.4g leaves less than the first convolution and a fifth of the last layer take; "
                "both shrink, and nothing else stays",
                self.name,
                1 - share,
            )
            kept, rest = {name: part * budget / held for name, part in kept.items()}, Fraction(0)
        return {name: kept.get(name, rest) for name in names}

    @staticmethod
    def _rest(costs: Costs, budget: Fraction, kept: dict[str, Fraction]) -> Fraction:
        """The share of all other layers, where the budget holds what is ``kept``."""
        others = sum(cost for name, cost in costs.dense.items() if name not in kept)
        left = budget - sum(part * costs.dense[name] for name, part in kept.items())
        return min(Fraction(1), left / others) if others else Fraction(min(0, left))
