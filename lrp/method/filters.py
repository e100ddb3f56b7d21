"""Filters that go together, what is stored of a network without some of them, and how it is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lrp.batches import Batches, Inputs
from lrp.evidence import Evidence
from lrp.layer.build import find_kind, kind_of, replace_layer
from lrp.layer.duplicate import duplicate
from lrp.layer.filters import Filters, has_centre
from lrp.layer.sliced import groups_of
from lrp.matrices import LayerMatrix
from lrp.method.plan import Plan
from lrp.network.channels import Channels
from lrp.network.narrow import narrow, removable

NO_FORM = "its filters are not removed"


@dataclass(frozen=True)
class Unit:
    """Rows of layer matrices that go together.

    Attributes:
        rows: Of each layer the numbers of its rows.
        reason: Why the layers that read them cannot get narrower: then their rows alone are not stored; None where they can.
        centred: Whether one of the rows has a centre that may stay (``lrp.layer.filters``).
    """

    rows: Mapping[str, tuple[int, ...]]
    reason: str | None = None
    centred: bool = False


@dataclass(frozen=True)
class Chosen:
    """What becomes of the rows of every layer.

    Attributes:
        keep: (M,) bool of each layer: the rows that are stored, or of which the centre is.
        centred: (M,) bool: of which the centre alone is.
    """

    keep: Mapping[str, Tensor]
    centred: Mapping[str, Tensor]


def find_units(evidence: Evidence, channels: Channels | None) -> list[Unit]:
    """The rows of all layers to compress, by what they go with; those of a network's outputs are in none.

    Where the network cannot be traced (``channels`` is None) each row is by itself, and the last layer that runs keeps its rows.
    """
    units, together = [], dict[int, dict[str, list[int]]]()
    last = {[*evidence.matrices][-1]} if channels is None else channels.last
    for name, matrix in evidence.matrices.items():
        if name in last:
            continue
        dense = evidence.model.get_submodule(name)
        held = None if channels is None else channels.outputs.get(name)
        for row in range(matrix.shape[0]):
            channel = -1 if held is None else int(held[row])
            reason = "it is not known what reads it" if held is None or channels is None else channels.reason(channel)
            if reason is None:
                together.setdefault(channel, {}).setdefault(name, []).append(row)
            elif matrix.groups == 1:
                units.append(Unit({name: (row,)}, reason, has_centre(dense)))
    for rows in together.values():
        centred = any(has_centre(evidence.model.get_submodule(name)) for name in rows)
        units.append(Unit({name: tuple(held) for name, held in rows.items()}, None, centred))
    return units


@dataclass
class Stored:
    """What is stored of every layer, for any choice.

    Attributes:
        evidence: The network.
        channels: Its channels; None where it cannot be traced.
    """

    evidence: Evidence
    channels: Channels | None

    def choose(self, gone: Sequence[Unit], centred: Sequence[Unit]) -> Chosen:
        """The rows of ``gone`` go; of those of ``centred`` the centre stays, the whole row where it has none."""
        matrices = self.evidence.matrices
        keep = {name: torch.ones(matrix.shape[0], dtype=torch.bool) for name, matrix in matrices.items()}
        points = {name: torch.zeros(matrix.shape[0], dtype=torch.bool) for name, matrix in matrices.items()}
        for unit in gone:
            for name, rows in unit.rows.items():
                keep[name][list(rows)] = False
        for unit in centred:
            for name, rows in unit.rows.items():
                points[name][list(rows)] = has_centre(self.evidence.model.get_submodule(name))
        return Chosen(keep, points)

    def sizes(self, chosen: Chosen) -> dict[str, int]:
        """The parameters of each layer's weight."""
        gone = set[int]() if self.channels is None else removable(self.channels, chosen.keep)
        found = {}
        for name, matrix in self.evidence.matrices.items():
            reads = matrix.channels
            if gone and self.channels is not None and name in self.channels.inputs:
                reads = sum(c not in gone for c in self.channels.inputs[name].tolist()) // matrix.groups
            rows, points = int((chosen.keep[name] & ~chosen.centred[name]).sum()), int(chosen.centred[name].sum())
            found[name] = rows * reads * matrix.kernel + points * reads
        return found


