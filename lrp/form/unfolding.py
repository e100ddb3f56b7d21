"""The input side of a layer: its weight with the inputs as rows, everything else as columns."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def input_components(weight: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """The components of the input unfolding of a group's matrix (M, C k): directions (C, R) and what they hold, (R, M, k)."""
    unfolded = weight.unflatten(1, (-1, kernel)).transpose(0, 1)  # (C, M, k)
    U, S, Vh = torch.linalg.svd(unfolded.flatten(1), full_matrices=False)
    return U, (S[:, None] * Vh).view(-1, *unfolded.shape[1:])


def shares(lost: np.ndarray, total: float) -> np.ndarray:
    """What is lost as shares of a sum, of which no more than all can be lost."""
    return np.minimum(lost / total, 1.0) if total > 0 else np.zeros_like(lost)
