"""How far the network's output moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from lrp.evidence import Evidence
from lrp.matrices import Components


@dataclass(frozen=True)
class Perturbation:
    """E ||y - y_b||^2 over the scoring images (section 3.3 of the paper, "alignment output")."""

    name: ClassVar[str] = "perturbation"
    reads_outputs: ClassVar[bool] = True

    def __call__(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """The perturbations (R,) of each block's components."""
        return [block.second.sum(1) for block in evidence.moments(factors)]

    def loss(self, total: float, share: np.ndarray, to_come: int) -> np.ndarray:
        """The perturbation of a layer whose perturbations add up to ``total``, once these shares of the sum are lost."""
        return total * share
