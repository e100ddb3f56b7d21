"""What becomes of a layer in a form of several thin layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from lrp.layer.build import kind_of
from lrp.matrices import LayerMatrix


class Kept(NamedTuple):
    """How much of one side of a layer stays.

    Attributes:
        shape: Of the matrix whose components are counted.
        kept: Its rank.
        full: The rank that it can have.
    """

    shape: tuple[int, ...]
    kept: int
    full: int


@dataclass(frozen=True)
class FactoredPlan:
    """A layer of a form at given ranks.

    Attributes:
        form: The name of the form.
        matrix: The layer's matrix (M, N).
        params: Parameters stored for the layer's weight.
        macs: Multiply-accumulates for one example, as the layer runs.
        ranks: As the form's layer takes them.
        what: What the report calls it.
        sides: What stays of each side, the one that counts as the layer's rank first.
        fill: Gives the new layer its values.
    """

    form: str
    matrix: LayerMatrix
    params: int
    macs: int
    ranks: Any
    what: str
    sides: Sequence[Kept]
    fill: Callable[[Any], None]

    @property
    def untouched(self) -> bool:
        """Never: the dense layer has another form."""
        return False

    def build(self, dense: nn.Module) -> nn.Module:
        """The layer with what is kept, not compensated."""
        made: Any = kind_of(dense).form(dense, self.form)
        layer = made(dense, self.ranks)
        self.fill(layer)
        return layer.train(dense.training)

    def rows(self) -> list[dict[str, Any]]:
        """One row for each side."""
        same = {"dense": False, "form": self.form}
        return [
            {"layer": self.matrix.name, "block": i, "shape": _times(side.shape), "kept": side.kept, "full": side.full, **same}
            for i, side in enumerate(self.sides)
        ]

    def summary(self) -> dict[str, Any]:
        """The report's row of the layer."""
        return {
            "shape": _times(self.matrix.shape),
            "what": self.what,
            "blocks": 1,
            "rank": self.sides[0].kept,
            "full_rank": self.sides[0].full,
            "params_after": self.params,
            "macs_after": self.macs,
        }


def _times(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape)
