"""Bad input: one sentence that names the option, the value and what is allowed."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real


class InputError(ValueError):
    """Something the user gave cannot be used; its text is one sentence for that user.

    ``InputError(sentence)``, or ``InputError(option, value, allowed)`` for "option=value: allowed", where ``allowed`` says what
    would have been accepted.
    """

    def __str__(self) -> str:
        if len(self.args) != 3:
            return one_line(super().__str__())
        option, value, allowed = self.args
        text = "null" if value is None else one_line(str(value))
        return one_line(f"{option}={text if len(text) <= LONGEST else text[:LONGEST] + ' ...'}: {allowed}")


class OwnCodeError(InputError):
    """Code of the user's own failed (a scorer, a network): its traceback is worth reading."""


LONGEST = 300  # letters of a value that a sentence repeats
LARGEST_SEED = 2**63 - 1
LARGEST = 2**53  # integers beyond it are exact in no table
MOST_THREADS = 1024


def counted(number: int, what: str) -> str:
    """A number of things: "1 filter", "2 filters"."""
    return f"{number} {what}{'s' * (number != 1)}"


def one_line(text: str) -> str:
    """A text without line breaks and other control characters, which are written as in Python's strings."""
    return "".join(letter if letter.isprintable() else " " if letter in "\n\t" else repr(letter)[1:-1] for letter in text)


class NotUsable(InputError):
    """Layers of which something cannot be found out; the others are not concerned.

    Attributes:
        reasons: Why, by the layers' names.
    """

    def __init__(self, reasons: Mapping[str, str], advice: str) -> None:
        """``advice`` says what the caller may do where the layers cannot be left alone."""
        self.reasons = dict(reasons)
        super().__init__("; ".join(f"layer {name}: {reason}" for name, reason in self.reasons.items()) + f"; {advice}")


def first_line(error: BaseException) -> str:
    """What an exception says, in one line: the first of its text, without a terminal's colours, or its type."""
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return one_line(lines[0].strip() if lines else type(error).__name__)


def some(names: Sequence[str], most: int = 4) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@contextlib.contextmanager
def called(option: str, name: str) -> Iterator[None]:
    """What runs in this context has another name for an option: the errors that it raises say ``name``.

    Raises:
        InputError: As it was raised in the context.
    """
    try:
        yield
    except InputError as error:
        error.args = tuple(arg.replace(option, name) if isinstance(arg, str) else arg for arg in error.args)
        raise


@contextlib.contextmanager
def own_code(what: str, part: object) -> Iterator[None]:
    """What runs in this context is a part, which may be of the user's own.

    Raises:
        OwnCodeError: For whatever else than an InputError a part raises that is not lrp's.
        InputError: Where the part raises one.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if type(part).__module__.partition(".")[0] == "lrp":
            raise
        raise OwnCodeError(f"{what}: {type(part).__qualname__} raised {type(error).__name__}: {first_line(error)[:LONGEST]}") from error


def check_int(option: str, value: object, minimum: int) -> int:
    """An integer of at least ``minimum``, and at most ``LARGEST``.

    Raises:
        InputError: For anything else.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < minimum:
        raise InputError(option, value, f"must be an integer of at least {minimum}")
    if int(value) > LARGEST:
        raise InputError(option, value, f"must be an integer from {minimum} to {LARGEST}")
    return int(value)


def check_seed(option: str, value: object) -> int:
    """A seed that random generators take.

    Raises:
        InputError: For anything but an integer from 0 to 2^63 - 1.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) <= LARGEST_SEED:
        raise InputError(option, value, f"must be an integer from 0 to {LARGEST_SEED}")
    return int(value)


def check_folder(option: str, value: object) -> None:
    """The path of a folder, which need not be there.

    Raises:
        InputError: For an empty one, by which nobody means the current folder.
    """
    if not isinstance(value, str) or not value.strip():
        raise InputError(option, repr(value), "must be the path of a folder; . is the current one")


def check_threads(value: object) -> int | None:
    """How many threads torch is given; None: as many as it likes.

    Raises:
        InputError: For anything but an integer from 1 to ``MOST_THREADS``.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= int(value) <= MOST_THREADS:
        raise InputError("threads", value, f"must be an integer of at least 1 and at most {MOST_THREADS}")
    return int(value)


def check_float(
    option: str, value: object, above: float = -math.inf, below: float = math.inf, least: float | None = None, most: float | None = None
) -> float:
    """A finite number strictly between the two bounds, not below ``least`` and not above ``most`` where these are given.

    Raises:
        InputError: For anything else.
    """
    number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    if not above < number < below or (least is not None and number < least) or (most is not None and number > most):
        allowed = f"greater than {above:g}" if least is None else f"of at least {least:g}"
        if most is not None or below < math.inf:
            allowed += f" and less than {below:g}" if most is None else f" and at most {most:g}"
        raise InputError(option, value, f"must be a number {allowed}")
    return number


def check_bool(option: str, value: object) -> bool:
    """True or false.

    Raises:
        InputError: For anything else.
    """
    if not isinstance(value, bool):
        raise InputError(option, value, "must be true or false")
    return value


def check_sparsity(option: str, value: object) -> float:
    """A share of the compressed parameters to remove, in [0, 1).

    Raises:
        InputError: For anything else.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise InputError(option, value, "must be a share in [0, 1)" + ", not a text" * isinstance(value, str))
    return float(value)


def check_rank(option: str, value: object, full: int) -> int | None:
    """A rank from 1 to ``full``, or -1: one dense matrix, for which lrp itself says None (``lrp.matrices.Rank``).

    Raises:
        InputError: For anything else.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not (int(value) == -1 or 1 <= int(value) <= full):
        raise InputError(option, value, f"must be -1 (one dense matrix) or an integer from 1 to {full}")
    return None if int(value) == -1 else int(value)


def check_list(option: str, values: object) -> None:
    """A list of plain values, at least one and each once.

    Raises:
        InputError: For anything else.
    """
    given = list(values) if isinstance(values, (list, tuple)) else []
    if not given or not all(isinstance(value, (str, int, float)) for value in given) or len(set(given)) < len(given):
        raise InputError(option, values, "must be a list of at least one value, each of which appears once")
