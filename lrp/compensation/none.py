"""No compensation: the paper's setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lrp.batches import Batches
from lrp.layer_statistics.base import LayerStatistics
from lrp.network.survey import Candidates


@dataclass(frozen=True)
class NoCompensation:
    """What is kept stays as the decomposition made it."""

    name: ClassVar[str] = "none"
    ties: ClassVar[bool] = True

    @property
    def needs(self) -> tuple[str, ...]:
        """Nothing is read."""
        return ()

    def __call__(self, model: nn.Module, candidates: Candidates, inputs: Batches, statistics: Mapping[str, LayerStatistics]) -> None:
        """Nothing is done."""
        return None
