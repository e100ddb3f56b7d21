"""At which ranks a low-rank layer is faster than the dense one, timed on this machine."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lrp.cost.costs import Costs
from lrp.cost.timing import alternate, repeat_to
from lrp.layer.build import low_rank_layer
from lrp.matrices import Components
from lrp.network.survey import Candidates

log = logging.getLogger(__name__)

WORTH = 0.95  # of the dense layer's time: a gain below this is not told apart from noise
STEPS = 5  # of bisection: the rank is known to a 32nd of its range


@torch.inference_mode()
def measure_break_even(
    model: nn.Module, candidates: Candidates, factors: Sequence[Components], costs: Costs, batch_size: int, round_to: int = 1
) -> dict[str, int]:
    """Of each layer the largest sum of its blocks' ranks at which it takes less than 0.95 of the dense layer's time.

    All blocks of a layer are given the same share of the largest rank that is stored as factors, and the share is bisected.
    0: the layer is not faster at any rank. Layers of one shape on inputs of one shape are timed once.
    """
    known: dict[str, int] = {}
    result: dict[str, int] = {}
    for name, places in tqdm(costs.blocks.items(), desc="measuring break-even ranks", unit="layer", leave=False, disable=None):
        dense: Any = copy.deepcopy(model.get_submodule(name)).eval()
        shape = candidates.inputs[name]
        spans = [(factors[i].block.row_start, factors[i].block.col_start, factors[i].block.shape) for i in places]
        key = repr((dense, shape, spans))
        if key not in known:
            parts = [factors[i] for i in places]
            x = repeat_to(torch.randn(shape, dtype=dense.weight.dtype).to(dense.weight.device), batch_size * shape[0])
            known[key] = _bisect(dense, parts, [costs.limit[i] for i in places], x, round_to)
        result[name] = known[key]
    log.info("break-even ranks, measured: %s", ", ".join(f"{name} {rank}" for name, rank in result.items()))
    return result


def _bisect(dense: nn.Module, factors: Sequence[Components], limits: Sequence[int], x: Tensor, round_to: int) -> int:
    def ranks(share: float) -> list[int]:
        exact = [int(share * limit) for limit in limits]
        return [rank - rank % round_to if rank > round_to else rank for rank in exact]

    def is_faster(share: float) -> bool:
        keep = [torch.arange(factor.block.rank) < rank for factor, rank in zip(factors, ranks(share))]
        layer = low_rank_layer(dense, factors, keep)
        slow, fast = alternate([lambda: dense(x), lambda: layer(x)], x.device, seconds=0.3, least=5, most=15)
        return fast.median < WORTH * slow.median

    if is_faster(1.0):
        return sum(limits)
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if sum(ranks(middle)) == 0:
            break
        low, high = (middle, high) if is_faster(middle) else (low, middle)
    return sum(ranks(low))
