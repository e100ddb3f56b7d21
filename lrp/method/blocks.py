"""The blocks of a network, cut by a blocking that may look at the metric of the decomposition."""

from __future__ import annotations

from functools import partial
from typing import Any

from lrp.decomposition.base import Decomposition, metrics_of
from lrp.errors import own_code
from lrp.evidence import Evidence
from lrp.matrices import Block
from lrp.partition import cut


def reads_metric(blocking: Any) -> bool:
    """Whether a blocking looks at the metric of the decomposition."""
    return getattr(blocking, "reads_metric", False)


def find_blocks(blocking: Any, decomposition: Decomposition, evidence: Evidence, needs: set[str]) -> list[Block]:
    """The blocks of all layers. ``needs``: the statistics that are gathered before, where the blocking looks at them."""
    if not reads_metric(blocking):
        with own_code(f"blocking={blocking.name}", blocking):
            return cut(blocking, evidence.matrices)
    statistics = evidence.statistics(sorted(needs))

    def find() -> list[Block]:
        with own_code(f"blocking={blocking.name}", blocking):
            metrics = metrics_of(decomposition, evidence.matrices, statistics)
            return cut(partial(blocking.in_metric, metrics=metrics), evidence.matrices)

    return evidence.once(("blocks", blocking, decomposition), find)
