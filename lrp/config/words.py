"""The words of a command line as Hydra's parser understands them, and how to write those that it does not."""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException

from lrp.errors import InputError, first_line

MOST = 100_000  # values of one sweep


def parse(texts: Sequence[str], loader: ConfigLoader | None = None) -> list[Override]:
    """The options that these words set; ``loader`` knows the options that ``glob()`` stands for.

    Raises:
        InputError: For a word that the parser does not understand, with the way to write it where quotes are missing.
    """
    for text in texts:
        if text.lstrip("+~").startswith("="):
            raise InputError(f"{text}: options are written group=option or node.key=value")
    try:
        return OverridesParser.create(loader).parse_overrides(list(texts))
    except (HydraException, RecursionError) as error:
        for text in texts:
            try:
                OverridesParser.create().parse_override(text)
            except (HydraException, RecursionError) as alone:
                raise InputError(_how_to_write(text, alone)) from error
        raise InputError(f"{first_line(error)}: options are written group=option or node.key=value") from error


def _how_to_write(text: str, error: BaseException) -> str:
    shown = text if len(text) <= 200 else f"{text[:200]} ..."
    right = quoted(text)
    if right is None:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        return f"{shown}: {said}: options are written group=option or node.key=value"
    return f"{shown}: a value with =, #, brackets, quotes or letters beyond ASCII has to be quoted: {right}"


def quoted(text: str) -> str | None:
    """A word with its value in quotes, for the parser and for the shell; None where that does not help either."""
    key, equals, value = text.partition("=")
    if not equals or not value or value[0] in "\"'" and value[-1] == value[0]:
        return None
    escaped = value.replace('"', '\\"')
    right = f'{key}="{escaped}"'
    try:
        found = OverridesParser.create().parse_override(right).value()
    except HydraException:
        return None
    return shlex.quote(right) if found == value else None


def word(key: str, value: str) -> str:
    """A word that the parser reads as this text, in quotes where it has to be."""
    try:
        plain = OverridesParser.create().parse_override(f"{key}={value}")
        if not plain.is_sweep_override() and plain.value() == value:
            return f"{key}={value}"
    except HydraException:
        pass
    escaped = value.replace('"', '\\"')
    return f'{key}="{escaped}"'


def is_interval(override: Override) -> bool:
    """Whether a word stands for all numbers between two."""
    return isinstance(override.value(), IntervalSweep)


def sweep_values(override: Override) -> list[str]:
    """The values of a sweep, as words.

    Of an interval, which only a sweeper that searches understands, both ends and the middle.

    Raises:
        InputError: Where there are none, or more than anybody waits for.
    """
    if is_interval(override):
        interval: Any = override.value()
        ends = [interval.start, interval.end]
        middle = sum(ends) / 2 if any(isinstance(end, float) for end in ends) else sum(ends) // 2
        return [str(value) for value in [ends[0], middle, ends[1]]]
    try:
        values = list(itertools.islice(override.sweep_string_iterator(), MOST + 1))
    except (HydraException, ValueError, OverflowError, ZeroDivisionError) as error:
        raise InputError(f"{override.input_line}: it is not a sweep ({first_line(error)})") from error
    if not values:
        glob = "; glob() stands for options of a group, such as scorer" if isinstance(override.value(), Glob) else ""
        raise InputError(f"{override.input_line}: it holds no value{glob}")
    if len(values) > MOST:
        raise InputError(f"{override.input_line}: it holds more than {MOST} values")
    return values


def combinations(words: Sequence[Override]) -> int:
    """How many jobs a sweep over these words has. Of several words for one option the last one counts, as sweepers have it."""
    last = {each.get_key_element(): each for each in words}
    return math.prod(len(sweep_values(each)) for each in last.values() if each.is_sweep_override())
