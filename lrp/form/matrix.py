"""A layer as its matrix, whole or in blocks: each U V of some rank, or dense."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.cost.costs import make_costs
from lrp.cost.count import block_macs
from lrp.decomposition.metric import OutputMetric, weighed
from lrp.form.base import Choices, ScoredLayer
from lrp.layer.base import LowRank, balance
from lrp.layer.build import low_rank_layer
from lrp.layer.stored import RowRange
from lrp.layer_statistics.base import quadratic
from lrp.layer_statistics.few_samples import FewSamples
from lrp.layer_statistics.regression import Regression, ridge_solve
from lrp.matrices import Components, LayerMatrix, Rank, kept_rank
from lrp.selection.frontier import LayerFrontier


@dataclass(frozen=True)
class MatrixPlan:
    """A layer as the kept components of the blocks of its matrix (the form ``matrix``, whole or in blocks).

    Attributes:
        matrix: The layer's matrix (M, N).
        positions: How often the layer computes its output for one example.
        factors: The components of each of its blocks.
        keep: (R,) bool for each block: which components stay; all of a block that is stored whole.
        timed: Whether the layer is dense wherever it would not be faster, too.
    """

    form: ClassVar[str] = "matrix"
    matrix: LayerMatrix
    positions: int
    factors: Sequence[Components]
    keep: Sequence[Tensor]
    timed: bool = False

    @property
    def ranks(self) -> list[Rank]:
        """The rank of each block; None: it is stored whole."""
        return [kept_rank(mask) for mask in self.keep]

    @property
    def params(self) -> int:
        """Parameters stored for the layer's weight."""
        return sum(f.block.size if rank is None else f.block.cost(rank) for f, rank in zip(self.factors, self.ranks, strict=True))

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one example, as the layer runs."""
        if self.untouched:
            return self.matrix.macs(self.positions)
        blocks = zip(self.factors, self.ranks, strict=True)
        return sum(block_macs(factor.block, rank, self.matrix, self.positions) for factor, rank in blocks)

    @property
    def untouched(self) -> bool:
        """Whether every block is stored whole."""
        return all(rank is None for rank in self.ranks)

    def build(self, dense: nn.Module) -> nn.Module:
        """The layer in its form, or ``dense`` itself where every block is stored whole."""
        return low_rank_layer(dense, self.factors, self.keep)

    def rows(self) -> list[dict[str, Any]]:
        """One row per block."""
        found = []
        for factor, rank in zip(self.factors, self.ranks, strict=True):
            block = factor.block
            kept = block.rank if rank is None else rank
            shape = f"{block.shape[0]}x{block.shape[1]}"
            found.append(
                {
                    "layer": block.layer,
                    "block": block.index,
                    "shape": shape,
                    "kept": kept,
                    "full": block.rank,
                    "dense": rank is None,
                    "form": "dense" if rank is None else self.form,
                }  # fmt: skip
            )
        return found

    def summary(self) -> dict[str, Any]:
        """The report's row of the layer."""
        rows = self.rows()
        kept = sum(row["kept"] for row in rows)
        dense = f"left dense: would not be {'smaller and faster' if self.timed else 'smaller'}"
        return {
            "shape": "x".join(str(n) for n in self.matrix.shape),
            "what": dense if self.untouched else "low rank" if kept else "empty",
            "blocks": len(rows),
            "rank": kept,
            "full_rank": sum(row["full"] for row in rows),
            "params_after": self.params,
            "macs_after": self.macs,
        }


