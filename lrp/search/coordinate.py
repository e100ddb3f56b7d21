"""One option after the other, each at the value that changes the network's outputs least."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from lrp.compensation.base import Compensation
from lrp.errors import InputError, check_int
from lrp.estimator.base import Estimator
from lrp.estimator.divergence import Divergence
from lrp.evidence import Evidence
from lrp.layer.duplicate import measured_copy
from lrp.method.base import FittedMethod, Method
from lrp.method.plan import Plan

log = logging.getLogger(__name__)

Settings = Mapping[str, Mapping[str, Any]]  # option and value, by the part of the method that has the option
STEPS: Sequence[Mapping[str, Sequence[Mapping[str, Any]]]] = (
    {"estimator": [{"output": "logits"}, *({"output": "hellinger", "temperature": t} for t in (1.0, 2.0, 4.0, 8.0))]},
    {"scorer": [{"depth": 0.0}, {"depth": 0.5}, {"depth": 1.0}]},
    {"scorer": [{"floor": 0.005}, {"floor": 0.02}, {"floor": 0.1}]},
)


@dataclass(frozen=True)
class CoordinateSearch:
    """Coordinate descent over options of the method's parts, no labels.

    At each sparsity the network is compressed with the options as they are set, and then with every value of the first step, with the
    best of these and every value of the second step, and so on. The calibration examples of the first half serve each trial as calibration;
    those of the second half, which no trial has seen, tell how far the outputs have moved: the mean Kullback-Leibler divergence
    of the softmax outputs from the dense network's, in nats. With what moved them least all examples are calibrated on. What the options
    are set to is one of the trials, so that what is found is not worse there.

    Attributes:
        images: At most as many examples of each half are used.
        steps: Each one part of the method, and the settings that are tried of it. A setting that the part does not have is left out.
    """

    name: ClassVar[str] = "coordinate"
    images: int = 4000
    steps: Sequence[Mapping[str, Sequence[Mapping[str, Any]]]] = STEPS

    def __post_init__(self) -> None:
        check_int("search.images", self.images, 1)
        each = "a list of steps, each one part of the method with a list of settings, such as {scorer: [{depth: 0}, {depth: 1}]}"
        listed = isinstance(self.steps, list | tuple) and len(self.steps)
        if not listed or not all(isinstance(step, Mapping) and len(step) == 1 for step in self.steps):
            raise InputError("search.steps", self.steps, f"give {each}")
        for settings in (settings for step in self.steps for settings in step.values()):
            if not isinstance(settings, list | tuple) or not all(isinstance(one, Mapping) and one for one in settings):
                raise InputError("search.steps", settings, f"give {each}")

    def __call__(self, method: Method, estimator: Estimator) -> Searched:
        """The method whose options are searched before each plan.

        Raises:
            InputError: For a method that has none of the options, and for values that its parts refuse.
        """
        searched = Searched(method, self, getattr(method, "estimator", estimator))
        for part, settings in (pair for step in self.steps for pair in step.items()):
            owner = method if part == "method" else getattr(method, part, None)
            if missing := [_words({part: one}) for one in settings if not all(_has(owner, name) for name in one)]:
                log.info("search=%s: method=%s has no %s, so it is left out", self.name, method.name, ", ".join(missing))
        if not any(len([*searched.changed(method, step)]) for step in self.steps):
            parts = ", ".join(sorted({part for step in self.steps for part in step}))
            raise InputError(
                "search", self.name, f"method={method.name} has none of the options that it tries (of {parts}); set search.steps"
            )
        return searched


@dataclass(frozen=True)
class Searched:
    """A method whose options a search sets.

    Attributes:
        method: With the options as they are set.
        search: What sets them.
        estimator: Reads outputs.
    """

    method: Any
    search: CoordinateSearch
    estimator: Estimator

    @property
    def name(self) -> str:
        """What tables call the method."""
        return self.method.name

    @property
    def compensation(self) -> Compensation:
        """How what is kept is refitted."""
        return self.method.compensation

    @property
    def budget(self) -> str:
        """What a sparsity is a share of."""
        return self.method.budget

    @property
    def exclude(self) -> Sequence[str]:
        """Names of layers to leave alone."""
        return self.method.exclude

    def fit(self, evidence: Evidence) -> SearchedFit:
        """Divide the calibration examples.

        Raises:
            InputError: For fewer than two examples.
        """
        if len(evidence.batches) < 2:
            raise InputError("search", self.search.name, "it compares on half of the calibration examples; give at least 2")
        return SearchedFit(self.method, evidence, searched=self)

    def changed(self, method: Any, step: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[tuple[Any, Settings]]:
        """The methods that a step tries in place of ``method``, each with what was set; those that are equal to it are left out."""
        for part, settings in step.items():
            owner: Any = method if part == "method" else getattr(method, part, None)
            for one in settings:
                if not all(_has(owner, name) for name in one):
                    continue
                new = dataclasses.replace(owner, **one)
                if new != owner:
                    yield new if part == "method" else dataclasses.replace(method, **{part: new}), {part: one}


@dataclass
class SearchedFit(FittedMethod):
    """A network whose options are searched at each sparsity.

    Attributes:
        searched: The method and its search.
    """

    searched: Any = None
    _fitted: dict[float, FittedMethod] = field(default_factory=dict)  # with what was found at a sparsity

    def plan(self, sparsity: float) -> Plan:
        """What becomes of each layer, with the options that move the outputs least."""
        start = time.perf_counter()
        method = self._search(sparsity)
        seconds = time.perf_counter() - start
        fitted = next((held for held in self._fitted.values() if held.method == method), None) or method.fit(self.evidence)
        self._fitted[sparsity] = fitted
        self.seconds = fitted.seconds
        plan = fitted.plan(sparsity)
        return dataclasses.replace(plan, seconds=plan.seconds + seconds)

    def compress(self, plan: Plan) -> tuple[nn.Module, float]:
        """As the method does that was found for this sparsity."""
        return self._fitted[plan.sparsity].compress(plan)

    def compensate(self, built: nn.Module, plan: Plan) -> None:
        """As the method does that was found for this sparsity."""
        self._fitted[plan.sparsity].compensate(built, plan)

    def forget(self) -> None:
        """As of each method that was found."""
        super().forget()
        for fitted in self._fitted.values():
            fitted.forget()

    def rounds(self, sparsity: float) -> int:
        """As of the method that was found for this sparsity."""
        return self._fitted[sparsity].rounds(sparsity)

    def sizes(self, compressed: nn.Module, plan: Plan) -> dict[str, Any]:
        """As of the method that was found for this sparsity."""
        return self._fitted[plan.sparsity].sizes(compressed, plan)

    def report(self, plan: Plan, sizes: dict[str, Any]) -> Any:
        """As of the method that was found for this sparsity."""
        return self._fitted[plan.sparsity].report(plan, sizes)

    def _search(self, sparsity: float) -> Any:
        """The method with the best options."""
        search, batches = self.searched.search, self.evidence.batches
        half = len(batches) // 2
        count = min(search.images, half)
        held_out = batches.drop(half).take(count)
        scoring = min(len(self.evidence.scoring), count)
        evidence = Evidence(self.model, batches.take(count), self.evidence.cache, scoring, group=self.evidence.group)
        evidence.times = self.evidence.times
        divergence = Divergence(measured_copy(self.model), held_out, self.searched.estimator)
        tried: list[tuple[Any, float]] = []

        def loss(method: Any, said: Settings) -> float:
            for known, found in tried:
                if known == method:
                    return found
            fitted = method.fit(evidence)
            plan = fitted.plan(sparsity)
            found = 0.0 if plan.untouched else self._compared(divergence, fitted.compress(plan)[0])
            tried.append((method, found))
            self.trials.append({"sparsity": sparsity, "set": _words(said), "divergence": found, "best": False})
            log.info("search at sparsity %g: %s: divergence %.5f", sparsity, _words(said), found)
            return found

        best, chosen = self.method, {}
        least = loss(best, chosen)
        if least == 0:
            return best
        for step in search.steps:
            ways = [(method, _with(chosen, said)) for method, said in self.searched.changed(best, step)]
            for method, said in ways:
                found = loss(method, said)
                if found < least:
                    least, best, chosen = found, method, said
        best_row = min((row for row in self.trials if row["sparsity"] == sparsity), key=lambda row: row["divergence"])
        best_row["best"] = True
        log.info("search at sparsity %g: the best is %s", sparsity, best_row["set"])
        return best

    @staticmethod
    def _compared(divergence: Divergence, small: nn.Module) -> float:
        try:
            return divergence(small)
        except InputError as error:  # softmax outputs are what is compared
            raise InputError("search", CoordinateSearch.name, f"{error}; set search=none") from error


def _has(owner: Any, name: str) -> bool:
    return dataclasses.is_dataclass(owner) and name in {each.name for each in dataclasses.fields(owner)}


def _with(chosen: Settings, said: Settings) -> Settings:
    return {**chosen, **{part: {**chosen.get(part, {}), **values} for part, values in said.items()}}


def _words(chosen: Settings) -> str:
    """Such as "estimator.output=hellinger scorer.depth=0.5"; "as set" of nothing."""
    return " ".join(f"{part}.{name}={value}" for part, values in chosen.items() for name, value in values.items()) or "as set"
