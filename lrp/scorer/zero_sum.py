"""The order that keeps the predicted change of the loss near zero."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.errors import InputError
from lrp.evidence import Evidence
from lrp.matrices import Components
from lrp.network.own_loss import LABELS, mean_gradients


@dataclass(frozen=True)
class ZeroSum:
    """When a component goes, the first 0: Zero Sum SVD (Abbasi et al., ICML 2026, arXiv 2602.02848), for ``selection=global``.

    Without component i the loss changes by -<dL/dW, u_i v_i> to first order, of either sign. Of each block only the last component that is
    left may go, the one with the smallest S. Of these goes the one with the smallest change that brings the sum of all changes so far back
    towards zero: of a change >= 0 where the sum is <= 0, of one < 0 where it is above; of the other sign where there is none. The first
    component of each block goes after all others, as in the authors' code, which empties no layer.

    L is the paper's with ``labels="next"``. With "own" it is the cross entropy to the class that the network itself finds likeliest, which
    needs no labels and suits any softmax. (The expected loss under the network's own distribution has no gradient at all.) The optional
    correction by a gradient step, several stages and quantisation are not here.

    Attributes:
        labels: "own"; "next": of each token the one behind it in the input; "given": those that come with the calibration examples.
    """

    name: ClassVar[str] = "zero_sum"
    reads_outputs: ClassVar[bool] = True
    labels: str = "own"

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise InputError("scorer.labels", self.labels, f"choose one of {', '.join(LABELS)}")

    def __call__(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """The places in the order (R,) of each block's components.

        Raises:
            InputError: For labels that are not there and for networks with one output.
        """
        falling = [factor.order for factor in factors]
        places = order([change[by] for change, by in zip(self.changes(factors, evidence), falling, strict=True)])
        return [place[by.argsort()] for place, by in zip(places, falling, strict=True)]

    def changes(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """The change of the loss without each component, to first order: (R,) of each block."""
        gradients = mean_gradients(evidence.model, list(evidence.matrices), evidence.scoring, evidence.pick, self.labels)
        return [-f.dot(f.block.of(gradients[f.block.layer])) for f in factors]


def order(changes: Sequence[Tensor]) -> list[Tensor]:
    """The places (R,) float64 at which components go, from the change that each makes to the sum: from the last of a block to the first."""
    places = [torch.zeros(len(change), dtype=torch.float64) for change in changes]
    values = [change.tolist() for change in changes]
    total, step = 0.0, 0
    for last, first in (([len(own) - 1 for own in values], 1), ([0] * len(values), 0)):
        waiting: tuple[list[tuple[float, int, int]], ...] = ([], [])  # of changes >= 0, and below
        for block, i in enumerate(last):
            if i >= first:
                _offer(waiting, values, block, i)
        while any(waiting):
            heap = waiting[total > 0] or waiting[total <= 0]
            _, block, i = heapq.heappop(heap)
            total += values[block][i]
            places[block][i] = step
            step += 1
            if i > first:
                _offer(waiting, values, block, i - 1)
    return places


def _offer(waiting: Sequence[list[tuple[float, int, int]]], values: Sequence[Sequence[float]], block: int, i: int) -> None:
    change = values[block][i]
    heapq.heappush(waiting[change < 0], (abs(change), block, i))
