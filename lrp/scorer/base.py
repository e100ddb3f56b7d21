"""What every scorer is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from lrp.errors import InputError
from lrp.evidence import Evidence
from lrp.matrices import Components


class Scorer(Protocol):
    """How important each component is, on one scale for all blocks of all layers.

    Attributes:
        name: What tables call it.
        reads_outputs: Whether the scores depend on the network's outputs, and so on how the estimator finds and reads them.
    """

    name: ClassVar[str]
    reads_outputs: ClassVar[bool]

    def __call__(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """The scores (R,) of each block's components, finite and >= 0; larger: keep."""
        ...


def check_scores(name: str, factors: Sequence[Components], scores: Any) -> None:
    """That a scorer gave what a scorer has to give.

    Raises:
        InputError: Naming the scorer and the rule, for anything but one tensor (R,) of finite numbers >= 0 for each block.
    """
    if not isinstance(scores, list | tuple) or len(scores) != len(factors):
        found = f"{len(scores)}" if isinstance(scores, list | tuple) else type(scores).__name__
        raise InputError(f"scorer={name}: it must give a list of {len(factors)} tensors, one for each block, not {found}")
    for factor, score in zip(factors, scores, strict=True):
        block = factor.block
        if not isinstance(score, Tensor) or score.shape != (block.rank,):
            found = f"a tensor {tuple(score.shape)}" if isinstance(score, Tensor) else type(score).__name__
            place = f"layer {block.layer}, block {block.index}"
            raise InputError(f"scorer={name}: {place} needs a tensor ({block.rank},), one score per component, not {found}")
        if not bool(torch.isfinite(score).all()):
            raise InputError(f"scorer={name}: layer {block.layer}: block {block.index} has scores that are not finite")
        if bool((score < 0).any()):
            raise InputError(f"scorer={name}: layer {block.layer}: block {block.index} has negative scores; a score is >= 0")
