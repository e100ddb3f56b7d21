"""The moments of components, found by several processes together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lrp.batches import Inputs, cut, examples
from lrp.estimator.base import Estimator
from lrp.estimator.moments import Moments
from lrp.group import Group
from lrp.matrices import Components
from lrp.network.frozen import FrozenNetwork

PARTS = 8  # of the scoring examples, which processes share: more would make their batches small
Found = tuple[list[Moments], float]


def moments_of(
    estimator: Estimator, network: FrozenNetwork, factors: Sequence[Components], images: Inputs, partial: Path | None, group: Group
) -> Found:
    """The moments of every block's components on ``images``, and the seconds that this took, as of the estimator. The processes of a group
    share the images, in parts that do not depend on how many processes there are.

    Raises:
        InputError: In all processes, where one of them refuses.
    """
    if not group.fixed:
        return estimator(network, factors, images, partial)
    start, count = time.perf_counter(), examples(images)
    unit = -(-count // PARTS)
    own, projected = group.part(count, unit), False
    sums: list[torch.Tensor | None] = [None] * (2 * len(factors))
    with group.agreed():
        for at in range(own.start, own.stop, unit):
            part = cut(images, at, min(at + unit, own.stop))
            found, _ = estimator(network, factors, part, None if partial is None else partial / f"{at}")
            projected = found[0].projected
            for i, value in enumerate(value for each in found for value in (each.first, each.second)):
                more, before = value * examples(part), sums[i]
                sums[i] = more if before is None else before.add_(more)
    projected = any(group.all(projected))
    means = [total / count for total in group.total(sums) if total is not None]
    moments = [Moments(first, second, projected) for first, second in zip(means[::2], means[1::2], strict=True)]
    return moments, time.perf_counter() - start


def once_for_all(cached: Callable[[Callable[[Path], Found]], Found], compute: Callable[[Path | None], Found], group: Group) -> Found:
    """What a cache holds, or what the processes of a group compute together, which the first of them then stores; it alone reads and
    writes the cache."""
    if group.size == 1:
        return cached(compute)
    asked = False

    def together(partial: Path | None) -> Found:
        nonlocal asked
        asked = True
        group.from_first(True)
        return compute(partial)

    found: Found | None = None
    with group.agreed():
        if group.first:
            try:
                found = cached(together)
            finally:
                if not asked:
                    group.from_first(False)
        elif group.from_first(True):
            compute(None)
    held = group.from_first(found)
    assert held is not None, "what the first process refuses is agreed on"
    return held
