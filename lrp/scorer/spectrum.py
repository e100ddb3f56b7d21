"""The squared norm in the decomposition's metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lrp.estimator.moments import Moments
from lrp.matrices import Factors, LayerMatrix


@dataclass(frozen=True)
class Spectrum:
    """S^2. Of decomposition=two_sided this is the perturbation to first order, as if the gradients of the outputs and the inputs of
    a layer were independent of each other and from position to position: one scale for all layers, without a pass of its own."""

    name: ClassVar[str] = "spectrum"

    def __call__(
        self, matrices: Mapping[str, LayerMatrix], factors: Sequence[Factors], moments: Callable[[], list[Moments]]
    ) -> list[Tensor]:
        return [factor.S.square() for factor in factors]
