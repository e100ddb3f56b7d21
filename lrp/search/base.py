"""What every search is."""

from __future__ import annotations

from typing import ClassVar, Protocol

from lrp.estimator.base import Estimator
from lrp.method.base import Method


class Search(Protocol):
    """Finds options of a method, whichever it is.

    Attributes:
        name: What ``search=`` and tables call it.
    """

    name: ClassVar[str]

    def __call__(self, method: Method, estimator: Estimator) -> Method:
        """The method whose options are searched before each plan. ``estimator`` reads outputs where the method has none of its own.

        Raises:
            InputError: For a method that has none of the options.
        """
        ...
