"""Values as they are meant: one where a list is asked for is a list of one, and yes and no are true and false."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from lrp.config.schema import Config, EvaluationNode, RoundsNode, SparsityNode
from lrp.errors import InputError
from lrp.job.calibration import Calibration

_WORDS = {"true": True, "yes": True, "on": True, "y": True, "false": False, "no": False, "off": False, "n": False}


def meant(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a job with the values of the common options as they are meant. Parts read theirs with ``as_lists``.

    Raises:
        InputError: For an option that there is not, and for values of another kind.
    """
    _check_names("", settings, Config)
    for name, node in (("sparsity", SparsityNode), ("rounds", RoundsNode), ("evaluation", EvaluationNode), ("calibration", Calibration)):
        if not isinstance(settings[name], Mapping):
            raise InputError(name, settings[name], "it holds options, set one of them")
        _check_names(f"{name}.", settings[name], node)
    result = dict(settings)
    for name in ("save", "resume"):
        result[name] = _truth(name, result[name])
    evaluation = dict(result["evaluation"])
    result["evaluation"] = {**evaluation, "latency": _truth("evaluation.latency", evaluation["latency"])}
    result["exclude"] = [_name(name) for name in as_list(result["exclude"])]
    if result["forms"] is not None:
        names = [str(name) for name in as_list(result["forms"])]
        result["forms"] = "auto" if names == ["auto"] else names
    sparsity = dict(result["sparsity"])
    result["sparsity"] = {**sparsity, "grid": [_number(value) for value in as_list(sparsity["grid"])]}
    return result


def _check_names(prefix: str, settings: Mapping[str, Any], node: Any) -> None:
    """That settings have the fields of a node, and no others.

    Raises:
        InputError: Naming the first that is missing or that there is not.
    """
    known = [field.name for field in fields(node)]
    for name, value in settings.items():
        if name not in known:
            raise InputError(f"{prefix}{name}", value, f"there is no such option; choose among {', '.join(known)}")
    for name in known:
        if name not in settings:
            raise InputError(f"{prefix}{name}: an option can be set, not taken away")


def as_list(value: Any) -> list[Any]:
    """A list as it is, anything else as a list of one."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def as_lists(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a part, a single value as a list of one where the default is a list."""
    one = (str, int, float, bool)
    return {name: [value] if isinstance(usual.get(name), list) and isinstance(value, one) else value for name, value in settings.items()}


def _truth(option: str, value: Any) -> bool:
    found = _WORDS.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise InputError(option, value, "must be true or false")
    return found


def _name(value: Any) -> str:
    if value is None or isinstance(value, (list, dict)):
        raise InputError("exclude", value, "give a list of layer names")
    return str(value)


def _number(value: Any) -> float:
    try:
        if isinstance(value, (bool, list, dict)) or value is None:
            raise ValueError
        return float(value)
    except ValueError:
        raise InputError("sparsity.grid", value, "must be a share in [0, 1), or a list of shares") from None
