"""What every method gives once it has looked at a network: a smaller copy at any sparsity."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor, nn

from lrp.compensation.base import Compensation, compensate
from lrp.cost.count import count_macs, count_params
from lrp.cost.report import Report, make_report
from lrp.errors import InputError, own_code
from lrp.evidence import Evidence
from lrp.layer.build import kind_of
from lrp.matrices import Components
from lrp.method.plan import Plan
from lrp.network.state import unchanged_state

log = logging.getLogger(__name__)
METHOD_PARTS = ("blocking", "decomposition", "scorer", "estimator", "selection", "compensation")


class Method(Protocol):
    """How a whole network is compressed."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    @property
    def compensation(self) -> Compensation:
        """How what is kept is refitted."""
        ...

    @property
    def budget(self) -> str:
        """What a sparsity is a share of: params or macs."""
        ...

    @property
    def exclude(self) -> Sequence[str]:
        """Names of layers to leave alone."""
        ...

    def fit(self, evidence: Evidence) -> FittedMethod:
        """Look at a network once; compress it to any sparsity from there.

        Raises:
            InputError: For a network without a layer to compress and for examples that it cannot run on.
        """
        ...


@dataclass(frozen=True)
class Prediction:
    """What the scores say of a plan before it is built.

    Attributes:
        additive: The sum of the perturbations E ||y - y_b||^2 of all that is removed; None where they are not known.
        joint: E ||.||^2 of removing it all at once, to first order; None where the estimator cannot say.
    """

    additive: float | None = None
    joint: float | None = None


