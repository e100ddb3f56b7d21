"""Options that are set and that nothing reads: said in the log, and refused where a sweep is over one."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from hydra.core.override_parser.types import Override

from lrp.errors import InputError

log = logging.getLogger(__name__)
MOST = 50  # combinations that are tried before a sweep is refused


def tell_unread(name: str, sentence: str) -> None:
    """Say in the log that nothing reads the option of this name."""
    log.info("%s", sentence, extra={"unread": name})


@contextmanager
def unread() -> Iterator[dict[str, str]]:
    """The options that are found to be read by nothing meanwhile, with the sentence that says so."""
    found: dict[str, str] = {}

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.setdefault(getattr(record, "unread", ""), record.getMessage())

    handler, level = Collect(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield found
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def check_read(
    overrides: Sequence[Override], choices: Sequence[Sequence[str]], found: set[str], told: Callable[[list[str]], dict[str, str]]
) -> None:
    """Nothing, where every option that a sweep is over is read in one of its jobs.

    Args:
        overrides: The words of the command line.
        choices: Of each the words that it stands for, one for each of its values.
        found: The options that were not read in some job.
        told: The options that are not read where these words are composed, with the sentence that says so.

    Raises:
        InputError: For a sweep whose jobs would all be the same.
    """
    for at, override in enumerate(overrides):
        name = override.key_or_group
        if name not in found or not override.is_sweep_override():
            continue
        others = [values if i != at else [] for i, values in enumerate(choices)]
        if math.prod(len(values) for i, values in enumerate(others) if i != at) * len(choices[at]) > MOST:
            continue
        # the default is never told: of each value the one that is told most
        sentences = [
            [_sentence(name, [*words[:at], value, *words[at:]], told) for words in itertools.product(*others[:at], *others[at + 1 :])]
            for value in choices[at]
        ]
        silent = next((each for each in sentences if all(each)), None)
        if silent is not None:
            raise InputError(f"{override.input_line}: nothing reads it, and all jobs would be the same ({silent[0]})")


def _sentence(name: str, words: list[str], told: Callable[[list[str]], dict[str, str]]) -> str | None:
    try:
        return told(words).get(name)
    except InputError:  # a job that fails says so when its turn comes
        return None
