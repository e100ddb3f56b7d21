"""What was done to each layer of a network, and what it saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from torch import Tensor, nn

from lrp.cost.costs import Costs
from lrp.cost.count import layers_macs
from lrp.layer.base import LowRank
from lrp.matrices import Block, kept_rank
from lrp.network.survey import Candidates

COLUMNS = "layer type shape what blocks rank full_rank params_before params_after macs_before macs_after".split()


class Report(pd.DataFrame):
    """A line a layer: what was done (``low rank`` with the components kept, ``rank``, of all, ``full_rank``; ``empty``) or why
    it was left alone; parameters of its weight and multiply-accumulates for one example before and after. ``attrs`` holds the
    totals; printing shows both.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame  # a part of a report is an ordinary table

    def __deepcopy__(self, memo: Any) -> Report:
        report = Report(self.copy())
        report.attrs = dict(self.attrs)
        return report

    def _text(self) -> pd.DataFrame:
        table = self.astype({name: "Int64" for name in COLUMNS[4:]}).astype(object)
        return table.where(table.notna(), "")

    def __str__(self) -> str:
        lines = [self._text().to_string(index=False)]
        a = self.attrs
        if a:
            lines.append(
                f"sparsity {a['sparsity']:g} of {a['budget']} asked; "
                f"compressed layers: parameters {a['params_dense']:,} -> {a['params']:,} (sparsity_params {a['sparsity_params']:.4f}), MACs {a['macs_layers_dense']:,} -> {a['macs_layers']:,} "
                f"(sparsity_macs {a['sparsity_macs']:.4f}); whole network: parameters {a['params_total_dense']:,} -> {a['params_total']:,}, "
                f"MACs {a['macs_dense']:,} -> {a['macs']:,}"
            )
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"{self._text().to_html(index=False)}<pre>{str(self).splitlines()[-1]}</pre>"


def make_report(
    model: nn.Module, candidates: Candidates, blocks: Sequence[Block], keep: Sequence[Tensor], costs: Costs, totals: dict[str, Any]
) -> Report:
    """The report of one compressed network; ``model`` is the dense one."""
    after = layers_macs(candidates, blocks, keep)
    rows = []
    for name, module in model.named_modules():
        if name not in candidates.matrices and name not in candidates.left:
            continue
        held = module.parameters() if isinstance(module, LowRank) else module._parameters.values()
        params = sum(p.numel() for p in held if p is not None and p.dim() > 1)
        macs = candidates.positions[name] * params if name in candidates.positions else None
        row = {"layer": name, "type": type(module).__name__, "params_before": params, "macs_before": macs}
        if name in candidates.left:
            row |= {"what": f"left alone: {candidates.left[name]}", "params_after": params, "macs_after": macs}
        else:
            parts = [(blocks[i], keep[i]) for i in costs.blocks[name]]
            kept = sum(int(mask.sum()) for _, mask in parts)
            row |= {
                "shape": "x".join(str(n) for n in candidates.matrices[name].shape), "blocks": len(parts), "rank": kept,
                "full_rank": sum(block.rank for block, _ in parts), "macs_after": after[name],
                "params_after": sum(block.cost(int(mask.sum())) for block, mask in parts), "what": "low rank" if kept else "empty",
            }  # fmt: skip
            if all(kept_rank(mask) is None for _, mask in parts):
                row["what"] = f"left dense: would not be {'smaller and faster' if name in costs.break_even else 'smaller'}"
        rows.append(row)
    report = Report(pd.DataFrame(rows, columns=COLUMNS))
    report.attrs = dict(totals)
    return report