@dataclass
class FittedMethod:
    """A network that a method has looked at; ``plan`` says what becomes of it at a sparsity.

    Attributes:
        method: The method.
        evidence: The network and its calibration examples.
        seconds: What each stage took, once: statistics, decompose, score.
        trials: What a search tried, one row per trial: sparsity, set, divergence, best.
    """

    method: Method
    evidence: Evidence
    seconds: dict[str, float] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)
    _dense: tuple[int, int] | None = None
    _said: set[str] = field(default_factory=set)

    @property
    def model(self) -> nn.Module:
        """The dense network."""
        return self.evidence.model

    def plan(self, sparsity: float) -> Plan:
        """What becomes of each layer.

        Raises:
            NotImplementedError: In this class.
        """
        raise NotImplementedError

    def plan_of(self, sparsity: float, budget_of: str = "layers") -> Plan:
        """What becomes of each layer where a sparsity is a share of what the compressed ``layers`` have, or of what the whole ``network``
        has.

        Raises:
            InputError: Where so much is not in the layers that can be compressed, and as ``plan`` does.
        """
        if budget_of == "layers":
            return self.plan(sparsity)
        macs, params = self._whole()
        if self.method.budget not in ("params", "macs"):
            raise InputError("budget_of", budget_of, f"budget={self.method.budget} is known of the layers alone; set budget_of=layers")
        total, within = (params, self._params()) if self.method.budget == "params" else (macs, self._macs())
        more = self._new_biases() if self.method.budget == "params" else 0
        share = (Fraction(str(sparsity)) * total + more) / max(within, 1)
        if share >= 1:
            left = ", ".join(f"{name}: {reason}" for name, reason in list(self.evidence.survey.left.items())[:3])
            raise InputError(
                "sparsity", sparsity, f"with budget_of=network it must be below {within / total:.4f}, the share of the network's "
                f"{self.method.budget} that the compressed layers have{f' (left alone: {left})' if left else ''}",
            )  # fmt: skip
        return replace(self.plan(float(share)), sparsity=sparsity, of_network=True)

    def rounds(self, sparsity: float) -> int:
        """How often the network is scored on the way to a sparsity."""
        return 1

    def score_table(self) -> pd.DataFrame | None:
        """One row per component with its score; None where the method scores none."""
        return None

    def predict(self, sparsities: Sequence[float]) -> list[Prediction]:
        """What the scores say of the plan for each sparsity."""
        return [Prediction()] * len(sparsities)

    def compress(self, plan: Plan) -> tuple[nn.Module, float]:
        """The smaller copy, compensated, and the seconds that this took. A network of which nothing was removed stays as it is.

        A subclass may do it in its own way; ``lrp.compress`` gives plans that can be built only once.
        """
        self.evidence.group.check_same(lambda: [layer.rows() for layer in plan.layers.values()], "plans")
        result, start, before = plan.build(), time.perf_counter(), self.seconds.get("statistics", 0.0)
        self.compensate(result, plan)
        return result, time.perf_counter() - start - (self.seconds.get("statistics", 0.0) - before)

    def compensate(self, built: nn.Module, plan: Plan) -> None:
        """Refit what a plan kept, in place, unless nothing was removed."""
        if plan.untouched:
            return
        compensation, start = self.method.compensation, time.perf_counter()
        self.evidence.statistics(compensation.needs)  # what fails here is no fault of the compensation's code
        self.seconds["statistics"] = self.seconds.get("statistics", 0.0) + time.perf_counter() - start
        with own_code(f"compensation={compensation.name}", compensation), unchanged_state(built):
            compensate(compensation, built, plan.survey, self.evidence)

    def forget(self) -> None:
        """Let go of what only plans need: where none is to come, it would lie beside what compensation needs."""
        self.evidence.forget()

    def sizes(self, compressed: nn.Module, plan: Plan) -> dict[str, Any]:
        """Parameters and multiply-accumulates (for one example) of the compressed layers and of the whole network.

        ``sparsity_params`` and ``sparsity_macs`` are over the compressed layers, biases apart.
        """
        example = self.evidence.batches.example
        macs_total, params_total = self._whole()
        params_dense, macs_dense = self._params(), self._macs()
        return {
            "sparsity": plan.sparsity, "budget": self.method.budget, **({"of_network": True} if plan.of_network else {}),
            "sparsity_params": 1 - plan.params / params_dense, "sparsity_macs": 1 - plan.macs / macs_dense if macs_dense else 0.0,
            "params": plan.params, "params_dense": params_dense,
            "params_total": count_params(compressed), "params_total_dense": params_total,
            "macs": count_macs(compressed, example), "macs_dense": macs_total, "macs_layers": plan.macs, "macs_layers_dense": macs_dense,
        }  # fmt: skip

    def _whole(self) -> tuple[int, int]:
        """Multiply-accumulates and parameters of the dense network."""
        if self._dense is None:
            self._dense = count_macs(self.model, self.evidence.batches.example), count_params(self.model)
        return self._dense

    def _new_biases(self) -> int:
        """How many numbers the compensation adds to layers without a bias."""
        if not getattr(self.method.compensation, "adds_biases", False):
            return 0
        uses = (use.name for matrix in self.evidence.matrices.values() for use in matrix.uses if use.positions)
        names = [*self.evidence.matrices, *uses]
        layers = [self.model.get_submodule(name) for name in names]
        return sum(kind_of(m).rows(m) for m in layers if not kind_of(m).lookup and getattr(m, "bias", None) is None)

    def _params(self) -> int:
        return sum(matrix.weight.numel() for matrix in self.evidence.matrices.values())

    def _macs(self) -> int:
        survey = self.evidence.survey
        return sum(matrix.macs(survey.positions[name]) for name, matrix in survey.matrices.items())

    def report(self, plan: Plan, sizes: dict[str, Any]) -> Report:
        """What was done to each layer; ``sizes`` are its totals. What it warns of is logged as well, once."""
        layers = {name: layer.summary() for name, layer in plan.layers.items()}
        report = make_report(self.model, self.evidence.survey, layers, sizes, self.evidence.few_samples(), self.evidence.padding)
        for warning in report.warnings:
            if warning not in self._said:
                log.warning("%s", warning)
        self._said.update(report.warnings)
        return report


def check_exclude(exclude: Any) -> None:
    """A list of names.

    Raises:
        InputError: For anything else.
    """
    if isinstance(exclude, str) or not all(isinstance(name, str) for name in exclude):
        raise InputError("exclude", exclude, "give a list of layer names")


def as_masks(factors: Sequence[Components], ranks: Sequence[int | None]) -> list[Tensor]:
    """Masks (R,) of the first ``ranks`` components of each block; None: all of them."""
    return [torch.arange(factor.block.rank) < (factor.block.rank if rank is None else rank) for factor, rank in zip(factors, ranks)]
