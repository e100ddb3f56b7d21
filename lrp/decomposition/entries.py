"""Every weight by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.layer_statistics.base import LayerStatistics
from lrp.matrices import Block, Components


@dataclass(frozen=True)
class EntryBlock(Block):
    """A block whose components are its p q weights, each of which costs one parameter; where weights lie is not counted."""

    @property
    def rank(self) -> int:
        """R = p q."""
        return self.size

    @property
    def unit(self) -> int:
        """1."""
        return 1


@dataclass(frozen=True)
class Weights(Components):
    """The weights of a block (p x q), row by row: component i is the i-th weight, all else zero.

    Attributes:
        block: What was decomposed.
        W: (p, q) float64.
        layer_norm: The largest weight of the layer, without its sign.
        decomposition: The name of the decomposition.
    """

    form = "masked"
    rank_one = False
    block: EntryBlock
    W: Tensor
    layer_norm: float = 0.0
    decomposition: str = "entries"

    @property
    def S(self) -> Tensor:  # type: ignore[override]
        """|w| (R,)."""
        return self.W.abs().flatten()

    @property
    def values(self) -> tuple[Tensor, ...]:
        """None: they are the block's, in whatever way it was decomposed."""
        return ()

    def pair(self, which: slice) -> tuple[Tensor, Tensor]:  # noqa: D102
        at = torch.arange(self.count)[which]
        rows, columns = at // self.W.shape[1], at % self.W.shape[1]
        U, V = self.W.new_zeros(len(self.W), len(at)), self.W.new_zeros(len(at), self.W.shape[1])
        each = torch.arange(len(at))
        U[rows, each] = 1
        V[each, columns] = self.W[rows, columns]
        return U, V

    def dot(self, G: Tensor) -> Tensor:  # noqa: D102
        return (self.W * G).flatten()

    def energy(self) -> Tensor:  # noqa: D102
        return self.W.square().flatten()

    def combine(self, z: Tensor) -> Tensor:  # noqa: D102
        return z.view_as(self.W) * self.W.sign()

    def mean(self, D: Tensor) -> Tensor:
        """The entry itself."""
        return D.flatten()

    def stays(self, keep: Tensor) -> Tensor:
        """Which weights (p, q) stay where these components (R,) do."""
        return keep.view_as(self.W)


@dataclass(frozen=True)
class Entries:
    """Each weight is a component (unstructured pruning). What is removed is zero in a layer that stays dense: a sparsity counts the
    parameters that are not zero, and the layer is as large and as slow as before."""

    name: ClassVar[str] = "entries"
    needs: ClassVar[tuple[str, ...]] = ()
    form: ClassVar[str] = Weights.form

    def __call__(self, weight: Tensor, block: Block, statistics: LayerStatistics | None) -> Weights:
        """The weights of one block of the layer's matrix ``weight`` (M, N) float64."""
        return Weights(EntryBlock(**vars(block)), block.of(weight).clone())

    def norm(self, weight: Tensor, block: Block, statistics: LayerStatistics | None) -> float:
        """The largest S of a block."""
        return float(block.of(weight).abs().max())
