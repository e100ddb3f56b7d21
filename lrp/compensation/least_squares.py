"""Layer by layer, the least squares fit of what is kept to the outputs of the dense layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lrp.batches import Batches, device_of
from lrp.compensation.refit import RIDGE, best_ridge, refit, refitted, set_bias
from lrp.decomposition.metric import OutputMetric
from lrp.errors import InputError, check_float
from lrp.group import Group
from lrp.layer.compressed import Compressed
from lrp.layer_statistics.base import LayerStatistics
from lrp.layer_statistics.folds import Folds
from lrp.layer_statistics.positions import batch_size, columns, inside, kept
from lrp.layer_statistics.regression import LookupRegression
from lrp.layer_statistics.sums import Sums
from lrp.layer_statistics.tied import sum_of_metrics
from lrp.matrices import LayerMatrix
from lrp.network.arithmetic import plain_arithmetic
from lrp.network.layer_inputs import Replay
from lrp.network.survey import Candidates

METRICS = ("gradient", "plain")
AUTO = "auto"
ENOUGH = 3  # samples for each column of a layer, and half as many examples as columns: samples of one example resemble each other
FOLDS = 4  # parts of the examples


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

    A layer whose rows belong to no example that is known (it runs several times, or on rows that are chosen, such as an expert) is fitted
    to what it reads in the dense network.

    A weight that several layers hold gets the best rank r of W itself in the sum of their metrics (``lrp.layer_statistics.tied``), by
    what they read in the dense network: it is not fitted to what they read in the pruned one, since that would change what the first of
    them gives, on which all layers behind it were fitted. Then the bias of each that has or may have one takes the mean, as it comes in
    the pruned network. Such a weight that stays dense stays as it is.

    Covariances are over sampled positions of each image; there have to be several times as many samples as the layer has columns,
    or the fit is of these images alone. Tokens that are padding do not count. No gradient steps, no labels.

    ``ridge="auto"`` is 0.03 for a layer with enough of them. One with fewer than three times as many samples as columns, or fewer
    than half as many examples, is fitted with 0.03, 0.3, 3 and 30 to three quarters of the examples and tried on the others, each
    quarter in turn, until the error there, at the layer's form and rank and in the metric of the outputs, gets no less; the ridge with
    the least is taken for the fit to all. Of four parts that is nine to seventeen fits in place of one.

    ``memory_limit``: GiB of activations held at once, those between two layers. Of as many images as it admits each layer runs once;
    for the others the network runs from its beginning for each layer, which gives the same and takes longer.
    """

    name: ClassVar[str] = "least_squares"
    ties: ClassVar[bool] = True
    adds_biases: ClassVar[bool] = True  # to layers that have none
    ridge: float | str = AUTO
    metric: str = "gradient"
    memory_limit: float = field(default=2.0, repr=False)  # which is in no key: it changes no result

    def __post_init__(self) -> None:
        if isinstance(self.ridge, str) and self.ridge != AUTO:
            raise InputError("compensation.ridge", self.ridge, f"must be a number of at least 0, or {AUTO}")
        if not isinstance(self.ridge, str):
            check_float("compensation.ridge", self.ridge, least=0)
        check_float("compensation.memory_limit", self.memory_limit, above=0)
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
            shifted: dict[str, _Shift] = {}
            for name, matrix in candidates.matrices.items():
                if matrix.uses:
                    shifted |= self._refit_tied(model, matrix, statistics[name])
                elif statistics[name].where is None:
                    self._refit_on_moments(model.get_submodule(name), matrix.weight, replace(statistics[name]))
            known = [name for name, matrix in candidates.matrices.items() if not matrix.uses and statistics[name].where is not None]
            inputs = Batches.of(inputs)
            tokens, group = inputs.counted(), inputs.group
            unit = batch_size(inputs.unit, tokens, inputs.total)
            masks = [None] * -(-len(inputs) // unit) if tokens is None else tokens.split(unit)
            with Replay(model, inputs, unit, self.memory_limit * 2**30) as replay:
                for name in tqdm(replay.order([*known, *shifted]), desc="compensation", unit="layer", leave=False, disable=None):
                    module = model.get_submodule(name)
                    if name in shifted:
                        shifted[name].set(module, zip(replay.inputs(name), masks), unit, candidates.positions[name], group)
                        continue
                    dense, weight = statistics[name], candidates.matrices[name].weight
                    tries = self._tries(dense, candidates.matrices[name], inputs.total)
                    sums: Sums | Folds | None = None
                    given = dense.outputs  # read once, where they lie in a file
                    assert dense.where is not None and given is not None, "``needs`` asks for them"
                    parts = zip(replay.inputs(name), dense.where.split(unit), given.split(unit), masks)
                    for start, (x, where, z, mask) in zip(range(0, len(inputs), unit), parts):
                        if sums is None:
                            edges = inside(module, x, candidates.positions[name])
                            sums = Folds(FOLDS, edges) if tries else Sums(edges)
                        keep = kept(mask, where, candidates.positions[name], x)
                        rows = slice(None) if keep is None else keep
                        at = where.to(x.device).flatten()[rows]
                        read, gave = columns(module, x, where)[rows], z.flatten(0, 1).to(x.device)[rows]
                        if isinstance(sums, Folds):
                            example = inputs.start + torch.arange(start, start + len(where))[:, None].expand_as(where)
                            sums.add(read, gave, at, example.flatten().to(x.device)[rows])
                        else:
                            sums.add(read, gave, at)
                        if group.fixed:
                            sums.sum_up()
                    del given, parts
                    sums = sums or (Folds(FOLDS) if tries else Sums())  # this process may have no example
                    sums, ridge = sums.total(group), self._ridge
                    metric = self._metric_of(dense, keep=tries)
                    if isinstance(sums, Folds):
                        ridge = best_ridge(module, weight, sums, metric, group)
                        sums = sums.without()
                    self._refit(module, weight, sums, metric, ridge)
                    del metric
                    group.equalise(module.parameters())
        for module, mode in training.items():
            module.training = mode

    def _metric_of(self, dense: LayerStatistics, keep: bool = False) -> OutputMetric | None:
        G = dense.gradients if self.metric == "gradient" else None
        return None if G is None else OutputMetric(G, keep)

    def _refit_tied(self, model: nn.Module, matrix: LayerMatrix, dense: LayerStatistics) -> dict[str, _Shift]:
        """Refit the factors that several layers hold; the biases are still to be set, or are set here, of layers whose rows belong to no
        example that is known."""
        module, waiting = model.get_submodule(matrix.name), {}
        if not isinstance(module, Compressed):
            return {}
        C, G = sum_of_metrics(matrix, dense.uses, centred=True, gradients=self.metric == "gradient")
        list(refitted(module, LookupRegression(C[None], matrix.weight, self._ridge), OutputMetric(G)))
        turned = {use.name: use.transposed for use in matrix.uses}
        for name, own in dense.uses.items():
            layer: Any = model.get_submodule(name)
            if own.mean is None:
                continue
            shift = _Shift(matrix.weight.T if turned.get(name, False) else matrix.weight, own.mean[0], own.where)
            if own.where is not None:
                waiting[name] = shift
            else:
                shift.to(layer, own.mean[0])
        return waiting

    def _refit_on_moments(self, module: Any, weight: Tensor, dense: LayerStatistics) -> None:
        """Refit a layer of which no row can be found again in the pruned network to what it reads in the dense one."""
        assert dense.inputs is not None, "they are gathered where outputs are not"
        if dense.mean is None:  # a lookup: nothing before it changes what it reads, and it has no bias
            if isinstance(module, Compressed):
                list(refitted(module, LookupRegression(dense.inputs, weight, self._ridge), self._metric_of(dense)))
            return
        sums = Sums.of_moments(dense.inputs, dense.mean, weight, module.bias)
        self._refit(module, weight, sums, self._metric_of(dense), self._ridge)

    @property
    def _ridge(self) -> float:
        """That of a layer for which none is tried."""
        return RIDGE if isinstance(self.ridge, str) else self.ridge

    def _tries(self, dense: LayerStatistics, matrix: LayerMatrix, examples: int) -> bool:
        """Whether a layer's ridge is found by trial."""
        assert dense.where is not None
        samples, columns = examples * dense.where.shape[1], matrix.shape[1]
        return self.ridge == AUTO and examples > 1 and (samples < ENOUGH * columns or 2 * examples < columns)

    def _refit(self, module: nn.Module, weight: Tensor, sums: Sums, gradients: OutputMetric | None, ridge: float) -> None:
        refit(module, weight, sums, gradients, ridge)


@dataclass(frozen=True)
class _Shift:
    """What the bias of a layer has to make up for once its weight is another one.

    Attributes:
        weight: (M, N) in the dense network.
        mean: Of what the layer read there, (N,) float64.
        where: The positions that were looked at (images, P).
    """

    weight: Tensor
    mean: Tensor
    where: Tensor | None

    def set(self, layer: nn.Module, batches: Iterable[tuple[Tensor, Tensor | None]], size: int, positions: int, group: Group) -> None:
        """Set the bias by what the layer reads now, in batches of a ``size``, in all processes of a group; tokens count by their masks."""
        total, count = torch.zeros_like(self.mean), 0
        assert self.where is not None
        for (x, mask), where in zip(batches, self.where.split(size), strict=True):
            keep = kept(mask, where, positions, x)
            read = columns(layer, x, where)[slice(None) if keep is None else keep]
            total, count = total + read[:, 0].double().sum(0).cpu(), count + len(read)
        found = group.total([total, torch.tensor(float(count), dtype=torch.float64)])
        assert found[0] is not None and found[1] is not None, "each process has given them"
        self.to(layer, found[0] / max(float(found[1]), 1))

    def to(self, layer: Any, mean: Tensor) -> None:
        """Set the bias for a mean (N,) of what the layer reads now."""
        bias = 0.0 if layer.bias is None else layer.bias.detach().cpu()
        set_bias(layer, self.weight.double().cpu() @ self.mean + bias - layer.weight.double().cpu() @ mean, self.weight)
