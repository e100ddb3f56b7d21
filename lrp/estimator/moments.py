"""The moments of the change that each component's removal makes: what estimators find and scorers read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Of the change y - y_b that removing a component makes, over the scoring images, for each component of one block
    and each network output: ``first`` E[y - y_b] and ``second`` E[(y - y_b)^2], both (R, K) float64.

    With ``projected`` K counts random projections of the outputs instead, each divided by sqrt(K): sums over K of either
    moment are then unbiased estimates of the sums over the outputs.
    """

    first: Tensor
    second: Tensor
    projected: bool = False

    def standard_error(self) -> Tensor:
        """Of the perturbation (the sum of ``second``), by the spread over the projections (R,); 0 where there are none."""
        count = self.second.shape[1]
        return self.second.std(1) * count**0.5 if self.projected and count > 1 else torch.zeros(len(self.second), dtype=torch.float64)
