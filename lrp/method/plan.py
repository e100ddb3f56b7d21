"""What becomes of every layer of a network at one sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from lrp.form.base import LayerPlan
from lrp.form.matrix import MatrixPlan
from lrp.layer.build import replace_tied
from lrp.layer.duplicate import duplicate
from lrp.matrices import Factors
from lrp.network.survey import Candidates


@dataclass(frozen=True)
class Told:
    """What a layer plan says of itself, without the values that its layer is built from. Attributes: as of ``LayerPlan``."""

    params: int
    macs: int
    untouched: bool
    told_rows: Sequence[dict[str, Any]]
    told: dict[str, Any]

    def build(self, dense: nn.Module) -> nn.Module:
        """Nothing any more.

        Raises:
            AssertionError: Always.
        """
        raise AssertionError("the values are gone")

    def rows(self) -> list[dict[str, Any]]:
        """The layer's rows of layers.csv."""
        return [*self.told_rows]

    def summary(self) -> dict[str, Any]:
        """The layer's row of the report."""
        return self.told


@dataclass(frozen=True)
class Plan:
    """A layer plan for each compressed layer of a network.

    Attributes:
        sparsity: What was asked for.
        layers: By the layers' names, in the order in which they run.
        model: The network whose layers are replaced: the dense one, or what a later round starts from.
        survey: Its layers.
        seconds: What choosing the plan took.
        of_network: Whether the sparsity is a share of what the whole network has.
        milliseconds: Where times were measured: what all compressed layers are predicted to take, and what they took dense.
    """

    sparsity: float
    layers: Mapping[str, LayerPlan]
    model: nn.Module
    survey: Candidates
    seconds: float = 0.0
    milliseconds: tuple[float, float] | None = None
    of_network: bool = False

    @property
    def params(self) -> int:
        """Parameters stored for the weights of all compressed layers."""
        return sum(layer.params for layer in self.layers.values())

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all compressed layers for one example."""
        return sum(layer.macs for layer in self.layers.values())

    @property
    def untouched(self) -> bool:
        """Whether every layer stays as it is."""
        return all(layer.untouched for layer in self.layers.values())

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of layers.csv for all layers."""
        return [{"sparsity": self.sparsity, **row} for layer in self.layers.values() for row in layer.rows()]

    def told(self) -> Plan:
        """The same plan once it is built: what was done to each layer, without the values that it was done with."""
        layers = {n: Told(layer.params, layer.macs, layer.untouched, layer.rows(), layer.summary()) for n, layer in self.layers.items()}
        return replace(self, layers=layers)

    def build(self) -> nn.Module:
        """The smaller copy of the network, before it is compensated."""
        result = duplicate(self.model)
        for name, layer in self.layers.items():
            result = replace_tied(result, name, layer.build(result.get_submodule(name)))
        return result


def matrix_plans(
    survey: Candidates, factors: Sequence[Factors], keep: Sequence[Tensor], timed: Mapping[str, int] | None = None
) -> dict[str, MatrixPlan]:
    """The plans of all layers from the components of all blocks and masks (R,) of those that stay, one for each block.

    ``timed``: the layers whose break-even rank was measured.

    Raises:
        ValueError: For a block whose factors would not be smaller but which lacks a component.
    """
    parts: dict[str, tuple[list[Factors], list[Tensor]]] = {name: ([], []) for name in survey.matrices}
    for factor, mask in zip(factors, keep, strict=True):
        block = factor.block
        if not bool(mask.all()) and block.is_dense(int(mask.sum())):
            raise ValueError(f"layer {block.layer}: block {block.index} is stored whole but lacks components")
        parts[block.layer][0].append(factor)
        parts[block.layer][1].append(mask)
    return {
        name: MatrixPlan(survey.matrices[name], survey.positions[name], held, masks, name in (timed or {}))
        for name, (held, masks) in parts.items()
    }
