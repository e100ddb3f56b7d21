"""What every form is, and what it says of a layer before one is chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor, nn

from lrp.decomposition.metric import OutputMetric
from lrp.layer_statistics.regression import Regression
from lrp.matrices import Components, LayerMatrix
from lrp.shelf import shelved


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
        """The layer's rows of layers.csv: layer, block, shape, kept, full, dense, form."""
        ...

    def summary(self) -> dict[str, Any]:
        """The layer's row of the report: shape, what, blocks, rank, full_rank, params_after, macs_after."""
        ...


@shelved("directions")
@dataclass(frozen=True)
class Side:
    """The components of one side of a group's matrix.

    Attributes:
        scores: E ||y - y_b||^2 of each, (R,) float64.
        directions: Orthonormal columns (outputs or inputs, R) float64, which may lie in a file.
    """

    scores: Tensor
    directions: Tensor

    def kept(self, count: int) -> Tensor:
        """The directions of the largest scores, of equal ones the first, in the order in which they are."""
        return self.directions[:, self.scores.argsort(descending=True, stable=True)[:count].sort().values]


@dataclass(frozen=True)
class ScoredLayer:
    """A layer whose components have scores: what forms choose from.

    Attributes:
        matrix: The layer's matrix (M, N).
        dense: The layer.
        positions: How often it computes its output for one example.
        input_shape: Of its input for one example.
        places: How many positions its input has for one example.
        factors: The components of each of its blocks.
        scores: (R,) of each block.
        outputs: The output side of each group: the components of the plain SVD of its matrix; none where no form needs them.
        inputs: The input side of each group: the components of its input unfolding (C, M k), by the entries k of the kernel that are not
            part of an input.
        total: The sum of the scores of ``outputs``.
        loss: What the layer's damage counts, from the share of the sum of its perturbations that is lost.
        step: Ranks are multiples of it, or below it.
        timed: Whether ways that are not faster than the dense layer are left out.
    """

    matrix: LayerMatrix
    dense: nn.Module
    positions: int
    input_shape: tuple[int, ...]
    places: int
    factors: Sequence[Components]
    scores: Sequence[Tensor]
    outputs: Sequence[Side]
    inputs: Mapping[int, Sequence[Side]]
    total: float
    loss: Callable[[np.ndarray], np.ndarray]
    step: int = 1
    timed: bool = False


@dataclass(frozen=True)
class Choices:
    """The ways in which one form can store one layer.

    Attributes:
        form: Its name.
        params: (n,) int64, parameters stored for the weight.
        macs: (n,) int64, multiply-accumulates for one example.
        work: (n, t), what the time of the layer is predicted from, for one example: the multiply-accumulates of each thin layer that
            runs, and last the values that are written between them.
        loss: (n,) float64, the predicted damage, on one scale for all forms and layers; 0 of the dense layer.
        plan: What becomes of the layer at the i-th.
        nanoseconds: (n,) int64, the predicted time, where times were measured.
    """

    form: str
    params: np.ndarray
    macs: np.ndarray
    work: np.ndarray
    loss: np.ndarray
    plan: Callable[[int], LayerPlan]
    nanoseconds: np.ndarray | None = None


class Refitted(Protocol):
    """What compensation asks of the form of a layer."""

    name: ClassVar[str]

    def refit(self, module: Any, fit: Regression, gradients: OutputMetric | None) -> Iterable[tuple[slice | Tensor, Tensor]]:
        """Set the parameters of a layer of this form, but for the bias, to the least squares solution in the metric of the inputs and
        of ``gradients`` (None: the identity); yields rows and what they now hold of the layer's matrix, (rows, N) float64."""
        ...


class Form(Refitted, Protocol):
    """One shape in which layers are stored.

    Attributes:
        name: What ``forms=[...]`` and tables call it, and what its layers have as ``form``.
        perturbations: Whether it looks at the perturbations of components that are not those of the layer's blocks.

    One that says ``ties = True`` can store a weight that several layers hold: each of them then holds the same parameters.
    """

    perturbations: ClassVar[bool]

    def fits(self, dense: nn.Module, matrix: LayerMatrix) -> bool:
        """Whether a layer can be stored so."""
        ...

    def inputs(self, dense: nn.Module, matrix: LayerMatrix) -> set[int]:
        """Of a layer that ``fits``: at which input unfoldings it looks, by the entries of the kernel that are not part of an input."""
        ...

    def choices(self, layer: ScoredLayer) -> Choices:
        """Every way to store a layer that ``fits``, in this form."""
        ...


def rank_grid(most: int, step: int, fine: int = 48, coarse: int = 4) -> np.ndarray:
    """Ranks from 1 to ``most``: each one below ``fine``, each ``coarse``-th above; multiples of ``step`` and those below it."""
    ranks = np.arange(1, most + 1)
    return ranks[((ranks < fine) | (ranks % coarse == 0) | (ranks == most)) & ((ranks < step) | (ranks % step == 0))]


def lost_after(sides: Sequence[Side]) -> np.ndarray:
    """(R + 1,): what is lost, over all groups, where each keeps its r largest."""
    kept = sum(np.concatenate([[0.0], side.scores.sort(descending=True).values.cumsum(0).numpy()]) for side in sides)
    kept = np.asarray(kept)
    return np.maximum(kept[-1] - kept, 0.0)
