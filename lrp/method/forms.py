"""Layers in whichever form loses least, all under one budget."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lrp.blocking.none import Unblocked
from lrp.cost.break_even import WORTH
from lrp.cost.costs import TIME, kept_share
from lrp.decomposition.base import decompose
from lrp.errors import InputError, some
from lrp.estimator.inputs import input_perturbations
from lrp.evidence import Evidence
from lrp.form.base import Choices, Form, LayerPlan, ScoredLayer, Side
from lrp.form.known import FORMS
from lrp.form.matrix import Matrix
from lrp.form.times import Clock
from lrp.form.unfolding import input_components
from lrp.matrices import Factors
from lrp.method.base import FittedMethod, Prediction
from lrp.method.plan import Plan
from lrp.partition import cut
from lrp.selection.choices import choose
from lrp.selection.two_budgets import UNIT, under_both
from lrp.shelf import Shelf

log = logging.getLogger(__name__)

COUNTED = {"params": "params", "macs": "macs", TIME: "nanoseconds"}  # whole numbers, by the budget
CONFIRMATIONS = 6  # rounds in which what is chosen is timed once more
IMAGES = 128  # that perturbations of input sides are found on: more hardly change the order


@dataclass
class WithForms(FittedMethod):
    """A scored network whose layers may take several forms.

    Attributes:
        first: The network cut, decomposed and scored.
        choices: Of each layer, in how many ways each form can store it.
        clock: Where times count: what knows them.
    """

    method: Any  # a SingularVectors, whose file imports this one
    first: Any = None
    choices: Mapping[str, Sequence[Choices]] = field(default_factory=dict)
    clock: Clock | None = None

    def plan(self, sparsity: float) -> Plan:
        """What becomes of each layer: the form and ranks that lose least under the budget, or under both.

        Raises:
            InputError: Where no choice of the forms fits.
        """
        start = time.perf_counter()
        chosen = self._chosen(sparsity) if self.clock is None else self._confirmed(sparsity, self.clock)
        layers = {name: self.layer(name, at) for name, at in chosen.items()}
        milliseconds = self._milliseconds(chosen) if self.clock is not None else None
        if milliseconds is not None:
            after, before = milliseconds
            removed = 100 * (1 - after / before)
            log.info("sparsity %g: by prediction the layers take %.3f of %.3f ms, %.1f %% less", sparsity, after, before, removed)
        return Plan(sparsity, layers, self.model, self.evidence.survey, time.perf_counter() - start, milliseconds)

    def _chosen(self, sparsity: float) -> dict[str, int]:
        """Of each layer which way, by its place in those of all forms one after the other."""
        if self.method.macs_removed is not None:
            return self._under_both(sparsity, self.method.macs_removed)
        unit = COUNTED[self.method.budget]
        costs, loss = self.of_all(unit), self.of_all("loss")
        return choose({name: (costs[name], loss[name]) for name in loss}, kept_share(sparsity) * self._cost_dense(costs), unit)

    def _confirmed(self, sparsity: float, clock: Clock) -> dict[str, int]:
        """The same, of ways that were timed themselves: what is chosen by predictions is timed, which corrects them, and chosen again."""
        for _ in range(CONFIRMATIONS):
            self.choices = clock.choices()
            chosen = self._chosen(sparsity)
            if not clock.confirm(self.choices, chosen):
                return chosen
        self.choices = clock.choices(confirmed=True)
        return self._chosen(sparsity)

    def _under_both(self, sparsity: float, macs_removed: float) -> dict[str, int]:
        loss, both = self.of_all("loss"), [self.of_all("params"), self.of_all("macs")]
        dense = [self._cost_dense(costs) for costs in both]

        def pick(weight: float, share: float) -> dict[str, int]:
            if weight in (0, 1):
                costs, total = both[int(weight)], dense[int(weight)]
            else:
                mixtures = zip(both[0].items(), both[1].values())
                costs, total = {n: np.rint(UNIT * ((1 - weight) * p / dense[0] + weight * m / dense[1])) for (n, p), m in mixtures}, UNIT
            return choose({name: (costs[name], loss[name]) for name in loss}, kept_share(share) * total)

        most = [kept_share(share) * total for share, total in zip((sparsity, macs_removed), dense)]

        def exceeded(chosen: Mapping[str, int]) -> tuple[bool, bool]:
            spent = [sum(int(costs[name][at]) for name, at in chosen.items()) for costs in both]
            return spent[0] > most[0], spent[1] > most[1]

        def value(chosen: Mapping[str, int]) -> float:
            return -sum(float(loss[name][at]) for name, at in chosen.items())

        return under_both(pick, exceeded, value, sparsity, macs_removed)

    def sizes(self, compressed: nn.Module, plan: Plan) -> dict[str, Any]:
        """As of every method; where times were measured, also the milliseconds that the compressed layers are predicted to take."""
        found = super().sizes(compressed, plan)
        return found if plan.milliseconds is None else {**found, **dict(zip(("milliseconds", "milliseconds_dense"), plan.milliseconds))}

    def of_all(self, what: str) -> dict[str, np.ndarray]:
        """Of each layer one field of the choices, of all forms one after the other."""
        return {name: np.concatenate([getattr(each, what) for each in held]) for name, held in self.choices.items()}

    def _cost_dense(self, costs: Mapping[str, np.ndarray]) -> int:
        """What the dense layers cost: of all ways they hold the most parameters."""
        return sum(int(costs[name][params.argmax()]) for name, params in self.of_all("params").items())

    def _milliseconds(self, chosen: Mapping[str, int]) -> tuple[float, float]:
        costs = self.of_all("nanoseconds")
        return sum(int(costs[name][at]) for name, at in chosen.items()) / 1e6, self._cost_dense(costs) / 1e6

    def layer(self, name: str, at: int) -> LayerPlan:
        """What becomes of a layer at one of its ways, by its place in those of all forms one after the other.

        Raises:
            IndexError: Where there are fewer.
        """
        for held in self.choices[name]:
            if at < len(held.loss):
                return held.plan(at)
            at -= len(held.loss)
        raise IndexError(at)

    def forget(self) -> None:
        """As of ``FittedMethod``; the choices as well."""
        super().forget()
        self.first.forget()
        self.choices, self.clock = {}, None

    def score_table(self) -> pd.DataFrame | None:
        """The scores of the components of each layer's matrix."""
        return self.first.score_table()

    def predict(self, sparsities: Sequence[float]) -> list[Prediction]:
        """Nothing: the scores are of the components of matrices, which other forms do not keep as they are."""
        return [Prediction()] * len(sparsities)


