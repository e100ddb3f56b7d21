"""The least squares fit of one layer, and the ridge with which it is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from lrp.decomposition.metric import OutputMetric
from lrp.form.known import form_of
from lrp.group import ALONE, Group
from lrp.layer.build import kind_of
from lrp.layer.compressed import Compressed
from lrp.layer_statistics.folds import Folds, held_out
from lrp.layer_statistics.regression import Regression
from lrp.layer_statistics.sums import Sums
from lrp.shelf import Shelf, read

RIDGE = 0.03  # of layers with enough samples: docs/decisions.md
RIDGES = (RIDGE, 0.3, 3.0, 30.0)  # that are tried in other layers: what few samples say is trusted less


def refit(module: nn.Module, weight: Tensor, sums: Sums, gradients: OutputMetric | None, ridge: float) -> None:
    """Set a layer's parameters to the least squares solution; ``weight`` (M, N) is the dense layer's, ``gradients`` its outputs' metric.

    At a rank this is reduced-rank regression in the metric of the inputs and of ``gradients`` (Izenman, 1975), with the ridge penalty
    of ``LeastSquares`` on the change; how a compressed layer is fitted stands with its form (``lrp.form``).
    """
    fit = Regression(sums, weight, ridge)
    bias = torch.empty_like(fit.mean_z)
    for span, new in refitted(module, fit, gradients):
        bias[span] = fit.bias(span, new)
    set_bias(module, bias, weight)


def refitted(module: nn.Module, fit: Regression, gradients: OutputMetric | None) -> Iterator[tuple[slice | Tensor, Tensor]]:
    """Set a layer's parameters but the bias to the solution of a regression; yields rows and what they now hold of the layer's matrix,
    (rows, N) float64."""
    if isinstance(module, Compressed):
        yield from form_of(module).refit(module, fit, gradients)
        return
    for span, new, _ in fit.solutions():
        kind_of(module).set_rows(module, span, new)
        yield span, new


def set_bias(module: Any, bias: Tensor, like: Tensor) -> None:
    """Give a layer this bias (M,); one that had none gets one of the dtype and on the device of ``like``, which is noted for files."""
    if module.bias is None:
        trained = all(parameter.requires_grad for parameter in module.parameters())
        module.bias = nn.Parameter(bias.to(like), requires_grad=trained)
        module.added_bias = True
    else:
        module.bias.copy_(bias)


def best_ridge(module: nn.Module, weight: Tensor, folds: Folds, gradients: OutputMetric | None, group: Group = ALONE) -> float:
    """Of ``RIDGES`` the one with which a layer that is refitted to all examples but one part does best on that part, in the metric of
    ``gradients``, over all parts, which the processes of the ``group`` take in turn. They are tried in their order until one is no
    better than the one before. The layer stays as it is."""
    if len(folds.parts) < 2:
        return RIDGE
    kept, least, best = [parameter.clone() for parameter in module.parameters()], math.inf, RIDGE
    thinly: dict[int, Callable[[float], Regression]] = {}
    shelf = Shelf()

    @cache
    def thin(k: int) -> list[Any]:
        return [shelf.put(L) for L in folds.parts[k].thin()]

    def regression(ridge: float, k: int) -> Regression:
        """On all parts but this one. What costs no more than the samples is kept, and the whole of a layer made anew."""
        if k not in thinly:
            fit = Regression(folds.without(k), weight, ridge)
            if not fit.thin:
                fit.rough = True
                return fit
            thinly[k] = fit.with_ridges(shelf)
        return thinly[k](ridge)

    def of_part(ridge: float, k: int) -> float:
        loss, own = 0.0, regression(ridge, k)
        for span, new in refitted(module, own, gradients):
            G = gradients and gradients.of(span, new).G
            loss += held_out(span, new, own.bias(span, new), folds.parts[k], G, [read(L) for L in thin(k)])
            del new
        for parameter, value in zip(module.parameters(), kept):
            parameter.copy_(value)
        return loss

    for ridge in RIDGES:
        total = sum(loss for _, loss in group.shared_out(range(len(folds.parts)), partial(of_part, ridge)))
        if not total < least:
            break
        least, best = total, ridge
    return best
