"""How much the loss rises to second order without a component."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.errors import check_bool, check_int
from lrp.evidence import Evidence
from lrp.matrices import Components, over

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Curvature:
    """c_i^T H c_i / 2, H the Hessian of the mean cross entropy on the labelled scoring examples in eval mode: of a singular triplet
    s^2 (u v^T)^T H (u v^T) / 2, the second-order term of the loss without it (HAP: Yu et al., "Hessian-aware pruning and optimal neural
    implant", WACV 2022, arXiv 2101.08940, section 3, for components).

    The diagonal of H in the basis of the components is estimated by Hutchinson's probes: with independent signs z_i and v the sum of all
    z_i c_i / ||c_i||, z_i <c_i, H v> / ||c_i|| is c_i^T H c_i / ||c_i||^2 in the mean. So one Hessian-vector product a probe serves all
    components of all layers; probes that run through a basis would be exact, random ones have a standard error that falls with their
    number. H need not be positive, and an estimate less so: what is negative counts 0, which the log says.

    Attributes:
        probes: How many Hessian-vector products, >= 1. The paper has 300.
        average: True: the paper's importance, ||c_i||^2 tr(H_i) / p_i / 2 with the mean diagonal of H over the p_i weights that a component
            touches (of a filter its own, of a singular triplet all of its block), in place of the curvature in its own direction.
        seed: Draws the signs.
    """

    name: ClassVar[str] = "curvature"
    reads_outputs: ClassVar[bool] = False  # not by an estimator
    probes: int = 32
    average: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_int("scorer.probes", self.probes, 1)
        check_bool("scorer.average", self.average)
        check_int("scorer.seed", self.seed, 0)

    def __call__(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """The scores (R,) of each block's components.

        Raises:
            InputError: For calibration examples without labels, and for a loss that no layer has a gradient of.
        """
        generator = torch.Generator().manual_seed(self.seed)
        total = [torch.zeros(factor.count, dtype=torch.float64) for factor in factors]
        for _ in range(self.probes):
            shapes = [factor.block.shape if self.average else (factor.count,) for factor in factors]
            signs = [torch.randint(0, 2, shape, generator=generator).double() * 2 - 1 for shape in shapes]
            for held, found in zip(total, self.curvatures(factors, evidence, signs), strict=True):
                held += found
        loss = [factor.energy() * held / (2 * self.probes) for factor, held in zip(factors, total, strict=True)]
        if negative := sum(int((part < 0).sum()) for part in loss):
            count = sum(factor.count for factor in factors)
            log.info("curvature: %d of %d estimates from %d probes are negative and count 0", negative, count, self.probes)
        return [part.clamp(min=0) for part in loss]

    def curvatures(self, factors: Sequence[Components], evidence: Evidence, probe: Sequence[Tensor]) -> list[Tensor]:
        """What one probe says of the curvature (R,) along each component, as long as one; ``probe``: z (R,) of each block, or with
        ``average`` a sign of each weight (p, q)."""
        vectors = {name: torch.zeros(matrix.shape, dtype=torch.float64) for name, matrix in evidence.matrices.items()}
        for factor, z in zip(factors, probe, strict=True):
            block, vector = factor.block, vectors[factor.block.layer]
            block.put(vector, block.of(vector) + (z if self.average else factor.combine(z)))
        products = evidence.hessian_vector_product(vectors)
        found = []
        for factor, z in zip(factors, probe, strict=True):
            Hv = factor.block.of(products[factor.block.layer])
            found.append(factor.mean(z * Hv) if self.average else z * over(factor.dot(Hv), factor.energy().sqrt()))
        return found
