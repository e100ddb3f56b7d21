"""More of a small layer than of a large one, by the sizes of its sides."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import ClassVar

from lrp.cost.costs import Costs
from lrp.selection.uniform import UniformSelection


@dataclass(frozen=True)
class ErkSelection(UniformSelection):
    """Of each layer a share in proportion to the sum of the sizes of its weight over their product, small layers more than large ones.
    The sizes are outputs, inputs and both sides of a kernel. Layers of which that would be more than all stay whole, and the others
    share what is left in the same proportion.

    The Erdős-Rényi kernel of Evci et al., "Rigging the lottery" (ICML 2020, section 3), as the paper of LAMP uses it for allocations.
    Inside a layer the lowest score goes first. The shares are exact, so that they add up to the budget; a layer rounds its own down.
    """

    name: ClassVar[str] = "erk"

    def shares(self, costs: Costs, share: Fraction) -> dict[str, Fraction]:
        """As of ``UniformSelection.shares``."""
        density = {name: Fraction(sum(sides), prod(sides)) for name, sides in costs.sides.items()}
        budget, whole = share * sum(costs.dense.values()), set[str]()
        while len(whole) < len(density):
            left = budget - sum(costs.dense[name] for name in whole)
            scale = left / sum(density[name] * costs.dense[name] for name in density if name not in whole)
            over = {name for name in density if name not in whole and scale * density[name] > 1}
            if not over:
                return {name: Fraction(1) if name in whole else scale * density[name] for name in density}
            whole |= over
        return dict.fromkeys(density, Fraction(1))
