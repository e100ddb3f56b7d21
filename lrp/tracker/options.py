"""Options of trackers: what is given on the command line comes before the environment, and that before the default."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

from lrp.errors import InputError


def needs(tracker: str, package: str) -> None:
    """Look for a package, without importing it.

    Raises:
        InputError: Where it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise InputError("tracker", tracker, f"it needs {package}: pip install 'lrp[{tracker}]', or '.[{tracker}]' in a checkout")


def option(name: str, given: object, variable: str | None, default: str | None) -> str | None:
    """The value of ``tracker.<name>``: what was given, or what the environment variable says, or the default.

    Raises:
        InputError: For anything but a text that is not empty.
    """
    if given is None:
        return (os.environ.get(variable) or default) if variable else default
    if not isinstance(given, str) or not given.strip():
        raise InputError(f"tracker.{name}", repr(given) if isinstance(given, str) else given, "must be a text")
    return given


def check_tags(given: object) -> list[str]:
    """The user's own tags.

    Raises:
        InputError: For anything but a list of texts.
    """
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(tag, str) and tag.strip() for tag in given):
        raise InputError("tracker.tags", given, "must be a list of texts, such as [baseline,paper]")
    return list(given)
