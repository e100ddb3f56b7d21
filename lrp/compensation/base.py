"""What every compensation is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

from torch import nn

from lrp.batches import Batches
from lrp.evidence import Evidence
from lrp.layer_statistics.base import LayerStatistics
from lrp.network.survey import Candidates


class Compensation(Protocol):
    """Refits what is kept, in closed form, to what the dense layers gave: no gradient steps, no labels.

    Attributes:
        name: What tables call it.

    One that says ``ties = True`` treats weights that several layers hold as well (``LayerMatrix.uses``).
    """

    name: ClassVar[str]

    @property
    def needs(self) -> tuple[str, ...]:
        """Which statistics of the dense network it reads: of "inputs", "products", "outputs", "gradients"."""
        ...

    def __call__(self, model: nn.Module, candidates: Candidates, inputs: Batches, statistics: Mapping[str, LayerStatistics]) -> None:
        """Refit the compressed layers of ``model`` in place; ``statistics`` are the dense network's on the examples ``inputs``."""
        ...


@runtime_checkable
class NetworkCompensation(Protocol):
    """A compensation that looks at the dense network itself, and says so by having this method; it is called in place of the other."""

    def with_network(self, model: nn.Module, candidates: Candidates, evidence: Evidence) -> None:
        """Refit the compressed layers of ``model`` in place; ``evidence`` holds the dense network and all calibration examples."""
        ...


def compensate(compensation: Compensation, model: nn.Module, candidates: Candidates, evidence: Evidence) -> None:
    """Refit the compressed layers of ``model`` in place by what the compensation asks for."""
    if isinstance(compensation, NetworkCompensation):
        compensation.with_network(model, candidates, evidence)
    else:
        inputs = evidence.batches.shared(evidence.group)
        compensation(model, candidates, inputs, evidence.statistics(compensation.needs))
