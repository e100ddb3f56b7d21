"""Second moments of few samples, shrunk towards a multiple of the identity."""

from __future__ import annotations

from torch import Tensor

ENOUGH = 3  # samples for each dimension: with these a second moment is taken as it is


def shrunk(moment: Tensor, samples: int) -> Tensor:
    """E[g g^T] (p, p) as it was found from so many samples, or where these are fewer than ``ENOUGH`` p, changed in place to
    (1 - rho) E[g g^T] + rho m I, with m its mean diagonal: rho is the share that comes closest to the true moment where samples are
    normal, as far as they tell it (OAS, Chen, Wiesel, Eldar and Hero, IEEE Transactions on Signal Processing 58, 2010, equation 23,
    without the terms in 2 / p)."""
    p = len(moment)
    if samples >= ENOUGH * p:
        return moment
    mean = float(moment.diagonal().mean())
    square = float(moment.square().mean())
    spread = (samples + 1) * (square - mean**2 / p)
    rho = 1.0 if spread <= 0 else min((square + mean**2) / spread, 1.0)
    moment.mul_(1 - rho).diagonal().add_(rho * mean)
    return moment
