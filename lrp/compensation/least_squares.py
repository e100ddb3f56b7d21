"""Layer by layer, the least squares fit of what is kept to the outputs of the dense layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lrp.batches import Batches, device_of
from lrp.decomposition.metric import metric_factors
from lrp.errors import InputError, check_float
from lrp.layer.base import LowRank, balance
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
    """Set a layer's parameters to the least squares solution; ``weight`` (M, N) is the dense layer's, ``gradients`` its G."""
    mean_x, mean_z = sums.x / sums.count, sums.z / sums.count
    C = sums.xx / sums.count - mean_x[:, :, None] * mean_x[:, None, :]
    groups, N = mean_x.shape
    own = mean_z.unflatten(0, (groups, -1))  # (groups, M of a group)
    A = ((sums.zx / sums.count).unflatten(0, (groups, -1)) - own[:, :, None] * mean_x[:, None, :]).flatten(0, 1)
    W = weight.to(C)
    rows = len(W) // groups
    low_rank = isinstance(module, LowRank)
    ranges = [(g * rows, (g + 1) * rows) for g in range(groups)]
    bias = torch.empty(len(W)).to(C)
    solved: dict[int, tuple[Tensor, Tensor]] = {}

    def solution(group: int) -> tuple[Tensor, Tensor]:
        """W* (M of the group, N) and C' + lambda I."""
        if group not in solved:
            own = slice(group * rows, (group + 1) * rows)
            solved[group] = ridge_solve(A[own], C[group], W[own], ridge)
        return solved[group]

    for g, (start, stop) in enumerate(module.ranges if low_rank else ranges):
        group = start // rows
        span = slice(start, stop)
        local = slice(start - group * rows, stop - group * rows)  # in its group
        factored, whole = (module.factored[g], module.whole[g]) if low_rank else ([], [(0, N)])
        if [*factored, *whole] == [(0, N)]:
            best, metric = solution(group)
            if whole:
                new = best[local]
                _weight(module, g, 0, low_rank, span, new)
            else:
                G = None if gradients is None else gradients[span, span].to(C)
                U, _, V = metric_factors(best[local], best[local] @ metric @ best[local].T, G)
                r = len(module.V[f"{g}_0"])
                U, V = balance(U[:, :r], V[:r])
                module.U[str(g)].copy_(U)
                module.V[f"{g}_0"].copy_(V)
                new = U @ V
        else:
            T = torch.zeros(sum(len(module.V[f"{g}_{b}"]) for b in range(len(factored))) + sum(b - a for a, b in whole), N).to(C)
            at = 0
            before = [module.U[str(g)].to(C)] if factored else []
            for b, (left, right) in enumerate(factored):
                V = module.V[f"{g}_{b}"]
                T[at : at + len(V), left:right] = V
                at += len(V)
            kept = at
            for b, (left, right) in enumerate(whole):
                T[at : at + right - left, left:right] = torch.eye(right - left).to(C)
                before.append(module.W[f"{g}_{b}"].to(C))
                at += right - left
            new = torch.zeros(stop - start, N).to(C)
            if at:
                found, _ = ridge_solve(A[span] @ T.T, T @ C[group] @ T.T, torch.cat(before, 1), ridge)
                if factored:
                    module.U[str(g)].copy_(found[:, :kept])
                for b, part in enumerate(found[:, kept:].split([right - left for left, right in whole], dim=1) if whole else ()):
                    module.W[f"{g}_{b}"].copy_(part)
                new = found @ T
        bias[span] = mean_z[span] - new @ mean_x[group]
    set_bias(module, bias, weight)


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


def _weight(module: nn.Module, g: int, b: int, low_rank: bool, span: slice, new: Tensor) -> None:
    if low_rank:
        module.W[f"{g}_{b}"].copy_(new)
    else:
        module.weight[span].copy_(new.view_as(module.weight[span]))


def set_bias(module: nn.Module, bias: Tensor, like: Tensor) -> None:
    """Give a layer this bias (M,); one that had none gets one of the dtype and on the device of ``like``, which is noted for files."""
    if module.bias is None:
        trained = all(parameter.requires_grad for parameter in module.parameters())
        module.bias = nn.Parameter(bias.to(like), requires_grad=trained)
        module.added_bias = True
    else:
        module.bias.copy_(bias)
