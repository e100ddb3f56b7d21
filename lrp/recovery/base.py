"""What every recovery is."""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import nn

from lrp.recovery.context import Context


class Recovery(Protocol):
    """What is done to a pruned network before it is measured.

    Attributes:
        name: What tables call it.
        changes: Whether it changes the network at all.
    """

    name: ClassVar[str]
    changes: ClassVar[bool]

    @property
    def trains_on_validation(self) -> bool:
        """Whether the validation images are trained on, so that nothing may be chosen by them."""
        ...

    def __call__(self, model: nn.Module, context: Context) -> None:
        """Work on the network in place."""
        ...
