"""A rival for convolutions: Tucker-2 by the higher-order SVD of the weights, at equal relative ranks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lrp.blocking.none import Unblocked
from lrp.compensation.base import Compensation
from lrp.compensation.none import NoCompensation
from lrp.cost.costs import check_budget, kept_share
from lrp.decomposition.base import decompose
from lrp.estimator.base import Estimator
from lrp.evidence import Evidence
from lrp.form.base import LayerPlan
from lrp.form.matrix import MatrixPlan
from lrp.form.tucker2 import Tucker2Form
from lrp.layer.tucker2 import Triple, hosvd
from lrp.matrices import Factors, LayerMatrix
from lrp.method.base import FittedMethod, as_masks, check_exclude
from lrp.method.plan import Plan
from lrp.partition import cut

STEPS = 40  # of the bisection


@dataclass(frozen=True)
class Hosvd:
    """Convolutions with a kernel in Tucker-2 form by the truncated higher-order SVD (Kim et al., ICLR 2016), every other layer by the
    truncated SVD; all at the largest share of their full ranks that keeps the budget. Looks at weights only. Of the job's parts it takes
    the compensation, and the estimator for how outputs are read.
    """

    estimator: Estimator
    compensation: Compensation = NoCompensation()
    budget: str = "params"
    exclude: Sequence[str] = ()
    samples: int = 65536
    name: str = "hosvd"

    def __post_init__(self) -> None:
        check_budget(self.budget)
        check_exclude(self.exclude)

    def fit(self, evidence: Evidence) -> HosvdFitted:
        """Look at the layers' weights.

        Raises:
            InputError: For a network without a layer to compress.
        """
        evidence = evidence.of(self.estimator, self.exclude, self.samples)
        start = time.perf_counter()
        factors = decompose(evidence.matrices, cut(Unblocked(), evidence.matrices), group=evidence.group)
        return HosvdFitted(self, evidence, {"decompose": time.perf_counter() - start}, factors=factors)


@dataclass
class HosvdFitted(FittedMethod):
    """A network whose layers can be stored at any share of their ranks."""

    factors: list[Factors] = field(default_factory=list)

    def plan(self, sparsity: float) -> Plan:
        """Every layer at the largest share of its ranks that keeps the budget."""
        start = time.perf_counter()
        survey, budget = self.evidence.survey, self.method.budget
        dense = {name: m.macs(survey.positions[name]) if budget == "macs" else m.weight.numel() for name, m in survey.matrices.items()}
        allowed = kept_share(sparsity) * sum(dense.values())

        def at(share: float) -> tuple[Mapping[str, LayerPlan], int]:
            layers = {name: self._layer(name, share) for name in survey.matrices}
            return layers, sum(layer.macs if budget == "macs" else layer.params for layer in layers.values())

        low, high = 0.0, 1.0
        layers, spent = at(high)
        if spent > allowed:
            for _ in range(STEPS):
                middle = (low + high) / 2
                low, high = (middle, high) if at(middle)[1] <= allowed else (low, middle)
            layers, _ = at(low)
        return Plan(sparsity, layers, self.model, survey, time.perf_counter() - start)

    def _layer(self, name: str, share: float) -> LayerPlan:
        survey, form = self.evidence.survey, Tucker2Form()
        matrix, positions = survey.matrices[name], survey.positions[name]
        if share > 0 and form.fits(self.model.get_submodule(name), matrix):
            q, r = self.ranks(name, share)
            sizes = form.sizes(matrix, q, r)
            if sum(sizes) < matrix.weight.numel():
                places = survey.places(name)
                macs = sizes[0] * places + (sizes[1] + sizes[2]) * positions
                return form.plan(matrix, sum(sizes), macs, (q, r), lambda layer: layer.set_triples(self.triples(matrix, q, r)))
            share = 1.0
        factors = [factor for factor in self.factors if factor.block.layer == name]
        ranks = [self.matrix_rank(factor, share) for factor in factors]
        whole = [None if factor.block.is_dense(rank) else rank for factor, rank in zip(factors, ranks)]
        return MatrixPlan(matrix, positions, factors, as_masks(factors, whole))

    def ranks(self, name: str, share: float) -> tuple[int, int]:
        """(q, r) of a convolution, each at least 1."""
        matrix = self.evidence.matrices[name]
        return max(1, round(share * matrix.channels)), max(1, round(share * (matrix.shape[0] // matrix.groups)))

    def matrix_rank(self, factor: Factors, share: float) -> int:
        """The rank of a block that is stored as a matrix."""
        return round(share * factor.block.rank)

    def triples(self, matrix: LayerMatrix, q: int, r: int) -> list[Triple]:
        """The factors of each group."""
        return hosvd(matrix.weight, matrix.groups, matrix.kernel, q, r)


def energy_rank(energies: Tensor, share: float) -> int:
    """The least rank, at least 1, that keeps a share of the sum of these falling energies (R,)."""
    kept = energies.cumsum(0) / energies.sum().clamp(min=torch.finfo(energies.dtype).tiny)
    return min(int((kept < share - 1e-12).sum()) + 1, len(energies))
