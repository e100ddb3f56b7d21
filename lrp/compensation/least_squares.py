"""Layer by layer, the least squares fit of what is kept to the outputs of the dense layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from lrp.batches import Batches, device_of
from lrp.decomposition.metric import metric_factors
from lrp.errors import InputError, check_float
from lrp.layer.base import LowRank, balance
from lrp.layer.build import kind_of
from lrp.layer.stored import RowRange
from lrp.layer_statistics.base import LayerStatistics
from lrp.layer_statistics.gather import CHUNK
from lrp.layer_statistics.positions import columns, inside
from lrp.layer_statistics.sums import Sums
from lrp.network.arithmetic import plain_arithmetic
from lrp.network.layer_inputs import Replay
from lrp.network.survey import Candidates

METRICS = ("gradient", "plain")


@dataclass(frozen=True)
class LeastSquares:
    """From the input of the network to its output, refit each layer so that from the inputs x' that it has in the pruned network
    it gives the outputs z that it had in the dense one: minimise E ||z - W' x' - b||^2 + lambda ||W' - W||^2 over all W' of the
    layer's rank and all biases b. lambda is ``ridge`` times the mean diagonal of C' = Cov(x').

    A layer that stays dense gets W* = (A + lambda W) (C' + lambda I)^-1 with A = Cov(z, x'). A block that spans all columns gets the
    best rank r of its rows of W* in the metric of C' + lambda I and of the dense network's output gradients
    (``metric=gradient``, as the decomposition two_sided; ``plain``: without them). Where several blocks share their rows V is
    kept, and U of all of them, the blocks stored whole and the bias are refitted jointly on h = V x', with the penalty on how far
    they move. W is the layer's weight before it was pruned (of a later round: in the state before).

    Covariances are over sampled positions of each image; there have to be several times as many samples as the layer has columns,
    or the fit is of these images alone. No gradient steps, no labels.
    """

    name: ClassVar[str] = "least_squares"
    ridge: float = 0.03
    metric: str = "gradient"

    def __post_init__(self) -> None:
        check_float("compensation.ridge", self.ridge, least=0)
        if self.metric not in METRICS:
            raise InputError("compensation.metric", self.metric, f"choose one of {', '.join(METRICS)}")

    @property
    def needs(self) -> tuple[str, ...]:
        """What it needs of ``layer_statistics``: the layers' outputs, and with ``metric="gradient"`` the output gradients."""
        return ("outputs", "gradients") if self.metric == "gradient" else ("outputs",)

    @torch.no_grad()
    def __call__(self, model: nn.Module, candidates: Candidates, inputs: Batches, statistics: Mapping[str, LayerStatistics]) -> None:
        """Refit the layers of the pruned network ``model`` in place; ``statistics`` are the dense network's on the images ``inputs``."""
        training = {module: module.training for module in model.modules()}
        model.eval()
        with plain_arithmetic(device_of(model, torch.device("cpu"))):
            replay = Replay(model, Batches.of(inputs), CHUNK)
            for name in tqdm(replay.order(list(candidates.matrices)), desc="compensation", unit="layer", leave=False, disable=None):
                module, dense = model.get_submodule(name), statistics[name]
                sums = None
                parts = zip(replay.inputs(name), dense.where.split(CHUNK), dense.outputs.split(CHUNK))
                for x, where, z in parts:
                    sums = sums or Sums(inside(module, x, candidates.positions[name]))
                    sums.add(columns(module, x, where), z.flatten(0, 1).to(x.device), where.flatten())
                gradients = dense.gradients if self.metric == "gradient" else None
                refit(module, candidates.matrices[name].weight, sums.flush(), gradients, self.ridge)
        for module, mode in training.items():
            module.training = mode


def refit(module: nn.Module, weight: Tensor, sums: Sums, gradients: Tensor | None, ridge: float) -> None:
    """Set a layer's parameters to the least squares solution; ``weight`` (M, N) is the dense layer's, ``gradients`` its G.

    At a rank this is reduced-rank regression in the metric of the inputs and of ``gradients`` (Izenman, 1975), with the ridge penalty
    of ``LeastSquares`` on the change.
    """
    fit = _Regression(sums, weight, ridge)
    bias = torch.empty(len(fit.W)).to(fit.W)
    if isinstance(module, LowRank):
        for rows in module.ranges:
            whole_rows = [part.columns for part in rows.parts] == [(0, module.columns)]
            new = _refit_whole_rows(module, rows, fit, gradients) if whole_rows else _refit_jointly(module, rows, fit)
            span = slice(rows.start, rows.stop)
            bias[span] = fit.bias(span, new)
    else:
        for group in range(len(fit.C)):
            span, (new, _) = fit.rows_of(group), fit.solution(group)
            kind_of(module).set_rows(module, span, new)
            bias[span] = fit.bias(span, new)
    set_bias(module, bias, weight)


class _Regression:
    """The regression of a layer's dense outputs z on the inputs x' that it has now; a row belongs to one of its groups of inputs.

    Attributes:
        C: Cov(x') (groups, N, N)
        A: Cov(z, x') (M, N)
        W: the dense layer's weight (M, N)
    """

    def __init__(self, sums: Sums, weight: Tensor, ridge: float) -> None:
        self.ridge = ridge
        self.mean_x, self.mean_z = sums.x / sums.count, sums.z / sums.count
        self.C = sums.xx / sums.count - self.mean_x[:, :, None] * self.mean_x[:, None, :]
        groups = len(self.C)
        own = self.mean_z.unflatten(0, (groups, -1))  # (groups, M of a group)
        means = own[:, :, None] * self.mean_x[:, None, :]
        self.A = ((sums.zx / sums.count).unflatten(0, (groups, -1)) - means).flatten(0, 1)
        self.W = weight.to(self.C)
        self._solved: dict[int, tuple[Tensor, Tensor]] = {}

    def group(self, row: int) -> int:
        """The group that a row belongs to."""
        return row * len(self.C) // len(self.W)

    def rows_of(self, group: int) -> slice:
        """The rows of a group."""
        size = len(self.W) // len(self.C)
        return slice(group * size, (group + 1) * size)

    def solution(self, group: int) -> tuple[Tensor, Tensor]:
        """Without a bound on the rank: W* (M of the group, N); and C + lambda I (N, N)."""
        if group not in self._solved:
            own = self.rows_of(group)
            self._solved[group] = ridge_solve(self.A[own], self.C[group], self.W[own], self.ridge)
        return self._solved[group]

    def bias(self, span: slice, new: Tensor) -> Tensor:
        """The best bias of these rows once their weight is ``new``: it takes the mean."""
        return self.mean_z[span] - new @ self.mean_x[self.group(span.start)]


def _refit_whole_rows(module: LowRank, rows: RowRange, fit: _Regression, gradients: Tensor | None) -> Tensor:
    """Rows that are one block: W* itself where it is stored whole, or its best approximation of the block's rank; returns the
    rows of the new weight."""
    group = fit.group(rows.start)
    best, metric = fit.solution(group)
    first = fit.rows_of(group).start
    best = best[rows.start - first : rows.stop - first]
    if rows.whole:
        module.W[rows.whole[0].key].copy_(best)
        return best
    G = None if gradients is None else gradients[rows.start : rows.stop, rows.start : rows.stop].to(fit.C)
    U, _, V = metric_factors(best, best @ metric @ best.T, G)
    U, V = balance(U[:, : rows.rank], V[: rows.rank])
    module.U[rows.key].copy_(U)
    module.V[rows.factored[0].key].copy_(V)
    return U @ V


def _refit_jointly(module: LowRank, rows: RowRange, fit: _Regression) -> Tensor:
    """Rows that several blocks share: with T x' the values of the kept components V x' and what the whole blocks read, U and the
    whole blocks are the regression of z on T x'; returns the rows of the new weight."""
    N = fit.W.shape[1]
    before = [module.U[rows.key].to(fit.C)] if rows.factored else []
    before += [module.W[part.key].to(fit.C) for part in rows.whole]
    if not before:
        return torch.zeros(rows.stop - rows.start, N).to(fit.C)
    reads = [(part, module.V[part.key].to(fit.C)) for part in rows.factored]
    reads += [(part, torch.eye(part.block.shape[1]).to(fit.C)) for part in rows.whole]
    T = torch.cat([F.pad(values, (part.block.col_start, N - part.block.col_stop)) for part, values in reads])
    C = fit.C[fit.group(rows.start)]
    found, _ = ridge_solve(fit.A[rows.start : rows.stop] @ T.T, T @ C @ T.T, torch.cat(before, 1), fit.ridge)
    new = found.split([part.shape[1] for part in before], dim=1)
    kept = [module.U[rows.key]] if rows.factored else []
    for parameter, values in zip([*kept, *(module.W[part.key] for part in rows.whole)], new, strict=True):
        parameter.copy_(values)
    return found @ T


def ridge_solve(A: Tensor, C: Tensor, W: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """(A + lambda W) (C + lambda I)^-1 and C + lambda I, lambda being ``ridge`` times the mean diagonal of C. Where C is singular
    and lambda 0 the solution closest to W."""
    penalty = ridge * C.diagonal().mean()
    metric = C + penalty * torch.eye(len(C)).to(C)
    factor, failed = torch.linalg.cholesky_ex(metric)
    residual = A - W @ C  # solve for the change, which is small: exact where nothing has to change
    scale = metric.diagonal().mean()
    if int(failed) or float(factor.diagonal().min()) ** 2 < 1e-12 * float(scale):
        values, vectors = torch.linalg.eigh(metric)
        inverse = torch.where(values > 1e-10 * values[-1].clamp(min=torch.finfo(C.dtype).tiny), 1 / values, 0)
        return W + (residual @ vectors * inverse) @ vectors.T, metric
    return W + torch.cholesky_solve(residual.T, factor).T, metric


def set_bias(module: nn.Module, bias: Tensor, like: Tensor) -> None:
    """Give a layer this bias (M,); one that had none gets one of the dtype and on the device of ``like``, which is noted for files."""
    if module.bias is None:
        trained = all(parameter.requires_grad for parameter in module.parameters())
        module.bias = nn.Parameter(bias.to(like), requires_grad=trained)
        module.added_bias = True
    else:
        module.bias.copy_(bias)
