"""The squared norm in the decomposition's metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lrp.evidence import Evidence
from lrp.matrices import Components


@dataclass(frozen=True)
class Spectrum:
    """S^2. Of decomposition=two_sided this is the perturbation to first order, as if the gradients of the outputs and the inputs of
    a layer were independent of each other and from position to position: one scale for all layers, without a pass of its own."""

    name: ClassVar[str] = "spectrum"
    reads_outputs: ClassVar[bool] = False

    def __call__(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """S squared, (R,) of each block."""
        return [factor.S.square() for factor in factors]
