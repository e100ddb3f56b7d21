"""What every scorer is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from torch import Tensor

from lrp.evidence import Evidence
from lrp.matrices import Factors


class Scorer(Protocol):
    """How important each component is, on one scale for all blocks of all layers.

    Attributes:
        name: What tables call it.
        reads_outputs: Whether the scores depend on the network's outputs, and so on how the estimator finds and reads them.
    """

    name: ClassVar[str]
    reads_outputs: ClassVar[bool]

    def __call__(self, factors: Sequence[Factors], evidence: Evidence) -> list[Tensor]:
        """The scores (R,) of each block's components, finite and >= 0; larger: keep."""
        ...
