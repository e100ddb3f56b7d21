"""What the loss rises by without a component when the other singular values of its layer make up for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.errors import InputError, check_float
from lrp.evidence import Evidence
from lrp.matrices import Components
from lrp.network.own_loss import drawn_gradients

ROUNDING = 1e-12  # of the largest singular value: below it there is no direction


@dataclass(frozen=True)
class Saliency:
    """SVD-Surgeon's choice of what to drop (Safari and Hutter, arXiv 2606.23568, section 3.6): s_i^2 / (2 [H^-1]_ii), the least rise of the
    quadratic model d^T H d / 2 over all changes d of a layer's singular values that take the i-th one away, d_i = -s_i. H (R x R of all
    components of a layer) is the second moment of the derivatives of the loss with respect to them, damped by ``damping`` times its mean
    diagonal. The singular values are those of the decomposition, whose directions need not be orthonormal.

    With ``compensation=surgeon`` and ``selection=uniform`` it is the paper's select-and-update. Differences: labels are drawn from the
    network's own softmax, where the paper takes the next tokens; all of H is inverted, where the paper leaves parts out for speed; the
    damping is ours.

    Attributes:
        damping: Times the mean diagonal of H, > 0.
    """

    name: ClassVar[str] = "saliency"
    reads_outputs: ClassVar[bool] = False  # not by an estimator
    damping: float = 0.1

    def __post_init__(self) -> None:
        check_float("scorer.damping", self.damping, above=0)

    def __call__(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """The rise (R,) float64 of each block's components.

        Raises:
            InputError: For networks with one output, where the loss carries no gradient, and for single weights.
        """
        if not all(f.rank_one for f in factors):
            kind = factors[0].decomposition
            raise InputError("scorer", self.name, f"it inverts a matrix of all components of a layer, too many of decomposition={kind}")
        derivatives: list[list[Tensor]] = [[] for _ in factors]
        for gradients in drawn_gradients(evidence.model, list(evidence.matrices), evidence.scoring, evidence.pick):
            for f, held in zip(factors, derivatives, strict=True):
                gradient = f.block.of(gradients[f.block.layer]).double().cpu()
                found = f.dot(gradient)  # times the singular values
                held.append(torch.where(f.S > ROUNDING * f.S.max(), found / f.S, 0.0))
        scores: list[Tensor] = [torch.empty(0)] * len(factors)
        for name in evidence.matrices:
            own = [i for i, f in enumerate(factors) if f.block.layer == name]
            rise = rises(torch.cat([torch.stack(derivatives[i]) for i in own], 1), torch.cat([factors[i].S for i in own]), self.damping)
            for i, part in zip(own, rise.split([len(factors[i].S) for i in own]), strict=True):
                scores[i] = part
        return scores


def rises(derivatives: Tensor, sizes: Tensor, damping: float) -> Tensor:
    """s_i^2 / (2 [H^-1]_ii) (R,) of the singular values ``sizes`` (R,), H = E g g^T + damping mean diagonal I of the ``derivatives`` g
    (examples, R); zeros where all derivatives are."""
    H = derivatives.T @ derivatives / len(derivatives)
    scale = float(H.diagonal().mean())
    if not scale > 0:
        return torch.zeros_like(sizes)
    H.diagonal().add_(damping * scale)
    return sizes.square() / (2 * torch.cholesky_inverse(torch.linalg.cholesky(H)).diagonal())