class Matrix:
    """The layer's matrix: the whole of it as one block, or the blocks of the blocking."""

    name: ClassVar[str] = "matrix"
    perturbations: ClassVar[bool] = False
    ties: ClassVar[bool] = True

    def fits(self, dense: nn.Module, matrix: LayerMatrix) -> bool:
        """Always."""
        return True

    def inputs(self, dense: nn.Module, matrix: LayerMatrix) -> set[int]:
        """None: its components are those of the blocks."""
        return set()

    def choices(self, layer: ScoredLayer) -> Choices:
        """Every rank of a layer of one block, below the one at which it would not be smaller; of several blocks, ranks that keep the most
        score for what they cost, from one price of a parameter to the next. Then the layer with nothing kept, and the dense layer."""
        blocks = [factor.block for factor in layer.factors]
        scores = [score.double() for score in layer.scores]
        costs = make_costs(blocks)
        found: list[list[int]]
        if len(blocks) == 1:
            limit = costs.limit[0]
            found = [[rank] for rank in range(1, limit + 1) if rank < layer.step or rank % layer.step == 0]
        else:
            frontier = LayerFrontier(blocks[0].layer, [_kept(score) for score in scores], costs, layer.step)
            found = [[ranks[i] for i in sorted(ranks)] for ranks in map(frontier.ranks, range(1, len(frontier.cost) - 1))]
        plans = [self._plan(layer, ranks) for ranks in [[0] * len(blocks), *found, [block.rank for block in blocks]]]
        loss = [sum(float(score[~mask].sum()) for score, mask in zip(scores, plan.keep)) for plan in plans]
        params, macs = ([getattr(plan, what) for plan in plans] for what in ("params", "macs"))
        written = [layer.positions * sum(rank or 0 for rank in plan.ranks) for plan in plans]
        return Choices(self.name, np.array(params), np.array(macs), np.array([macs, written]).T, np.array(loss), plans.__getitem__)

    def _plan(self, layer: ScoredLayer, ranks: Sequence[int]) -> MatrixPlan:
        keep = []
        for factor, score, rank in zip(layer.factors, layer.scores, ranks):
            mask = torch.zeros(len(score), dtype=torch.bool)
            mask[score.argsort(stable=True)[len(score) - rank :]] = True
            keep.append(mask | factor.block.is_dense(rank))
        return MatrixPlan(layer.matrix, layer.positions, layer.factors, keep, layer.timed)

    def refit(self, module: LowRank, fit: Regression, gradients: OutputMetric | None) -> Iterator[tuple[slice | Tensor, Tensor]]:
        """Row range by row range: the best of its rank where it is one block; where several blocks share rows, U of all of them."""
        solved: tuple[int, Tensor, Tensor | FewSamples] | None = None  # of the group whose rows come now
        for place, rows in enumerate(module.ranges):
            if [part.columns for part in rows.parts] != [(0, module.columns)]:
                yield module.rows_of(rows), _refit_jointly(module, rows, fit)
                continue
            group = fit.group(rows.start)
            if solved is None or solved[0] != group:
                solved = group, *fit.solution(group)
            best = solved[1][_within(module, rows, fit)]
            if rows.whole:
                module.W[rows.whole[0].key].copy_(best)
                yield module.rows_of(rows), best
                continue
            held = weighed(best, gradients and gradients.of(module.rows_of(rows), best))
            energy = [quadratic(held.H, solved[2])]
            del best
            if place == len(module.ranges) - 1:  # what follows takes several matrices of this size
                fit.forget()
                solved = None
            U, _, V = held.factors(energy.pop(), rows.rank)
            del held
            new = _set_rows(module, rows, U, V)
            del U, V
            yield module.rows_of(rows), new


def _kept(score: Tensor) -> np.ndarray:
    """(R + 1,): the sum of the r highest scores."""
    return np.concatenate([[0.0], np.cumsum(np.sort(score.numpy())[::-1])])


def _within(module: LowRank, rows: RowRange, fit: Regression) -> slice | Tensor:
    """Which rows of their group these are."""
    own, first = module.rows_of(rows), fit.rows_of(fit.group(rows.start)).start
    return own if isinstance(own, Tensor) else slice(rows.start - first, rows.stop - first)


def _set_rows(module: LowRank, rows: RowRange, U: Tensor, V: Tensor) -> Tensor:
    """Give rows that are one block these components; returns the rows of the new weight."""
    U, V = balance(U, V)
    module.U[rows.key].copy_(U)
    module.V[rows.factored[0].key].copy_(V)
    return U @ V


def _refit_jointly(module: LowRank, rows: RowRange, fit: Regression) -> Tensor:
    """Rows that several blocks share: with T x' the values of the kept components V x' and what the whole blocks read, U and the
    whole blocks are the regression of z on T x'; returns the rows of the new weight."""
    N = fit.W.shape[1]
    before = [module.U[rows.key].to(fit.W)] if rows.factored else []
    before += [module.W[part.key].to(fit.W) for part in rows.whole]
    if not before:
        return torch.zeros(rows.stop - rows.start, N).to(fit.W)
    reads = [(part, module.V[part.key].to(fit.W)) for part in rows.factored]
    reads += [(part, torch.eye(part.block.shape[1]).to(fit.W)) for part in rows.whole]
    T = module.columns_back(torch.cat([F.pad(values, (part.block.col_start, N - part.block.col_stop)) for part, values in reads]))
    C = fit.covariance(fit.group(rows.start))
    found, _ = ridge_solve(fit.A[module.rows_of(rows)] @ T.T, quadratic(T, C), torch.cat(before, 1), fit.ridge)
    new = found.split([part.shape[1] for part in before], dim=1)
    kept = [module.U[rows.key]] if rows.factored else []
    for parameter, values in zip([*kept, *(module.W[part.key] for part in rows.whole)], new, strict=True):
        parameter.copy_(values)
    return found @ T
