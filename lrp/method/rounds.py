"""Score, remove a share, compensate, score again: the states in between."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from lrp.batches import device_of, tensors
from lrp.cost.costs import Costs
from lrp.deploy.saving import read, write
from lrp.errors import InputError, check_float
from lrp.files import own_sources, remove_leftovers, sha256
from lrp.identity import computes
from lrp.layer.base import LowRank
from lrp.layer.build import kind_of, replace_layer
from lrp.layer.compressed import Compressed
from lrp.layer.duplicate import duplicate
from lrp.locks import locked
from lrp.matrices import Block, Rank
from lrp.method.base import FittedMethod
from lrp.method.plan import Plan
from lrp.selection.base import Selection
from lrp.training import computed_by

log = logging.getLogger(__name__)


def check_keep_factor(value: float | None) -> None:
    """None, or a share in (0, 1).

    Raises:
        InputError: For anything else.
    """
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
    """A copy of a compressed network with dense layers that hold what its compressed layers amount to; ``like`` is the dense network."""
    result = duplicate(model)
    for name, module in model.named_modules():
        if not isinstance(module, Compressed):
            continue
        dense: Any = copy.deepcopy(like.get_submodule(name))
        kind_of(dense).set_rows(dense, slice(None), module.weight_matrix())
        if module.bias is not None:
            dense.bias = nn.Parameter(module.bias.detach().clone(), requires_grad=module.bias.requires_grad)
            dense.added_bias = getattr(module, "added_bias", False)
        result = replace_layer(result, name, dense)
    return result


@dataclass(frozen=True)
class _Alive:
    """A selection among the components that earlier rounds left: of each block the first ``ranks``, None: all."""

    selection: Selection
    ranks: Sequence[Rank]

    def __call__(
        self,
        blocks: Sequence[Block],
        scores: Sequence[Tensor],
        sparsity: float,
        costs: Costs | None = None,
        contributions: Callable[[], list[Tensor]] | None = None,
    ) -> list[Tensor]:
        """What an earlier round dropped stays away, where the budget has room for it too."""
        keep = self.selection(blocks, scores, sparsity, costs, contributions)
        return [mask if rank is None else mask & (torch.arange(len(mask)) < rank) for mask, rank in zip(keep, self.ranks, strict=True)]


@dataclass
class Rounds(FittedMethod):
    """A scored method that scores again on the way to a sparsity, whenever ``keep_factor`` of what is left is left.

    The network of a round is the one before it, compressed and compensated, with dense layers that hold what its low-rank layers
    amount to. Compensation keeps to what the dense network gave.

    Attributes:
        first: The dense network, scored.
        keep_factor: The share of what is left that a round leaves, in (0, 1).
    """

    method: Any  # a SingularVectors, whose file imports this one
    first: Any = None
    keep_factor: float = 0.5
    states: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.states = [self.first]

    def rounds(self, sparsity: float) -> int:
        """How often the network is scored on the way to a sparsity."""
        return 1 + len(schedule(self.keep_factor, sparsity))

    def forget(self) -> None:
        """As of ``FittedMethod``; of each state."""
        super().forget()
        for state in self.states:
            state.forget()

    def score_table(self) -> pd.DataFrame | None:
        """The scores of the dense network."""
        return self.first.score_table()

    def plan(self, sparsity: float) -> Plan:
        """What becomes of each layer of the last state above the sparsity."""
        steps = schedule(self.keep_factor, sparsity)
        todo = steps[len(self.states) - 1 :]
        cache = self.evidence.cache
        if todo and cache is not None and self.evidence.group.size == 1:  # a lock that one of several holds, the others would wait for
            key = self._key()
            folder = cache / "rounds" / key
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / "rounds.lock"):  # another process that wants the same rounds reads them afterwards
                remove_leftovers(folder)
                for at in todo:
                    self.states.append(self._next(at, folder / f"{len(self.states)}.safetensors", key))
        else:
            for at in todo:
                self.states.append(self._next(at, None, ""))
        return self.states[len(steps)].plan(sparsity)

    def _next(self, sparsity: float, file: Path | None, key: str) -> Any:
        """The last state compressed to a sparsity and compensated, decomposed and scored again.

        The compressed network is read from ``file`` where an earlier run stored it.
        """
        state = self.states[-1]
        made_from = f"{key} {sparsity!r}"
        compressed = None if file is None or not file.exists() else self._stored(file, state.model, made_from)
        if compressed is None:
            compressed, _ = self.compress(state.plan(sparsity))
            if file is not None:
                write(compressed, file, made_from=made_from)
        ranks = {}
        for name, module in compressed.named_modules():
            if isinstance(module, LowRank):
                ranks |= {(name, block.row_start, block.col_start): rank for block, rank in module.blocks}
        alive = [ranks.get((b.layer, b.row_start, b.col_start)) for b in state.blocks]
        log.info("round at sparsity %.4f: scored again", sparsity)
        fitted = self.method.score(self.evidence.for_model(as_dense(compressed, state.model)), targets=False)
        fitted.scores = only_alive(fitted.scores, alive)
        fitted.selection = _Alive(self.method.selection, alive)
        return fitted

    def _stored(self, file: Path, before: nn.Module, made_from: str) -> nn.Module | None:
        """The network of an earlier run's round, in the modes of the one before it; None where it cannot be read."""
        try:
            compressed = read(file, before, made_from).to(device_of(before, torch.device("cpu")))
        except InputError as error:
            log.warning("the state of a round is not used and is made again: %s", error)
            return None
        for name, module in before.named_modules():  # a file does not hold modes
            here = compressed.get_submodule(name)
            for part in here.modules() if isinstance(here, Compressed) else [here]:
                part.training = module.training
        return compressed

    def _key(self) -> str:
        """Hash of all that determines the states: the network, the images, the method, and what computes them."""
        method, evidence = self.method, self.evidence
        parts = [method.blocking, method.decomposition, method.scorer, method.selection, method.compensation]
        described = [
            "rounds-3", computed_by(tensors(evidence.batches.example)[0].device), repr(parts), method.estimator.identity, method.budget,
            repr(method.exclude), str(method.samples),
            str(self.keep_factor), str(len(evidence.scoring)), str(evidence.model),
        ]  # fmt: skip
        described += own_sources(parts)
        return sha256(
            [*described, *computes(evidence.model.modules()), *tensors(evidence.batches.whole()), *evidence.model.state_dict().values()]
        )


def only_alive(scores: Sequence[Tensor], ranks: Sequence[Rank]) -> list[Tensor]:
    """The scores of the components that an earlier round kept, the first ``rank`` of a block (None: all), and 0 of the others."""
    found = []
    for score, rank in zip(scores, ranks, strict=True):
        score = score.clone()
        score[len(score) if rank is None else rank :] = 0
        found.append(score)
    return found
