"""Ctrl-C and SIGTERM end a command in one line that says how to go on; what it was writing is whole or absent."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn

from lrp.follower import beside_others

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_folder: list[str] = []  # the word that names the folder of what runs, once it is known


class Stopped(KeyboardInterrupt):
    """Somebody wants this process to end: nothing but clean-up may follow."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def remember_folder(word: str) -> None:
    """Tell what is printed when somebody stops the command which folder it works in: ``hydra.run.dir=...``."""
    _folder[:] = [word]


@contextlib.contextmanager
def read_or_not() -> Iterator[None]:
    """What runs in this context ends without a word where whoever reads its output has read enough.

    Raises:
        SystemExit: Where that was so.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


@contextlib.contextmanager
def stoppable(arguments: Sequence[str], silent: bool = False) -> Iterator[None]:
    """What runs in this context ends by SIGINT or SIGTERM with one line on stderr, unless ``silent``, and exit status 130 or 143.

    Raises:
        SystemExit: When it was stopped.
    """
    main = threading.current_thread() is threading.main_thread()
    before = [signal.signal(number, _stop) for number in _SIGNALS] if main else []
    _folder.clear()
    try:
        with read_or_not():
            yield
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
        if not silent:
            print(f"lrp: stopped by {'Ctrl-C' if number == signal.SIGINT else 'SIGTERM'}; {how_to_go_on(arguments)}", file=sys.stderr)
        raise SystemExit(128 + number) from None
    finally:
        for number, handler in zip(_SIGNALS, before):
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    for each in _SIGNALS:  # whoever cannot wait for the clean-up asks again; the next run removes what is left
        signal.signal(each, lambda again, frame: os._exit(128 + again))
    raise Stopped(number)


def how_to_go_on(arguments: Sequence[str]) -> str:
    """The command that goes on with what these words of a command line began."""
    if not _folder:
        return "nothing had been computed yet"
    words = [word for word in arguments if not word.startswith(("resume=", "hydra.run.dir=", "hydra.sweep.dir="))]
    start = "torchrun, with the same processes, " if beside_others() else "python "
    return f"to go on: {start}-m lrp.run {shlex.join([*words, 'resume=true', *_folder])}"
