"""How far the network's output moves, less what is the same for every image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lrp.evidence import Evidence
from lrp.matrices import Components


@dataclass(frozen=True)
class Variance:
    """The sum over outputs of the population variance of y - y_b (section 3.3 of the paper, "alignment variance")."""

    name: ClassVar[str] = "variance"
    reads_outputs: ClassVar[bool] = True

    def __call__(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """The variances (R,) of each block's components."""
        return [(block.second - block.first.square()).clamp(min=0).sum(1) for block in evidence.moments(factors)]
