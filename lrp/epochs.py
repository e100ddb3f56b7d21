"""Who is told of the epochs of a training while it runs: a job's tracker, where there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar

Listener = Callable[[Mapping[str, float]], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Every epoch of a training in this context is told to ``listener``: its number ``epoch``, from 1, and what was measured."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


def tell(epoch: Mapping[str, float]) -> None:
    """An epoch is done, or was done before a kill."""
    listener = _listener.get()
    if listener is not None:
        listener(epoch)
