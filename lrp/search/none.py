"""Options as they are set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lrp.estimator.base import Estimator
from lrp.method.base import Method


@dataclass(frozen=True)
class NoSearch:
    """The options stay as they are set."""

    name: ClassVar[str] = "none"

    def __call__(self, method: Method, estimator: Estimator) -> Method:
        """The method itself."""
        return method
