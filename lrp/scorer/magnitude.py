"""The singular value itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lrp.estimator.moments import Moments
from lrp.matrices import Factors, LayerMatrix


@dataclass(frozen=True)
class Magnitude:
    """s: blind to the scale of a layer, it empties whole layers early (the paper's layer collapse)."""

    name: ClassVar[str] = "magnitude"

    def __call__(
        self, matrices: Mapping[str, LayerMatrix], factors: Sequence[Factors], moments: Callable[[], list[Moments]]
    ) -> list[Tensor]:
        return [factor.S for factor in factors]
