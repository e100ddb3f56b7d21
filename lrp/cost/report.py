"""What was done to each layer of a network, and what it saved."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from torch import Tensor, nn

from lrp.errors import counted, some
from lrp.layer.build import kind_of, own_weights
from lrp.layer.compressed import Compressed
from lrp.matrices import LayerMatrix
from lrp.network.survey import Candidates

COLUMNS = "layer type shape what blocks rank full_rank params_before params_after macs_before macs_after".split()


WORTH_SAYING = 0.05  # share of a network's parameters


class Report(pd.DataFrame):
    """One row per layer: what was done (``low rank`` with the components kept, ``rank``, of all, ``full_rank``; ``masked``, of a layer
    that stays dense, in which ``params_after`` are not zero; ``empty``) or why it was left alone, or to which layer it is ``tied``;
    parameters of its weight (a tied one counts in one of the layers that hold it) and multiply-accumulates for one example before and
    after (of a tied one that was compressed all in that layer). ``attrs`` holds the totals, and under "warnings" what to look at;
    printing shows all of it.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame  # a part of a report is an ordinary table

    def __deepcopy__(self, memo: Any) -> Report:
        report = Report(self.copy())
        report.attrs.update(self.attrs)
        return report

    def _text(self) -> pd.DataFrame:
        table = self.astype({name: "Int64" for name in COLUMNS[4:]}).astype(object)
        return table.where(table.notna(), "")

    @property
    def warnings(self) -> list[str]:
        """What a user should look at: one sentence for each."""
        return self.attrs.get("warnings", [])

    def _head(self) -> list[str]:
        """Warnings, and what became of the whole network."""
        a = self.attrs
        lines = [f"warning: {warning}" for warning in self.warnings]
        if "params_total" in a:
            lines.append(
                f"whole network: parameters {a['params_total_dense']:,} -> {a['params_total']:,} "
                f"({1 - a['params_total'] / a['params_total_dense']:.1%} removed), MACs {a['macs_dense']:,} -> {a['macs']:,}"
            )
        return lines

    def _foot(self) -> list[str]:
        """What was asked for, and what became of the compressed layers."""
        a = self.attrs
        if "params_total" not in a:
            return []
        time = ""
        if "milliseconds" in a:
            time = f", predicted milliseconds {a['milliseconds_dense']:.3f} -> {a['milliseconds']:.3f}"
        return [
            f"sparsity {a['sparsity']:g} of {a['budget']}{' of the network' * a.get('of_network', False)} asked for; compressed layers: "
            f"parameters {a['params_dense']:,} -> {a['params']:,} (sparsity_params {a['sparsity_params']:.4f}), "
            f"MACs {a['macs_layers_dense']:,} -> {a['macs_layers']:,} (sparsity_macs {a['sparsity_macs']:.4f}){time}"
        ]

    def __str__(self) -> str:
        return "\n".join([*self._head(), self._text().to_string(index=False), *self._foot()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, foot = (html.escape("\n".join(lines)) for lines in (self._head(), self._foot()))
        return f"<pre>{head}</pre>{self._text().to_html(index=False)}<pre>{foot}</pre>"


def make_report(
    model: nn.Module,
    survey: Candidates,
    layers: Mapping[str, Mapping[str, Any]],
    totals: dict[str, Any],
    few_samples: Mapping[str, tuple[int, int]],
    more: Sequence[str] = (),
) -> Report:
    """The report of one compressed network; ``model`` is the dense one, ``layers`` say what became of each compressed layer.

    ``few_samples``: of layers whose statistics rest on few samples, these and the columns of their matrix. ``more``: sentences to warn of.
    """
    rows, counted = [], set()
    tied = {use.name: matrix for matrix in survey.matrices.values() for use in matrix.uses}
    for name, module in model.named_modules():
        if name in tied:
            rows.append(_tied_row(name, module, tied[name]))
            continue
        if name not in layers and name not in survey.left:
            continue
        weights = [p for p in module.parameters() if p.dim() > 1] if isinstance(module, Compressed) else own_weights(module)
        macs = None
        if name in survey.positions:
            at = kind_of(module).multiplied_at(module, survey.positions[name], survey.inputs[name])
            macs = at * sum(p.numel() for p in weights)
        if name in survey.matrices and survey.matrices[name].uses:
            macs = survey.matrices[name].macs(survey.positions[name])
        params = sum(p.numel() for p in weights if id(p) not in counted)
        counted |= {id(p) for p in weights}
        row = {"layer": name, "type": type(module).__name__, "params_before": params, "macs_before": macs}
        if name in survey.left:
            row |= {"what": f"left alone: {survey.left[name]}", "params_after": params, "macs_after": macs}
        else:
            row |= layers[name]
        rows.append(row)
    report = Report(pd.DataFrame(rows, columns=COLUMNS))
    report.attrs.update(totals)
    report.attrs["warnings"] = [*_warnings(report, few_samples), *more]
    return report


def _tied_row(name: str, module: nn.Module, matrix: LayerMatrix) -> dict[str, Any]:
    """The row of a layer that holds the weight of another one, in whose row everything counts."""
    none = dict.fromkeys(COLUMNS[6:], 0)
    shape = "x".join(str(n) for n in (module.weight.shape if isinstance(module.weight, Tensor) else ()))
    return {"layer": name, "type": type(module).__name__, "shape": shape, "what": f"tied to {matrix.name}", "blocks": 0, **none}


def _warnings(report: Report, few_samples: Mapping[str, tuple[int, int]]) -> list[str]:
    """One sentence for each thing that a user would want to know before using the network."""
    a, found = report.attrs, []
    if alone := _left_alone(report):
        found.append(alone)
    empty = list(report.layer[report.what == "empty"])
    if a["macs"] > a["macs_dense"]:
        found.append(f"the whole network takes more multiply-accumulates than before: {a['macs_dense']:,} -> {a['macs']:,}")
    if a["params"] == 0:
        found.append(f"nothing is left of the compressed layers at sparsity {a['sparsity']:g}: each gives its bias alone")
    elif empty:
        found.append(f"{counted(len(empty), 'layer')} lost all components: {some(empty, 5)}")
    masked = report[report.what == "masked"]
    if len(masked):
        found.append(
            f"{counted(len(masked), 'layer')} as large and as slow as before, with zeros: of the numbers stored in "
            f"{'it' if len(masked) == 1 else 'them'} {int(masked.params_after.sum()):,} of {int(masked.params_before.sum()):,} are not zero"
        )
    if few_samples:
        name, (samples, columns) = min(few_samples.items(), key=lambda item: item[1][0] / item[1][1])
        found.append(
            f"few calibration samples: layer {name} has {samples:,} for {columns:,} columns, several times as many are needed "
            f"({counted(len(few_samples), 'layer')} concerned); give more images"
        )
    return found


def _left_alone(report: Report) -> str | None:
    """How much of the network was left alone and why, where that is more than a twentieth."""
    left = report[report.what.str.startswith("left alone")]
    total = report.attrs["params_total_dense"]
    if not total or left.params_before.sum() < WORTH_SAYING * total:
        return None
    reasons = []
    for reason, part in sorted(left.groupby("what"), key=lambda pair: -pair[1].params_before.sum()):
        share = part.params_before.sum() / total
        if share >= WORTH_SAYING / 5:
            reasons.append(
                f"{share:.1%} in {some([name or 'the network' for name in part.layer], 2)} ({reason.removeprefix('left alone: ')})"
            )
    return f"{left.params_before.sum() / total:.1%} of the parameters were left alone: {'; '.join(reasons)}"
