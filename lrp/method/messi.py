"""A rival: rows of each layer in clusters, each near a subspace of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from lrp.compensation.base import Compensation
from lrp.compensation.none import NoCompensation
from lrp.cost.costs import check_budget, kept_share
from lrp.errors import InputError, check_int, check_seed
from lrp.estimator.base import Estimator
from lrp.evidence import Evidence
from lrp.form.matrix import MatrixPlan
from lrp.method.base import FittedMethod, check_exclude
from lrp.method.cluster_plans import ClusterLayer, equal_sizes, most_rank
from lrp.method.plan import Plan
from lrp.method.subspaces import balanced, cluster, nearest
from lrp.network.arithmetic import check_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Messi:
    """MESSI (Maalouf et al., ICLR 2021): (k, j)-projective clustering of the rows of a Linear, of the vectors of an embedding, and of the
    input channels of a convolution, each cluster then at rank j by its SVD; n j + k j d numbers in place of n d, beside the order of the
    n points, which is not counted. Looks at weights only; every layer at the same sparsity. What is left of a layer's budget raises the
    ranks of single clusters.

    Clusters of channels are of one size, the largest number of at most ``clusters`` that divides them, so that they run as one grouped
    convolution where their ranks are equal. A layer with fewer points than ``clusters``, one whose budget does not reach for two clusters,
    and one of another kind is a plain SVD. Of the job's parts it takes the compensation, and the estimator for how outputs are read.

    Attributes:
        clusters: k, at most.
        restarts: How many random starts there are, beside one from contiguous clusters.
        steps: How often points change their clusters, at most, from each start.
        seed: Of the random starts.
    """

    estimator: Estimator
    compensation: Compensation = NoCompensation()
    budget: str = "params"
    exclude: Sequence[str] = ()
    samples: int = 65536
    clusters: int = 5
    restarts: int = 10
    steps: int = 10
    seed: int = 0
    name: str = "messi"

    def __post_init__(self) -> None:
        check_budget(self.budget)
        check_exclude(self.exclude)
        check_int("method.clusters", self.clusters, 1)
        check_int("method.restarts", self.restarts, 0)
        check_int("method.steps", self.steps, 1)
        check_seed("method.seed", self.seed)

    def fit(self, evidence: Evidence) -> MessiFitted:
        """Look at the layers' weights.

        Raises:
            InputError: For a network without a layer to compress, and where no layer has as many points as there are to be clusters.
        """
        by_params = self.budget == "params"
        evidence = evidence.of(
            self.estimator, self.exclude, self.samples, by_params, by_params and getattr(self.compensation, "ties", False)
        )
        survey, start = evidence.survey, time.perf_counter()
        check_weights(survey.matrices)
        layers = {
            name: ClusterLayer(evidence.model.get_submodule(name), matrix, survey.positions[name], self.budget)
            for name, matrix in survey.matrices.items()
        }
        most = max(layers.values(), key=lambda layer: layer.count)
        if most.count < self.clusters and self.clusters > 1:
            raise InputError(
                "method.clusters", self.clusters, f"no layer has so many rows, indices or input channels; {most.matrix.name} has the most, "
                f"{most.count}",
            )  # fmt: skip
        return MessiFitted(self, evidence, {"decompose": time.perf_counter() - start}, layers=layers)


@dataclass
class MessiFitted(FittedMethod):
    """A network whose layers can be clustered for any sparsity."""

    layers: dict[str, ClusterLayer] = field(default_factory=dict)
    _plans: dict[float, Plan] = field(default_factory=dict)

    def plan(self, sparsity: float) -> Plan:
        """Every layer in clusters of the rank that the budget admits; clusters are found anew for each sparsity."""
        if sparsity not in self._plans:
            start = time.perf_counter()
            layers = {name: self._layer(layer, sparsity) for name, layer in self.layers.items()}
            self._plans = {sparsity: Plan(sparsity, layers, self.model, self.evidence.survey, time.perf_counter() - start)}
        return self._plans[sparsity]

    def _layer(self, layer: ClusterLayer, sparsity: float) -> MatrixPlan:
        method, allowed = self.method, kept_share(sparsity) * layer.dense_cost
        assert isinstance(method, Messi)
        if sparsity == 0:
            return layer.whole()
        for count in range(method.clusters if layer.count >= method.clusters else 1, 1, -1):
            if layer.channels and layer.count % count:
                continue
            rank = int(allowed / max(layer.unit(layer.blocks(equal_sizes(layer.count, count))), 1))
            if rank:
                break
        else:
            return layer.plain(allowed)
        generator = torch.Generator().manual_seed(method.seed)
        assign = balanced if layer.channels else nearest
        labels, lost = cluster(layer.points(), count, rank, assign, method.restarts, method.steps, generator)
        sizes = [size for size in labels.bincount().tolist() if size]
        members = labels.argsort(stable=True)
        factors = layer.factors(members, sizes)
        ranks = layer.spend(factors, [min(rank, most_rank(factor.block)) for factor in factors], allowed)
        log.info("%s: %d clusters of rank %d, %.4g of the squared weights lost", layer.matrix.name, len(sizes), rank,
                 lost / max(float(layer.matrix.weight.double().square().sum()), torch.finfo(torch.float64).tiny))  # fmt: skip
        return layer.plan(factors, ranks, members)

    def forget(self) -> None:
        """As of ``FittedMethod``; plans as well."""
        super().forget()
        self._plans = {}
