"""The method of the paper: blocks, their decomposition, a score for every component, one selection over all of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from torch import Tensor, nn

from lrp.blocking.base import Blocking
from lrp.compensation.base import Compensation
from lrp.compensation.none import NoCompensation
from lrp.cost.break_even import measure_break_even
from lrp.cost.costs import BUDGETS, TIME, Costs, check_budget, make_costs
from lrp.decomposition.base import Decomposition, decompose, form_of
from lrp.decomposition.svd import Svd
from lrp.errors import InputError, NotUsable, check_int, check_sparsity, own_code
from lrp.estimator.base import Estimator
from lrp.estimator.moments import Moments
from lrp.evidence import Evidence
from lrp.form.matrix import Matrix
from lrp.layer.build import build
from lrp.layer_statistics.base import LayerStatistics
from lrp.matrices import Block, Components
from lrp.method.asked_forms import forms_of, usable_forms
from lrp.method.base import FittedMethod, Prediction, check_exclude
from lrp.method.blocks import find_blocks, reads_metric
from lrp.method.forms import check_any, with_forms
from lrp.method.plan import Plan, matrix_plans
from lrp.method.rounds import Rounds, check_keep_factor
from lrp.results.tables import score_table
from lrp.scorer.base import Scorer, check_scores
from lrp.selection.base import Selection
from lrp.selection.two_budgets import select_both

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SingularVectors:
    """Fit a network once; compress it to any sparsity from there.

    Attributes:
        blocking: Cuts layer matrices into blocks.
        scorer: Scores components.
        estimator: Finds the changes of the network's outputs, and says what these are.
        selection: Chooses which components stay.
        decomposition: Turns blocks into components.
        compensation: Refits what is kept.
        budget: What a sparsity is a share of, in the compressed layers: parameters (``params``), multiply-accumulates (``macs``), or, with
            parts that know forms, their time on this machine (``milliseconds``).
        exclude: Names of layers, of modules that contain them, or patterns: they are left alone.
        samples: About how many positions of each layer's output statistics look at, in all examples together.
        keep_factor: Score again whenever this share of what is left is left; None: score once.
        name: What a combination of parts is called in tables.
        macs_removed: With ``budget="params"``: the share of the multiply-accumulates that has to go as well.
        forms: In which forms a layer may be stored: names of forms, or ``auto``, the best ones that the parts know of.
    """

    blocking: Blocking
    scorer: Scorer
    estimator: Estimator
    selection: Selection
    decomposition: Decomposition = Svd()
    compensation: Compensation = NoCompensation()
    budget: str = "params"
    exclude: Sequence[str] = ()
    samples: int = 65536
    keep_factor: float | None = None
    name: str = "singular_vectors"
    macs_removed: float | None = None
    forms: str | Sequence[str] = ("matrix",)

    def __post_init__(self) -> None:
        check_budget(self.budget, (*BUDGETS, TIME))
        if self.macs_removed is not None:
            check_sparsity("macs_removed", self.macs_removed)
            if self.budget != "params":
                raise InputError("macs_removed", self.macs_removed, "it needs budget=params; budget=macs has sparsity.grid for it")
            if self.keep_factor is not None or self.selection.reads_network:
                told = "rounds.keep_factor and selection=joint know one budget only, so neither can be used with it"
                raise InputError("macs_removed", self.macs_removed, told)
        if form_of(self.decomposition) != Matrix.name:
            self._check_masked()
        check_exclude(self.exclude)
        check_int("calibration.samples", self.samples, 1)
        check_keep_factor(self.keep_factor)
        if self.keep_factor is not None and reads_metric(self.blocking):
            raise InputError("rounds.keep_factor", self.keep_factor, f"blocking={self.blocking.name} finds blocks once; set it to null")
        usable_forms(self)

    def _check_masked(self) -> None:
        """That nothing was asked for which needs layers to become smaller.

        Raises:
            InputError: Where it was.
        """
        zeros = f"with decomposition={self.decomposition.name} what is removed is zero and is multiplied all the same; "
        if self.budget != "params":
            raise InputError("budget", self.budget, f"{zeros}set budget=params")
        if self.macs_removed is not None:
            raise InputError("macs_removed", self.macs_removed, f"{zeros}leave it out")
        if self.selection.break_even != "params":
            raise InputError("selection.break_even", self.selection.break_even, f"{zeros}set selection.break_even=params")
        if reads_metric(self.blocking):
            raise InputError("blocking", self.blocking.name, f"{zeros}an order of channels gains nothing there; choose another blocking")
        if self.keep_factor is not None:
            raise InputError(
                "rounds.keep_factor", self.keep_factor, f"rounds do not know decomposition={self.decomposition.name}; set it to null"
            )

    def fit(self, evidence: Evidence) -> FittedMethod:
        """Cut, decompose and score the layers of a network, in eval mode; the network itself is left as it is.

        Raises:
            InputError: For a network without a layer to compress and for examples that it cannot run on.
        """
        lookups = (self.budget, self.macs_removed, self.selection.break_even) == ("params", None, "params")
        parts = (self.decomposition, self.compensation, self.estimator)
        tied = lookups and self.keep_factor is None and all(getattr(part, "ties", False) for part in parts)
        evidence = evidence.of(self.estimator, self.exclude, self.samples, lookups, tied)
        if self.differentiates and (lost := evidence.unreached()):
            evidence = evidence.without(dict.fromkeys(lost, "no gradient of the output reaches it, so it cannot be scored"))
        if self.compensation.needs and not self.decomposition.needs and (never := evidence.never_run()):  # else scoring meets them
            evidence = evidence.without(never)
        while True:
            try:
                fitted = self.score(evidence)
                break
            except NotUsable as error:
                evidence = evidence.without(error.reasons)
        forms = forms_of(self)
        if self.chooses_forms:
            found = with_forms(fitted, forms)
            check_any(forms, map(len, found.of_all("loss").values()))
            return found
        return fitted if self.keep_factor is None else Rounds(self, evidence, fitted.seconds, first=fitted, keep_factor=self.keep_factor)

    @property
    def chooses_forms(self) -> bool:
        """Whether each layer is stored in whichever way loses least: with other forms than matrix, and under a budget of time."""
        return self.usable_forms != ("matrix",) or self.budget == TIME

    @property
    def usable_forms(self) -> Sequence[str]:
        """The names of the forms, ``auto`` resolved."""
        return usable_forms(self)

    @property
    def differentiates(self) -> bool:
        """Whether a layer through which no gradient flows cannot be treated."""
        scored = self.estimator.differentiates and (self.scorer.reads_outputs or self.selection.reads_network)
        return scored or "gradients" in {*self.decomposition.needs, *self.compensation.needs}

    def score(self, evidence: Evidence, targets: bool = True) -> SingularVectorsFitted:
        """A network cut, decomposed and scored once; ``targets``: what compensation reads as well is gathered where anything is."""
        survey = evidence.survey
        start = time.perf_counter()
        needs = {*self.decomposition.needs}
        if needs and targets:  # in the same pass; or later, when what is scored here is gone
            needs |= {*self.compensation.needs}
        blocks = find_blocks(self.blocking, self.decomposition, evidence, needs)
        whole = all(block.shape[1] == survey.matrices[block.layer].shape[1] for block in blocks)
        if "inputs" in needs and whole and not reads_metric(self.blocking):
            needs = needs - {"inputs"} | {"products"}
        statistics = evidence.statistics(sorted(needs))
        seconds = {"statistics": time.perf_counter() - start}
        start = time.perf_counter()
        with own_code(f"decomposition={self.decomposition.name}", self.decomposition):
            key = ("factors", self.blocking, self.decomposition)
            factors = evidence.once(key, lambda: decompose(survey.matrices, blocks, self.decomposition, statistics, evidence.group))
        seconds["decompose"] = time.perf_counter() - start
        fitted = SingularVectorsFitted(self, evidence, seconds, selection=self.selection, factors=factors)
        log.info("%s: %d layers, %d blocks, %s components", self.blocking.name, len(survey.matrices), len(blocks), f"{fitted.components:,}")
        start = time.perf_counter()
        with own_code(f"scorer={self.scorer.name}", self.scorer):
            fitted.scores = self.scorer(factors, evidence)
            check_scores(self.scorer.name, factors, fitted.scores)
        seconds["score"] = evidence.seconds_estimator or time.perf_counter() - start
        fitted.costs = self._costs(evidence, fitted.blocks, factors)
        return fitted

    def _costs(self, evidence: Evidence, blocks: Sequence[Block], factors: Sequence[Components]) -> Costs:
        """What the blocks cost, with break-even ranks where the selection asks for measured ones."""
        if self.chooses_forms:  # they count for themselves
            return make_costs(blocks)
        break_even: Mapping[str, int] | None = None
        if self.selection.break_even == "measured":
            batch, step = self.selection.batch_size, self.selection.round_to
            break_even = measure_break_even(evidence.model, evidence.survey, factors, make_costs(blocks, "params"), batch, step)
        return make_costs(blocks, self.budget, evidence.survey, break_even)


@dataclass
class SingularVectorsFitted(FittedMethod):
    """A network cut, decomposed and scored.

    Attributes:
        selection: Chooses which components stay.
        factors: The components of every block.
        scores: (R,) of each block.
        costs: What blocks and components cost.
    """

    method: SingularVectors
    selection: Any = None  # a Selection, or in a later round one that is held to what is left
    factors: list[Components] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)
    costs: Costs | None = None
    _contributions: list[Tensor] | None = None
    _kept: dict[float, tuple[list[Tensor], float]] = field(default_factory=dict)  # of each sparsity: masks, and the seconds they took

    @property
    def blocks(self) -> list[Block]:
        """The blocks of all layers."""
        return [factor.block for factor in self.factors]

    @property
    def components(self) -> int:
        """How many components there are."""
        return sum(block.rank for block in self.blocks)

    @property
    def statistics(self) -> Mapping[str, LayerStatistics]:
        """Those of the network's layers that the decomposition and the compensation read."""
        return self.evidence.statistics([*self.method.decomposition.needs, *self.method.compensation.needs])

    def moments(self) -> list[Moments]:
        """E[y - y_b] and E[(y - y_b)^2] of every component."""
        return self.evidence.moments(self.factors)

    def contributions(self) -> list[Tensor]:
        """The first-order engine's D (B, K, R) of each block on the scoring examples."""
        if self._contributions is None:
            self._contributions = self.evidence.contributions(self.factors)
        return self._contributions

    def select(self, sparsity: float) -> list[Tensor]:
        """Masks (R,) of the components that stay, one for each block."""
        macs_removed, selection = self.method.macs_removed, self.method.selection
        with own_code(f"selection={selection.name}", selection):
            if macs_removed is not None:
                assert self.costs is not None
                return select_both(self.selection, self.blocks, self.scores, sparsity, macs_removed, self.costs, self.evidence.survey)
            return self.selection(self.blocks, self.scores, sparsity, self.costs, self.contributions)

    def plan(self, sparsity: float) -> Plan:
        """What becomes of each layer."""
        keep, seconds = self._selected(sparsity)
        assert self.costs is not None
        survey = self.evidence.survey
        return Plan(sparsity, matrix_plans(survey, self.factors, keep, self.costs.break_even), self.model, survey, seconds)

    def _selected(self, sparsity: float) -> tuple[list[Tensor], float]:
        if sparsity not in self._kept:
            start = time.perf_counter()
            keep = self.select(sparsity)
            self._kept[sparsity] = keep, time.perf_counter() - start
        return self._kept[sparsity]

    def forget(self) -> None:
        """As of ``FittedMethod``; components and scores as well."""
        super().forget()
        self.factors, self.scores, self._contributions, self._kept = [], [], None, {}

    def build(self, keep: Sequence[Tensor]) -> nn.Module:
        """A copy of the network with only these components, not compensated."""
        return build(self.model, self.factors, keep)

    def score_table(self) -> pd.DataFrame | None:
        """One row per component: its place, singular value and score, and the perturbation's standard error where there is one. None of
        single weights, of which there are too many."""
        if not all(factor.rank_one for factor in self.factors):
            return None
        found = self.evidence.known_moments(self.factors) or []
        errors = [block.standard_error() for block in found] if any(block.projected for block in found) else None
        return score_table(self.factors, self.scores, errors)

    def predict(self, sparsities: Sequence[float]) -> list[Prediction]:
        """The sums of the single perturbations, where the scorer asked for these, and the joint change to first order."""
        kept = [self._selected(sparsity)[0] for sparsity in sparsities]
        joint: Sequence[float | None] = [None] * len(kept)
        try:
            removed = [[~mask for mask in keep] for keep in kept]
            found = self.method.estimator.joint(self.evidence.network, self.factors, self.evidence.scoring.whole(), removed)
            if found is not None:
                joint = found.tolist()
                self.moments()
        except InputError as error:  # a scorer that does not look at outputs works on networks that an estimator refuses
            log.warning("perturbation_additive and perturbation_joint stay empty: %s", error)
        moments = self.evidence.known_moments(self.factors)
        return [Prediction(None if moments is None else _additive(moments, keep), j) for keep, j in zip(kept, joint, strict=True)]


def _additive(moments: Sequence[Moments], keep: Sequence[Tensor]) -> float:
    return sum(float(block.second[~mask].sum()) for block, mask in zip(moments, keep, strict=True))
