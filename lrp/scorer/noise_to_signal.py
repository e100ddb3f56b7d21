"""What is lost of a layer's effect against what is left of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lrp.errors import check_float
from lrp.evidence import Evidence
from lrp.matrices import Components


@dataclass(frozen=True)
class NoiseToSignal:
    """The perturbations E ||y - y_b||^2, raised the more the less of the layer is left.

    With T the sum of the perturbations of a layer's components and x the share of it that is removed, the layer's damage counts as
    T x / (1 + ``floor`` - x), the removed over the kept. For small x this grows in proportion to x; as x approaches 1 it grows out of
    all proportion, because a layer that passes on almost nothing leaves the later layers nothing to work with. A component's score is
    what its removal adds to the damage once every component with a smaller perturbation has been removed, so the scores of what is
    removed (the smallest of each layer) add up to the damage. In a later round T is the sum of what the round before left. Meant
    for ``selection=lagrangian``.

    A perturbation is taken in the dense network. In the pruned one what is lost early passes through layers that are pruned too,
    and in a chain of layers no later one brings it back; where layers are bridged by skip connections that is not so.

    Attributes:
        floor: Added to the kept share, so that removing a whole layer costs a finite amount; above 0.
        depth: A layer's damage is multiplied by the number of layers from it to the last one, it included, in the order in which
            they run, to this power; 0: all alike.
    """

    name: ClassVar[str] = "noise_to_signal"
    reads_outputs: ClassVar[bool] = True
    floor: float = 0.02
    depth: float = 0.0

    def __post_init__(self) -> None:
        check_float("scorer.floor", self.floor, above=0)
        check_float("scorer.depth", self.depth, least=0, below=10)

    def __call__(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """What removing each component adds to its layer's damage, (R,) of each block."""
        scores = [block.second.sum(1).double() for block in evidence.moments(factors)]
        for to_come, name in zip(range(len(evidence.matrices), 0, -1), evidence.matrices):
            places = [i for i, factor in enumerate(factors) if factor.block.layer == name]
            together = torch.cat([scores[i] for i in places])
            raised = self._layer(together) * to_come**self.depth
            for i, part in zip(places, raised.split([len(scores[i]) for i in places])):
                scores[i] = part
        return scores

    def loss(self, total: float, share: np.ndarray, to_come: int) -> np.ndarray:
        """The damage of a layer whose perturbations add up to ``total``, once these shares of the sum are lost; ``to_come``: the number of
        layers from it to the last one, it included."""
        return total * share / (1 + self.floor - share) * to_come**self.depth

    def _layer(self, perturbation: Tensor) -> Tensor:
        """The scores of a layer's components (R,)."""
        total, order = perturbation.sum(), perturbation.argsort(descending=True, stable=True)
        if not float(total) > 0:
            return torch.zeros_like(perturbation)
        falling = perturbation[order]
        left = self.floor + torch.cat([falling.new_zeros(1), falling.cumsum(0)]) / total
        scores = torch.empty_like(perturbation)
        scores[order] = falling * (1 + self.floor) / left[:-1] / left[1:]  # the damage's difference, without its cancellation
        return scores
