"""How far the network's output moves, less what is the same for every image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lrp.estimator.moments import Moments
from lrp.matrices import Factors, LayerMatrix


@dataclass(frozen=True)
class Variance:
    """The sum over outputs of the population variance of y - y_b (section 3.3 of the paper, "alignment variance")."""

    name: ClassVar[str] = "variance"

    def __call__(
        self, matrices: Mapping[str, LayerMatrix], factors: Sequence[Factors], moments: Callable[[], list[Moments]]
    ) -> list[Tensor]:
        return [(block.second - block.first.square()).clamp(min=0).sum(1) for block in moments()]
