"""The singular value itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lrp.evidence import Evidence
from lrp.matrices import Components


@dataclass(frozen=True)
class Magnitude:
    """s: blind to the scale of a layer, it empties whole layers early (the paper's layer collapse)."""

    name: ClassVar[str] = "magnitude"
    reads_outputs: ClassVar[bool] = False

    def __call__(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """S (R,) of each block."""
        return [factor.S for factor in factors]
