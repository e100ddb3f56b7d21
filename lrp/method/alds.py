"""The rival ALDS as a method: its own search for groups and ranks, then the plain SVD of every group."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from lrp.compensation.base import Compensation
from lrp.compensation.none import NoCompensation
from lrp.cost.costs import check_budget
from lrp.decomposition.base import decompose
from lrp.errors import check_bool, check_int, check_seed
from lrp.estimator.base import Estimator
from lrp.evidence import Evidence
from lrp.method.alds_search import AldsSearch, allocation_blocks
from lrp.method.base import FittedMethod, as_masks, check_exclude
from lrp.method.plan import Plan, matrix_plans

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alds:
    """ALDS (Liebenwein et al., NeurIPS 2021): see ``AldsSearch`` for ``starts``, ``seed`` and ``sqrt_k``. Of the job's parts it takes the
    compensation, which the paper does not have, and the estimator for how outputs are read; it looks at weights only.
    """

    estimator: Estimator
    compensation: Compensation = NoCompensation()
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
        check_seed("method.seed", self.seed)
        check_bool("method.sqrt_k", self.sqrt_k)

    def fit(self, evidence: Evidence) -> AldsFitted:
        """Find the singular values of every layer in every number of groups.

        Raises:
            InputError: For a network without a layer to compress.
        """
        evidence = evidence.of(self.estimator, self.exclude, self.samples)
        survey = evidence.survey
        start = time.perf_counter()
        evidence.statistics(self.compensation.needs)
        seconds = {"statistics": time.perf_counter() - start}
        start = time.perf_counter()
        search = AldsSearch(survey.matrices, survey.positions, self.budget, self.starts, self.seed, self.sqrt_k)
        seconds["decompose"] = time.perf_counter() - start
        return AldsFitted(self, evidence, seconds, search=search)


@dataclass
class AldsFitted(FittedMethod):
    """A network whose layers' singular values are known."""

    search: AldsSearch | None = None

    def plan(self, sparsity: float) -> Plan:
        """The groups and ranks of ALDS's search, which differ from one sparsity to the next."""
        assert self.search is not None
        start = time.perf_counter()
        allocation = self.search(sparsity)
        seconds = time.perf_counter() - start
        survey = self.evidence.survey
        blocks = allocation_blocks(survey.matrices, allocation)
        factors = decompose(survey.matrices, blocks, group=self.evidence.group)
        keep = as_masks(factors, [allocation.rank[block.layer] for block in blocks])
        log.info("ALDS at sparsity %g: relative error %.4f", sparsity, allocation.error)
        return Plan(sparsity, matrix_plans(survey, factors, keep), self.model, survey, seconds)
