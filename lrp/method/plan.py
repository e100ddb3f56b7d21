"""What becomes of every layer of a network at one sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from lrp.cost.count import block_macs
from lrp.layer.build import low_rank_layer, replace_layer
from lrp.layer.duplicate import duplicate
from lrp.matrices import Factors, LayerMatrix, Rank, kept_rank
from lrp.network.survey import Candidates


class LayerPlan(Protocol):
    """What becomes of one layer: its form and ranks, what that costs, and the module that it becomes."""

    @property
    def params(self) -> int:
        """Parameters stored for the layer's weight."""
        ...

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one example, as the layer runs."""
        ...

    @property
    def untouched(self) -> bool:
        """Whether the layer stays as it is."""
        ...

    def build(self, dense: nn.Module) -> nn.Module:
        """The module that takes the place of ``dense``, or ``dense`` itself."""
        ...

    def rows(self) -> list[dict[str, Any]]:
        """The layer's rows of layers.csv: layer, block, shape, kept, full, dense."""
        ...

    def summary(self) -> dict[str, Any]:
        """The layer's row of the report: shape, what, blocks, rank, full_rank, params_after, macs_after."""
        ...


@dataclass(frozen=True)
class MatrixPlan:
    """A layer as the kept components of the blocks of its matrix (the form ``matrix``, whole or in blocks).

    Attributes:
        matrix: The layer's matrix (M, N).
        positions: How often the layer computes its output for one example.
        factors: The components of each of its blocks.
        keep: (R,) bool for each block: which components stay; all of a block that is stored whole.
        timed: Whether the layer is dense wherever it would not be faster, too.
    """

    matrix: LayerMatrix
    positions: int
    factors: Sequence[Factors]
    keep: Sequence[Tensor]
    timed: bool = False

    @property
    def ranks(self) -> list[Rank]:
        """The rank of each block; None: it is stored whole."""
        return [kept_rank(mask) for mask in self.keep]

    @property
    def params(self) -> int:
        """Parameters stored for the layer's weight."""
        return sum(f.block.size if rank is None else f.block.cost(rank) for f, rank in zip(self.factors, self.ranks, strict=True))

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one example, as the layer runs."""
        if self.untouched:
            return self.positions * self.matrix.weight.numel()
        blocks = zip(self.factors, self.ranks, strict=True)
        return sum(block_macs(factor.block, rank, self.matrix.kernel, self.positions) for factor, rank in blocks)

    @property
    def untouched(self) -> bool:
        """Whether every block is stored whole."""
        return all(rank is None for rank in self.ranks)

    def build(self, dense: nn.Module) -> nn.Module:
        """The low-rank layer, or ``dense`` itself where every block is stored whole."""
        return low_rank_layer(dense, self.factors, self.keep)

    def rows(self) -> list[dict[str, Any]]:
        """One row per block."""
        found = []
        for factor, rank in zip(self.factors, self.ranks, strict=True):
            block = factor.block
            kept = block.rank if rank is None else rank
            shape = f"{block.shape[0]}x{block.shape[1]}"
            found.append(
                {"layer": block.layer, "block": block.index, "shape": shape, "kept": kept, "full": block.rank, "dense": rank is None}
            )
        return found

    def summary(self) -> dict[str, Any]:
        """The report's row of the layer."""
        rows = self.rows()
        kept = sum(row["kept"] for row in rows)
        dense = f"left dense: would not be {'smaller and faster' if self.timed else 'smaller'}"
        return {
            "shape": "x".join(str(n) for n in self.matrix.shape),
            "what": dense if self.untouched else "low rank" if kept else "empty",
            "blocks": len(rows),
            "rank": kept,
            "full_rank": sum(row["full"] for row in rows),
            "params_after": self.params,
            "macs_after": self.macs,
        }


@dataclass(frozen=True)
class Plan:
    """A layer plan for each compressed layer of a network.

    Attributes:
        sparsity: What was asked for.
        layers: By the layers' names, in the order in which they run.
        model: The network whose layers are replaced: the dense one, or what a later round starts from.
        survey: Its layers.
        seconds: What choosing the plan took.
    """

    sparsity: float
    layers: Mapping[str, LayerPlan]
    model: nn.Module
    survey: Candidates
    seconds: float = 0.0

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

    def build(self) -> nn.Module:
        """The smaller copy of the network, before it is compensated."""
        result = duplicate(self.model)
        for name, layer in self.layers.items():
            result = replace_layer(result, name, layer.build(result.get_submodule(name)))
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
