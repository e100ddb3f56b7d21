"""Hessian-aware pruning of filters, with a neural implant in place of some (Yu et al., WACV 2022)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from lrp.compensation.base import Compensation
from lrp.compensation.none import NoCompensation
from lrp.cost.costs import check_budget, kept_share
from lrp.cost.report import Report
from lrp.errors import InputError, check_float, check_int, check_seed, counted, some
from lrp.estimator.base import Estimator
from lrp.evidence import Evidence
from lrp.layer_statistics.regression import ridge_solve
from lrp.matrices import LayerMatrix
from lrp.method.base import FittedMethod, check_exclude
from lrp.method.filters import Chosen, FilterLayer, FilterPlan, Stored, Unit, find_units, without_form
from lrp.method.plan import Plan
from lrp.network.channels import find_channels
from lrp.network.follow import Channels
from lrp.network.gradients import hessian_traces
from lrp.network.narrow import removable

log = logging.getLogger(__name__)
IMPLANTS = ("zero", "fitted", "none")
REMOVED = ("zero", "mean")
LABELS = ("auto", "given", "own")


@dataclass(frozen=True)
class Hap:
    """Filters in the order of tr(H_c) / p_c ||w_c||^2, over all layers: H_c is the Hessian of the loss in the p_c weights w_c of a
    filter, its trace found by Hutchinson's method (Yu et al., section 3.2; the constant 1/2 is dropped). Filters that only go together,
    those of a sum, are one: their traces, weights and norms are added.

    The last share ``q`` of what is dropped, the most sensitive of it, keeps a 1 x 1 convolution of the same stride (section 3.3, the
    neural implant): of zeros as in the paper, to be trained, or fitted to what the filter gave; the other filters are removed, with what
    reads them (``lrp.network.narrow``). Filters that cannot be removed are not stored, and give zeros.

    Attributes:
        estimator: How outputs are read.
        probes: Random vectors of the trace.
        q: Share of the dropped filters that gets an implant, in [0, 1].
        implant: "zero"; "fitted", the ridge regression of the filter's output on what the 1 x 1 convolution reads, in the dense network
            on the calibration images; or "none".
        removed: What removed filters leave behind in the layers that read them: "zero", nothing, as in the paper; or "mean", the mean of
            what these made of them on the calibration images.
        ridge: Of that regression, times the mean second moment of what it reads.
        most: No layer loses more than this share of its filters, in (0, 1).
        labels: "given", those of the data; "own", what the network predicts; "auto", given ones where there are any.
        seed: Of the probes.
        budget: "params" or "macs".
        exclude: Layers left alone.
        samples: About how many positions of each layer a fit looks at.
    """

    estimator: Estimator
    probes: int = 300
    q: float = 0.1
    implant: str = "zero"
    removed: str = "zero"
    ridge: float = 0.01
    most: float = 0.95
    labels: str = "auto"
    seed: int = 0
    budget: str = "params"
    exclude: Sequence[str] = ()
    samples: int = 65536
    name: str = "hap"

    @property
    def compensation(self) -> Compensation:
        """None: implants are fitted in place of it."""
        return NoCompensation()

    def __post_init__(self) -> None:
        check_budget(self.budget)
        check_exclude(self.exclude)
        check_int("method.probes", self.probes, 1)
        check_seed("method.seed", self.seed)
        check_float("method.q", self.q, least=0.0, most=1.0)
        check_float("method.ridge", self.ridge, least=0.0)
        check_float("method.most", self.most, above=0.0, below=1.0)
        for name, known in (("implant", IMPLANTS), ("removed", REMOVED), ("labels", LABELS)):
            if getattr(self, name) not in known:
                raise InputError(f"method.{name}", getattr(self, name), f"choose one of {', '.join(known)}")

    def fit(self, evidence: Evidence) -> HapFitted:
        """Look at the network's filters.

        Raises:
            InputError: For a network without a layer to compress, one with a single output, and labels that are asked for and not there.
        """
        evidence = evidence.of(self.estimator, self.exclude, self.samples)
        start = time.perf_counter()
        channels = self._channels(evidence)
        if reasons := without_form(evidence, channels is not None):
            evidence = evidence.without(reasons)
            channels = self._channels(evidence)
        traces = hessian_traces(
            evidence.model, list(evidence.matrices), evidence.scoring.whole(), self._labels(evidence), evidence.pick, self.probes, self.seed
        )
        units = find_units(evidence, channels)
        scores = [_importance(unit, traces, evidence) for unit in units]
        return HapFitted(
            self, evidence, {"score": time.perf_counter() - start}, channels=channels, units=units, scores=scores, traces=traces
        )

    def _channels(self, evidence: Evidence) -> Channels | None:
        left = {name: reason for name, reason in evidence.survey.left.items() if reason != "depthwise"}
        try:
            return find_channels(evidence.model, evidence.batches.example, left)
        except InputError as error:
            log.warning("%s; filters are not stored, but what reads them is as wide as before", error)
            return None

    def _labels(self, evidence: Evidence) -> Tensor | None:
        """Those of the data; None: what the network predicts.

        Raises:
            InputError: Where they are asked for and not there.
        """
        if evidence.labels is None and self.labels == "given":
            raise InputError("method.labels", "given", "the calibration holds no labels; give batches of (inputs, labels), or choose own")
        if evidence.labels is None and self.labels == "auto":
            log.info("method=%s: the calibration holds no labels, so the loss is that of what the network predicts", self.name)
        return None if self.labels == "own" else evidence.labels


@dataclass
class HapFitted(FittedMethod):
    """A network whose filters have an order.

    Attributes:
        channels: Of the network; None where it cannot be traced.
        units: What goes together.
        scores: The importance of each.
        traces: Of the Hessian, of each row of each layer, (M,).
    """

    method: Hap
    channels: Channels | None = None
    units: list[Unit] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    traces: dict[str, Tensor] = field(default_factory=dict)
    _order: list[Unit] | None = None

    def order(self) -> list[Unit]:
        """The units that may be dropped, the least important first: no layer loses more than its share."""
        if self._order is None:
            most = {name: int(self.method.most * matrix.shape[0]) for name, matrix in self.evidence.matrices.items()}
            self._order = []
            for at in sorted(range(len(self.units)), key=lambda i: (self.scores[i], i)):
                unit = self.units[at]
                if all(len(rows) <= most[name] for name, rows in unit.rows.items()):
                    self._order.append(unit)
                    for name, rows in unit.rows.items():
                        most[name] -= len(rows)
        return self._order

    def chosen(self, count: int) -> Chosen:
        """What becomes of all rows when the first ``count`` units are dropped."""
        implants = 0 if self.method.implant == "none" else round(self.method.q * count)
        dropped = self.order()[:count]
        last = dropped[count - implants :]
        gone = dropped[: count - implants] + [unit for unit in last if not unit.centred]
        return Stored(self.evidence, self.channels).choose(gone, [unit for unit in last if unit.centred])

    def plan(self, sparsity: float) -> FilterPlan:
        """The fewest units that keep the budget are dropped.

        Raises:
            InputError: Where that is more than can go.
        """
        start, survey = time.perf_counter(), self.evidence.survey
        stored = Stored(self.evidence, self.channels)
        times = {name: survey.positions[name] if self.method.budget == "macs" else 1 for name in survey.matrices}
        dense = sum(times[name] * matrix.weight.numel() for name, matrix in survey.matrices.items())
        allowed = kept_share(sparsity) * dense

        def cost(count: int) -> int:
            return sum(times[name] * size for name, size in stored.sizes(self.chosen(count)).items())

        low, high = 0, len(self.order())
        if (least := cost(high)) > allowed:
            raise InputError(
                "sparsity",
                sparsity,
                f"method={self.method.name} can remove at most {1 - least / dense:.4f} of this network's {self.method.budget}",
            )
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if cost(middle) <= allowed else (middle + 1, high)
        chosen = self.chosen(low)
        layers = {name: self._layer(name, chosen, size) for name, size in stored.sizes(chosen).items()}
        implant = partial(self._implant, self.method.implant)
        seconds = time.perf_counter() - start
        return FilterPlan(
            sparsity,
            layers,
            self.model,
            survey,
            seconds,
            chosen=chosen,
            channels=self.channels,
            example=self.evidence.batches.example,
            implant=implant,
            constants=self.evidence.batches if self.method.removed == "mean" else "none",
        )

    def _layer(self, name: str, chosen: Chosen, params: int) -> FilterLayer:
        matrix, keep, centred = self.evidence.matrices[name], chosen.keep[name], chosen.centred[name]
        stuck = {unit.reason for unit in self.units if unit.reason and name in unit.rows} if not bool(keep.all()) else set[str]()
        gone = counted(int((~keep).sum()), "filter")
        said = [f"{gone} removed"] if not bool(keep.all()) else []
        said += [f"{int(centred.sum())} are 1 x 1"] if bool(centred.any()) else []
        if stuck and not bool(keep.all()):
            said[0] = f"{gone} kept as zeros, which are not stored: {some(sorted(filter(None, stuck)), 1)}"
        if not said:
            said = ["left dense"] if params == matrix.weight.numel() else ["reads fewer inputs"]
        macs = params * self.evidence.survey.positions[name]
        return FilterLayer(matrix, params, macs, int((keep & ~centred).sum()), int(centred.sum()), ", ".join(said))

    def _implant(self, kind: str, matrix: LayerMatrix, rows: Tensor, channels: Tensor) -> Tensor:
        """The centres (m, C) of these rows: zeros, or the regression of what the rows give on the centre of the channels that are left."""
        zero = matrix.weight.new_zeros(len(rows), len(channels))
        if kind != "fitted" or not len(rows):
            return zero
        inputs = self.evidence.statistics(["inputs"])[matrix.name].inputs
        assert inputs is not None
        C, W = inputs[0], matrix.weight[rows].to(inputs[0])
        at = channels * matrix.kernel + matrix.kernel // 2
        found, _ = ridge_solve(W @ C[:, at], C[at][:, at], torch.zeros(len(rows), len(at)).to(C), self.method.ridge)
        return found.to(matrix.weight)

    def report(self, plan: Plan, sizes: dict[str, Any]) -> Report:
        """As of every method; depthwise convolutions that lose filters with what they read are no layers of the plan."""
        report = super().report(plan, sizes)
        if isinstance(plan, FilterPlan) and self.channels is not None:
            gone = removable(self.channels, plan.chosen.keep)
            for name in self.channels.depthwise:
                held, at = self.channels.outputs[name].tolist(), report.index[report.layer == name]
                stay = sum(c not in gone for c in held)
                if stay < len(held):
                    report.loc[at, "what"] = f"{counted(len(held) - stay, 'filter')} removed with what they read"
                    for column in ("params", "macs"):
                        report.loc[at, f"{column}_after"] = report.loc[at, f"{column}_before"] * stay // len(held)
        return report

    def score_table(self) -> pd.DataFrame:
        """One row per filter: its place, the trace of its Hessian, and the importance and the number of what it goes with."""
        rows = []
        for at, (unit, score) in enumerate(zip(self.units, self.scores, strict=True)):
            for name, held in unit.rows.items():
                rows += [(name, 0, row, float(self.traces[name][row]), score, at) for row in held]
        columns = ["layer", "block", "component", "trace", "score", "unit"]
        return pd.DataFrame(rows, columns=columns).sort_values(["layer", "component"], kind="stable", ignore_index=True)


def _importance(unit: Unit, traces: dict[str, Tensor], evidence: Evidence) -> float:
    """tr(H_c) / p_c ||w_c||^2 of all that goes together."""
    trace = weights = energy = 0.0
    for name, rows in unit.rows.items():
        part = evidence.matrices[name].weight[list(rows)].double()
        trace, weights, energy = trace + float(traces[name][list(rows)].sum()), weights + part.numel(), energy + float(part.square().sum())
    return trace / weights * energy
