"""The singular value relative to its layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.estimator.moments import Moments
from lrp.matrices import Factors, LayerMatrix


@dataclass(frozen=True)
class RelativeError:
    """S over the largest S of the whole, unblocked layer, both in the metric of the decomposition (of the plain SVD the relative
    error of ALDS)."""

    name: ClassVar[str] = "relative_error"

    def __call__(
        self, matrices: Mapping[str, LayerMatrix], factors: Sequence[Factors], moments: Callable[[], list[Moments]]
    ) -> list[Tensor]:
        tiny = torch.finfo(torch.float64).tiny  # a layer of zeros scores 0
        return [factor.S / max(factor.layer_norm, tiny) for factor in factors]
