"""How long a layer takes in any way to store it: a few ways are timed on this machine, and the others predicted from these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from lrp.cost.timing import alternate, repeat_to

SAMPLES = 8  # ways of each form that are timed


@dataclass(frozen=True)
class LayerTime:
    """What the times of one layer are made of, in nanoseconds.

    Attributes:
        dense: The time of the dense layer.
        terms: Of each form (1 + t,): the time of a call, and of one unit of each column of its work.
        confirmed: Ways that were timed once more, as (form, work) and their times.
    """

    dense: float
    terms: Sequence[np.ndarray]
    confirmed: dict[tuple[int, tuple[int, ...]], float] = field(default_factory=dict)

    def predict(self, form: int, work: np.ndarray) -> np.ndarray:
        """The times (n,) of ways of the ``form``-th form whose work is (n, t): those that were timed once more as they were measured,
        the others by their terms, times the ratio of measured to predicted of the confirmed way that is nearest, where there is one."""
        terms = self.terms[form]
        times = terms[0] + work @ terms[1:]
        known = {amounts: time for (of, amounts), time in self.confirmed.items() if of == form and any(amounts)}
        if not known or not len(work):
            return times
        amounts = np.array([*known], dtype=float)
        ratios = np.array([*known.values()]) / (terms[0] + amounts @ terms[1:])
        scale = np.maximum(np.vstack([work, amounts]).max(0), 1)
        apart = np.abs(work[:, None] / scale - amounts / scale).max(2)
        return times * ratios[apart.argmin(1)]


@torch.inference_mode()
def measure_layer(
    dense: nn.Module, shape: Sequence[int], batch_size: int, work: Sequence[np.ndarray], build: Callable[[int, int], nn.Module]
) -> LayerTime:
    """Time a layer on ``batch_size`` inputs (1, ...) of this ``shape``, as it is and in a few ways of each form.

    ``work``: of each form, (n, t), what the time of each of its n ways is taken to be linear in; ``build(f, i)`` makes the layer in the
    i-th way of the f-th form. The ways of a form that are timed lie as far apart as their work allows, and all are timed in alternation
    with the dense layer; the shortest time of each counts. A call and each column of the work take times that are not negative, by least
    squares of the relative errors.

    On a resnet20 at batch 64, one thread of a Xeon, the median error of the ways that were not timed is 5 % (of one in ten, more than
    14 %), about as much as one measurement spreads: thin convolutions take times that rise in steps of 8 or 16 channels.
    """
    picked = [spread(each, SAMPLES) for each in work]
    layers = [dense, *(build(form, at).eval() for form, places in enumerate(picked) for at in places)]
    times = _times(layers, shape, batch_size)
    each = np.split(times[1:], np.cumsum([len(places) for places in picked])[:-1])
    return LayerTime(float(times[0]), [_fit(values[places], taken) for values, places, taken in zip(work, picked, each)])


@torch.inference_mode()
def confirm(measured: LayerTime, dense: nn.Module, layer: nn.Module, shape: Sequence[int], batch: int) -> float:
    """The time of one way of a layer, ``layer``, in alternation with the dense layer: its ratio to the dense one's, times what the dense
    layer took before, since the machine may be slower or faster now."""
    before, after = _times([dense, layer.eval()], shape, batch)
    return measured.dense * float(after / before)


def _times(layers: Sequence[nn.Module], shape: Sequence[int], batch_size: int) -> np.ndarray:
    """The shortest times of layers in alternation, in nanoseconds; with one thread, of the processor's time that it was given."""
    weight = next(layers[0].parameters())
    x = repeat_to(torch.randn(*shape, dtype=weight.dtype).to(weight.device), batch_size * shape[0])
    timings = alternate([_Call(layer, x) for layer in layers], x.device, seconds=1.0, least=7, most=25, own=True)
    return 1e9 * np.array([timing.least for timing in timings])


@dataclass(frozen=True)
class _Call:
    """A layer applied to its input."""

    layer: nn.Module
    x: torch.Tensor

    def __call__(self) -> torch.Tensor:
        return self.layer(self.x)


def spread(points: np.ndarray, count: int) -> list[int]:
    """The places of at most ``count`` of the points (n, t) that are far from each other, each column as a share of its largest value:
    the largest, and then always the one that is farthest from those before it."""
    if not len(points):
        return []
    shares = points / np.maximum(points.max(0), 1)
    found = [int(shares.sum(1).argmax())]
    distance = np.abs(shares - shares[found[0]]).max(1)
    while len(found) < count and distance.max() > 0:
        found.append(int(distance.argmax()))
        distance = np.minimum(distance, np.abs(shares - shares[found[-1]]).max(1))
    return found


def _fit(work: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(1 + t,): of a call and of one unit of each column of ``work`` (n, t) the times that explain ``times`` (n,)."""
    from scipy.optimize import nnls  # a second to load beside torch, for measured times alone

    columns = np.hstack([np.ones((len(work), 1)), work])
    if not len(work):
        return np.zeros(columns.shape[1])
    scale = np.maximum(columns.max(0), 1)
    return nnls(columns / scale / times[:, None], np.ones(len(times)))[0] / scale
