"""Kept singular values corrected for what was dropped, by a quadratic model of the loss."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lrp.batches import Batches
from lrp.errors import InputError, check_float, check_int
from lrp.evidence import Evidence
from lrp.layer.base import LowRank
from lrp.layer.duplicate import measured_copy
from lrp.layer_statistics.base import LayerStatistics
from lrp.network.own_loss import drawn_gradients
from lrp.network.survey import Candidates

log = logging.getLogger(__name__)

STEPS = (1.0, 0.5, 0.25, 0.125, 0.0625)  # shares of the correction that are tried


@dataclass(frozen=True)
class Surgeon:
    """SVD-Surgeon (Safari and Hutter, arXiv 2606.23568), the update alone: with H the second moments of the derivatives of the loss with
    respect to the singular values of one layer (the Fisher information, in the dense network), S the kept and C the dropped ones, what is
    kept changes by H_SS^-1 H_SC s_C, the minimiser of the quadratic model. Directions stay. H_SS is damped by ``damping`` times its mean
    diagonal.

    Differences: labels are drawn from the network's own softmax, where the paper takes the next tokens; all that was dropped counts, where
    the paper cuts C short for speed; singular values are the lengths of the stored components, may change sign, and the correction of all
    layers is shortened by the factor (1, 1/2, ... 1/16, or 0) at which the divergence from the dense network's softmax on the calibration
    examples is least, where the paper sets one by hand. The paper's other choice of what to drop is ``scorer=saliency``.

    Only layers stored as U V are corrected; of other forms nothing changes.

    Attributes:
        damping: Times the mean diagonal of H_SS, > 0 (the authors' code: 1e-5, of many more backward passes).
        examples: Derivatives are taken of the first so many calibration examples, one backward pass each.
    """

    name: ClassVar[str] = "surgeon"
    damping: float = 0.1
    examples: int = 512

    def __post_init__(self) -> None:
        check_float("compensation.damping", self.damping, above=0)
        check_int("compensation.examples", self.examples, 1)

    @property
    def needs(self) -> tuple[str, ...]:
        """No statistics: it looks at the network."""
        return ()

    def __call__(self, model: nn.Module, candidates: Candidates, inputs: Batches, statistics: Mapping[str, LayerStatistics]) -> None:
        """Nothing can be done without the dense network.

        Raises:
            InputError: Always; ``with_network`` is what is called.
        """
        raise InputError("compensation", self.name, "it needs the dense network, which with_network is given")

    @torch.no_grad()
    def with_network(self, model: nn.Module, candidates: Candidates, evidence: Evidence) -> None:
        """Correct the singular values of the low-rank layers of ``model`` in place.

        Raises:
            InputError: For networks with one output, and where the loss carries no gradient.
        """
        layers = {name: _Layer(layer, candidates.matrices[name].weight) for name in candidates.matrices
                  if isinstance(layer := model.get_submodule(name), LowRank) and len(layer.U)}  # fmt: skip
        if not layers:
            return
        dense, batches = measured_copy(evidence.model), evidence.batches.take(self.examples)
        for gradients in drawn_gradients(dense, list(layers), batches, evidence.pick):
            for name, gradient in gradients.items():
                layers[name].add(gradient)
        divergence = evidence.divergence(dense, evidence.batches)
        changes = {name: layer.correction(self.damping) for name, layer in layers.items()}

        def loss(step: float) -> float:
            for name, layer in layers.items():
                layer.set(step * changes[name])
            found = divergence(model)
            return found if found == found else float("inf")

        losses = {step: loss(step) for step in (0.0, *STEPS)}
        best = min(losses, key=lambda step: losses[step])  # of equal ones the first, which is 0
        loss(best)
        log.info("surgeon: %g of the correction; divergence %.5f without, %.5f with it", best, losses[0.0], losses[best])


class _Layer:
    """A low-rank layer, and the derivatives of the loss with respect to its singular values, example by example."""

    def __init__(self, layer: LowRank, weight: Tensor) -> None:
        self.parts = [(part.block, columns, layer.V[part.key]) for rows in layer.ranges for part, columns in layer._of_U(rows)]
        self.U = [columns.clone() for _, columns, _ in self.parts]
        self.sizes = torch.cat([torch.linalg.vector_norm(U, dim=0) * torch.linalg.vector_norm(V, dim=1) for _, U, V in self.parts])
        self.arranged = layer.arranged
        self.dropped = layer.arranged(weight.to(self.sizes) - layer.weight_matrix())
        self.kept: list[Tensor] = []  # (r,) each
        self.rest: list[Tensor] = []  # times what was dropped

    def add(self, gradient: Tensor) -> None:
        """One example's dL/dW (M, N)."""
        gradient = self.arranged(gradient)
        found = torch.cat([((U.T @ block.of(gradient)) * V).sum(1) for block, U, V in self.parts])
        self.kept.append(torch.where(self.sizes > 0, found / self.sizes, 0.0).double())
        self.rest.append((gradient * self.dropped).sum().double())

    def correction(self, damping: float) -> Tensor:
        """What the kept singular values should change by, (r,) float64."""
        return minimiser(torch.stack(self.kept), torch.stack(self.rest), damping)

    def set(self, change: Tensor) -> None:
        """Singular values that differ by ``change`` (r,) from those that the layer had."""
        factor = torch.where(self.sizes > 0, 1 + change.to(self.sizes) / self.sizes, 1.0)
        for (_, columns, _), before, own in zip(self.parts, self.U, factor.split([U.shape[1] for U in self.U]), strict=True):
            columns.copy_(before * own)


def minimiser(kept: Tensor, rest: Tensor, damping: float) -> Tensor:
    """The d (r,) that minimises E (kept d - rest)^2 + damping mean diagonal of H_SS ||d||^2 over examples, H_SS = E kept kept^T: with the
    derivatives ``kept`` (n, r) by the kept singular values and ``rest`` (n,), those by the dropped ones times their values. Zeros where
    nothing was dropped."""
    H = kept.T @ kept / len(kept)
    wanted = kept.T @ rest / len(kept)
    scale = float(H.diagonal().mean())
    if not scale > 0:
        return torch.zeros_like(wanted)
    H.diagonal().add_(damping * scale)
    return torch.cholesky_solve(wanted[:, None], torch.linalg.cholesky(H))[:, 0]
