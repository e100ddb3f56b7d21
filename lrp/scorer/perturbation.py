"""How far the network's output moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lrp.estimator.moments import Moments
from lrp.matrices import Factors, LayerMatrix


@dataclass(frozen=True)
class Perturbation:
    """E ||y - y_b||^2 over the scoring images (section 3.3 of the paper, "alignment output")."""

    name: ClassVar[str] = "perturbation"

    def __call__(
        self, matrices: Mapping[str, LayerMatrix], factors: Sequence[Factors], moments: Callable[[], list[Moments]]
    ) -> list[Tensor]:
        return [block.second.sum(1) for block in moments()]