@dataclass(frozen=True)
class FilterPlan(Plan):
    """A plan of layers without some of their filters; the network is built as a whole.

    Attributes:
        chosen: What becomes of each layer's rows.
        channels: Of the network; None where it cannot be traced.
        example: An input (1, ...).
        implant: Gives the centres of a layer's rows: (m, C) for its matrix, the numbers of the rows, and the input channels (C,) that are
            left.
        constants: What removed filters leave behind (``lrp.network.narrow``).
    """

    chosen: Chosen = field(default_factory=lambda: Chosen({}, {}))
    channels: Channels | None = None
    example: Inputs = ()
    implant: Any = None
    constants: Batches | str = "none"

    def build(self) -> nn.Module:
        """The smaller copy of the network."""
        if self.untouched or self.channels is None:
            result, rows, reads = duplicate(self.model), {}, {}
        else:
            found = narrow(self.model, self.example, self.chosen.keep, self.channels, constants=self.constants)
            result, rows, gone = found.model, found.rows, removable(self.channels, self.chosen.keep)
            reads = {name: torch.tensor([c not in gone for c in held.tolist()]) for name, held in self.channels.inputs.items()}
        for name, matrix in self.survey.matrices.items():
            left = rows.get(name, torch.arange(matrix.shape[0]))
            keep, points = self.chosen.keep[name][left], self.chosen.centred[name][left]
            if bool(keep.all()) and not bool(points.any()):
                continue
            layer = result.get_submodule(name)
            channels = reads.get(name, torch.ones(matrix.channels, dtype=torch.bool)).nonzero()[:, 0]
            result = replace_layer(result, name, self._layer(layer, matrix, keep & ~points, points, left, channels))
        if self.built is not None:
            self.built()
        return result

    def _layer(self, layer: Any, matrix: LayerMatrix, whole: Tensor, points: Tensor, left: Tensor, channels: Tensor) -> nn.Module:
        kind = kind_of(layer)
        form = kind.form(layer, Filters.form)
        assert form is not None
        made: Any = form(layer, (whole.nonzero()[:, 0].tolist(), points.nonzero()[:, 0].tolist()))
        weight = kind.as_matrix(layer, layer.weight.detach())
        made.set_rows(weight[whole], self.implant(matrix, left[points], channels))
        return made.train(layer.training)


@dataclass(frozen=True)
class FilterLayer:
    """What becomes of one layer (a ``LayerPlan``). Attributes: params, macs and untouched as there.

    Attributes:
        matrix: The layer's matrix.
        whole: How many of its rows are stored.
        centred: Of how many the centre is.
        said: What the report says.
    """

    matrix: LayerMatrix
    params: int
    macs: int
    whole: int
    centred: int
    said: str

    @property
    def untouched(self) -> bool:
        """Whether the layer stays as it is."""
        return self.params == self.matrix.weight.numel()

    def build(self, dense: nn.Module) -> nn.Module:
        """As it is: ``FilterPlan.build`` makes the network as a whole."""
        return dense

    def rows(self) -> list[dict[str, Any]]:
        """One row: components are filters."""
        M, N = self.matrix.shape
        kept = self.whole + self.centred
        form = "dense" if self.untouched else "filters"
        return [
            {"layer": self.matrix.name, "block": 0, "shape": f"{M}x{N}", "kept": kept, "full": M, "dense": self.untouched, "form": form}
        ]

    def summary(self) -> dict[str, Any]:
        """The report's row of the layer."""
        M, N = self.matrix.shape
        return {
            "shape": f"{M}x{N}", "what": self.said, "blocks": 1, "rank": self.whole + self.centred, "full_rank": M,
            "params_after": self.params, "macs_after": self.macs,
        }  # fmt: skip


def without_form(evidence: Evidence, traced: bool) -> dict[str, str]:
    """Of the layers to compress those whose filters cannot be removed, and why."""
    reasons = {}
    for name, matrix in evidence.matrices.items():
        dense = evidence.model.get_submodule(name)
        kind = find_kind(dense)
        if kind is None or kind.form(dense, Filters.form) is None:
            reasons[name] = f"{NO_FORM} ({type(dense).__name__})"
        elif matrix.groups > 1 and not traced:
            reasons[name] = f"{NO_FORM} (it has {groups_of(dense)} groups, and the network cannot be traced)"
    return reasons
