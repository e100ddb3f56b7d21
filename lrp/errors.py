"""Bad input: one sentence that names the option, the value and what is allowed."""

from __future__ import annotations

import math
from numbers import Integral, Real


class InputError(ValueError):
    """Something the user gave cannot be used; its text is one sentence for that user.

    ``InputError(sentence)``, or ``InputError(option, value, allowed)`` for "option=value: allowed", where ``allowed`` says what
    would have been accepted.
    """

    def __str__(self) -> str:
        if len(self.args) != 3:
            return super().__str__()
        option, value, allowed = self.args
        return f"{option}={'null' if value is None else value}: {allowed}"


def check_int(option: str, value: object, minimum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise InputError(option, value, f"an integer of at least {minimum} is needed")
    return int(value)


def check_float(option: str, value: object, above: float = -math.inf, below: float = math.inf, least: float | None = None) -> float:
    """A finite number strictly between the two bounds, or not below ``least`` where that is given."""
    if isinstance(value, bool) or not isinstance(value, Real) or not above < value < below or (least is not None and value < least):
        allowed = (f"greater than {above:g}" if least is None else f"of at least {least:g}") + (
            "" if below == math.inf else f" and less than {below:g}"
        )
        raise InputError(option, value, f"a number {allowed} is needed")
    return float(value)


def check_bool(option: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InputError(option, value, "true or false is needed")
    return value


def check_sparsity(option: str, value: object) -> float:
    """A share of the compressed parameters to remove, in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < 1:
        raise InputError(option, value, "a sparsity is a number in [0, 1)")
    return float(value)


def check_rank(option: str, value: object, full: int) -> int | None:
    """A rank from 1 to ``full``, or -1: one dense matrix, for which lrp itself says None (``lrp.matrices.Rank``)."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not (value == -1 or 1 <= value <= full):
        raise InputError(option, value, f"-1 (one dense matrix) or an integer from 1 to {full} is needed")
    return None if value == -1 else int(value)


def check_list(option: str, values: object) -> None:
    """A list of plain values, at least one and each once."""
    plain = isinstance(values, (list, tuple)) and all(isinstance(value, (str, int, float)) for value in values)
    if not plain or not values or len(set(values)) < len(values):
        raise InputError(option, values, "a list of at least one value, each once, is needed")
