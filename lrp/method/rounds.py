"""Score, remove a share, compensate, score again: the states in between."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lrp.deploy.saving import load, save
from lrp.errors import InputError, check_float
from lrp.files import sha256
from lrp.layer.base import LowRank
from lrp.layer.build import kind_of, replace_layer
from lrp.matrices import Rank
from lrp.method.base import Plan

if TYPE_CHECKING:
    from lrp.method.singular_vectors import SingularVectorsFitted

log = logging.getLogger(__name__)


def check_keep_factor(value: float | None) -> None:
    if value is not None:
        check_float("rounds.keep_factor", value, above=0, below=1)


def schedule(keep_factor: float | None, sparsity: float) -> list[float]:
    """The sparsities of the states on the way to a sparsity: 1 - keep_factor^k, as long as they are below it."""
    found: list[float] = []
    while keep_factor is not None and 1 - keep_factor ** (len(found) + 1) < sparsity - 1e-12:
        found.append(1 - keep_factor ** (len(found) + 1))
    return found


@torch.no_grad()
def as_dense(model: nn.Module, like: nn.Module) -> nn.Module:
    """A copy of a compressed network with dense layers that hold what its low-rank layers amount to; ``like`` is the dense network."""
    result = copy.deepcopy(model)
    for name, module in model.named_modules():
        if not isinstance(module, LowRank):
            continue
        dense = copy.deepcopy(like.get_submodule(name))
        kind_of(dense).set_rows(dense, slice(None), module.weight_matrix())
        if module.bias is not None:
            dense.bias = nn.Parameter(module.bias.detach().clone(), requires_grad=module.bias.requires_grad)
            dense.added_bias = getattr(module, "added_bias", False)
        result = replace_layer(result, name, dense)
    return result


def next_state(state: SingularVectorsFitted, sparsity: float, file: Path | None) -> SingularVectorsFitted:
    """The network compressed from ``state`` to a sparsity and compensated, decomposed and scored again. The compressed network is
    read from ``file`` where an earlier run stored it."""
    compressed = None
    if file is not None and file.exists():
        try:
            compressed = load(file, state.model).to(state.inputs.device)
            for name, module in state.model.named_modules():  # a file does not hold modes
                here = compressed.get_submodule(name)
                for part in here.modules() if isinstance(here, LowRank) else [here]:
                    part.training = module.training
        except InputError as error:
            log.warning("the state of a round cannot be read (%s); it is made again", error)
    if compressed is None:
        keep = state.select(sparsity)  # not state.plan, which would begin with rounds of its own
        compressed, _ = state.compress(Plan(sparsity, state.factors, keep, state.costs, state=state))
        if file is not None:
            save(compressed, file)
    ranks = {}
    for name, module in compressed.named_modules():
        if isinstance(module, LowRank):
            ranks |= {(name, block.row_start, block.col_start): rank for block, rank in module.blocks}
    alive = [ranks.get((b.layer, b.row_start, b.col_start)) for b in state.blocks]
    log.info("round at sparsity %.4f: scored again", sparsity)
    return state.method.score_again(state, as_dense(compressed, state.model), alive)


def only_alive(scores: Sequence[Tensor], ranks: Sequence[Rank]) -> list[Tensor]:
    """The scores of the components that an earlier round kept, the first ``rank`` of a block (None: all), and 0 of the others."""
    found = []
    for score, rank in zip(scores, ranks):
        score = score.clone()
        score[len(score) if rank is None else rank :] = 0
        found.append(score)
    return found


def states_key(state: SingularVectorsFitted) -> str:
    """Hash of all that determines the states: the network, the images and the method."""
    method = state.method
    parts = [method.blocking, method.decomposition, method.scorer, method.selection, method.compensation]
    described = [
        "rounds-2",
        repr(parts),
        method.estimator.identity,
        method.budget,
        repr(method.exclude),
        str(method.samples),
        str(method.keep_factor),
        str(len(state.scoring)),
    ]
    return sha256([*described, str(state.model), state.inputs, *state.model.state_dict().values()])
