"""A layer's measured error, spread over its components by their energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.errors import check_float
from lrp.evidence import Evidence
from lrp.layer.build import build
from lrp.layer.duplicate import measured_copy
from lrp.matrices import Components


@dataclass(frozen=True)
class LayerError:
    """The error model of LEMS (Thoma et al., ICML 2026), for ``selection=lagrangian``, which solves what the authors give to an ILP.

    Each layer alone is truncated to ``measured_at`` of the rank at which factors stop being smaller, and the Kullback-Leibler divergence D
    of the network's softmax outputs is measured on the scoring examples. At another rank the layer's error is taken to be D times the
    energy (S^2) lost there over the energy lost here, and to count 1 + ``gamma`` h times, h falling from 1 at the first layer to 0 at the
    last: h = sum of k^-``alpha`` from the layer's number k to the last, shifted and scaled. A component's score is its part of that.

    The formulas are those of the authors' public code; the paper's text was not at hand. There h counts transformer blocks, here layers,
    and ranks are multiples of 8 from 0.1 (0.3 at low sparsity) to 0.95 of that rank. There (alpha, gamma) are the best of ten trials;
    here ``search=coordinate`` finds them, with ``search.steps=[{scorer: [{gamma: 0}, {gamma: 2}, {gamma: 7}]}]``.

    Attributes:
        alpha: The power in h, >= 0; 0: h falls in equal steps.
        gamma: How much more the first layer counts than the last, >= 0.
        temperature: Divides the logits.
        measured_at: A share of the break-even rank, in (0, 1).
    """

    name: ClassVar[str] = "layer_error"
    reads_outputs: ClassVar[bool] = False  # not by an estimator
    alpha: float = 0.0
    gamma: float = 5.0
    temperature: float = 0.6
    measured_at: float = 0.1

    def __post_init__(self) -> None:
        check_float("scorer.alpha", self.alpha, least=0)
        check_float("scorer.gamma", self.gamma, least=0)
        check_float("scorer.temperature", self.temperature, above=0)
        check_float("scorer.measured_at", self.measured_at, above=0, below=1)

    def __call__(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """Each component's part of its layer's error, (R,) of each block.

        Raises:
            InputError: For networks with one output.
        """
        scores: dict[int, Tensor] = {}
        dense = measured_copy(evidence.model)
        divergence = evidence.divergence(dense, evidence.scoring, self.temperature)
        for weight, name in zip(self.depths(len(evidence.matrices)), evidence.matrices, strict=True):
            places = [i for i, factor in enumerate(factors) if factor.block.layer == name]
            own = [factors[i] for i in places]
            keep = [f.order.argsort() < self._rank(f) for f in own]
            energy = [f.S.square() for f in own]
            total = sum(float(e.sum()) for e in energy)
            lost = sum(float(e[~mask].sum()) for e, mask in zip(energy, keep, strict=True))
            measured = divergence(build(dense, own, keep)) * weight / max(lost, 1e-6 * total, torch.finfo(torch.float64).tiny)
            scores |= {i: measured * e for i, e in zip(places, energy, strict=True)}
        return [scores[i] for i in range(len(factors))]

    def depths(self, layers: int) -> list[float]:
        """How much an error in each of so many layers counts, from the first to the last."""
        parts = torch.arange(1, layers + 1, dtype=torch.float64) ** -self.alpha
        sums = parts.flip(0).cumsum(0).flip(0) - parts[-1]
        return (1 + self.gamma * sums / max(float(sums[0]), 1e-12)).tolist()

    def _rank(self, factor: Components) -> int:
        """The rank at which a block is measured, at least 1 where that is less than the block."""
        limit = (factor.block.size - 1) // factor.block.unit
        return min(limit, max(1, int(self.measured_at * limit)))
