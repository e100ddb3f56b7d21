"""Least squares without a ridge, a mean or a new bias: what AA-SVD does before it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lrp.compensation.least_squares import LeastSquares
from lrp.compensation.refit import refitted
from lrp.decomposition.metric import OutputMetric
from lrp.errors import check_float
from lrp.layer_statistics.regression import Regression
from lrp.layer_statistics.sums import Sums


@dataclass(frozen=True)
class Anchored(LeastSquares):
    """From the input of the network to its output, refit each layer so that from the inputs x' that it has in the pruned network it gives
    what W gave on its inputs x in the dense one: minimise E ||W x - W' x'||^2 over all W' of the layer's rank (AA-SVD, Sinha and Fleuret,
    arXiv 2604.02119, the anchored and adaptive objective). Second moments are not centred and biases stay. The authors then train each
    transformer block on its outputs, which is not here; they compress block by block, here it goes layer by layer.

    The options are those of ``LeastSquares``, with the paper's values as defaults: no ridge, and the plain metric of the outputs. Where C'
    is singular the solution closest to W is taken (the authors' code makes it regular).
    """

    name: ClassVar[str] = "anchored"
    ties: ClassVar[bool] = False
    adds_biases: ClassVar[bool] = False
    ridge: float = 0.0
    metric: str = "plain"

    def __post_init__(self) -> None:
        check_float("compensation.ridge", self.ridge, least=0)  # none is tried: the trials are of centred moments
        super().__post_init__()

    def _refit(self, module: nn.Module, weight: Tensor, sums: Sums, gradients: OutputMetric | None, ridge: float) -> None:
        assert sums.x is not None and sums.z is not None and sums.zx is not None, "z was added with x"
        bias = getattr(module, "bias", None)
        if bias is not None:  # z comes with it
            groups = len(sums.x)
            own = bias.detach().to(sums.zx).unflatten(0, (groups, -1))  # (groups, M of a group)
            sums.zx = sums.zx - (own[:, :, None] * sums.x[:, None, :]).flatten(0, 1)
        sums.x, sums.z = torch.zeros_like(sums.x), torch.zeros_like(sums.z)
        list(refitted(module, Regression(sums, weight, ridge), gradients))
