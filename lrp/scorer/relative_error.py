"""The singular value relative to its layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.evidence import Evidence
from lrp.matrices import Components


@dataclass(frozen=True)
class RelativeError:
    """S over the largest S of the whole, unblocked layer, both in the metric of the decomposition (of the plain SVD the relative
    error of ALDS)."""

    name: ClassVar[str] = "relative_error"
    reads_outputs: ClassVar[bool] = False

    def __call__(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """S over the layer's largest, (R,) of each block."""
        tiny = torch.finfo(torch.float64).tiny  # a layer of zeros scores 0
        return [factor.S / max(factor.layer_norm, tiny) for factor in factors]
