"""A rival for the vocabularies of language models: words in blocks by their frequency, each at a rank of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

from lrp.compensation.base import Compensation
from lrp.compensation.none import NoCompensation
from lrp.cost.costs import kept_share
from lrp.errors import InputError, check_int
from lrp.estimator.base import Estimator
from lrp.evidence import Evidence
from lrp.form.matrix import MatrixPlan
from lrp.method.base import FittedMethod, check_exclude
from lrp.method.cluster_plans import ClusterLayer, equal_sizes
from lrp.method.plan import Plan
from lrp.method.subspaces import exchanged, settle

log = logging.getLogger(__name__)
STEPS = 60  # of the bisection


@dataclass(frozen=True)
class GroupReduce:
    """GroupReduce (Chen et al., NeurIPS 2018): the words of embeddings and output layers, sorted by how often they come in the calibration
    examples (and once more each: no word is free), in blocks of equally many words; in each the weighted SVD,
    min sum_i q_i ||a_i - (U V)_i||^2, at a rank in proportion to the mean frequency of its words (at least 1, a block whole where its
    factors would not be smaller), as the budget admits; then words are exchanged between blocks for as long as that lowers the objective,
    and the weighted SVDs fitted anew. Sizes of the blocks and ranks stay in this, and so does the budget, of which every layer has the
    same share.

    An output layer counts its words as the embedding of as many words does. Every other layer is left alone, and so is an output layer
    without such an embedding. A table that is an output layer's weight too (a tied weight) stays one matrix, stored once. The order of
    the words is not counted as parameters. Of the job's parts it takes the compensation, and the estimator for how outputs are read.

    Attributes:
        clusters: How many blocks, at most.
        refinement: How many rounds of exchanges there are, at most.
    """

    estimator: Estimator
    compensation: Compensation = NoCompensation()
    budget: str = "params"
    exclude: Sequence[str] = ()
    samples: int = 65536
    clusters: int = 5
    refinement: int = 10
    name: str = "group_reduce"

    def __post_init__(self) -> None:
        if self.budget != "params":
            raise InputError("budget", self.budget, "method=group_reduce knows params alone: an embedding multiplies nothing")
        check_exclude(self.exclude)
        check_int("method.clusters", self.clusters, 1)
        check_int("method.refinement", self.refinement, 0)

    def fit(self, evidence: Evidence) -> GroupReduceFitted:
        """Count the words.

        Raises:
            InputError: For a network that looks up no words, and for more blocks than a layer has words.
        """
        evidence = evidence.of(self.estimator, self.exclude, self.samples, True, getattr(self.compensation, "ties", False))
        start = time.perf_counter()
        lookups = {name: matrix for name, matrix in evidence.matrices.items() if matrix.lookup}
        if not lookups:
            left = evidence.survey.left.items()
            raise InputError(
                "method", self.name, "it compresses embeddings and the output layers that belong to them, and the network looks up no words"
                + "".join(f" ({name}: {reason})" for name, reason in left if name),
            )  # fmt: skip
        of_words = {matrix.shape[1]: name for name, matrix in reversed(lookups.items())}
        counted_by = {name: name for name in lookups}
        counted_by |= {
            name: of_words[matrix.shape[0]]
            for name, matrix in evidence.matrices.items()
            if name not in lookups and matrix.kernel * matrix.groups == 1 and matrix.shape[0] in of_words
        }
        reason = "no embedding, and none has as many words as it has outputs"
        evidence = evidence.without({name: reason for name in evidence.matrices if name not in counted_by})
        layers = {
            name: ClusterLayer(evidence.model.get_submodule(name), evidence.matrices[name], evidence.survey.positions[name], self.budget)
            for name in evidence.matrices
        }
        for name, layer in layers.items():
            if layer.count < self.clusters:
                raise InputError("method.clusters", self.clusters, f"layer {name} has only {layer.count} words")
        shares = _shares(evidence, lookups)
        counts = {name: shares[of] for name, of in counted_by.items()}
        return GroupReduceFitted(self, evidence, {"statistics": time.perf_counter() - start}, layers=layers, counts=counts)


def _shares(evidence: Evidence, lookups: Mapping[str, object]) -> dict[str, Tensor]:
    """How often each word comes, as a share (N,) float64, of each embedding, whoever else holds its table."""
    statistics = evidence.statistics(["inputs"])
    found = {}
    for name in lookups:
        own = statistics[name].uses.get(name, statistics[name]).inputs
        assert own is not None and own.dim() == 2, "a lookup has the share of each index"
        found[name] = own[0]
    return found


@dataclass
class GroupReduceFitted(FittedMethod):
    """A network whose words are counted.

    Attributes:
        layers: Embeddings and output layers.
        counts: How often each word comes in each, (n,) float64, up to a factor.
    """

    layers: dict[str, ClusterLayer] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)

    def plan(self, sparsity: float) -> Plan:
        """Every layer in blocks of words."""
        start = time.perf_counter()
        layers = {name: self._layer(layer, self.counts[name], sparsity) for name, layer in self.layers.items()}
        return Plan(sparsity, layers, self.model, self.evidence.survey, time.perf_counter() - start)

    def _layer(self, layer: ClusterLayer, counts: Tensor, sparsity: float) -> MatrixPlan:
        method, allowed = self.method, kept_share(sparsity) * layer.dense_cost
        assert isinstance(method, GroupReduce)
        if sparsity == 0:
            return layer.whole()
        for clusters in range(method.clusters, 0, -1):
            sizes = equal_sizes(layer.count, clusters)
            if layer.unit(layer.blocks(sizes)) <= allowed or clusters == 1:
                break
        members = counts.argsort(descending=True, stable=True) if clusters > 1 else torch.arange(layer.count)
        factors = layer.factors(members, sizes, counts)
        mean = torch.stack([part.mean() for part in counts[members].split(sizes)])
        ranks = layer.spend(factors, rank_by_frequency(layer, sizes, mean, allowed), allowed)
        if method.refinement and clusters > 1:
            points = layer.points()[members]
            labels = torch.arange(clusters).repeat_interleave(torch.tensor(sizes))
            labels, costs = settle(points, labels, ranks, exchanged, method.refinement, counts[members])
            log.info("%s: refined from %.4g to %.4g, ranks %s", layer.matrix.name, costs[0], costs[-1], ranks)
            members = members[labels.argsort(stable=True)]
            factors = layer.factors(members, sizes, counts)
        return layer.plan(factors, ranks, members)


def rank_by_frequency(layer: ClusterLayer, sizes: Sequence[int], mean: Tensor, allowed: Fraction) -> list[int]:
    """Ranks in proportion to the mean frequency of each block's words, at least 1, the full rank of a block whose factors would not be
    smaller: the highest that a budget admits; zeros where it does not admit 1 of each."""
    blocks = layer.blocks(sizes)

    def at(scale: float) -> list[int]:
        wanted = [max(1, int(min(scale * float(each), block.rank))) for each, block in zip(mean, blocks, strict=True)]
        return [block.rank if block.is_dense(rank) else rank for rank, block in zip(wanted, blocks)]

    def fits(ranks: Sequence[int]) -> bool:
        return sum(layer.cost(block, rank) for block, rank in zip(blocks, ranks)) <= allowed

    low, high = 0.0, max(block.rank for block in blocks) / max(float(mean[mean > 0].min()), torch.finfo(mean.dtype).tiny)
    if not fits(at(low)):
        return [0] * len(blocks)
    if fits(at(high)):
        return at(high)
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(at(middle)) else (low, middle)
    return at(low)