def with_forms(first: Any, names: Sequence[str], outputs: Callable[[], dict[str, list[Side]]] | None = None) -> WithForms:
    """The same network with these forms; ``outputs()``: what is known of the sides of outputs (``sides``). A layer that fits none of them
    stays dense."""
    method, evidence, start = first.method, first.evidence, time.perf_counter()
    forms = [form for name, form in FORMS.items() if name in names]  # in one order, whatever the order asked for
    dense = {name: evidence.model.get_submodule(name) for name in evidence.matrices}
    usable = {name: [form for form in forms if form.fits(dense[name], matrix)] for name, matrix in evidence.matrices.items()}
    for name in (name for name, matrix in evidence.matrices.items() if matrix.uses):
        usable[name] = [form for form in usable[name] if getattr(form, "ties", False)]
    inputs = _all_inputs(evidence, usable, dense)
    looked = any(form.perturbations for held in usable.values() for form in held)
    found = evidence.once("outputs", outputs or (lambda: _outputs(first))) if looked else {}
    seconds = {**first.seconds, "score": first.seconds.get("score", 0.0) + time.perf_counter() - start}
    choices = {}
    for to_come, name in zip(range(len(usable), 0, -1), usable):
        layer = _scored(first, name, to_come, found.get(name, []), inputs[name])
        whole = [] if any(form.name == Matrix.name for form in usable[name]) else [_ends(layer, bool(usable[name]))]
        choices[name] = [*whole, *(form.choices(layer) for form in usable[name])]
    clock, measured = None, method.selection.break_even == "measured"
    if measured or method.budget == TIME:  # a slower way is of no use under a budget of time
        below = WORTH if measured else 1.0
        clock = Clock(choices, evidence.model, evidence.survey, method.selection.batch_size, below, evidence.times, evidence.group)
        clock.measure()
        choices = clock.choices()
    return WithForms(method, evidence, seconds, first=first, choices=choices, clock=clock)


