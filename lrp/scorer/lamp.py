"""What a component adds to all that is larger in its layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.evidence import Evidence
from lrp.matrices import Components


@dataclass(frozen=True)
class Lamp:
    """S_i^2 over the sum of S_j^2 of all components of the layer, its blocks together, that are no smaller (Lee et al., "Layer-adaptive
    sparsity for the magnitude-based pruning", ICLR 2021, arXiv 2010.07611, equation 3): no data.

    The order inside a layer is that of S, and the largest of each layer scores 1, so that one order over all layers empties none of them
    before all others have a single component left. The scale of a layer does not count. The product of 1 - score over what is removed is
    the share of the layer's energy that is kept. Of equal components the first counts as the larger. The paper scores weights; of
    singular triplets, which cost more in a large layer, ``selection.per_parameter=true`` divides a score by the cost.
    """

    name: ClassVar[str] = "lamp"
    reads_outputs: ClassVar[bool] = False

    def __call__(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """The scores (R,) of each block's components, in [0, 1]; 0 in a layer of zeros."""
        places: dict[str, list[int]] = {}
        for i, factor in enumerate(factors):
            places.setdefault(factor.block.layer, []).append(i)
        scores: dict[int, Tensor] = {}
        for own in places.values():
            energy = torch.cat([factors[i].S.square() for i in own])
            order = energy.argsort(descending=True, stable=True)
            falling = energy[order]
            found = torch.empty_like(energy)
            found[order] = falling / falling.cumsum(0).clamp(min=torch.finfo(energy.dtype).tiny)
            scores |= zip(own, found.split([factors[i].count for i in own]))
        return [scores[i] for i in range(len(factors))]
