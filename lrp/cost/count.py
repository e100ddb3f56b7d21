"""Parameters and multiply-accumulates of blocks, layers and networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lrp.batches import Inputs, call, on_tensors, tensors
from lrp.cost.flops import FlopCounter
from lrp.layer.duplicate import duplicate
from lrp.matrices import Block, LayerMatrix, Rank, kept_rank
from lrp.network.survey import Candidates

SMALL = 20_000_000  # parameters up to which running a network once takes less time than loading what tensors without data need


def stored_params(blocks: Sequence[Block], keep: Sequence[Tensor]) -> int:
    """Parameters that the kept components take, biases apart."""
    return sum(block.cost(int(mask.sum())) for block, mask in zip(blocks, keep))


def block_macs(block: Block, rank: Rank, matrix: LayerMatrix, positions: int) -> int:
    """Multiply-accumulates of a block of ``matrix`` for one example, as it runs, in all layers that hold it: zero-filling counts where it
    is cut inside a channel's kernel."""
    kernel = matrix.kernel
    columns = (-(-block.col_stop // kernel) - block.col_start // kernel) * kernel
    rows, places = block.shape[0], positions if matrix.places is None else matrix.places
    macs = places * rows * columns if rank is None else rank * (positions * rows + places * columns)
    for use in matrix.uses:
        outer, inner = (columns, rows) if use.transposed else (rows, columns)
        macs += use.places * rows * columns if rank is None else rank * (use.positions * outer + use.places * inner)
    return macs


def layers_macs(candidates: Candidates, blocks: Sequence[Block], keep: Sequence[Tensor]) -> dict[str, int]:
    """Of each compressed layer the multiply-accumulates for one example, as it runs."""
    macs: dict[str, int] = dict.fromkeys(candidates.matrices, 0)
    whole: dict[str, bool] = dict.fromkeys(candidates.matrices, True)
    for block, mask in zip(blocks, keep):
        rank = kept_rank(mask)
        whole[block.layer] &= rank is None
        macs[block.layer] += block_macs(block, rank, candidates.matrices[block.layer], candidates.positions[block.layer])
    dense = {name: matrix.macs(candidates.positions[name]) for name, matrix in candidates.matrices.items()}
    return {name: dense[name] if whole[name] else macs[name] for name in macs}


def count_params(model: nn.Module) -> int:
    """All parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, example: Inputs) -> int:
    """Multiply-accumulates of the convolutions, linear layers and matrix products as they run on ``example`` (1, ...).

    Counted by torch's formulas, for a large network on tensors without data, where it runs on those. Gradients are on: without them
    torch's transformer encoders run as one operation that is not counted.
    """
    held = tensors(example)[0].device
    small = count_params(model) <= SMALL and held.type == "cpu"
    try:
        return _count(model, example, held if small else "meta")
    except Exception:  # a network may read values, which tensors without data lack
        return _count(model, example, held)


def _count(model: nn.Module, example: Inputs, device: torch.device | str) -> int:
    model = duplicate(model, device).to(device).eval().requires_grad_()
    given = on_tensors(lambda x: torch.empty_like(x, device=device) if device == "meta" else x.clone(), example)
    counter = FlopCounter({torch.ops.aten.mkldnn_rnn_layer: _recurrent_flops})
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), torch.random.fork_rng([]), counter:  # MATH: as products, which are counted
        call(model, given)
    return counter.flops // 2


def _recurrent_flops(x: Sequence[int], inputs: Sequence[int], states: Sequence[int], *_: Any, **__: Any) -> int:
    """Of the kernel that runs an LSTM's layer on CPUs, which torch does not count: x (L, B, N), weights (4 H, N) and (4 H, H)."""
    return 2 * x[0] * x[1] * (inputs[0] * inputs[1] + states[0] * states[1])