def _all_inputs(evidence: Evidence, usable: dict[str, list[Form]], dense: Mapping[str, nn.Module]) -> dict[str, dict[int, list[Side]]]:
    """The input sides that the ``usable`` forms look at, by layer and entries of the kernel. Forms that look at one
    through which no gradient flows are taken from ``usable``: nothing is known of what they would lose."""
    found: dict[str, dict[int, list[Side]]] = {name: {} for name in usable}
    looked = {name: {k for form in usable[name] for k in form.inputs(dense[name], evidence.matrices[name])} for name in usable}
    for kernel in sorted(set().union(*looked.values())):
        kernels = {name: kernel for name in looked if kernel in looked[name]}
        for name, values in evidence.once(("inputs", kernels), partial(_inputs, evidence, kernels)).items():
            found[name][kernel] = values
    lost = [name for name in usable if looked[name] - found[name].keys()]
    for name in lost:
        usable[name] = [form for form in usable[name] if form.inputs(dense[name], evidence.matrices[name]) <= found[name].keys()]
    if lost:
        log.warning(
            "%s: no gradient flows there, so only forms that do not look at inputs are considered", some([f"layer {n}" for n in lost])
        )
    return found


def _ends(layer: ScoredLayer, fits: bool) -> Choices:
    """Of a layer that may not be a matrix the two ways that are in no form: nothing kept, and dense; of one that no form ``fits`` dense."""
    ranks = Matrix().choices(layer)
    ends = [0, len(ranks.loss) - 1] if fits else [len(ranks.loss) - 1]
    return Choices(Matrix.name, ranks.params[ends], ranks.macs[ends], ranks.work[ends], ranks.loss[ends], lambda i: ranks.plan(ends[i]))


def _scored(first: Any, name: str, to_come: int, outputs: Sequence[Side], inputs: Mapping[int, Sequence[Side]]) -> ScoredLayer:
    survey, scorer = first.evidence.survey, first.method.scorer
    at = [i for i, factor in enumerate(first.factors) if factor.block.layer == name]
    total = float(sum(side.scores.sum() for side in outputs))

    def loss(share: np.ndarray) -> np.ndarray:
        return scorer.loss(total, share, to_come)

    return ScoredLayer(
        survey.matrices[name], first.evidence.model.get_submodule(name), survey.positions[name], survey.inputs[name], survey.places(name),
        [first.factors[i] for i in at], [first.scores[i] for i in at], outputs, inputs, total, loss, first.method.selection.round_to,
        first.method.selection.break_even == "measured",
    )  # fmt: skip


def _outputs(first: Any) -> dict[str, list[Side]]:
    """Of each layer the components of the plain SVD of each group's matrix."""
    evidence: Evidence = first.evidence
    factors: Sequence[Factors] = first.factors
    blocks = cut(Unblocked(), evidence.matrices)
    if [factor.block for factor in factors] != blocks or any(factor.decomposition != "svd" for factor in factors):
        factors = decompose(evidence.matrices, blocks, group=evidence.group)
    return sides(factors, [moments.second.sum(1) for moments in evidence.moments(factors)])


def check_any(names: Sequence[str], ways: Iterable[int]) -> None:
    """That some layer fits one of these forms, where ``ways`` are the numbers of ways to store each.

    Raises:
        InputError: Where none does.
    """
    if all(count == 1 for count in ways):
        raise InputError("forms", list(names), "no layer of this network can be stored so; add matrix")


def sides(factors: Sequence[Factors], perturbations: Sequence[Tensor]) -> dict[str, list[Side]]:
    """Of each layer the sides of its groups' outputs, from the components of the plain SVD and what they count."""
    found, shelf = dict[str, list[Side]](), Shelf()
    for factor, count in zip(factors, perturbations, strict=True):
        found.setdefault(factor.block.layer, []).append(Side(count.double(), shelf.put(factor.U.double())))
    return found


def _inputs(evidence: Evidence, kernels: Mapping[str, int]) -> dict[str, list[Side]]:
    """Of these layers the components of each group's input unfolding."""

    def of_layer(name: str) -> list[tuple[Tensor, Tensor]]:
        """In the network's precision: in double precision all layers together would be twice as large as it."""
        matrix = evidence.matrices[name]
        dtype = torch.promote_types(matrix.weight.dtype, torch.float32)
        found = (input_components(part.double(), kernels[name]) for part in matrix.weight.chunk(matrix.groups))
        return [(U, held.to(dtype)) for U, held in found]

    components = dict(evidence.group.shared_out(kernels, of_layer))
    assert evidence.estimator is not None
    found = input_perturbations(evidence.network, components, evidence.scoring.take(IMAGES), evidence.estimator.read, evidence.group)
    shelf = Shelf()
    return {
        name: [Side(scores, shelf.put(U)) for scores, (U, _) in zip(held, components[name], strict=True)] for name, held in found.items()
    }
