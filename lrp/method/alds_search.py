"""ALDS (Liebenwein et al., NeurIPS 2021): every layer's number of groups and its rank, by the least largest relative error."""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from tqdm import tqdm

from lrp.blocking.alds import AldsBlocking
from lrp.cost.costs import check_budget, kept_share
from lrp.errors import InputError, check_bool, check_int, check_seed, check_sparsity
from lrp.matrices import Block, LayerMatrix
from lrp.partition import check_partition, cut


@dataclass(frozen=True)
class Allocation:
    """What the search found for one sparsity.

    Attributes:
        k: The number of groups of input channels of each layer, by its name; None: left dense.
        rank: The rank that all groups of a layer have, by its name; None: left dense.
        error: The largest relative error of any layer.
        params: What all the layers store, biases apart.
    """

    k: dict[str, int | None]
    rank: dict[str, int | None]
    error: float
    params: int


@dataclass(frozen=True)
class Spectrum:
    """What the search knows of a layer, for every k that divides the input channels that a row reads.

    Attributes:
        errors: For each k the relative errors at rank 1, 2, ... up to the largest at which the factors are smaller than the layer
            (R,), never rising; empty where there is no such rank.
        unit: For each k the parameters of one rank.
        dense: The parameters of the layer stored whole.
        weight: What one parameter counts in the budget.
    """

    errors: dict[int, np.ndarray]
    unit: dict[int, int]
    dense: int
    weight: int

    def rank(self, k: int, level: float) -> int | None:
        """The smallest rank whose error is at most ``level``."""
        above = int(np.searchsorted(-self.errors[k], -level))
        return above + 1 if above < len(self.errors[k]) else None

    def params(self, k: int, rank: int | None) -> int:
        """Parameters of the layer with ``k`` groups of input channels at this rank; None: dense."""
        return self.dense if rank is None else rank * self.unit[k]

    def best_k(self, k: int, params: int) -> int:
        """The k with the least error at the largest rank that ``params`` hold; the given one where no other is better."""
        found = {}
        for other, errors in self.errors.items():
            rank = min(params // self.unit[other], len(errors))
            found[other] = errors[rank - 1] if rank else math.inf
        best = min(found, key=found.__getitem__)
        return best if found[best] < found[k] else k


class AldsSearch:
    """The allocation search of ALDS (their algorithm 1), on the weights alone.

    A layer (M x N) is cut into k groups of as many contiguous input channels each, for any k that divides these, and every
    group is factored at the same rank j: (M x j)(j x N / k), in all j (k M + N) parameters. Where that is not less than M N the
    layer is stored whole. In a grouped convolution the channels of each of its groups are cut so, all at one k and rank.

    The relative error of (k, j) is the largest sigma_{j+1} of any group over sigma_1 of the layer; 0 of a layer stored whole.
    The bound of a concatenation's error has a factor sqrt(k) more, which the authors' code omits: ``sqrt_k`` puts it in.

    From a start, a k for each layer, two steps alternate until nothing changes. The rank step takes the lowest error level at
    which the budget holds, every layer at the smallest rank whose error is within it; bisection over all errors that there are
    finds it exactly. The k step takes for each layer the k with the least error at the largest rank that fits its size (of a
    layer stored whole: the largest at which it would not be). Neither raises the level. The first four ``starts`` are: every k 1;
    the k step for the same share of every layer; the largest k up to 4; the largest up to 16. The others draw each k by ``seed``,
    the same at every sparsity. A start over budget even at rank 1 has every k lowered to a divisor at most half as large, again
    and again until it is not. The lowest level wins, of equal ones the first.

    ``budget`` is params, or macs, which needs the layers' ``positions`` (output positions of an example). Raises InputError for
    weights that are not finite and for a sparsity beyond rank 1 in every layer.
    Source: section 3 of the paper. Theirs differ: the starts, a bisection within a tolerance, and a budget that counts all of a
    network's parameters.
    """

    def __init__(
        self,
        matrices: Mapping[str, LayerMatrix],
        positions: Mapping[str, int] | None = None,
        budget: str = "params",
        starts: int = 15,
        seed: int = 0,
        sqrt_k: bool = False,
    ) -> None:
        check_budget(budget)
        self.starts, self.seed = check_int("starts", starts, 1), check_seed("seed", seed)
        self.budget = budget
        check_bool("sqrt_k", sqrt_k)
        weights = dict.fromkeys(matrices, 1)
        if budget == "macs":
            assert positions is not None
            weights = {name: positions[name] for name in matrices}
        bar = tqdm(matrices.items(), desc="singular values", leave=False, disable=None, unit="layer")
        self.layers = {name: make_spectrum(matrix, weights[name], sqrt_k) for name, matrix in bar}

    def __call__(self, sparsity: float) -> Allocation:
        """The allocation that removes at least this share of the layers' parameters, or multiply-accumulates.

        Raises:
            InputError: For a sparsity outside [0, 1), and for one that rank 1 in every layer does not reach.
        """
        check_sparsity("sparsity.grid", sparsity)
        total = sum(layer.dense * layer.weight for layer in self.layers.values())
        budget = kept_share(sparsity) * total
        if sparsity == 0:
            return self._allocation(dict.fromkeys(self.layers, 1), -math.inf)
        least = self._cost(dict.fromkeys(self.layers, 1), math.inf)
        if least > budget:
            most = math.floor(10_000 * (1 - Fraction(least, total))) / 10_000
            what = "parameters" if self.budget == "params" else "multiply-accumulates"
            raise InputError("sparsity.grid", sparsity, f"ALDS removes at most {most} of these {what}, with rank 1 in every layer")
        best: tuple[float, dict[str, int]] | None = None
        for start in self._starts(sparsity):
            while self._cost(start, math.inf) > budget:
                start = {name: max(k for k in self.layers[name].unit if k <= max(start[name] // 2, 1)) for name in start}
            found = self._descend(start, budget)
            if best is None or found[0] < best[0]:
                best = found
        assert best is not None, "there is at least one start"
        return self._allocation(best[1], best[0])

    def _starts(self, sparsity: float) -> list[dict[str, int]]:
        """A k for each layer, a start each."""
        share = kept_share(sparsity)
        starts = [
            dict.fromkeys(self.layers, 1),
            {name: layer.best_k(1, math.floor(share * layer.dense)) for name, layer in self.layers.items()},
            *({name: max(k for k in layer.unit if k <= most) for name, layer in self.layers.items()} for most in (4, 16)),
        ]
        draw = random.Random(self.seed)
        while len(starts) < self.starts:
            starts.append({name: draw.choice(list(layer.unit)) for name, layer in self.layers.items()})
        return starts[: self.starts]

    def _descend(self, ks: dict[str, int], budget: Fraction) -> tuple[float, dict[str, int]]:
        """The error level at which both steps leave everything as it is, and the k there."""
        while True:
            level = self._level(ks, budget)
            after = {}
            for name, layer in self.layers.items():
                rank = layer.rank(ks[name], level)
                after[name] = layer.best_k(ks[name], layer.dense - 1 if rank is None else rank * layer.unit[ks[name]])
            if after == ks:  # it ends: of level, sizes and errors the first that changes falls each time
                return level, ks
            ks = after

    def _level(self, ks: Mapping[str, int], budget: Fraction) -> float:
        """The lowest error level whose ranks hold the budget."""
        levels = np.unique(np.concatenate([[0.0], *(layer.errors[ks[name]] for name, layer in self.layers.items())]))
        return float(levels[bisect.bisect_left(levels, True, key=lambda level: self._cost(ks, level) <= budget)])

    def _cost(self, ks: Mapping[str, int], level: float) -> int:
        """What all layers cost at an error level, in the unit of the budget; never rises with the level."""
        return sum(layer.weight * layer.params(ks[name], layer.rank(ks[name], level)) for name, layer in self.layers.items())

    def _allocation(self, ks: Mapping[str, int], level: float) -> Allocation:
        ranks = {name: layer.rank(ks[name], level) for name, layer in self.layers.items()}
        params = sum(layer.params(ks[name], ranks[name]) for name, layer in self.layers.items())
        errors = [self.layers[name].errors[ks[name]][rank - 1] for name, rank in ranks.items() if rank is not None]
        used = {name: None if rank is None else ks[name] for name, rank in ranks.items()}
        return Allocation(used, ranks, float(max(errors, default=0.0)), params)


def allocation_blocks(matrices: Mapping[str, LayerMatrix], allocation: Allocation) -> list[Block]:
    """The blocks of every layer at its k: one where it is left dense (of a grouped convolution: one a group)."""
    blocks = []
    for name, matrix in matrices.items():
        blocks += cut(AldsBlocking(allocation.k[name] or 1), {name: matrix})
    check_partition(matrices, blocks)
    return blocks


def make_spectrum(matrix: LayerMatrix, weight: int = 1, sqrt_k: bool = False) -> Spectrum:
    """The relative errors and costs of a layer at every k.

    Raises:
        InputError: For weights that are not finite.
    """
    if not bool(torch.isfinite(matrix.weight).all()):
        raise InputError(f"layer {matrix.name}: its weight holds values that are not finite, so it cannot be decomposed")
    rows, columns = matrix.shape
    size, norm = rows * columns, 0.0
    errors, unit = {}, {}
    for k in (k for k in range(1, matrix.channels + 1) if matrix.channels % k == 0):
        values = group_values(matrix, k)
        if k == 1:
            norm = float(values[0]) or 1.0  # of a layer of zeros no error is to be had
        unit[k] = k * rows + matrix.groups * columns
        limit = (size - 1) // unit[k]  # less than the rank of a group
        errors[k] = values[1 : limit + 1] / norm * (math.sqrt(k) if sqrt_k else 1.0)
    return Spectrum(errors, unit, size, weight)


def group_values(matrix: LayerMatrix, k: int) -> np.ndarray:
    """The singular values (R,), descending, each the largest among the k groups (of every group of a grouped convolution).

    Float64, from the eigenvalues of each group's smaller Gram matrix: ten times as fast as an SVD, and off by less than 1e-7 of
    the largest, as squares are taken.
    """
    rows, columns = matrix.shape[0] // matrix.groups, matrix.shape[1] // k
    parts = matrix.weight.to("cpu", torch.float64).reshape(matrix.groups, rows, k, columns).transpose(1, 2).flatten(0, 1)
    gram = parts @ parts.mT if rows <= columns else parts.mT @ parts
    return torch.linalg.eigvalsh(gram).clamp_(min=0).sqrt_().amax(0).flip(0).numpy()
