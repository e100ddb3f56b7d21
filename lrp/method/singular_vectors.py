"""The method of the paper: blocks, their decomposition, a score for every component, one selection over all of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrp.compensation.none import NoCompensation
from lrp.cost.break_even import measure_break_even
from lrp.cost.costs import Costs, check_budget, make_costs
from lrp.decomposition.base import decompose
from lrp.decomposition.svd import Svd
from lrp.errors import InputError, check_int, check_sparsity
from lrp.estimator.cache import cached_moments, moments_key
from lrp.estimator.moments import Moments
from lrp.layer.build import build
from lrp.layer_statistics.base import LayerStatistics
from lrp.layer_statistics.gather import gather
from lrp.matrices import Block, Factors, cut
from lrp.method.base import Fitted, Plan, check_exclude, find_layers
from lrp.method.rounds import (
    check_keep_factor,
    next_state,
    only_alive,
    schedule,
    states_key,
)
from lrp.selection.two_budgets import select_both

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SingularVectors:
    """Fit a network once; compress it to any sparsity from there. ``budget``: the sparsity is a share of the parameters
    (``params``) or of the multiply-accumulates (``macs``) of the compressed layers; ``macs_removed``: with ``params``, the share
    of the multiply-accumulates that has to go besides. ``exclude``: names of layers to leave alone.
    ``samples``: of a layer's positions in all images the statistics look at about so many. ``keep_factor``: score again whenever this
    share of what is left is left (None: score once). ``name``: what a combination of parts is called in tables.
    """

    blocking: Any
    scorer: Any
    estimator: Any
    selection: Any
    decomposition: Any = Svd()
    compensation: Any = NoCompensation()
    budget: str = "params"
    exclude: Sequence[str] = ()
    samples: int = 65536
    keep_factor: float | None = None
    name: str = "singular_vectors"
    macs_removed: float | None = None

    def __post_init__(self) -> None:
        check_budget(self.budget)
        if self.macs_removed is not None:
            check_sparsity("macs_removed", self.macs_removed)
            if self.budget != "params":
                raise InputError("macs_removed", self.macs_removed, "it needs budget=params; budget=macs has sparsity.grid for it")
            if self.keep_factor is not None or getattr(self.selection, "reads_network", False):
                raise InputError(
                    "macs_removed",
                    self.macs_removed,
                    "rounds.keep_factor and selection=joint know one budget only, so neither can be used with it",
                )
        check_exclude(self.exclude)
        check_int("calibration.samples", self.samples, 1)
        check_keep_factor(self.keep_factor)

    def fit(self, model: nn.Module, inputs: Tensor, cache: Path | None = None, scoring_images: int | None = None) -> SingularVectorsFitted:
        """Cut, decompose and score the layers of a network, in eval mode, on ``inputs`` (B, ...) on its device; the network
        itself is left as it is. Scores look at the first ``scoring_images`` (default: all), decomposition and compensation at all.
        ``cache``: a folder for scores that are slow to compute.

        Raises InputError for a network without a layer to compress and for inputs that it cannot run on.
        """
        return self._fit(model, inputs, cache, inputs[:scoring_images])

    def score_again(self, state: SingularVectorsFitted, model: nn.Module, ranks: Sequence[int | None]) -> SingularVectorsFitted:
        """As ``fit``, of a later round's network; compensation keeps to what the first one gave. ``ranks``: of each block the
        components that are left, None: all."""
        fitted = self._fit(model, state.inputs, state.cache, state.scoring, state.statistics)
        fitted.scores[:] = only_alive(fitted.scores, ranks)
        fitted.alive = list(ranks)
        return fitted

    def _fit(
        self, model: nn.Module, inputs: Tensor, cache: Path | None, scoring: Tensor,
        targets: Mapping[str, LayerStatistics] | None = None,
    ) -> SingularVectorsFitted:  # fmt: skip
        candidates = find_layers(model, inputs[:1], self.exclude)
        start = time.perf_counter()
        blocks = cut(self.blocking, candidates.matrices)
        needs = {*self.decomposition.needs, *(self.compensation.needs if targets is None else ())}
        if "inputs" in needs and all(block.shape[1] == candidates.matrices[block.layer].shape[1] for block in blocks):
            needs = needs - {"inputs"} | {"products"}
        statistics = gather(model, candidates, inputs, needs, self.estimator.read, self.samples)
        seconds = {"statistics": time.perf_counter() - start}
        start = time.perf_counter()
        factors = decompose(candidates.matrices, blocks, self.decomposition, statistics)
        seconds["decompose"] = time.perf_counter() - start
        fitted = SingularVectorsFitted(
            self,
            model,
            inputs,
            candidates,
            statistics if targets is None else targets,
            seconds,
            factors=factors,
            cache=cache,
            scoring=scoring,
        )
        blocking, layers = getattr(self.blocking, "name", "blocks"), len(candidates.matrices)
        log.info("%s: %d layers, %d blocks, %s components", blocking, layers, len(blocks), f"{fitted.components:,}")
        start = time.perf_counter()
        fitted.scores.extend(self.scorer(candidates.matrices, factors, fitted.moments))
        seconds["score"] = fitted.seconds_estimator or time.perf_counter() - start
        costs = make_costs(blocks, self.budget, candidates)
        if getattr(self.selection, "break_even", "params") == "measured":
            batch, step = self.selection.batch_size, self.selection.round_to
            break_even = measure_break_even(model, candidates, factors, make_costs(blocks, "params"), batch, step)
            costs = make_costs(blocks, self.budget, candidates, break_even)
        fitted.costs = costs
        return fitted


@dataclass
class SingularVectorsFitted(Fitted):
    """A network cut, decomposed and scored. ``scores``: (R,) a block; ``scoring``: the images that they look at; ``moments()``: what
    the estimator found, if it is asked."""

    factors: list[Factors] = field(default_factory=list)
    cache: Path | None = None
    scoring: Tensor | None = None
    seconds_estimator: float = 0.0  # when it ran, if its moments were in the cache
    scores: list[Tensor] = field(default_factory=list)
    costs: Costs | None = None
    alive: list[int | None] | None = None  # of each block how many components earlier rounds left, None: all
    found: list[Moments] = field(default_factory=list)  # empty until the moments are asked for
    _states: list[SingularVectorsFitted] = field(default_factory=list)  # of the rounds, this one first
    _contributions: list[Tensor] | None = None

    @property
    def blocks(self) -> list[Block]:
        return [factor.block for factor in self.factors]

    @property
    def components(self) -> int:
        return sum(block.rank for block in self.blocks)

    def moments(self) -> list[Moments]:
        if not self.found:
            estimator = self.method.estimator
            compute = lambda partial: estimator(self.model, self.factors, self.scoring, partial)  # noqa: E731
            if self.cache is None:
                read, self.seconds_estimator = compute(None)
            else:
                key = moments_key(self.model, self.factors, self.scoring, estimator.identity)
                read, self.seconds_estimator = cached_moments(self.cache / "moments", key, self.factors, compute)
            self.found.extend(read)
        return self.found

    def contributions(self) -> list[Tensor]:
        """The first-order engine's D (B, K, R) of each block on the scoring images."""
        if self._contributions is None:
            estimator = self.method.estimator
            if not hasattr(estimator, "contributions"):
                raise InputError("selection", self.method.selection.name, f"it needs estimator=first_order, not {estimator.name}")
            self._contributions = estimator.contributions(self.model, self.factors, self.scoring)
        return self._contributions

    def select(self, sparsity: float) -> list[Tensor]:
        """Masks (R,) of the components that stay, a block each."""
        if self.method.macs_removed is not None:
            return select_both(
                self.method.selection, self.blocks, self.scores, sparsity, self.method.macs_removed, self.costs, self.candidates
            )
        network = [self.contributions] if getattr(self.method.selection, "reads_network", False) else []
        keep = self.method.selection(self.blocks, self.scores, sparsity, self.costs, *network)
        if self.alive is None:
            return keep
        # what an earlier round dropped stays away, where the budget has room for it too
        return [mask if rank is None else mask & (torch.arange(len(mask)) < rank) for mask, rank in zip(keep, self.alive)]

    @property
    def one_shot(self) -> bool:
        return self.method.keep_factor is None

    def rounds(self, sparsity: float) -> int:
        return 1 + len(schedule(self.method.keep_factor, sparsity))

    def plan(self, sparsity: float) -> Plan:
        start = time.perf_counter()
        state = self._state_above(sparsity)
        keep = state.select(sparsity)
        return Plan(sparsity, state.factors, keep, state.costs, time.perf_counter() - start, state)

    def _state_above(self, sparsity: float) -> SingularVectorsFitted:
        """The last state of the rounds above a sparsity; this one where there are no rounds."""
        if not self._states:
            self._states.append(self)
        steps = schedule(self.method.keep_factor, sparsity)
        todo = steps[len(self._states) - 1 :]
        folder = self.cache / "rounds" / states_key(self) if todo and self.cache is not None else None
        for at in todo:
            file = folder and folder / f"{len(self._states)}.safetensors"
            self._states.append(next_state(self._states[-1], at, file))
        return self._states[len(steps)]

    def build(self, keep: Sequence[Tensor]) -> nn.Module:
        """A copy of the network with only these components, not compensated."""
        return build(self.model, self.factors, keep)
