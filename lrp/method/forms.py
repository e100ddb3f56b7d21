"""Layers in whichever form loses least, all under one budget."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from lrp.blocking.none import Unblocked
from lrp.cost.costs import kept_share
from lrp.decomposition.base import decompose
from lrp.errors import InputError
from lrp.estimator.channels import channel_perturbations
from lrp.evidence import Evidence
from lrp.form.base import Choices, ScoredLayer
from lrp.form.known import FORMS
from lrp.form.tucker2 import channel_components
from lrp.matrices import Factors, cut
from lrp.method.base import FittedMethod, Prediction
from lrp.method.plan import Plan
from lrp.selection.choices import choose

CHANNEL_IMAGES = 128


def check_usable(method: Any) -> None:
    """That a method's parts know of forms other than a matrix, where it has them.

    Raises:
        InputError: Naming the part.
    """
    if list(method.forms) == ["matrix"]:
        return
    said = "it knows the form matrix alone; set forms=matrix with it, or"
    if not hasattr(method.scorer, "loss"):
        raise InputError("scorer", method.scorer.name, f"{said} scorer=noise_to_signal or scorer=perturbation")
    if method.selection.name != "lagrangian":
        raise InputError("selection", method.selection.name, f"{said} selection=lagrangian")
    if method.selection.break_even != "params":
        raise InputError("selection.break_even", method.selection.break_even, f"{said} selection.break_even=params")
    if method.keep_factor is not None:
        raise InputError("rounds.keep_factor", method.keep_factor, f"{said} rounds.keep_factor=null")


@dataclass
class WithForms(FittedMethod):
    """A scored network whose layers may take several forms.

    Attributes:
        first: The network cut, decomposed and scored.
        choices: Of each layer, in how many ways each form can store it.
    """

    method: Any  # a SingularVectors, whose file imports this one
    first: Any = None
    choices: Mapping[str, Sequence[Choices]] = field(default_factory=dict)

    def plan(self, sparsity: float) -> Plan:
        """What becomes of each layer: the form and ranks that lose least under the budget."""
        start = time.perf_counter()
        survey, method = self.evidence.survey, self.method
        dense = {
            "params": {name: matrix.weight.numel() for name, matrix in survey.matrices.items()},
            "macs": {name: survey.positions[name] * matrix.weight.numel() for name, matrix in survey.matrices.items()},
        }
        loss = {name: np.concatenate([each.loss for each in held]) for name, held in self.choices.items()}
        cost = {what: {n: np.concatenate([getattr(c, what) for c in held]) for n, held in self.choices.items()} for what in dense}

        def pick(costs: Mapping[str, np.ndarray], most: Any) -> dict[str, int]:
            return choose({name: (costs[name], loss[name]) for name in loss}, most)

        chosen = pick(cost[method.budget], kept_share(sparsity) * sum(dense[method.budget].values()))
        layers = {name: self._layer(name, at) for name, at in chosen.items()}
        return Plan(sparsity, layers, self.model, survey, time.perf_counter() - start)

    def _layer(self, name: str, at: int) -> Any:
        for held in self.choices[name]:
            if at < len(held.loss):
                return held.plan(at)
            at -= len(held.loss)
        raise IndexError(at)

    def score_table(self) -> pd.DataFrame | None:
        """The scores of the components of each layer's matrix."""
        return self.first.score_table()

    def predict(self, sparsities: Sequence[float]) -> list[Prediction]:
        """Nothing: the scores are of the components of matrices, which other forms do not keep as they are."""
        return [Prediction()] * len(sparsities)


def with_forms(first: Any) -> WithForms:
    """The same network with all forms of the method."""
    method, evidence, start = first.method, first.evidence, time.perf_counter()
    forms = [FORMS[name] for name in method.forms]
    perturbations = _perturbations(first) if any(form.perturbations for form in forms) else {}
    dense = {name: evidence.model.get_submodule(name) for name in evidence.matrices}
    takers = [n for n, matrix in evidence.matrices.items() if any(form.channels and form.fits(dense[n], matrix) for form in forms)]
    channels = _channels(evidence, takers) if takers else {}
    seconds = {**first.seconds, "score": first.seconds.get("score", 0.0) + time.perf_counter() - start}
    fitted = WithForms(method, evidence, seconds, first=first)
    choices = {}
    for to_come, name in zip(range(len(evidence.matrices), 0, -1), evidence.matrices):
        layer = _scored(first, name, to_come, perturbations.get(name), channels.get(name))
        usable = [form for form in forms if form.fits(layer.dense, layer.matrix)]
        whole = [] if any(form.name == "matrix" for form in usable) else [_ends(layer)]
        choices[name] = [*whole, *(form.choices(layer) for form in usable)]
    fitted.choices = choices
    return fitted


def _ends(layer: ScoredLayer) -> Choices:
    """Of a layer that may not be a matrix the two ways that are in no form: nothing kept, and dense."""
    all_ranks = FORMS["matrix"].choices(layer)
    ends = [0, len(all_ranks.loss) - 1]
    return Choices("matrix", all_ranks.params[ends], all_ranks.macs[ends], all_ranks.loss[ends], lambda i: all_ranks.plan(ends[i]))


def _scored(first: Any, name: str, to_come: int, perturbations: Sequence[Tensor] | None, channels: Sequence[Tensor] | None) -> ScoredLayer:
    survey, scorer = first.evidence.survey, first.method.scorer
    at = [i for i, factor in enumerate(first.factors) if factor.block.layer == name]
    total = float(sum(part.sum() for part in perturbations)) if perturbations is not None else 0.0
    matrix = survey.matrices[name]
    places = int(np.prod(survey.inputs[name])) // (matrix.channels * matrix.groups)

    def loss(share: np.ndarray) -> np.ndarray:
        return scorer.loss(total, share, to_come)

    return ScoredLayer(
        matrix, first.evidence.model.get_submodule(name), survey.positions[name], places, [first.factors[i] for i in at],
        [first.scores[i] for i in at], perturbations, channels, loss, first.method.selection.round_to,
    )  # fmt: skip


def _perturbations(first: Any) -> dict[str, list[Tensor]]:
    """Of each layer the perturbations of the components of the plain SVD of each group's matrix."""
    evidence: Evidence = first.evidence
    factors: Sequence[Factors] = first.factors
    blocks = cut(Unblocked(), evidence.matrices)
    if [factor.block for factor in factors] != blocks or any(factor.decomposition != "svd" for factor in factors):
        factors = decompose(evidence.matrices, blocks)
    found: dict[str, list[Tensor]] = {name: [] for name in evidence.matrices}
    for factor, moments in zip(factors, evidence.moments(factors), strict=True):
        found[factor.block.layer].append(moments.second.sum(1).double())
    return found


def _channels(evidence: Evidence, names: Sequence[str]) -> dict[str, list[Tensor]]:
    """Of these layers the perturbations of the components of the channel unfolding of each group's matrix."""
    components = {}
    for name in names:
        matrix = evidence.matrices[name]
        components[name] = [channel_components(part.double(), matrix.kernel) for part in matrix.weight.chunk(matrix.groups)]
    images = evidence.scoring.take(CHANNEL_IMAGES)
    assert evidence.estimator is not None
    return channel_perturbations(evidence.model, evidence.matrices, components, images, evidence.estimator.read)
