"""How much the loss depends on a component, whatever the sign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.evidence import Evidence
from lrp.matrices import Components


@dataclass(frozen=True)
class Snip:
    """|c_i . dL/dW| over the sum of the same of all components of all layers (Lee, Ajanthan and Torr, "SNIP: single-shot network
    pruning", ICLR 2019, equation 6): of a weight |w dL/dw|, of a singular triplet |s u^T (dL/dW) v|. L is the mean cross entropy on the
    labelled scoring examples: the mean is taken before the absolute value, where ``perturbation`` squares each example's change.

    The paper scores weights and biases of a network just initialised; here biases stay, and the network is what it is.
    """

    name: ClassVar[str] = "snip"
    reads_outputs: ClassVar[bool] = False  # not by an estimator

    def __call__(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """The scores (R,) of each block's components; those of the network add up to 1.

        Raises:
            InputError: For calibration examples without labels, and for a loss that no layer has a gradient of.
        """
        changes = [factor.dot(factor.block.of(evidence.loss_gradients[factor.block.layer])).abs() for factor in factors]
        total = sum(float(change.sum()) for change in changes)
        return [change / max(total, torch.finfo(torch.float64).tiny) for change in changes]
