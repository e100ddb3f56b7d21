"""The rival ALDS as a method: its own search for groups and ranks, then the plain SVD of every group."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lrp.compensation.none import NoCompensation
from lrp.cost.costs import check_budget, make_costs
from lrp.decomposition.base import decompose
from lrp.errors import check_bool, check_int
from lrp.layer_statistics.gather import gather
from lrp.method.alds_search import AldsSearch, allocation_blocks
from lrp.method.base import Fitted, Plan, as_masks, check_exclude, find_layers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alds:
    """ALDS (Liebenwein et al., NeurIPS 2021): see ``AldsSearch`` for ``starts``, ``seed`` and ``sqrt_k``. Of the job's parts it takes the
    compensation, which the paper does not have, and the estimator for how outputs are read; it looks at weights only.
    """

    estimator: Any
    compensation: Any = NoCompensation()
    budget: str = "params"
    exclude: Sequence[str] = ()
    samples: int = 65536
    starts: int = 15
    seed: int = 0
    sqrt_k: bool = False
    name: str = "alds"

    def __post_init__(self) -> None:
        check_budget(self.budget)
        check_exclude(self.exclude)
        check_int("method.starts", self.starts, 1)
        check_int("method.seed", self.seed, 0)
        check_bool("method.sqrt_k", self.sqrt_k)

    def fit(self, model: nn.Module, inputs: Tensor, cache: Path | None = None, scoring_images: int | None = None) -> AldsFitted:
        """Find the singular values of every layer in every number of groups. Raises InputError for a network without a layer to
        compress."""
        candidates = find_layers(model, inputs[:1], self.exclude)
        start = time.perf_counter()
        statistics = gather(model, candidates, inputs, self.compensation.needs, self.estimator.read, self.samples)
        seconds = {"statistics": time.perf_counter() - start}
        start = time.perf_counter()
        search = AldsSearch(candidates.matrices, candidates.positions, self.budget, self.starts, self.seed, self.sqrt_k)
        seconds["decompose"] = time.perf_counter() - start
        return AldsFitted(self, model, inputs, candidates, statistics, seconds, search=search)


@dataclass
class AldsFitted(Fitted):
    """A network whose layers' singular values are known."""

    search: AldsSearch | None = None

    @property
    def one_shot(self) -> bool:
        return False  # the blocks differ from one sparsity to the next

    def plan(self, sparsity: float) -> Plan:
        start = time.perf_counter()
        allocation = self.search(sparsity)
        seconds = time.perf_counter() - start
        matrices = self.candidates.matrices
        blocks = allocation_blocks(matrices, allocation)
        factors = decompose(matrices, blocks)
        ranks = [allocation.rank[block.layer] for block in blocks]
        log.info("ALDS at sparsity %g: relative error %.4f", sparsity, allocation.error)
        return Plan(sparsity, factors, as_masks(factors, ranks), make_costs(blocks, self.method.budget, self.candidates), seconds)
