"""The method of the paper: blocks, their decomposition, a score for every component, one selection over all of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lrp.break_even import measure_break_even
from lrp.candidates import Candidates, find_candidates
from lrp.costs import Costs, check_budget, make_costs
from lrp.decomposition import decompose
from lrp.errors import InputError, reject
from lrp.evaluation import count_macs, count_params
from lrp.layers import build, stored_params
from lrp.matrices import Block, Factors, cut
from lrp.report import Report, layers_macs, make_report
from lrp.scoring.moments import Moments, cached_moments, moments_key

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SingularVectors:
    """Fit a network once; compress it to any sparsity from there. ``budget``: the sparsity is a share of the parameters
    (``params``) or of the multiply-accumulates (``macs``) of the compressed layers. ``exclude``: names of layers to leave alone.
    """

    name: ClassVar[str] = "singular_vectors"
    blocking: Any
    scorer: Any
    estimator: Any
    selection: Any
    budget: str = "params"
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_budget(self.budget)
        if isinstance(self.exclude, str) or not all(isinstance(name, str) for name in self.exclude):
            raise reject("exclude", self.exclude, "a list of layer names is needed")

    def fit(self, model: nn.Module, inputs: Tensor, cache: Path | None = None) -> Fitted:
        """Cut, decompose and score the layers of a network, in eval mode, on ``inputs`` (B, ...) on its device; the network
        itself is left as it is. ``cache``: a folder for scores that are slow to compute.

        Raises InputError for a network without a layer to compress and for inputs that it cannot run on.
        """
        candidates = find_candidates(model, inputs[:1], self.exclude)
        if not candidates.matrices:
            reasons = ", ".join(f"{name}: {reason}" for name, reason in candidates.left.items())
            raise InputError(f"the network has no layer to compress{f' ({reasons})' if reasons else ''}")
        blocks = cut(self.blocking, candidates.matrices)
        start = time.perf_counter()
        factors = decompose(candidates.matrices, blocks)
        fitted = Fitted(self, model, inputs, candidates, blocks, factors, cache, seconds_decompose=time.perf_counter() - start)
        blocking, layers = getattr(self.blocking, "name", "blocks"), len(candidates.matrices)
        log.info("%s: %d layers, %d blocks, %s components", blocking, layers, len(blocks), f"{fitted.components:,}")
        start = time.perf_counter()
        fitted.scores.extend(self.scorer(candidates.matrices, factors, fitted.moments))
        fitted.seconds_score = fitted.seconds_estimator or time.perf_counter() - start
        costs = make_costs(blocks, self.budget, candidates)
        if getattr(self.selection, "break_even", "params") == "measured":
            batch, step = self.selection.batch_size, self.selection.round_to
            break_even = measure_break_even(model, candidates, factors, make_costs(blocks, "params"), batch, step)
            costs = make_costs(blocks, self.budget, candidates, break_even)
        fitted.costs = costs
        return fitted


@dataclass
class Fitted:
    """A network cut, decomposed and scored. ``scores``: (R,) a block; ``moments()``: what the estimator found, if it is asked."""

    method: SingularVectors
    model: nn.Module
    inputs: Tensor
    candidates: Candidates
    blocks: list[Block]
    factors: list[Factors]
    cache: Path | None
    seconds_decompose: float
    seconds_score: float = 0.0
    seconds_estimator: float = 0.0  # when it ran, if its moments were in the cache
    scores: list[Tensor] = field(default_factory=list)
    costs: Costs | None = None
    found: list[Moments] = field(default_factory=list)  # empty until the moments are asked for
    _dense: tuple[int, int] | None = None

    @property
    def components(self) -> int:
        return sum(block.rank for block in self.blocks)

    def moments(self) -> list[Moments]:
        if not self.found:
            estimator = self.method.estimator
            compute = lambda partial: estimator(self.model, self.factors, self.inputs, partial)  # noqa: E731
            if self.cache is None:
                read, self.seconds_estimator = compute(None)
            else:
                key = moments_key(self.model, self.factors, self.inputs, estimator.identity)
                read, self.seconds_estimator = cached_moments(self.cache / "moments", key, self.factors, compute)
            self.found.extend(read)
        return self.found

    def select(self, sparsity: float) -> list[Tensor]:
        """Masks (R,) of the components that stay, a block each."""
        return self.method.selection(self.blocks, self.scores, sparsity, self.costs)

    def build(self, keep: Sequence[Tensor]) -> nn.Module:
        """A copy of the network with only these components."""
        return build(self.model, self.factors, keep)

    def sizes(self, compressed: nn.Module, keep: Sequence[Tensor], sparsity: float) -> dict[str, Any]:
        """Parameters and multiply-accumulates for one example, of the compressed layers and of the whole network; the
        sparsities are over the compressed layers."""
        example = self.inputs[:1]
        if self._dense is None:
            self._dense = count_macs(self.model, example), count_params(self.model)
        macs_total, params_total = self._dense
        params, params_dense = stored_params(self.blocks, keep), sum(block.size for block in self.blocks)
        macs = sum(layers_macs(self.candidates, self.blocks, keep).values())
        macs_dense = sum(self.candidates.positions[name] * m.weight.numel() for name, m in self.candidates.matrices.items())
        return {
            "sparsity": sparsity, "budget": self.method.budget, "sparsity_params": 1 - params / params_dense,
            "sparsity_macs": 1 - macs / macs_dense, "params": params, "params_dense": params_dense,
            "params_total": params_total - params_dense + params, "params_total_dense": params_total,
            "macs": count_macs(compressed, example), "macs_dense": macs_total, "macs_layers": macs, "macs_layers_dense": macs_dense,
        }  # fmt: skip

    def report(self, keep: Sequence[Tensor], sizes: dict[str, Any]) -> Report:
        return make_report(self.model, self.candidates, self.blocks, keep, self.costs, sizes)
