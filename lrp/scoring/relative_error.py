"""The singular value relative to its layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.matrices import Factors, LayerMatrix
from lrp.scoring.moments import Moments


@dataclass(frozen=True)
class RelativeError:
    """s over the largest singular value of the whole, unblocked layer matrix (the relative error of ALDS)."""

    name: ClassVar[str] = "relative_error"

    def __call__(
        self, matrices: Mapping[str, LayerMatrix], factors: Sequence[Factors], moments: Callable[[], list[Moments]]
    ) -> list[Tensor]:
        largest = {name: torch.linalg.matrix_norm(m.weight.cpu().double(), ord=2) for name, m in matrices.items()}
        tiny = torch.finfo(torch.float64).tiny  # a layer of zeros scores 0
        return [factor.S / largest[factor.block.layer].clamp(min=tiny) for factor in factors]
