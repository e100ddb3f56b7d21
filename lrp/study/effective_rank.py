"""Effective rank: the entropy of the normalised singular values."""

from __future__ import annotations

import torch
from torch import Tensor


def effective_rank(singular_values: Tensor) -> tuple[float, float]:
    """The entropy -sum p log p (nats) of p = s / sum s, and its exponential, from singular values (R,), all >= 0.

    k equal values give log k and k; of a zero matrix both are 0. Source: the entropy is what Huh et al. (TMLR 2023) call effective
    rank, its exponential what Roy and Vetterli (2007) do.

    Raises:
        ValueError: For a value that is negative or not finite.
    """
    values = singular_values.double()
    if not bool((values >= 0).all() and torch.isfinite(values).all()):
        raise ValueError("singular values are finite and not negative")
    if values.sum() == 0:
        return 0.0, 0.0
    entropy = float(torch.special.entr(values / values.sum()).sum())
    return entropy, float(torch.tensor(entropy, dtype=torch.float64).exp())
