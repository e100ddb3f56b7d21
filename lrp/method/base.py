"""What every method gives once it has looked at a network: a smaller copy at any sparsity."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lrp.cost.costs import Costs
from lrp.cost.count import count_macs, count_params, layers_macs, stored_params
from lrp.cost.report import Report, make_report
from lrp.decomposition.base import check_weights
from lrp.errors import InputError
from lrp.layer.build import build
from lrp.layer_statistics.base import LayerStatistics
from lrp.matrices import Block, Factors
from lrp.network.survey import Candidates, find_candidates


@dataclass(frozen=True)
class Plan:
    """What is kept at one sparsity: of each block its factors and a mask (R,) of the components that stay, all of a block that is
    stored whole."""

    sparsity: float
    factors: list[Factors]
    keep: list[Tensor]
    costs: Costs
    seconds: float = 0.0  # that choosing it took
    state: Fitted | None = None  # whose factors they are: a later round's, or None: of the network as it came

    @property
    def blocks(self) -> list[Block]:
        return [factor.block for factor in self.factors]

    @property
    def untouched(self) -> bool:
        return all(bool(mask.all()) for mask in self.keep)


@dataclass
class Fitted:
    """A network that a method has looked at. ``inputs``: the calibration images (B, ...) as the network takes them; ``statistics``
    of the dense network's layers on them, as far as compensation and the decomposition need them."""

    method: Any
    model: nn.Module
    inputs: Tensor
    candidates: Candidates
    statistics: Mapping[str, LayerStatistics] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # statistics, decompose, score: what each stage took, once
    _dense: tuple[int, int] | None = None

    def plan(self, sparsity: float) -> Plan:
        """What to keep. Raises InputError for a budget that cannot be met."""
        raise NotImplementedError

    @property
    def one_shot(self) -> bool:
        """Whether the plans for all sparsities are made from the same factors."""
        return True

    def rounds(self, sparsity: float) -> int:
        """How often the network is scored on the way to a sparsity."""
        return 1

    def build_plan(self, plan: Plan) -> nn.Module:
        """The smaller copy, before it is compensated."""
        return build((plan.state or self).model, plan.factors, plan.keep)

    def compress(self, plan: Plan) -> tuple[nn.Module, float]:
        """The smaller copy, compensated, and the seconds that this took. A network of which nothing was removed stays as it is."""
        result, start = self.build_plan(plan), time.perf_counter()
        if not plan.untouched:
            self.method.compensation(result, (plan.state or self).candidates, self.inputs, self.statistics)
        return result, time.perf_counter() - start

    def sizes(self, compressed: nn.Module, plan: Plan) -> dict[str, Any]:
        """Parameters and multiply-accumulates for one example, of the compressed layers and of the whole network; the
        sparsities are over the compressed layers."""
        example = self.inputs[:1]
        if self._dense is None:
            self._dense = count_macs(self.model, example), count_params(self.model)
        macs_total, params_total = self._dense
        params, params_dense = stored_params(plan.blocks, plan.keep), sum(block.size for block in plan.blocks)
        macs = sum(layers_macs(self.candidates, plan.blocks, plan.keep).values())
        macs_dense = sum(self.candidates.positions[name] * m.weight.numel() for name, m in self.candidates.matrices.items())
        return {
            "sparsity": plan.sparsity, "budget": self.method.budget, "sparsity_params": 1 - params / params_dense,
            "sparsity_macs": 1 - macs / macs_dense, "params": params, "params_dense": params_dense,
            "params_total": count_params(compressed), "params_total_dense": params_total,
            "macs": count_macs(compressed, example), "macs_dense": macs_total, "macs_layers": macs, "macs_layers_dense": macs_dense,
        }  # fmt: skip

    def report(self, plan: Plan, sizes: dict[str, Any]) -> Report:
        return make_report(self.model, self.candidates, plan.blocks, plan.keep, plan.costs, sizes)


def as_masks(factors: Sequence[Factors], ranks: Sequence[int | None]) -> list[Tensor]:
    """Masks of the first ``ranks`` components of each block; None: all of them."""
    return [torch.arange(factor.block.rank) < (factor.block.rank if rank is None else rank) for factor, rank in zip(factors, ranks)]


def check_exclude(exclude: Any) -> None:
    if isinstance(exclude, str) or not all(isinstance(name, str) for name in exclude):
        raise InputError("exclude", exclude, "a list of layer names is needed")


def find_layers(model: nn.Module, example: Tensor, exclude: Sequence[str]) -> Candidates:
    """The layers to compress; raises InputError where there is none."""
    candidates = find_candidates(model, example, exclude)
    check_weights(candidates.matrices)
    if not candidates.matrices:
        reasons = ", ".join(f"{name}: {reason}" for name, reason in candidates.left.items())
        raise InputError(f"the network has no layer to compress{f' ({reasons})' if reasons else ''}")
    return candidates


METHOD_PARTS = ("blocking", "decomposition", "scorer", "estimator", "selection", "compensation")
