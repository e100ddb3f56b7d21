"""What becomes of every layer of a network at one sparsity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from lrp.form.base import LayerPlan
from lrp.form.masked import MaskPlan
from lrp.form.matrix import MatrixPlan
from lrp.layer.build import replace_tied
from lrp.layer.duplicate import duplicate
from lrp.matrices import Components
from lrp.network.survey import Candidates

PLANS: Mapping[str, type[MatrixPlan]] = {plan.form: plan for plan in (MatrixPlan, MaskPlan)}  # by the form of the components


class _Once:
    """A layer plan that lets go of the values of its layer when it is built. Attributes: as of ``LayerPlan``."""

    def __init__(self, plan: LayerPlan) -> None:
        self.params, self.macs, self.untouched = plan.params, plan.macs, plan.untouched
        self._rows, self._summary = plan.rows(), plan.summary()
        self._plan: LayerPlan | None = plan

    def build(self, dense: nn.Module) -> nn.Module:
        """As of the plan.

        Raises:
            RuntimeError: At the second call.
        """
        if self._plan is None:
            raise RuntimeError("this plan was built, and can be built only once: its values are gone")
        plan, self._plan = self._plan, None
        return plan.build(dense)

    def rows(self) -> list[dict[str, Any]]:
        """The layer's rows of layers.csv."""
        return [*self._rows]

    def summary(self) -> dict[str, Any]:
        """The layer's row of the report."""
        return self._summary


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
        built: Called when the network is built.
        milliseconds: Where times were measured: what all compressed layers are predicted to take, and what they took dense.
    """

    sparsity: float
    layers: Mapping[str, LayerPlan]
    model: nn.Module
    survey: Candidates
    seconds: float = 0.0
    milliseconds: tuple[float, float] | None = None
    of_network: bool = False
    built: Callable[[], None] | None = None

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

    def once(self, built: Callable[[], None] | None = None) -> Plan:
        """The same plan, to be built just once: it lets go of the values of each layer that is built, and calls ``built()`` at the end."""
        return replace(self, layers={name: _Once(layer) for name, layer in self.layers.items()}, built=built)

    def build(self) -> nn.Module:
        """The smaller copy of the network, before it is compensated."""
        result = duplicate(self.model)
        for name, layer in self.layers.items():
            result = replace_tied(result, name, layer.build(result.get_submodule(name)))
        if self.built is not None:
            self.built()
        return result


def matrix_plans(
    survey: Candidates, factors: Sequence[Components], keep: Sequence[Tensor], timed: Mapping[str, int] | None = None
) -> dict[str, MatrixPlan]:
    """The plans of all layers from the components of all blocks and masks (R,) of those that stay, one for each block.

    ``timed``: the layers whose break-even rank was measured.

    Raises:
        ValueError: For a block whose factors would not be smaller but which lacks a component.
    """
    parts: dict[str, tuple[list[Components], list[Tensor]]] = {name: ([], []) for name in survey.matrices}
    for factor, mask in zip(factors, keep, strict=True):
        block = factor.block
        if not bool(mask.all()) and block.is_dense(int(mask.sum())):
            raise ValueError(f"layer {block.layer}: block {block.index} is stored whole but lacks components")
        parts[block.layer][0].append(factor)
        parts[block.layer][1].append(mask)
    return {
        name: PLANS[held[0].form](survey.matrices[name], survey.positions[name], held, masks, name in (timed or {}))
        for name, (held, masks) in parts.items()
    }
