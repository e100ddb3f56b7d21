"""No recovery: the paper's setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lrp.recovery.context import Context


@dataclass(frozen=True)
class NoRecovery:
    """The network stays as pruning left it."""

    name: ClassVar[str] = "none"
    changes: ClassVar[bool] = False

    @property
    def trains_on_validation(self) -> bool:
        """No label is looked at."""
        return False

    def __call__(self, model: nn.Module, context: Context) -> None:
        """Nothing is done."""
        return None
