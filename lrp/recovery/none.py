"""No recovery: the paper's setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn


@dataclass(frozen=True)
class NoRecovery:
    """The network stays as pruning left it."""

    name: ClassVar[str] = "none"
    changes: ClassVar[bool] = False

    def __call__(self, model: nn.Module, images: Callable[[], Iterable[Tensor]]) -> None:
        return None
