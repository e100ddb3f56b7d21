"""What a component does to the flow of the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.errors import check_float
from lrp.evidence import Evidence
from lrp.matrices import Components


@dataclass(frozen=True)
class Grasp:
    """c_i . H g, moved to begin at 0: H and g are the Hessian and the gradient of the mean cross entropy on the labelled scoring examples,
    with the logits divided by ``temperature`` (Wang, Zhang and Grosse, "Picking winning tickets before training by preserving gradient
    flow", ICLR 2020, equation 8, whose T is 200).

    Without c_i the squared length of the gradient changes by -2 c_i . H g to first order. The paper's score is -c_i . H g, and what has
    the largest goes first: its removal costs least of the flow, or adds most to it. Here larger means keep and no score is negative, so
    the score is c_i . H g less the smallest of the network, over the sum of all |c_i . H g|: the order is the paper's and differences
    are kept, but where 0 lies is arbitrary. ``selection=global`` and ``uniform`` look at the order alone, unless they divide by
    costs (``per_parameter``); ``lagrangian`` adds scores up.

    The paper draws ten examples of each class, of a network just initialised, and scores it in training mode; here it is the scoring
    examples, in eval mode.

    Attributes:
        temperature: T > 0. It changes g and H each by its own power, and the softmax that both are taken at.
    """

    name: ClassVar[str] = "grasp"
    reads_outputs: ClassVar[bool] = False  # not by an estimator
    temperature: float = 200.0

    def __post_init__(self) -> None:
        check_float("scorer.temperature", self.temperature, above=0)

    def __call__(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """The scores (R,) of each block's components.

        Raises:
            InputError: For calibration examples without labels, and for a loss that no layer has a gradient of.
        """
        flow = self.flow(factors, evidence)
        total = max(sum(float(part.abs().sum()) for part in flow), torch.finfo(torch.float64).tiny)
        least = min(float(part.min()) for part in flow)
        return [(part - least) / total for part in flow]

    def flow(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """c_i . H g (R,) of each block's components: of all components of a network together w^T H g."""
        products = evidence.hessian_gradient_product(self.temperature)
        return [factor.dot(factor.block.of(products[factor.block.layer])) for factor in factors]
